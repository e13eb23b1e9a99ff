"""FairGrad and Nash-MTL: weights by fairness between the tasks' gains, as a system of equations."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbert_jax.optim.aggregators.base import Key, Losses, Weights
from mtbert_jax.optim.aggregators.gramian import Gramian, cosines, inverse, norms, scaled, shares, taking_part
from mtbert_jax.optim.aggregators.registry import register_aggregator

RIDGE = 1e-6
"""What is added to cosines of 1: where gradients cancel out, the equations have no solution without it."""
STEPS = 200
"""At most; ten are usual, and a hundred for gradients that all but cancel out."""
HALVINGS = 12
TINY = 1e-20


@register_aggregator("fairgrad")
def fairgrad(gram: Gramian, state: Any, key: Key, losses: Losses, alpha: float = 1.0) -> tuple[Weights, Any]:
    """The positive w with ``(G w)_i = w_i^(-1/α)``: the update's gain for each task is α-fair.

    Ban and Ji 2024, arXiv:2402.15638. The gain of task i is ``g_i · Σ w_j g_j``; α = 1 is proportional
    fairness, α → ∞ the best of the worst gain. α = 0 is the mean.

    Args:
        gram: ``gram[i, j] = g_i · g_j``; this and the next three are the chain's to give.
        state: None.
        key: Not used.
        losses: Not used.
        alpha: α.

    Raises:
        ValueError: `alpha` is negative.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha = {alpha}: must be at least 0")
    return (shares(gram) if alpha == 0 else _fair(gram, float(alpha))), state


@register_aggregator("nash_mtl")
def nash_mtl(gram: Gramian, state: Any, key: Key, losses: Losses, max_norm: float = 1.0) -> tuple[Weights, Any]:
    """Nash's bargaining solution, ``(G w)_i = 1 / w_i``, of norm `max_norm` at most.

    Navon et al. 2022, arXiv:2202.01017, Algorithm 1. The norm before is √T whatever the gradients'
    norms, so that the update's norm is that of `max_norm` unless it is larger.

    Args:
        gram: ``gram[i, j] = g_i · g_j``; this and the next three are the chain's to give.
        state: None.
        key: Not used.
        losses: Not used.
        max_norm: Largest norm of the update; 0 for none.

    Raises:
        ValueError: `max_norm` is negative.
    """
    if not max_norm >= 0:
        raise ValueError(f"max_norm = {max_norm}: must be at least 0")
    weights = _fair(gram, 1.0)
    if max_norm == 0:
        return weights, state
    part, trace = scaled(gram)
    lengths = weights * norms(part)
    norm = jnp.sqrt(trace * jnp.maximum(lengths @ cosines(part) @ lengths, 0.0))
    return weights * jnp.minimum(1.0, max_norm * inverse(norm)), state


def _fair(gram: Gramian, alpha: float) -> Weights:
    """The solution by damped Newton steps, each halved until the equations hold best, all weights being positive.

    With ``w_i = d_i^(-2α/(1+α)) v_i``, d the norms and C the cosines, the equations are ``M v = v^(-1/α)`` with
    ``M_ij = C_ij (d_j / d_i)^((1-α)/(1+α))``: of scale 1 whatever the norms.
    """
    present = taking_part(gram)
    gram, trace = scaled(gram)
    size = jnp.where(present, norms(gram), 1.0)
    ratio = size ** ((1 - alpha) / (1 + alpha))
    eye = jnp.eye(len(gram))
    system = jnp.where(present, cosines(gram), eye) * (ratio / ratio[:, None]) + RIDGE * eye

    def errors(v: Float[Array, "*many task"]) -> Float[Array, "*many task"]:
        return v @ system.T - v ** (-1 / alpha)

    def newton(carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        number, v, _ = carry
        step = jnp.linalg.solve(system + jnp.diag(v ** (-1 / alpha - 1) / alpha), errors(v))
        parts = 0.5 ** jnp.arange(HALVINGS)[:, None] * step
        # Steps by factors keep a weight positive that must fall by far.
        tries = jnp.concatenate([v[None], v - parts, v * jnp.exp(-jnp.clip(parts / v, -10, 10))])
        off = jnp.sum(jnp.square(errors(jnp.maximum(tries, TINY))), -1)
        chosen = jnp.argmin(jnp.where((tries > TINY).all(-1) & jnp.isfinite(off), off, jnp.inf))
        return number + 1, tries[chosen], chosen > 0

    def goes_on(carry: tuple[Any, Any, Any]) -> Any:
        return (carry[0] < STEPS) & carry[2]

    v = jax.lax.while_loop(goes_on, newton, (0, jnp.ones(len(gram)), True))[1]
    return jnp.where(present, v * (size**2 * jnp.where(trace > 0, trace, 1.0)) ** (-alpha / (1 + alpha)), 0.0)
