"""Bregman proximal point of SMART (Jiang et al. 2020, arXiv:1911.03437): outputs stay near those of a teacher."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mtbert_jax.config import ProximalConfig
from mtbert_jax.regularizers.base import (
    Comparison,
    Forward,
    Logits,
    Penalty,
    Regularizer,
    comparison,
    register_regularizer,
)
from mtbert_jax.tasks.losses import mean_loss

Tree = Any


@register_regularizer("proximal")
@dataclass(frozen=True)
class Proximal(Regularizer):
    """μ D_Breg: the distance of the outputs to those of the teacher, under the same dropout masks."""

    config: ProximalConfig

    titles: ClassVar[dict[str, str]] = {"proximal": "distance to the teacher, D_Breg"}
    needs_teacher: ClassVar[bool] = True
    table: ClassVar[bool] = True

    def penalty(self, forward: Forward, key: PRNGKeyArray) -> dict[str, Penalty]:
        """D_Breg of a batch."""
        loss = proximal_loss(forward.task, forward.logits, forward.teacher_logits(), forward.real)
        return {"proximal": Penalty(forward.share.examples * loss, self.config.weight)}

    def describe(self) -> str:
        """Which teacher, and μ."""
        return f"proximal point to a {self.config.teacher} teacher × {self.config.weight:g}"


def proximal_loss(
    kind: Comparison | str, logits: Logits, teacher_logits: Logits, weights: Float[Array, " batch"]
) -> Float[Array, ""]:
    """D_Breg of a batch (equation 3): mean ℓ_s between the outputs of θ and of the teacher, which is a constant.

    Args:
        kind: The task's kind, or its name.
        logits: Logits of the parameters θ.
        teacher_logits: Logits of the teacher's parameters.
        weights: 0 for a row that only fills the batch up.

    Raises:
        InputError: There is no such kind, or the arrays do not fit each other.
    """
    kind = comparison(kind, logits, teacher_logits, weights)
    return mean_loss(kind.divergence(logits, jax.lax.stop_gradient(teacher_logits), False), weights)


def update_teacher(
    config: ProximalConfig, teacher: Tree, params: Tree, step: Int[Array, ""] | int, num_steps: int
) -> Tree:
    """The teacher of the next step; `params` are those after step number `step` of the stage, from 0."""
    if config.teacher == "vanilla":
        renew = (step + 1) % config.anchor_every_steps == 0
        return jax.tree.map(lambda old, new: jnp.where(renew, new, old), teacher, params)
    early = step < config.early_fraction * num_steps
    # 1 - β in Python, and as the share of a difference: in float32 .999 is not .999, and the error would add up.
    share = jnp.where(early, 1 - config.early_momentum, 1 - config.momentum)
    return jax.tree.map(lambda old, new: old + share * (new - old), teacher, params)
