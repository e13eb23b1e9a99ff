"""Bregman proximal point of SMART (Jiang et al. 2020, arXiv:1911.03437): outputs stay near those of a teacher."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtbert_jax.config import ProximalConfig
from mtbert_jax.regularizers.smart import Comparison, Logits
from mtbert_jax.tasks import TaskKind
from mtbert_jax.tasks.losses import mean_loss

Tree = Any


def proximal_loss(
    kind: TaskKind | Comparison | str, logits: Logits, teacher_logits: Logits, weights: Float[Array, " batch"]
) -> Float[Array, ""]:
    """D_Breg of a batch (equation 3): mean ℓ_s between the outputs of θ and of the teacher, which is a constant."""
    return mean_loss(Comparison.of(kind).symmetric(logits, jax.lax.stop_gradient(teacher_logits), False), weights)


def update_teacher(
    config: ProximalConfig, teacher: Tree, params: Tree, step: Int[Array, ""] | int, num_steps: int
) -> Tree:
    """The teacher of the next step.

    Args:
        config: Which teacher.
        teacher: The present one.
        params: Parameters after this step's update.
        step: Number of this step in its stage, from 0.
        num_steps: Steps of the stage.
    """
    if config.teacher == "vanilla":
        renew = (step + 1) % config.anchor_every_steps == 0
        return jax.tree.map(lambda old, new: jnp.where(renew, new, old), teacher, params)
    early = step < config.early_fraction * num_steps
    # 1 - β in Python, and as the share of a difference: in float32 .999 is not .999, and the error would add up.
    share = jnp.where(early, 1 - config.early_momentum, 1 - config.momentum)
    return jax.tree.map(lambda old, new: old + share * (new - old), teacher, params)
