"""Several tasks' gradients → one: an aggregator a file. `base` has the protocol, `registry` the decorator."""

from mtbert_jax.optim.aggregators.base import (
    AggregatorState,
    StatefulAggregatorState,
    aggregator,
    cosines,
    gramian,
    stacked_leaves,
)
from mtbert_jax.optim.aggregators.linear import mean_tasks, sum_tasks
from mtbert_jax.optim.aggregators.pcgrad import pcgrad, pcgrad_weights, random_orders
from mtbert_jax.optim.aggregators.registry import aggregator_weights, register_aggregator

__all__ = [
    "AggregatorState",
    "StatefulAggregatorState",
    "aggregator",
    "aggregator_weights",
    "cosines",
    "gramian",
    "mean_tasks",
    "pcgrad",
    "pcgrad_weights",
    "random_orders",
    "register_aggregator",
    "stacked_leaves",
    "sum_tasks",
]
