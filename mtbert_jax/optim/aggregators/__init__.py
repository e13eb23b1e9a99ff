"""Several tasks' gradients → one: an aggregator a file, or a family of them.

`base` has the protocol, `registry` the decorator.
"""

from mtbert_jax.optim.aggregators.base import (
    Aggregator,
    AggregatorState,
    Combined,
    StatefulAggregatorState,
    aggregator,
    shares_of_update,
    stacked_leaves,
)
from mtbert_jax.optim.aggregators.cagrad import cagrad
from mtbert_jax.optim.aggregators.dual_cone import dualproj, upgrad
from mtbert_jax.optim.aggregators.equal_norms import equal_norms
from mtbert_jax.optim.aggregators.fair import fairgrad, nash_mtl
from mtbert_jax.optim.aggregators.gradvac import gradvac
from mtbert_jax.optim.aggregators.gramian import cosines, finite_part, gramian, grouped_gramian
from mtbert_jax.optim.aggregators.linear import mean_tasks, sum_tasks
from mtbert_jax.optim.aggregators.loss_weights import dwa, gls, stch
from mtbert_jax.optim.aggregators.mgda import mgda
from mtbert_jax.optim.aggregators.pcgrad import pcgrad, pcgrad_weights, random_orders
from mtbert_jax.optim.aggregators.random_weights import random_weights
from mtbert_jax.optim.aggregators.registry import aggregator_weights, register_aggregator
from mtbert_jax.optim.aggregators.smoothed import smoothed
from mtbert_jax.optim.aggregators.spectra import aligned_mtl, config, imtl_g
from mtbert_jax.optim.aggregators.trained_weights import famo, gradnorm, uw

__all__ = [
    "Aggregator",
    "AggregatorState",
    "Combined",
    "StatefulAggregatorState",
    "aggregator",
    "aggregator_weights",
    "aligned_mtl",
    "cagrad",
    "config",
    "cosines",
    "dualproj",
    "dwa",
    "equal_norms",
    "fairgrad",
    "famo",
    "finite_part",
    "gls",
    "gradnorm",
    "gradvac",
    "gramian",
    "grouped_gramian",
    "imtl_g",
    "mean_tasks",
    "mgda",
    "nash_mtl",
    "pcgrad",
    "pcgrad_weights",
    "random_orders",
    "random_weights",
    "register_aggregator",
    "shares_of_update",
    "smoothed",
    "stacked_leaves",
    "stch",
    "sum_tasks",
    "upgrad",
    "uw",
]
