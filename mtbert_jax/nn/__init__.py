"""Linen modules, used as pure functions: ``module.apply({"params": params}, ...)``."""
