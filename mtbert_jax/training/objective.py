"""What one task's gradient is of: its loss, and SMART's two terms where they are on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mtbert_jax.config import ProximalConfig, SmartConfig, TaskConfig
from mtbert_jax.losses import mean_loss, task_loss
from mtbert_jax.nn.multitask import MultitaskBert
from mtbert_jax.smart import proximal_loss, smoothness_loss
from mtbert_jax.types import Batch, FeatureBatch, Params

NOISE = 1
"""Folded into a step's key: the key of SMART's noise."""
OTHER_MASKS = 2
"""Folded into a step's key: the key of dropout masks that are not the clean side's."""


class Regularizers(NamedTuple):
    """What a stage adds to the losses.

    Attributes:
        smart: Adversarial smoothness.
        proximal: Bregman proximal point.
        start: Step at which the stage began.
        num_steps: Steps of the stage.
    """

    smart: SmartConfig = SmartConfig()
    proximal: ProximalConfig = ProximalConfig()
    start: int = 0
    num_steps: int = 1

    def smart_weight(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """λ_s at a step of the run."""
        ramp = round(self.smart.ramp_fraction * self.num_steps)
        if not ramp:
            return jnp.asarray(self.smart.weight)
        return optax.linear_schedule(0.0, self.smart.weight, ramp)(step - self.start)


NO_REGULARIZERS = Regularizers()


class Terms(NamedTuple):
    """The parts of an objective, unweighted.

    Attributes:
        loss: Mean loss of the batch.
        penalties: `smoothness` (R_s) and `proximal` (D_Breg), those that are on.
    """

    loss: Float[Array, ""]
    penalties: dict[str, Float[Array, ""]]


def task_objective(
    model: MultitaskBert,
    task: TaskConfig,
    regularizers: Regularizers,
    params: Params,
    teacher: Params | None,
    batch: Batch | FeatureBatch,
    key: PRNGKeyArray,
    step: Int[Array, ""],
) -> tuple[Float[Array, ""], Terms]:
    """``loss_weight (loss + λ_s R_s + μ D_Breg)`` of a batch, and its parts.

    The forward pass on the clean embeddings is computed once: its logits enter the loss, the target of the ascent and
    both divergences.

    Args:
        model: Encoder and heads.
        task: The batch's task.
        regularizers: Those of the stage.
        params: Parameters θ of the encoder and the task's head.
        teacher: Parameters θ̃ of the same, for the proximal term.
        batch: Of tokens, or of a frozen encoder's features; the latter have no embeddings to perturb.
        key: The dropout key of this task and step.
        step: Step of the run.
    """
    smart, proximal = regularizers.smart, regularizers.proximal
    real = (batch.weights > 0).astype(jnp.float32)
    penalties = {}
    total = jnp.zeros(())
    if isinstance(batch, FeatureBatch) or not smart.weight * task.smart_factor:
        logits = model.logits(params, task.name, batch, key)
    else:
        embeddings = model.embed(params, batch, key)
        logits = model.logits_of_embeddings(params, task.name, embeddings, batch.attention_mask, key)
        masks = jax.random.fold_in(key, OTHER_MASKS) if smart.resample_dropout else key
        penalties["smoothness"] = smoothness_loss(
            lambda x: model.logits_of_embeddings(params, task.name, x, batch.attention_mask, masks),
            embeddings,
            batch.attention_mask,
            jax.random.fold_in(key, NOISE),
            smart,
            kind=task.kind,
            clean_logits=logits,
            weights=real,
        )
        total += task.smart_factor * regularizers.smart_weight(step) * penalties["smoothness"]
    if proximal.weight and teacher is not None:
        teacher_logits = model.logits(teacher, task.name, batch, key)
        penalties["proximal"] = proximal_loss(task.kind, logits, teacher_logits, real)
        total += proximal.weight * penalties["proximal"]
    loss = mean_loss(task_loss(task.kind, logits, batch.labels), batch.weights)
    return task.loss_weight * (loss + total), Terms(loss, penalties)
