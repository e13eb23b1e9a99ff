"""Weights that change slowly from step to step, around any other aggregator."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from mtbert_jax.errors import InputError
from mtbert_jax.optim.aggregators.base import Aggregator, Key, Losses, State, Weights, aggregator, first_state
from mtbert_jax.optim.aggregators.gramian import Gramian, taking_part
from mtbert_jax.optim.aggregators.registry import refusal_of_traced, register_factory, tried


class SmoothedState(NamedTuple):
    """State of `smoothed`.

    Attributes:
        weights: The weights λ of the last step.
        begun: Whether the task has had one: its first weight is taken as it is.
        inner: What the other aggregator keeps.
    """

    weights: Float[Array, " task"]
    begun: Bool[Array, " task"]
    inner: State


def smoothed(
    of: optax.GradientTransformation, alpha: float = 0.9, *, num_tasks: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """Another aggregator's weights as moving averages: ``λ ← α λ + (1 - α) λ̂``, from the first step's λ̂.

    CR-MOGM, Zhou et al. 2022, "On the convergence of stochastic multi-objective gradient manipulation and beyond",
    Algorithm 1. A task that is left out of a step keeps its λ. Seed and grouping are those of the other aggregator.

    Args:
        of: An aggregator, such as ``cagrad(c=0.4)``.
        alpha: α: 0 is the other aggregator itself, 1 keeps the first weights.
        num_tasks: Number of tasks of a step, where the other aggregator does not have it.

    Raises:
        InputError: `of` is no aggregator, `alpha` is not from 0 to 1, or the number of tasks is missing.
    """
    if not isinstance(of, Aggregator):
        raise InputError("smoothed takes an aggregator, as in smoothed(cagrad(c=0.4))")
    if refused := refusal_of_traced("smoothed", {"alpha": alpha}):
        raise refused
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha = {alpha}: must be from 0 to 1")
    inner = of.method

    def rule(gram: Gramian, state: SmoothedState, key: Key, losses: Losses) -> tuple[Weights, SmoothedState]:
        weights, after = inner.rule(gram, state.inner, key, losses)
        present = taking_part(gram)
        average = jnp.where(state.begun, alpha * state.weights + (1 - alpha) * weights, weights)
        average = jnp.where(present, average, state.weights)
        return jnp.where(present, average, 0.0), SmoothedState(average, state.begun | present, after)

    def init(tasks: int) -> SmoothedState:
        return SmoothedState(jnp.zeros(tasks), jnp.zeros(tasks, bool), first_state(inner.init, tasks))

    rule.__name__ = f"smoothed({inner.name}())"
    tasks = inner.num_tasks if num_tasks is None else num_tasks
    made: Any = aggregator(rule, inner.seed, init, tasks, inner.by, inner.heads)
    return tried(made)


register_factory("smoothed", smoothed, __name__)
