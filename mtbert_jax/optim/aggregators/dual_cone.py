"""UPGrad and DualProj: projections onto the cone of directions along which no task's loss rises."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbert_jax.optim.aggregators.base import Key, Losses, Weights
from mtbert_jax.optim.aggregators.gramian import Gramian, scaled, shares
from mtbert_jax.optim.aggregators.registry import register_aggregator
from mtbert_jax.optim.aggregators.supports import best, solve_on, supports

ROUNDING = 1e-4
"""What both methods add to the diagonal of G / trace(G), as TorchJD does: the update may conflict by that much."""


@register_aggregator("upgrad")
def upgrad(gram: Gramian, state: Any, key: Key, losses: Losses) -> tuple[Weights, Any]:
    """The mean of the tasks' gradients, each projected onto the dual cone of all gradients.

    Quinton and Rey 2024, arXiv:2406.16232: ``Σ_i argmin {vᵀ G v : v ≥ e_i / T}``.

    Args:
        gram: ``gram[i, j] = g_i · g_j``; this and the next three are the chain's to give.
        state: None.
        key: Not used.
        losses: Not used.

    Raises:
        ValueError: There are more than eight tasks.
    """
    return jnp.sum(_projected(gram, jnp.diag(shares(gram)), "upgrad"), 0), state


@register_aggregator("dualproj")
def dualproj(gram: Gramian, state: Any, key: Key, losses: Losses) -> tuple[Weights, Any]:
    """The mean of the tasks' gradients, projected onto the dual cone of all gradients.

    Lopez-Paz and Ranzato 2017, arXiv:1706.08840 (GEM), on the mean: ``argmin {vᵀ G v : v ≥ 1 / T}``.

    Args:
        gram: ``gram[i, j] = g_i · g_j``; this and the next three are the chain's to give.
        state: None.
        key: Not used.
        losses: Not used.

    Raises:
        ValueError: There are more than eight tasks.
    """
    return _projected(gram, shares(gram)[None], "dualproj")[0], state


def _projected(gram: Gramian, lowest: Float[Array, "row task"], name: str) -> Float[Array, "row task"]:
    """For each row u of `lowest` the v ≥ u that minimises vᵀ G v.

    Where v_i > u_i, (G v)_i = 0: so on the support S of z = v - u, z_S = -G_SS⁻¹ (G u)_S.
    """
    masks = supports(len(gram), name)
    masks = jnp.concatenate([jnp.zeros_like(masks[:1]), masks])  # the empty one: v = u
    gram = scaled(gram)[0] + ROUNDING * jnp.eye(len(gram))
    added = jnp.maximum(-solve_on(masks, gram, gram @ lowest.T), 0.0)
    points = jnp.moveaxis(added, -1, 0) + lowest[:, None]  # [row support task]
    values = jnp.sum((points @ gram) * points, -1)
    return jnp.stack([best(own, value, value >= 0) for own, value in zip(points, values, strict=True)])
