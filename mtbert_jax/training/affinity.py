"""Task affinity (Fifty et al. 2021, arXiv:2109.04617, section 4): what a step on one task does to the losses of all.

For each task i of a step, the update is computed as if only task i took part; then every task's loss is computed on its
next batch, with the encoder before and after. Z_ij = 1 - L_j(after i) / L_j(before) is the share by which the step on i
lowers the loss of j. Heads stay as they were, dropout is off, and the run itself goes on as if nobody had looked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Array, Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.model import EncoderWithHeads
from mtbert_jax.parallel import Layout
from mtbert_jax.programs import made_once
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.kind import TaskKind
from mtbert_jax.training.objective import StageSpec, Terms
from mtbert_jax.training.plan import Plan
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import TrainStep
from mtbert_jax.training.update import Update
from mtbert_jax.types import Batch, FeatureBatch, Params

Batches = Mapping[str, Batch | FeatureBatch]
Effects = dict[str, dict[str, float]]
MISSING: Any = np.float32(np.nan)


@dataclass(frozen=True, eq=False)
class Affinity:
    """Looks at the steps of one stage.

    Attributes:
        setup: The run's.
        plan: The stage's.
        start: Step of the run at which the stage begins.
        step: The stage's step.
    """

    setup: Setup
    plan: Plan
    start: int
    step: TrainStep

    def effects(self, state: TrainState, now: Batches, following: Batches) -> Effects:
        """Z_ij by the names of i and j, not finite where a loss is zero or not finite.

        Args:
            state: The state before a step; it is kept.
            now: The batches of this step.
            following: The batches of the next step.
        """
        setup, tasks = self.setup, self.setup.tasks
        grads, terms = self.step.all_gradients(state, now)
        update = _encoder_after(self.plan.tx, self.plan.spec(self.start), setup.layout)
        programs = {task: _loss_program(setup.model, tasks[task], kind_of(tasks[task]), setup.layout) for task in now}

        def losses(encoder: Params) -> dict[str, float]:
            params = {**state.params, "encoder": encoder}
            return {task: float(programs[task](params, batch)) for task, batch in following.items()}

        before, effects = losses(state.params["encoder"]), {}
        for one in now:
            # The others are left out as if their losses were not finite.
            alone = {task: own if task == one else own._replace(loss=MISSING) for task, own in terms.items()}
            after = losses(update(state, grads, alone))
            effects[one] = {task: _share(before[task], after[task]) for task in following}
        return effects


def _share(before: float, after: float) -> float:
    return 1 - after / before if before else float("nan")


@made_once
def _encoder_after(tx: optax.GradientTransformation, stage: StageSpec, layout: Layout) -> Callable[..., Params]:
    """The encoder after an update of a stage; unlike the step's own program it leaves the state alone."""
    update = Update(tx, stage, layout)

    def encoder(state: TrainState, grads: dict[str, Params], terms: dict[str, Terms]) -> Params:
        after: Params = update.apply_gradients(state, grads, terms)[0].params["encoder"]
        return after

    program: Callable[..., Params] = jax.jit(encoder)
    return program


@made_once
def _loss_program(
    model: EncoderWithHeads, task: TaskConfig, kind: TaskKind, layout: Layout
) -> Callable[..., Float[Array, ""]]:
    """A task's loss on a batch, without dropout."""

    def loss(params: Params, batch: Any) -> Float[Array, ""]:
        logits = model.logits(layout.whole(params), task.name, batch)
        return kind.batch_loss(logits, batch.labels, batch.weights)

    program: Callable[..., Float[Array, ""]] = jax.jit(loss)
    return program
