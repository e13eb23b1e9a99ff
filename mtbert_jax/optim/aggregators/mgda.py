"""MGDA: the shortest vector between the tasks' gradients."""

from typing import Any

import jax.numpy as jnp

from mtbert_jax.optim.aggregators.base import Key, Losses, Weights
from mtbert_jax.optim.aggregators.gramian import Gramian, cosines, norms, reciprocal, scaled, taking_part
from mtbert_jax.optim.aggregators.registry import register_aggregator
from mtbert_jax.optim.aggregators.supports import RIDGE, best, on_simplex, solve_on, supports


@register_aggregator("mgda")
def mgda(gram: Gramian, state: Any, key: Key, losses: Losses) -> tuple[Weights, Any]:
    """The weights of the simplex that minimise ``‖Σ w_i g_i‖²``: no task's loss rises to first order.

    Désidéri 2012; Sener and Koltun 2018, arXiv:1810.04650. On each support S the minimum is
    ``G_SS⁻¹ 1`` divided by its sum.

    Args:
        gram: ``gram[i, j] = g_i · g_j``; this and the next three are the chain's to give.
        state: None.
        key: Not used.
        losses: Not used.

    Raises:
        ValueError: There are more than eight tasks.
    """
    masks = supports(len(gram), "mgda") & taking_part(gram)
    gram, _ = scaled(gram)
    size, cos = norms(gram), cosines(gram)
    # G = D C D with the norms D: solved by the cosines C, which are alike however the norms differ.
    shrink = reciprocal(size)
    found = solve_on(masks, cos, shrink[:, None], RIDGE)[..., 0]
    points = on_simplex(found * shrink)
    lengths = points * size
    gains = (lengths @ cos) * size  # g · g_i
    # 0 at the minimum only. The squared length itself is off by more, as float32 has it.
    gap = jnp.sum(gains * points, -1) - jnp.min(jnp.where(taking_part(gram), gains, jnp.inf), -1)
    return best(points, gap, masks.any(-1) & (points.sum(-1) > 0)), state
