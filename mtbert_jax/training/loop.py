"""The loop over steps: batches, records, evaluation, checkpoints, early stop, interruption."""

import time
from dataclasses import dataclass, field
from typing import Protocol

import jax
import numpy as np

from mtbert_jax.machine import compile_seconds, return_freed_memory
from mtbert_jax.parallel import agreed
from mtbert_jax.training.checkpoint import Progress
from mtbert_jax.training.display import Display
from mtbert_jax.training.interrupt import Interrupted, Interruption
from mtbert_jax.training.plan import Plan
from mtbert_jax.training.records import Clock, Record
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import TrainStep
from mtbert_jax.training.update import StepMetrics
from mtbert_jax.types import Batch, FeatureBatch


class Trained(Protocol):
    """What the loop trains: a run (`ActiveRun`), which explains the methods."""

    setup: Setup
    plans: list[Plan]

    @property
    def progress(self) -> Progress: ...  # noqa: D102 - explained there, like all below

    @property
    def pending(self) -> list[StepMetrics]: ...  # noqa: D102

    def open_records(self, step: int) -> None: ...  # noqa: D102
    def restore(self) -> TrainState | None: ...  # noqa: D102
    def begin(self, plan: Plan) -> TrainState: ...  # noqa: D102
    def go_on(self, plan: Plan, state: TrainState) -> TrainState: ...  # noqa: D102
    def make_step(self, plan: Plan) -> TrainStep: ...  # noqa: D102
    def open_stage(self, plan: Plan, state: TrainState) -> int: ...  # noqa: D102
    def gather(self, place: int) -> dict[str, Batch | FeatureBatch]: ...  # noqa: D102
    def num_examples(self, place: int) -> int: ...  # noqa: D102
    def record(self, plan: Plan, done: int, steps: list[StepMetrics], rate: float) -> Record: ...  # noqa: D102
    def evaluate(self, plan: Plan, state: TrainState, done: int) -> list[str]: ...  # noqa: D102
    def look(self, plan: Plan, step: TrainStep, state: TrainState, done: int) -> list[str]: ...  # noqa: D102
    def end_stage(self, plan: Plan, done: int, compiled_shapes: int, compile_seconds: float) -> None: ...  # noqa: D102
    def save(self, state: TrainState, pending: list[StepMetrics], seconds: float) -> None: ...  # noqa: D102


@dataclass
class Loop:
    """Takes a run through its stages.

    Attributes:
        state: Where the run stands. No other name holds a state, so that one which a step has replaced is let go of:
            on a CPU its moments are as large as two encoders.
        pending: Metrics of the steps since the last record.
    """

    run: Trained
    display: Display
    interruption: Interruption
    state: TrainState = None  # type: ignore[assignment]  # until the run has begun
    pending: list[StepMetrics] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config, self.layout = self.run.setup.config, self.run.setup.layout
        self.clock = Clock()
        self.since = time.monotonic()

    def train(self, resume: bool) -> None:
        """Takes the run to its end: under `resume` from the newest checkpoint that can be read, if there is one.

        Raises:
            Interrupted: A signal came; all that was done is saved.
        """
        self.state = self.run.restore() if resume else None  # type: ignore[assignment]
        if self.layout.leads:
            self.run.open_records(int(self.state.step) if self.state else 0)
        self.pending = self.run.pending
        progress = self.run.progress
        for plan in self.run.plans[progress.stage + progress.stage_done :]:
            if self.state is None:
                self.state = self.run.begin(plan)
            elif plan.number > self.run.progress.stage:
                self.state = self.run.go_on(plan, self.state)
            self.stage(plan)

    def stage(self, plan: Plan) -> None:
        """Runs one stage from where the run stands to its end."""
        config, compiling = self.config, compile_seconds()
        since = time.monotonic()
        if kept := self.run.open_stage(plan, self.state):
            self.display.say(f"features of {kept} examples kept ({time.monotonic() - since:.0f} s)")
        train_step = self.run.make_step(plan)
        done, total = int(self.state.step) - self.run.progress.stage_start, plan.batches.num_steps
        self.display.start(plan.stage.name, done, total)
        self.display.compiling(plan.stage.name)
        self.clock = Clock()
        begun, ended, recorded, shapes = done, False, False, 0
        ahead = self.run.gather(done)
        while not ended:
            self.state, step_metrics = train_step(self.state, ahead)
            self.clock.examples += self.run.num_examples(done)
            done += 1
            ended = done == total
            # The next batch is gathered while the device computes.
            ahead = {} if ended else self.run.gather(done)
            self.layout.keep_pace(step_metrics, before=self.pending[-1:])
            self.pending.append(step_metrics)
            if train_step.compiled_shapes > shapes:
                shapes = train_step.compiled_shapes
                return_freed_memory()
            self.display.step(done)

            at_record = ended or done % config.log_every_steps == 0
            recorded = recorded or at_record
            if at_record:
                self._record(plan, done)
            elif not recorded and (done - begun).bit_count() == 1:
                self._show_losses(plan, done, step_metrics)
            if config.affinity_every_steps and done % config.affinity_every_steps == 0 and done + 1 < total:
                for line in self.run.look(plan, train_step, self.state, done):
                    self.display.say(line)
                self.clock = Clock()
            if ended or done % (config.eval_every_steps or plan.batches.steps_per_epoch) == 0:
                for line in self.run.evaluate(plan, self.state, done):
                    self.display.say(line)
                return_freed_memory()
                self.clock = Clock()  # an evaluation is no training
                if 0 < config.patience <= self.run.progress.stale and not ended:
                    ended = True
                    self._record(plan, done)
                    none_better = f"no better score in {self.run.progress.stale} evaluations"
                    self.display.say(f"stopped early, after {done} of {total} steps: {none_better} (patience)")
                if ended:
                    seconds = compile_seconds() - compiling
                    self.run.end_stage(plan, done, train_step.compiled_shapes, seconds)
                self._save()
            elif config.save_every_steps and done % config.save_every_steps == 0:
                self._save()
            status = self._stop_status(at_record)
            if status is not None:
                self._save()
                raise Interrupted(status)

    def _record(self, plan: Plan, done: int) -> None:
        """Records the steps since the last record, and shows them."""
        if self.pending:
            record = self.run.record(plan, done, jax.device_get(self.pending), self.clock.rate)
            self.display.show(plan.stage.name, record, done)
        self.pending, self.clock = [], Clock()

    def _show_losses(self, plan: Plan, done: int, step: StepMetrics) -> None:
        """Shows a step's losses, for which the device is waited for: after 1, 2, 4, 8, … steps, until a record."""
        losses = {task: float(np.mean(loss)) for task, loss in jax.device_get(step.losses).items()}
        self.display.show_losses(plan.stage.name, losses, done)

    def _save(self) -> None:
        self.run.save(self.state, self.pending, time.monotonic() - self.since)

    def _stop_status(self, at_record: bool) -> int | None:
        """The exit status that a signal asks for; several processes ask each other, whenever they record."""
        status = self.interruption.status
        if jax.process_count() == 1:
            return status
        if not at_record:
            return None
        asked = agreed(-1 if status is None else status, np.max)
        return None if asked < 0 else int(asked)
