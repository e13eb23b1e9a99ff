"""Random weights: what a method must be better than."""

from typing import Any

import jax

from mtbert_jax.optim.aggregators.base import Key, Losses, Weights
from mtbert_jax.optim.aggregators.gramian import Gramian, softmax, taking_part
from mtbert_jax.optim.aggregators.registry import register_aggregator


@register_aggregator("random_weights")
def random_weights(gram: Gramian, state: Any, key: Key, losses: Losses) -> tuple[Weights, Any]:
    """Weights that are the softmax of normal numbers, drawn anew in every step.

    RGW, Lin et al. 2022, arXiv:2111.10603. Their mean is 1 / T.

    Args:
        gram: ``gram[i, j] = g_i · g_j``; this and the next three are the chain's to give.
        state: None.
        key: Key of this step's weights.
        losses: Not used.
    """
    present = taking_part(gram)
    return softmax(jax.random.normal(key, present.shape), present), state
