"""What one task's gradient is of: its loss, and SMART's two terms where they are on."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mtbert_jax.config import ProximalConfig, SmartConfig, TaskConfig
from mtbert_jax.model import EncoderWithHeads, TaskIndex
from mtbert_jax.regularizers.proximal import proximal_loss
from mtbert_jax.regularizers.smart import Comparison, Logits, resolve, smoothness
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.losses import mean_loss
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


class Share(NamedTuple):
    """What a micro-batch is of its batch, so that the objectives of all of them add up to the batch's.

    Attributes:
        weight: Its share of the examples' weights.
        examples: Its share of the examples.
    """

    weight: Float[Array, ""] | float
    examples: Float[Array, ""] | float


WHOLE = Share(1.0, 1.0)


def shares(batch: Batch | FeatureBatch, part: Batch | FeatureBatch) -> Share:
    """What `part` is of `batch`."""

    def of(total: Callable[[Array], Array]) -> Array:
        whole = total(batch.weights)
        return total(part.weights) / jnp.where(whole > 0, whole, 1)

    return Share(of(jnp.sum), of(lambda weights: jnp.sum(weights > 0)))


class Terms(NamedTuple):
    """The parts of an objective, unweighted.

    Attributes:
        loss: Mean loss of the batch.
        penalties: `smoothness` (R_s) and `proximal` (D_Breg), those that are on; with the former `noise`, the mean norm
            of a token's noise, which is no term.
    """

    loss: Float[Array, ""]
    penalties: dict[str, Float[Array, ""]]


def task_objective(
    model: EncoderWithHeads,
    tasks: Sequence[TaskConfig],
    regularizers: Regularizers,
    params: Params,
    teacher: Params | None,
    batch: Batch | FeatureBatch,
    index: Int[Array, ""],
    key: PRNGKeyArray,
    step: Int[Array, ""],
    share: Share = WHOLE,
) -> tuple[Float[Array, ""], Terms]:
    """``loss_weight (loss + λ_s R_s + μ D_Breg)`` of a batch, and its parts.

    The forward pass on the clean embeddings is computed once: its logits enter the loss, the target of the ascent and
    both divergences.

    Args:
        model: Encoder and heads.
        tasks: A group whose tasks differ after the encoder only, so that one program serves all of them.
        regularizers: Those of the stage.
        params: Parameters θ of the encoder and the group's heads.
        teacher: Parameters θ̃ of the same, for the proximal term.
        batch: Of tokens, or of a frozen encoder's features; the latter have no embeddings to perturb.
        index: Which of `tasks` the batch is of.
        key: The dropout key of this task and step.
        step: Step of the run.
        share: Factors on the terms, for a batch that is part of a larger one.
    """
    smart, proximal = regularizers.smart, regularizers.proximal
    real = (batch.weights > 0).astype(jnp.float32)
    one = TaskIndex(tuple(task.name for task in tasks), index)
    compare = _comparison(tasks, index)
    penalties = {}
    total = jnp.zeros(())
    if isinstance(batch, FeatureBatch) or not has_smart(tasks[0], smart):
        logits = model.logits(params, one, batch, key)
    else:
        embeddings = model.embed(params, batch, key)
        logits = model.logits_of_embeddings(params, one, embeddings, batch, key)
        masks = jax.random.fold_in(key, OTHER_MASKS) if smart.resample_dropout else key
        penalties["smoothness"], noise = smoothness(
            lambda x: model.logits_of_embeddings(params, one, x, batch, masks),
            logits,
            embeddings,
            batch.attention_mask,
            jax.random.fold_in(key, NOISE),
            smart,
            compare,
            real,
        )
        penalties["noise"] = share.examples * noise
        if resolve(smart).outer == "mean":
            penalties["smoothness"] *= share.examples
        factor = jnp.array([task.smart_factor for task in tasks])[index]
        total += factor * regularizers.smart_weight(step) * penalties["smoothness"]
    if proximal.weight and teacher is not None:
        teacher_logits = model.logits(teacher, one, batch, key)
        penalties["proximal"] = share.examples * proximal_loss(compare, logits, teacher_logits, real)
        total += proximal.weight * penalties["proximal"]
    losses = jax.lax.switch(index, [partial(_loss, task) for task in tasks], logits, batch.labels)
    loss = share.weight * mean_loss(losses, batch.weights)
    weight = jnp.array([task.loss_weight for task in tasks])[index]
    return weight * (loss + total), Terms(loss, penalties)


def groups(
    model: EncoderWithHeads, tasks: Mapping[str, TaskConfig], smart: SmartConfig
) -> list[tuple[TaskConfig, ...]]:
    """The tasks whose objectives are one program: the same pooling, and SMART on or off."""
    return [
        tuple(tasks[name] for name in names if has_smart(tasks[name], smart) == on)
        for names in model.groups()
        for on in sorted({has_smart(tasks[name], smart) for name in names})
    ]


def has_smart(task: TaskConfig, smart: SmartConfig) -> bool:
    """Whether R_s is computed for a task."""
    return bool(smart.weight * task.smart_factor)


def _comparison(tasks: Sequence[TaskConfig], index: Int[Array, ""]) -> Comparison:
    """That of the chosen task, on logits of the group's width."""

    def chosen(name: str) -> Callable[..., Float[Array, " batch"]]:
        def compare(one: Logits, other: Logits, *options: bool) -> Float[Array, " batch"]:
            def of(task: TaskConfig) -> Callable[[Logits, Logits], Float[Array, " batch"]]:
                kind = kind_of(task)
                fn, width = getattr(Comparison.of(kind), name), kind.num_outputs(task)
                return lambda one, other: fn(one[:, :width], other[:, :width], *options)

            return jax.lax.switch(index, [of(task) for task in tasks], one, other)

        return compare

    return Comparison(chosen("symmetric"), chosen("one_sided"))


def _loss(task: TaskConfig, logits: Logits, labels: Float[Array, " batch"]) -> Float[Array, " batch"]:
    kind = kind_of(task)
    return kind.loss(logits[:, : kind.num_outputs(task)], labels)
