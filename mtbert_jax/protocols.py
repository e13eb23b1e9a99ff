"""What may be registered: classes that extend one of this library's protocols."""

from mtbert_jax.errors import InputError


def must_extend(cls: object, base: type, what: str) -> None:
    """Refuses to register, as `what`, what is no class of one of this library's protocols, or lacks a method of it."""
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise InputError(f"{what} cannot be registered: it must be a class that extends mt.{base.__name__}")
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise InputError(f"{what} cannot be registered: the class lacks {', '.join(missing)}")
