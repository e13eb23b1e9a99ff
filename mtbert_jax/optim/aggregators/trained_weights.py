"""UW, FAMO and GradNorm: weights of the losses that are trained beside the parameters.

Each task's has an Adam of its own, and stands still while the task is left out. They are the factors of the heads'
gradients, too.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbert_jax.optim.aggregators.base import Key, Losses, Weights
from mtbert_jax.optim.aggregators.gramian import Gramian, inverse, norms, scaled, softmax, taking_part
from mtbert_jax.optim.aggregators.loss_weights import SMALLEST
from mtbert_jax.optim.aggregators.registry import register_aggregator

B1, B2, EPSILON = 0.9, 0.999, 1e-8
PerTask = Float[Array, " task"]


class Trained(NamedTuple):
    """One number of each task, with Adam's moments, and the steps that it has had, as floats."""

    value: PerTask
    first: PerTask
    second: PerTask
    steps: PerTask

    @classmethod
    def fresh(cls, num_tasks: int, value: float = 0.0) -> "Trained":
        """All tasks at one value."""
        return cls(jnp.full(num_tasks, value, jnp.float32), *[jnp.zeros(num_tasks)] * 3)

    def moved(self, gradient: PerTask, where: Any, lr: float, decay: float = 0.0) -> "Trained":
        """One step of Adam for the tasks of `where`; `decay` times the value is added to the gradient."""
        gradient = gradient + decay * self.value
        steps = self.steps + 1
        first = B1 * self.first + (1 - B1) * gradient
        second = B2 * self.second + (1 - B2) * jnp.square(gradient)
        change = first / (1 - B1**steps) / (jnp.sqrt(second / (1 - B2**steps)) + EPSILON)
        after = Trained(self.value - lr * change, first, second, steps)
        return Trained(*(jnp.where(where, new, old) for new, old in zip(after, self, strict=True)))


@register_aggregator("uw", init=lambda num_tasks, start: Trained.fresh(num_tasks, start), heads=True)
def uw(
    gram: Gramian, state: Trained, key: Key, losses: Losses, lr: float = 1e-3, start: float = 0.0
) -> tuple[Weights, Trained]:
    """Uncertainty weights: the gradient of ``Σ ½ exp(-s_i) L_i + ½ s_i``, of which every s_i is trained, too.

    Kendall et al. 2018, arXiv:1705.07115, with s the logarithm of the variance. Each step uses the s
    before it is trained.

    Args:
        gram: Only which tasks take part; this and the next three are the chain's to give.
        state: s, and its optimizer's state.
        key: Not used.
        losses: Mean loss of each task.
        lr: Learning rate of s, by Adam.
        start: s before the first step; LibMTL has -0.5.

    Raises:
        ValueError: `lr` is negative.
    """
    _check(lr=lr)
    present, weights = taking_part(gram), 0.5 * jnp.exp(-state.value)
    return jnp.where(present, weights, 0.0), state.moved(0.5 - weights * losses, present, lr)


class FamoState(NamedTuple):
    """State of `famo`.

    Attributes:
        logits: ξ, and its optimizer's state.
        logs: Logarithms of each task's last loss.
        begun: 1 once the task has had a loss.
    """

    logits: Trained
    logs: PerTask
    begun: PerTask


@register_aggregator(
    "famo", init=lambda num_tasks: FamoState(Trained.fresh(num_tasks), *[jnp.zeros(num_tasks)] * 2), heads=True
)
def famo(
    gram: Gramian, state: FamoState, key: Key, losses: Losses, lr: float = 0.025, decay: float = 1e-3
) -> tuple[Weights, FamoState]:
    """FAMO: all losses fall at one rate, by weights ``z_i / L_i`` over their sum, with ``z = softmax(ξ)``.

    Liu et al. 2023, arXiv:2306.03792, Algorithm 1. ξ is trained by how much each loss's logarithm fell in the step
    before. The paper computes the same batch's loss again; here it is the next step's loss, of another batch
    (docs/numerics.md, section 8.3).

    Args:
        gram: Only which tasks take part; this and the next three are the chain's to give.
        state: ξ, and the last losses.
        key: Not used.
        losses: Mean loss of each task.
        lr: Learning rate of ξ, by Adam.
        decay: Times ξ, what is added to its gradient.

    Raises:
        ValueError: `lr` or `decay` is negative.
    """
    _check(lr=lr, decay=decay)
    present = taking_part(gram)
    logs = jnp.log(jnp.maximum(losses, 0.0) + SMALLEST)
    both = present & (state.begun > 0)
    fallen = jnp.where(both, state.logs - logs, 0.0)
    z = softmax(state.logits.value, both)
    logits = state.logits.moved(z * (fallen - z @ fallen), both, lr, decay)
    # z / L in logarithms, so that a loss of almost 0 does no harm.
    weights = softmax(logits.value - logs, present)
    return weights, FamoState(logits, jnp.where(present, logs, state.logs), jnp.where(present, 1.0, state.begun))


class GradNormState(NamedTuple):
    """State of `gradnorm`.

    Attributes:
        logits: What the weights are T times the softmax of, and its optimizer's state.
        first: Sum of each task's losses in its first steps.
        counted: How many of those there have been.
    """

    logits: Trained
    first: PerTask
    counted: PerTask


@register_aggregator(
    "gradnorm", init=lambda num_tasks: GradNormState(Trained.fresh(num_tasks), *[jnp.zeros(num_tasks)] * 2), heads=True
)
def gradnorm(  # noqa: PLR0913 - the chain gives four
    gram: Gramian,
    state: GradNormState,
    key: Key,
    losses: Losses,
    alpha: float = 1.5,
    lr: float = 0.025,
    first_steps: int = 10,
) -> tuple[Weights, GradNormState]:
    """GradNorm: weights under which the gradients' norms go by how far each loss has come.

    Chen et al. 2018, arXiv:1711.02257, equation 2: descent on ``Σ |w_i ‖g_i‖ - mean_j(w_j ‖g_j‖) r_i^α|``, the second
    term held fixed, with ``r_i`` the ratio ``L_i / L_i(0)`` over the mean of all of them. As in LibMTL the weights are
    T times a softmax: positive, of sum T. Each step uses the weights before they are trained.

    Args:
        gram: ``gram[i, j] = g_i · g_j``; this and the next three are the chain's to give.
        state: What the weights are made of, and L(0).
        key: Not used.
        losses: Mean loss of each task.
        alpha: α: how strongly slow tasks are pulled along.
        lr: Learning rate of the weights, by Adam.
        first_steps: Steps whose mean loss is L(0); until they are over, nothing is trained.

    Raises:
        ValueError: `lr` is negative or `first_steps` below 1.
    """
    _check(lr=lr)
    if first_steps < 1:
        raise ValueError(f"first_steps = {first_steps}: must be at least 1")
    present = taking_part(gram)
    number = jnp.maximum(present.sum(), 1)
    weights = number * softmax(state.logits.value, present)
    ready = jnp.all(~present | (state.counted >= first_steps))
    ratio = jnp.where(present, losses * state.counted * inverse(state.first), 0.0)
    rate = ratio * number * inverse(ratio.sum())
    size = norms(scaled(gram)[0])
    own = weights * size
    target = own.sum() / number * rate**alpha
    slope = jnp.where(present, size * jnp.sign(own - target), 0.0)
    slope = weights * (slope - weights @ slope / number)  # through the softmax
    begins = present & (state.counted < first_steps)
    after = GradNormState(
        state.logits.moved(slope, present & ready, lr),
        jnp.where(begins, state.first + losses, state.first),
        jnp.where(begins, state.counted + 1, state.counted),
    )
    return weights, after


def _check(**numbers: float) -> None:
    for name, value in numbers.items():
        if not value >= 0:
            raise ValueError(f"{name} = {value}: must be at least 0")
