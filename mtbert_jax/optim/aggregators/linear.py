"""Sum and mean of the tasks' gradients."""

from typing import Any

import jax.numpy as jnp

from mtbert_jax.optim.aggregators.base import Key, Losses, Weights
from mtbert_jax.optim.aggregators.gramian import Gramian, shares
from mtbert_jax.optim.aggregators.registry import register_aggregator


@register_aggregator("sum_tasks")
def sum_tasks(gram: Gramian, state: Any, key: Key, losses: Losses) -> tuple[Weights, Any]:
    """The sum of the tasks' gradients: what training on the summed losses does."""
    return jnp.ones(gram.shape[0]), state


@register_aggregator("mean_tasks")
def mean_tasks(gram: Gramian, state: Any, key: Key, losses: Losses) -> tuple[Weights, Any]:
    """The mean of the gradients of the tasks that take part in the step."""
    return shares(gram), state
