"""What one task's gradient is of: its loss, and the terms of the regularisers that are on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mtbert_jax.config import ProximalConfig, Stage, TaskConfig
from mtbert_jax.config.schema import describe
from mtbert_jax.errors import InputError, failures_of
from mtbert_jax.model import EncoderWithHeads, TaskIndex
from mtbert_jax.regularizers import Forward, Penalty, Regularizer, stage_regularizers
from mtbert_jax.regularizers.base import WHOLE, GroupTask, Share
from mtbert_jax.tasks import kind_of
from mtbert_jax.types import Batch, FeatureBatch, Params


@dataclass(frozen=True)
class StageSpec:
    """What tells the steps of one stage from those of another.

    Attributes:
        frozen: Paths of parameters that do not train.
        regularizers: What is added to the losses, in this order.
        teacher: How the teacher follows the parameters, where there is one.
        start: Step of the run at which the stage begins.
        num_steps: Steps of the stage.
    """

    frozen: tuple[str, ...] = ()
    regularizers: tuple[Regularizer, ...] = ()
    teacher: ProximalConfig = field(default_factory=ProximalConfig)
    start: int = 0
    num_steps: int = 1

    @classmethod
    def of(cls, stage: Stage, start: int, num_steps: int) -> "StageSpec":
        """What a stage's steps need to know; `InputError` where a call string of its regularisers is wrong."""
        return cls(stage.freeze, stage_regularizers(stage), stage.proximal, start, num_steps)

    def is_on(self, task: TaskConfig) -> tuple[bool, ...]:
        """For each regulariser, whether a task has its terms."""
        on = []
        for regularizer in self.regularizers:
            with failures_of(f"regularizer {regularizer.name}: is_on"):
                on.append(bool(regularizer.is_on(task)))
        return tuple(on)


def shares(batch: Batch | FeatureBatch, part: Batch | FeatureBatch) -> Share:
    """What `part` is of `batch`."""

    def of(total: Callable[[Array], Array]) -> Array:
        whole = total(batch.weights)
        return total(part.weights) / jnp.where(whole > 0, whole, 1)

    return Share(of(jnp.sum), of(lambda weights: jnp.sum(weights > 0)))


class Terms(NamedTuple):
    """The parts of an objective, unweighted: mean loss, and what the regularisers that are on gave, by name."""

    loss: Float[Array, ""]
    penalties: dict[str, Float[Array, ""]]


class Place(NamedTuple):
    """Where in a run an objective is computed: task of the group, dropout key of task and step, step of the run."""

    task: Int[Array, ""]
    key: PRNGKeyArray
    step: Int[Array, ""]


@dataclass(frozen=True, eq=False)
class Objective:
    """``loss_weight (loss_share · loss + Σ weight · penalty)`` of a batch, and its parts.

    The forward pass on the clean embeddings is computed once: its logits enter the loss and every regulariser. The
    group's `tasks` differ after the encoder only, so that one program serves all of them.
    """

    model: EncoderWithHeads
    tasks: tuple[TaskConfig, ...]
    stage: StageSpec

    def __call__(
        self, params: Params, teacher: Params | None, batch: Batch | FeatureBatch, place: Place, share: Share = WHOLE
    ) -> tuple[Float[Array, ""], Terms]:
        """The objective and its parts, by parameters θ of encoder and heads, and a teacher's θ̃ where they are needed.

        Raises:
            InputError: A regulariser fails, or gives what its titles do not name.
        """
        forward = self._forward(params, teacher, batch, place, share)
        total, values, loss_share = jnp.zeros(()), {}, 1.0
        for regularizer, is_on in zip(self.stage.regularizers, self.stage.is_on(self.tasks[0]), strict=True):
            if not is_on:
                continue
            loss_share *= regularizer.loss_share
            for name, penalty in _penalties(regularizer, forward).items():
                values[name] = penalty.value
                if penalty.weight is not None:
                    total += penalty.weight * penalty.value
        loss = forward.mean_loss(forward.logits)
        kept = loss * loss_share if loss_share else 0.0  # 0 times the loss would still be differentiated
        weight = forward.task.number(lambda task: task.loss_weight)
        return weight * (kept + total), Terms(loss, values)

    def _labelled(self, batch: Batch | FeatureBatch) -> Bool[Array, "batch place"] | None:
        """The places with a label, where the group's heads read tokens."""
        return batch.labels >= 0 if kind_of(self.tasks[0]).has_places else None

    def _forward(
        self, params: Params, teacher: Params | None, batch: Batch | FeatureBatch, place: Place, share: Share
    ) -> Forward:
        one, model, key = TaskIndex(tuple(task.name for task in self.tasks), place.task), self.model, place.key
        batch = batch if isinstance(batch, FeatureBatch) else batch.flat()
        if isinstance(batch, FeatureBatch):
            embeddings, logits = None, model.logits(params, one, batch, key)
        else:
            embeddings = model.embed(params, batch, key)
            logits = model.logits_of_embeddings(params, one, embeddings, batch, key)

        def teacher_logits() -> Float[Array, "batch output"]:
            if teacher is None:
                raise ValueError("there is no teacher; a regularizer that reads its logits sets needs_teacher = True")
            return model.logits(teacher, one, batch, key)

        return Forward(
            batch=batch,
            logits=logits,
            embeddings=embeddings,
            key=key,
            task=GroupTask(self.tasks, place.task, self._labelled(batch)),
            logits_of=lambda x, masks: model.logits_of_embeddings(params, one, x, batch, masks),  # type: ignore[arg-type]
            logits_again=lambda masks: model.logits(params, one, batch, masks),
            teacher_logits=teacher_logits,
            step=place.step - self.stage.start,
            num_steps=self.stage.num_steps,
            share=share,
        )


def _penalties(regularizer: Regularizer, forward: Forward) -> dict[str, Penalty]:
    key, what = jax.random.fold_in(forward.key, regularizer.key_fold), f"regularizer {regularizer.name}"
    kept = "" if forward.embeddings is not None else " on kept features, without embeddings (needs_embeddings = False)"
    with failures_of(f"{what}{kept}"):
        penalties = regularizer.penalty(forward, key)
    if not isinstance(penalties, dict):
        raise InputError(f"{what}: penalty returns {describe(penalties)}; it must be a dict of mt.Penalty by title")
    for name, penalty in penalties.items():
        if name not in regularizer.titles:
            raise InputError(f"{what}: it gives {name!r}, which its titles do not name")
        is_term = isinstance(penalty, Penalty) and (penalty.weight is None or _is_number(penalty.weight))
        if not is_term or not _is_number(penalty.value):
            raise InputError(f"{what}: {name!r} is no Penalty of one number and its weight, another number or None")
    return penalties


def _is_number(value: Any) -> bool:
    return isinstance(value, Array | np.ndarray | np.generic | int | float) and not jnp.shape(value)


def task_groups(
    model: EncoderWithHeads, tasks: Mapping[str, TaskConfig], stage: StageSpec
) -> list[tuple[TaskConfig, ...]]:
    """The tasks whose objectives are one program: heads that read the same, regularisers and shape of a label."""

    def alike(task: TaskConfig) -> tuple[tuple[bool, ...], tuple[int, ...]]:
        return stage.is_on(task), kind_of(task).label_shape(task)

    return [
        tuple(tasks[name] for name in names if alike(tasks[name]) == of)
        for names in model.groups()
        for of in sorted({alike(tasks[name]) for name in names})
    ]


def check_objective(
    model: EncoderWithHeads, task: TaskConfig, stage: StageSpec, batch: Batch | FeatureBatch, params: Params
) -> None:
    """Traces the objective of a task, on shapes alone: the `InputError` of a regulariser comes before any step."""
    place = Place(np.int32(0), jax.random.key(0), np.int32(0))  # type: ignore[arg-type]
    objective, has_teacher = Objective(model, (task,), stage), any(one.needs_teacher for one in stage.regularizers)
    jax.eval_shape(lambda p, batch: objective(p, p if has_teacher else None, batch, place), params, batch)
