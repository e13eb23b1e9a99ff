"""Gradient transformations of this project; any of optax's can stand beside them in a chain."""

from mtbert_jax.optim.aggregators import (
    aggregator,
    aggregator_weights,
    mean_tasks,
    pcgrad,
    pcgrad_weights,
    register_aggregator,
    sum_tasks,
)
from mtbert_jax.optim.depth import layerwise_decay
from mtbert_jax.optim.registry import register_transformation

__all__ = [
    "aggregator",
    "aggregator_weights",
    "layerwise_decay",
    "mean_tasks",
    "pcgrad",
    "pcgrad_weights",
    "register_aggregator",
    "register_transformation",
    "sum_tasks",
]
