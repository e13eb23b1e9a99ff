"""DWA, GLS and STCH: weights by a formula of the tasks' losses. They are the factors of the heads' gradients, too."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbert_jax.optim.aggregators.base import Key, Losses, Weights
from mtbert_jax.optim.aggregators.gramian import Gramian, inverse, shares, softmax, taking_part
from mtbert_jax.optim.aggregators.registry import register_aggregator

SMALLEST = 1e-8
"""What is added to a loss before its logarithm or its inverse."""


class DwaState(NamedTuple):
    """State of `dwa`.

    Attributes:
        total: Sum of each task's losses in this period.
        counted: Steps of this period that the task took part in.
        last: Mean loss of the period before; 0 where there is none.
        older: Mean loss of the one before that.
        step: Steps of this period so far.
    """

    total: Float[Array, " task"]
    counted: Float[Array, " task"]
    last: Float[Array, " task"]
    older: Float[Array, " task"]
    step: Float[Array, ""]


@register_aggregator("dwa", init=lambda tasks: DwaState(*map(jnp.zeros, [tasks] * 4 + [()])), heads=True)
def dwa(
    gram: Gramian, state: DwaState, key: Key, losses: Losses, steps: int = 100, temperature: float = 2.0
) -> tuple[Weights, DwaState]:
    """Dynamic weight average: more weight for losses that fall slowly, ``T softmax((L₋₁ / L₋₂) / temperature)``.

    Liu et al. 2019, arXiv:1803.10704. L₋₁ and L₋₂ are mean losses of the last two periods, epochs in the
    paper; in the first two periods all weights are 1.

    Args:
        gram: Only which tasks take part; this and the next three are the chain's to give.
        state: Mean losses of periods.
        key: Not used.
        losses: Mean loss of each task.
        steps: Length of a period, in steps of training.
        temperature: Higher is nearer to equal weights.

    Raises:
        ValueError: `steps` is below 1, or `temperature` is not above 0.
    """
    if steps < 1 or not temperature > 0:
        raise ValueError(f"steps = {steps}, temperature = {temperature}: must be at least 1, and above 0")
    present = taking_part(gram)
    ratio = jnp.where((state.older > 0) & (state.last > 0), state.last * inverse(state.older), 1.0)
    weights = softmax(ratio / temperature, present) * present.sum()
    total, counted = state.total + losses * present, state.counted + present
    step = state.step + 1
    ends = step >= steps
    mean = jnp.where(counted > 0, total / jnp.maximum(counted, 1), state.last)
    after = DwaState(
        jnp.where(ends, 0.0, total),
        jnp.where(ends, 0.0, counted),
        jnp.where(ends, mean, state.last),
        jnp.where(ends, state.last, state.older),
        jnp.where(ends, 0.0, step),
    )
    return weights, after


@register_aggregator("gls", heads=True)
def gls(gram: Gramian, state: Any, key: Key, losses: Losses) -> tuple[Weights, Any]:
    """The gradient of the losses' geometric mean ``GLS = exp(mean log L)``: weights ``GLS / (T L_i)``.

    Chennupati et al. 2019, arXiv:1904.08492.

    Args:
        gram: Only which tasks take part; this and the next three are the chain's to give.
        state: None.
        key: Not used.
        losses: Mean loss of each task.
    """
    present = taking_part(gram)
    number = jnp.maximum(present.sum(), 1)
    logs = jnp.log(jnp.maximum(losses, 0.0) + SMALLEST)
    mean = jnp.sum(jnp.where(present, logs, 0.0)) / number
    return jnp.where(present, jnp.exp(mean - logs) / number, 0.0), state


@register_aggregator("stch", heads=True)
def stch(  # noqa: PLR0913 - the chain gives four
    gram: Gramian,
    state: Any,
    key: Key,
    losses: Losses,
    mu: float = 1.0,
    weights: Sequence[float] | None = None,
    reference: Sequence[float] | None = None,
) -> tuple[Weights, Any]:
    """The gradient of a smooth maximum of the losses, ``μ logsumexp(λ_i (L_i - z_i) / μ)``.

    Smooth Tchebycheff scalarisation, Lin et al. 2024, arXiv:2402.19078: weights ``λ_i softmax(λ (L - z) / μ)_i``.

    Args:
        gram: Only which tasks take part; this and the next three are the chain's to give.
        state: None.
        key: Not used.
        losses: Mean loss of each task.
        mu: μ: the smaller, the more the largest loss counts alone.
        weights: λ of each task, in the alphabetical order of the tasks; 1 / T if left out.
        reference: z, the losses that could be reached, in that order; zeros if left out.

    Raises:
        ValueError: `mu` is not above 0, a weight is negative, or there are not as many numbers as tasks.
    """
    if not mu > 0:
        raise ValueError(f"mu = {mu}: must be above 0")
    present = taking_part(gram)
    for name, values in (("weights", weights), ("reference", reference)):
        if values is not None and len(values) != len(gram):
            raise ValueError(f"{name} has {len(values)} numbers for {len(gram)} tasks in a step")
    if weights is not None and not all(weight >= 0 for weight in weights):
        raise ValueError(f"weights = {list(weights)}: must be at least 0, or a task's loss would rise")
    factors = shares(gram) if weights is None else jnp.asarray(weights, jnp.float32)
    lowest = 0.0 if reference is None else jnp.asarray(reference, jnp.float32)
    return factors * softmax(factors * (losses - lowest) / mu, present), state
