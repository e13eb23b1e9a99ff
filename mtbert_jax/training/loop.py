"""The loop over steps: batches, records, evaluation, checkpoints, early stop, interruption."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

import jax
import numpy as np

from mtbert_jax.data.dataset import Dataset
from mtbert_jax.errors import TrainingError
from mtbert_jax.machine import compile_seconds
from mtbert_jax.parallel import Layout, agreed
from mtbert_jax.training.display import Display, scores_line
from mtbert_jax.training.evaluate import evaluate_all, make_eval_step, with_features
from mtbert_jax.training.interrupt import Interrupted, Interruption
from mtbert_jax.training.records import Clock, mean_record, pack, step_record, unpack
from mtbert_jax.training.replica import Replica, gather, num_examples
from mtbert_jax.training.setup import Plan
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import StepMetrics, make_train_step
from mtbert_jax.types import Params


@dataclass
class Loop:
    """What the steps of all stages share.

    Attributes:
        replicas: The runs that train together; one, mostly.
        layout: Where their arrays lie; wide if there may be several.
        train: Training splits, by task.
        dev: Dev splits, by task.
        display: Where progress is shown.
        interruption: Signals.
        pending: Metrics of the steps since the last record, with a leading `replica` axis if the layout is wide.
        bad: Steps in a row that a task of a replica has been left out of, as far as is recorded.
    """

    replicas: Sequence[Replica]
    layout: Layout
    train: dict[str, Dataset]
    dev: dict[str, Dataset]
    display: Display
    interruption: Interruption
    pending: list[StepMetrics] = field(default_factory=list)
    bad: dict[tuple[int, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.setup = self.replicas[0].setup
        self.eval_step = make_eval_step(self.setup.model, self.setup.layout)
        self.clock = Clock()
        self.since = time.monotonic()
        own = [unpack(replica.progress.pending) for replica in self.replicas]
        self.pending = [self._joined(steps) for steps in zip(*own, strict=True)]

    def begin(self, plan: Plan, params: Sequence[Params], step: int) -> TrainState:
        """The state at a stage's first step, with a fresh optimizer, from the parameters of each replica."""
        states = [replica.begin(plan, own, step) for replica, own in zip(self.replicas, params, strict=True)]
        return TrainState.together(states, self.layout)

    def run(self, plan: Plan, state: TrainState) -> TrainState:
        """Runs one stage from where `state` stands to its end."""
        config, start, compiling = self.setup.config, self.replicas[0].progress.stage_start, compile_seconds()
        self._open_stage(plan, state)
        train_step = make_train_step(
            self.setup.model,
            self.setup.tasks,
            plan.tx,
            plan.frozen,
            plan.regularizers(start),
            self.layout,
            config.micro_batches,
        )
        done, total = int(state.step) - start, plan.batches.num_steps
        self.display.start(plan.stage.name, done, total)
        self.clock = Clock()
        ended = False
        ahead = gather(self.replicas, self.layout, done)
        while not ended:
            state, step_metrics = train_step(state, ahead)
            self.clock.examples += num_examples(self.replicas, done)
            done += 1
            ended = done == total
            # The next batch is gathered while the device computes.
            ahead = {} if ended else gather(self.replicas, self.layout, done)
            self.layout.keep_pace(step_metrics)
            self.pending.append(step_metrics)
            self.display.step(done)

            at_record = ended or done % config.log_every_steps == 0
            if at_record:
                self.record(plan, done)
            if ended or done % (config.eval_every_steps or plan.batches.steps_per_epoch) == 0:
                averages = self.evaluate(plan, state, done)
                if 0 < config.patience <= self.replicas[0].progress.stale and not ended:
                    ended = True
                    self.record(plan, done)
                for replica in self.replicas:
                    if ended:
                        shapes, seconds = train_step.compiled_shapes, compile_seconds() - compiling
                        replica.write("stage", plan, done, {"compiled_shapes": shapes, "compile_seconds": seconds})
                    replica.progress = replace(replica.progress, stage_done=ended)
                self.save(state, averages)
            elif config.save_every_steps and done % config.save_every_steps == 0:
                self.save(state)
            status = self._stop_status(at_record)
            if status is not None:
                self.save(state)
                raise Interrupted(status)
        return state

    def _open_stage(self, plan: Plan, state: TrainState) -> None:
        """Gives every replica the stage's batches and dev splits.

        Where the stage says so, they hold what the encoder says of every example, since it will not change.
        """
        for number, replica in enumerate(self.replicas):
            replica.batches, replica.dev = replica.plans[plan.number].batches, self.dev
            if plan.stage.cache_features:
                since = time.monotonic()
                params = state.of(number, self.layout).params
                train, replica.dev = with_features(replica.setup, params, self.train, self.dev)
                features = {name: data.features for name, data in train.items()}
                replica.batches = replica.batches.with_features(features)  # type: ignore[arg-type]
                examples = sum(len(data.ids) for data in (*train.values(), *replica.dev.values()))
                self.say(number, f"features of {examples} examples kept ({time.monotonic() - since:.0f} s)")

    def record(self, plan: Plan, done: int) -> None:
        """Records the steps since the last record, and shows them."""
        if self.pending:
            own = self._apart(self.pending)
            for number, steps in enumerate(own):
                self._check_finite(number, steps, done)
            epoch = {"epoch": done / plan.batches.steps_per_epoch}
            rate, lr = self.clock.rate / len(own), float(plan.rate(done - 1))
            records = [step_record(steps, rate, lr) for steps in own]
            for replica, record in zip(self.replicas, records, strict=True):
                replica.write("train", plan, done, epoch | record)
            self.display.show(plan.stage.name, mean_record(records), done)
        self.pending, self.clock = [], Clock()

    def _check_finite(self, number: int, steps: list[StepMetrics], done: int) -> None:
        """Counts the steps in a row that each task has been left out of.

        Raises:
            TrainingError: They are too many.
        """
        replica, limit = self.replicas[number], self.setup.config.max_bad_steps
        for place, step in enumerate(steps, start=done - len(steps)):
            for task, finite in step.finite.items():
                bad = 0 if finite else self.bad.get((number, task), 0) + 1
                self.bad[number, task] = bad
                if bad == limit > 0:
                    rows, _ = replica.batches.tasks[task].rows(replica.batches.indices(place)[task])
                    ids = ", ".join(self.train[task].ids[row] for row in rows)
                    step_number = replica.progress.stage_start + place + 1
                    raise TrainingError(
                        f"task {task}: its loss or gradient was not finite in {limit} steps in a row (max_bad_steps), "
                        f"the last of them step {step_number}, a batch of the examples {ids}; a lower lr may help. "
                        "What was saved before stays"
                    )

    def evaluate(self, plan: Plan, state: TrainState, done: int) -> list[float | None]:
        """Scores the dev splits, records them, and notes whether they are the best so far; each replica's average."""
        averages: list[float | None] = []
        for number, replica in enumerate(self.replicas):
            if not replica.dev:
                averages.append(None)
                continue
            own = state.of(number, self.layout)
            params = own.teacher_params() if self.setup.config.evaluate == "teacher" else own.params
            scores = evaluate_all(self.setup, self.eval_step, params, replica.dev)[0]
            replica.write("eval", plan, done, {"split": "dev", "scores": scores})
            averages.append(scores["average"])
            best = "  (best so far)" if replica.note_scores(scores["average"]) else ""
            step = replica.progress.stage_start + done
            self.say(number, f"dev at step {step}: {scores_line(scores)}{best}")
        self.clock = Clock()  # an evaluation is no training
        return averages

    def save(self, state: TrainState, averages: Sequence[float | None] | None = None) -> None:
        """Saves a checkpoint of each replica, with its dev average where there is one."""
        seconds, own = time.monotonic() - self.since, self._apart(self.pending)
        for number, replica in enumerate(self.replicas):
            average = averages[number] if averages else None
            replica.save(state.of(number, self.layout), average, pack(own[number]), seconds)

    def say(self, number: int, text: str) -> None:
        """One line about a replica."""
        self.display.say(f"{self.replicas[number].name}: {text}" if self.layout.wide else text)

    def _apart(self, steps: list[StepMetrics]) -> list[list[StepMetrics]]:
        """The metrics of each replica, on the host; here the device is waited for."""
        steps = jax.device_get(steps)
        if not self.layout.wide:
            return [steps]
        return [[jax.tree.map(itemgetter(n), step) for step in steps] for n in range(len(self.replicas))]

    def _joined(self, steps: Sequence[StepMetrics]) -> StepMetrics:
        return jax.tree.map(lambda *leaves: np.stack(leaves), *steps) if self.layout.wide else steps[0]

    def _stop_status(self, at_record: bool) -> int | None:
        """The exit status that a signal asks for; several processes ask each other, whenever they record."""
        status = self.interruption.status
        if jax.process_count() == 1:
            return status
        if not at_record:
            return None
        asked = agreed(-1 if status is None else status, np.max)
        return None if asked < 0 else int(asked)
