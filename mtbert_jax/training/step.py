"""One optimizer step: the gradients of each task, one update from them, and its application.

A step is two kinds of jitted function: a gradient per task and batch length, and one update. That compiles n lengths n
times a task, where a single jitted step would compile every combination of the tasks' lengths.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import optax

from mtbert_jax.config import TaskConfig
from mtbert_jax.model import EncoderWithHeads
from mtbert_jax.parallel import ALONE, Layout
from mtbert_jax.tasks import kind_of
from mtbert_jax.training.gradient import gradient_program, own_gradient
from mtbert_jax.training.objective import StageSpec, Terms, task_groups
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.update import StepMetrics, update_program
from mtbert_jax.types import Batch, FeatureBatch, Params

PLAIN_STAGE = StageSpec()


@dataclass(frozen=True)
class TrainStep:
    """``state, metrics = train_step(state, batches)``; `state` is donated and must not be used again.

    Attributes:
        gradients: For each task, ``(params, teacher, batch, key, step) → (gradients, terms)``.
        programs: Everything that is jitted: one gradient for all tasks of a group, and the update.
        compiled_before: Programs among them that an earlier run had compiled.
        update: ``(params, state, gradients, terms) → (state, metrics)``, the state without its parameters.
    """

    gradients: Mapping[str, Callable[..., tuple[Params, Terms]]]
    programs: Sequence[Callable[..., Any]]
    update: Callable[..., tuple[TrainState, StepMetrics]]
    compiled_before: int = 0

    def __call__(
        self, state: TrainState, batches: Mapping[str, Batch | FeatureBatch]
    ) -> tuple[TrainState, StepMetrics]:
        """One step over one batch of each of the step's tasks."""
        return self.update(*state.parted(), *self.all_gradients(state, batches))

    def all_gradients(
        self, state: TrainState, batches: Mapping[str, Batch | FeatureBatch]
    ) -> tuple[dict[str, Params], dict[str, Terms]]:
        """The gradient and the terms of each of the step's tasks; the state is kept."""
        results = {
            task: self.gradients[task](state.params, state.teacher, batch, state.key, state.step)
            for task, batch in batches.items()
        }
        grads = {task: grads for task, (grads, _) in results.items()}
        terms = {task: terms for task, (_, terms) in results.items()}
        return grads, terms

    @property
    def compiled_shapes(self) -> int:
        """How many programs have been compiled for this run so far."""
        return _compiled(self.programs) - self.compiled_before


def _compiled(programs: Sequence[Callable[..., Any]]) -> int:
    return sum(fn._cache_size() for fn in programs)  # type: ignore[attr-defined]


def make_train_step(
    model: EncoderWithHeads,
    tasks: Mapping[str, TaskConfig],
    tx: optax.GradientTransformation,
    stage: StageSpec = PLAIN_STAGE,
    layout: Layout = ALONE,
    micro_batches: int = 1,
) -> TrainStep:
    """The step of one stage.

    Args:
        model: Encoder and heads.
        tasks: All tasks of the run, by name.
        tx: The chain; with several tasks in a step it must hold an aggregator.
        stage: What does not train, of which no gradient is computed, and what is added to the losses.
        layout: Where arrays lie.
        micro_batches: Parts that a batch's gradient is computed in.
    """
    gradients: dict[str, Callable[..., tuple[Params, Terms]]] = {}
    programs: list[Callable[..., Any]] = []
    for group in task_groups(model, tasks, stage):
        about = stage if stage.regularizers else StageSpec(stage.frozen)  # a plain gradient reads no more of it
        program = gradient_program(model, group, tuple(map(kind_of, group)), about, layout, micro_batches)
        programs.append(program)
        gradients |= {task.name: partial(own_gradient, program, task.name, n) for n, task in enumerate(group)}
    update = update_program(tx, stage, layout)
    programs.append(update)
    return TrainStep(gradients, programs, update, _compiled(programs))
