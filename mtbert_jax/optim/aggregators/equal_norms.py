"""Gradients of equal norms."""

from typing import Any

from mtbert_jax.optim.aggregators.base import Key, Losses, Weights
from mtbert_jax.optim.aggregators.gramian import Gramian, inverse, norms
from mtbert_jax.optim.aggregators.registry import register_aggregator


@register_aggregator("equal_norms")
def equal_norms(gram: Gramian, state: Any, key: Key, losses: Losses) -> tuple[Weights, Any]:
    """The sum of the gradients, each as long as the longest of them.

    DB-MTL, Lin et al. 2023, arXiv:2308.12029, without its average over the steps (β = 0) and without its
    logarithms of the losses.

    Args:
        gram: ``gram[i, j] = g_i · g_j``; this and the next three are the chain's to give.
        state: None.
        key: Not used.
        losses: Not used.
    """
    size = norms(gram)
    return size.max() * inverse(size), state
