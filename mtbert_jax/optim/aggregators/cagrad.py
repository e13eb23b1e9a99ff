"""CAGrad: the best step for the worst task, near the mean gradient."""

from typing import Any

import jax.numpy as jnp

from mtbert_jax.optim.aggregators.base import Key, Losses, Weights
from mtbert_jax.optim.aggregators.gramian import (
    Gramian,
    cosines,
    inverse,
    norms,
    reciprocal,
    scaled,
    shares,
    taking_part,
)
from mtbert_jax.optim.aggregators.registry import register_aggregator
from mtbert_jax.optim.aggregators.supports import RIDGE, best, on_simplex, solve_on, supports

VANISHES = 1e-3
"""‖g_w‖ over Σ w_i ‖g_i‖ below which the gradients cancel out: float32 tells such a vector from none no longer."""


@register_aggregator("cagrad")
def cagrad(
    gram: Gramian, state: Any, key: Key, losses: Losses, c: float = 0.5, rescale: bool = False
) -> tuple[Weights, Any]:
    """``g0 + c ‖g0‖ g_w / ‖g_w‖``, with the w of the simplex that minimises ``g_w · g0 + c ‖g0‖ ‖g_w‖``.

    Liu et al. 2021, arXiv:2110.14048, Algorithm 1; g0 is the mean gradient, g_w is ``Σ w_i g_i``. The update is zero
    where some g_w vanishes that is the minimum: no direction lowers all losses.

    Args:
        gram: ``gram[i, j] = g_i · g_j``; this and the next three are the chain's to give.
        state: None.
        key: Not used.
        losses: Not used.
        c: Radius around g0, as a share of its norm. From 1 on the update conflicts with no task; 0 is the mean.
        rescale: Divide the update by 1 + c², as LibMTL does.

    Raises:
        ValueError: `c` is negative, or there are more than eight tasks.
    """
    if not c >= 0:
        raise ValueError(f"c = {c}: must be at least 0")
    masks = supports(len(gram), "cagrad") & taking_part(gram)
    gram, _ = scaled(gram)
    mean, size, cos = shares(gram), norms(gram), cosines(gram)
    slope = gram @ mean  # b: g_w · g0 = wᵀ b
    radius = c * jnp.sqrt(jnp.maximum(mean @ slope, 0.0))  # φ
    # On a support: G w ∝ ν 1 - b, with ν such that the norm fits. G = D C D, and `shrink` stands for 1 / D.
    shrink = reciprocal(size)
    both = solve_on(masks, cos, jnp.stack([shrink, slope * inverse(size)], -1), RIDGE)
    of_ones, of_slope = jnp.moveaxis(both, -1, 0)  # [support task]
    square = jnp.sum(shrink * of_ones, -1)  # 1ᵀ G⁻¹ 1
    level = jnp.sum(shrink * of_slope, -1) * inverse(square)
    # b less its part along 1, in the metric of G⁻¹: what is left of φ² behind it, `room`, is (ν - level)² 1ᵀ G⁻¹ 1.
    rest = of_slope - level[:, None] * of_ones
    room = radius**2 - jnp.sum((rest @ cos) * rest, -1)
    distance = jnp.sqrt(jnp.maximum(room, 0.0) * inverse(square))
    single = masks.sum(-1) == 1
    found = jnp.where(single[:, None], masks * 1.0, shrink * (distance[:, None] * of_ones - rest))
    points = on_simplex(found)

    def length(w: jnp.ndarray) -> jnp.ndarray:
        return jnp.sqrt(jnp.maximum(jnp.sum(((w * size) @ cos) * (w * size), -1), 0.0))

    w = best(points, points @ slope + radius * length(points), masks.any(-1) & (points.sum(-1) > 0))
    weights = mean + radius * inverse(length(w)) * w
    weights = jnp.where((length(w) < VANISHES * (w @ size)) & (c > 0), 0.0, weights)
    return weights / (1 + c**2 if rescale else 1), state
