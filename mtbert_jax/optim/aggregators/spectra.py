"""Aligned-MTL, IMTL-G and ConFIG: weights from the eigenvalues of the Gramian or of the cosines."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

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

CANCELS = 1e-6
"""A sum of weights is none where it is below this share of the sum of their absolute values."""


@register_aggregator("aligned_mtl")
def aligned_mtl(gram: Gramian, state: Any, key: Key, losses: Losses, scale: str = "min") -> tuple[Weights, Any]:
    """The mean of the gradients once their principal components have been given one length.

    Senushkin et al. 2023, arXiv:2305.19000: ``√σ V Λ^(-½) Vᵀ 1 / T`` with the Gramian ``V Λ Vᵀ``.
    Eigenvalues that float32 cannot tell from 0 are left out.

    Args:
        gram: ``gram[i, j] = g_i · g_j``; this and the next three are the chain's to give.
        state: None.
        key: Not used.
        losses: Not used.
        scale: σ: the ``"min"``, the lower ``"median"`` or, as ``"rmse"``, the mean of the eigenvalues.

    Raises:
        ValueError: `scale` is none of the three.
    """
    if scale not in ("min", "median", "rmse"):
        raise ValueError(f"scale = {scale!r}: must be 'min', 'median' or 'rmse'")
    tasks = len(gram)
    values, vectors = jnp.linalg.eigh(scaled(gram)[0])
    kept = _kept(values)
    number = jnp.maximum(kept.sum(), 1)
    chosen = {  # eigenvalues ascend: the kept ones are the last
        "min": values[tasks - number],
        "median": values[tasks - number + (number - 1) // 2],
        "rmse": jnp.sum(jnp.where(kept, values, 0.0)) / number,
    }[scale]
    roots = jnp.where(kept, jnp.sqrt(jnp.maximum(chosen, 0.0) * inverse(values)), 0.0)
    return jnp.where(taking_part(gram), vectors @ (roots * (vectors.T @ shares(gram))), 0.0), state


@register_aggregator("imtl_g")
def imtl_g(gram: Gramian, state: Any, key: Key, losses: Losses) -> tuple[Weights, Any]:
    """The weights of sum 1 whose update has the same projection onto every task's gradient.

    Liu et al. 2021, "Towards impartial multi-task learning" (IMTL-G). Weights may be negative; they are
    all zero where the sum before it is made 1 cancels out.

    Args:
        gram: ``gram[i, j] = g_i · g_j``; this and the next three are the chain's to give.
        state: None.
        key: Not used.
        losses: Not used.
    """
    direction = _equal_cosines(gram)
    total = direction.sum()
    cancels = jnp.abs(total) <= CANCELS * jnp.abs(direction).sum()
    return jnp.where(cancels, 0.0, direction / jnp.where(cancels, 1.0, total)), state


@register_aggregator("config")
def config(gram: Gramian, state: Any, key: Key, losses: Losses) -> tuple[Weights, Any]:
    """The update of equal cosines to all gradients, as long as the sum of their projections onto it.

    ConFIG, Liu et al. 2024, arXiv:2408.11104.

    Args:
        gram: ``gram[i, j] = g_i · g_j``; this and the next three are the chain's to give.
        state: None.
        key: Not used.
        losses: Not used.
    """
    direction = _equal_cosines(gram)
    cos, size = cosines(gram), norms(gram)
    lengths = direction * size
    square = lengths @ cos @ lengths
    return direction * (size @ cos @ lengths) * inverse(square), state


def _equal_cosines(gram: Gramian) -> Float[Array, " task"]:
    """Weights of an update that has equal cosines to all gradients: ``C⁺ 1`` over the norms, C the cosines."""
    values, vectors = jnp.linalg.eigh(cosines(gram))
    inverses = jnp.where(_kept(values), inverse(values), 0.0)
    weights = (vectors @ (inverses * (vectors.T @ taking_part(gram)))) * reciprocal(norms(gram))
    return jnp.where(taking_part(gram), weights, 0.0)


def _kept(values: Float[Array, " task"]) -> Any:
    """Which eigenvalues are not 0 but for rounding."""
    return values > values.max() * len(values) * jnp.finfo(values.dtype).eps
