"""One optimizer step: the gradients of each task, one update from them, and its application.

A step is two kinds of jitted function: a gradient per task and batch length, and one update. That compiles n lengths n
times a task, where a single jitted step would compile every combination of the tasks' lengths.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import optax

from mtbert_jax.config import TaskConfig
from mtbert_jax.machine import compiling_side_by_side
from mtbert_jax.model import EncoderWithHeads
from mtbert_jax.parallel import ALONE, Layout
from mtbert_jax.tasks import kind_of
from mtbert_jax.training.gradient import OwnGradient, gradient_program
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

    gradients: Mapping[str, OwnGradient]
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

    def compile(self, state: TrainState, batches: Mapping[str, Batch | FeatureBatch]) -> None:
        """Compiles what a step over these batches calls, side by side, where arrays lie on one device.

        A call compiles by itself what it needs, but one program after the other.
        """
        made: dict[str, tuple[Params, Terms]] = {}
        begun = set()
        with compiling_side_by_side() as compiling:
            for task, batch in batches.items():
                gradient = self.gradients[task]
                traced, made[task] = gradient.traced(state.params, state.teacher, batch, state.key, state.step)
                shapes = (gradient.program, *(leaf.shape for leaf in jax.tree.leaves(batch)))
                if shapes not in begun:
                    begun.add(shapes)
                    compiling(traced.lower())
            made = jax.tree.map(partial(_lying_there, jax.tree.leaves(state.params)[0].sharding), made)
            grads, terms = ({task: own[part] for task, own in made.items()} for part in (0, 1))
            compiling(self.update.lower(*state.parted(), grads, terms))  # type: ignore[attr-defined]

    @property
    def compiled_shapes(self) -> int:
        """How many programs have been compiled for this run so far."""
        return _compiled(self.programs) - self.compiled_before


def _lying_there(sharding: jax.sharding.Sharding, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """A shape as that of an array which a program has put on the device of its arguments."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding, weak_type=leaf.weak_type)


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
    gradients: dict[str, OwnGradient] = {}
    programs: list[Callable[..., Any]] = []
    for group in task_groups(model, tasks, stage):
        about = stage if stage.regularizers else StageSpec(stage.frozen)  # a plain gradient reads no more of it
        program = gradient_program(model, group, tuple(map(kind_of, group)), about, layout, micro_batches)
        programs.append(program)
        gradients |= {task.name: OwnGradient(program, task.name, n) for n, task in enumerate(group)}
    update = update_program(tx, stage, layout)
    programs.append(update)
    return TrainStep(gradients, programs, update, _compiled(programs))
