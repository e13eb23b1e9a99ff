"""Gradient transformations of this project; any of optax's can stand beside them in a chain."""

from mtbert_jax.optim.aggregators import aggregator, mean_tasks, pcgrad, pcgrad_weights, sum_tasks
from mtbert_jax.optim.depth import layerwise_decay
from mtbert_jax.optim.registry import register_aggregator, register_transformation

__all__ = [
    "aggregator",
    "layerwise_decay",
    "mean_tasks",
    "pcgrad",
    "pcgrad_weights",
    "register_aggregator",
    "register_transformation",
    "sum_tasks",
]
