"""Several tasks' gradients → one: an aggregator a file."""

from mtbert_jax.optim.aggregators.base import aggregator, cosines, gramian, stacked_leaves
from mtbert_jax.optim.aggregators.linear import mean_tasks, sum_tasks
from mtbert_jax.optim.aggregators.pcgrad import pcgrad, pcgrad_weights, random_orders

__all__ = [
    "aggregator",
    "cosines",
    "gramian",
    "mean_tasks",
    "pcgrad",
    "pcgrad_weights",
    "random_orders",
    "stacked_leaves",
    "sum_tasks",
]
