"""A run in training: its stages, batches, checkpoints, records, scores, and where it stands."""

import math
from dataclasses import dataclass, field, replace

import jax
import numpy as np

from mtbert_jax.config.schema import to_dict
from mtbert_jax.data.batches import TrainBatches
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.errors import InputError, TrainingError
from mtbert_jax.machine import peak_memory
from mtbert_jax.tasks.scores import chosen_score, deciding
from mtbert_jax.training.affinity import Affinity
from mtbert_jax.training.checkpoint import Checkpoints, Progress
from mtbert_jax.training.display import scores_line
from mtbert_jax.training.evaluate import EvalStep, evaluate_all, make_eval_step, not_finite, with_features
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.logits import save_logits
from mtbert_jax.training.origin import Origin
from mtbert_jax.training.plan import Plan
from mtbert_jax.training.records import MetricsFile, Record, pack, read_metrics, step_record, unpack
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import TrainStep, make_train_step
from mtbert_jax.training.trackers import Tracker
from mtbert_jax.training.update import StepMetrics
from mtbert_jax.types import Batch, FeatureBatch, Params

Splits = dict[str, Dataset]
"""One split of every task, by task."""


@dataclass
class ActiveRun:
    """One run in training.

    Attributes:
        dev: Dev splits, empty where no task has one.
        eval_step: Program of the dev logits; runs that share a model share it.
        metrics: The records; None in a process that writes none.
        trackers: Where records go besides.
        progress: Where the run stands.
        earlier: Where it stood when it was opened or restored.
        batches: Batches of the present stage.
        scored: Dev splits as the present stage reads them.
        score: Dev score at the present step, which the next checkpoint is saved with; None where there is none.
        bad_steps: Number of steps in a row that each task has been left out of, as far as is recorded.
        trained: Tasks that have been in some step, as far as is recorded.
        origin: What the run begins with; None once it has begun, and for one that goes on from a checkpoint.
    """

    setup: Setup
    folder: RunFolder
    plans: list[Plan]
    train: Splits
    dev: Splits
    checkpoints: Checkpoints
    eval_step: EvalStep
    metrics: MetricsFile | None = None
    trackers: list[Tracker] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)
    earlier: Progress = field(default_factory=Progress)
    batches: TrainBatches = None  # type: ignore[assignment]
    scored: Splits = field(default_factory=dict)
    score: float | None = None
    bad_steps: dict[str, int] = field(default_factory=dict)
    trained: set[str] = field(default_factory=set)
    origin: Origin | None = None

    @classmethod
    def open(cls, setup: Setup, folder: RunFolder, plans: list[Plan], train: Splits, dev: Splits) -> "ActiveRun":
        """A run at its beginning."""
        checkpoints = Checkpoints(folder.checkpoints, to_dict(setup.config), folder.load_identity())
        return cls(
            setup, folder, plans, train, dev, checkpoints, make_eval_step(setup.model, setup.layout, setup.kinds)
        )

    def first_params(self) -> Params:
        """The parameters at the run's first step; what they are made from is let go of."""
        origin, self.origin = self.origin, None
        return self.setup.initial_params(origin.encoder, origin.heads)  # type: ignore[union-attr]  # called once

    def open_records(self, step: int) -> None:
        """Opens the records, less what lies after `step`."""
        self.metrics, config = MetricsFile(self.folder.metrics, step), self.setup.config
        self.trackers = [Tracker(name, self.folder, to_dict(config)) for name in config.writers]
        for record in read_metrics(self.folder.metrics) if self.trackers else ():
            for tracker in self.trackers:
                tracker.write(record)  # what was written before it was asked for, or while it failed

    def new_state(self, plan: Plan, params: Params) -> TrainState:
        """The state at a stage's first step, with a fresh optimizer; not laid out over devices yet."""
        return first_state(self.setup, plan, params, self.progress.stage_start)

    def begin(self, plan: Plan) -> TrainState:
        """The state at the run's first step."""
        self.enter(plan, 0)
        return self.setup.layout.place(self.new_state(plan, self.first_params()))

    def go_on(self, plan: Plan, state: TrainState) -> TrainState:
        """The state at a later stage's first step, with the parameters that the stage before has left."""
        self.enter(plan, int(state.step))
        return self.setup.layout.place(self.new_state(plan, state.params))

    def enter(self, plan: Plan, step: int) -> None:
        """Notes that a stage begins at a step of the run."""
        self.progress = Progress(stage=plan.number, stage_start=step, best=self.progress.best)

    def restore(self) -> TrainState | None:
        """The newest state that can be read; None where nothing is saved, `InputError` where nothing can be read."""
        for step in self.checkpoints.standings:
            state = self.try_restore(step)
            if state is not None:
                self.stand_at(step)
                return self.setup.layout.place(state)
        self.check_nothing_saved()
        return None

    def try_restore(self, step: int) -> TrainState | None:
        """The state at a step, or None where it is damaged."""
        plan = self.checkpoints.standings[step].stage_of(self.plans, self.folder.config)
        return self.checkpoints.try_restore(step, abstract_state(self.setup, plan))

    def stand_at(self, step: int) -> None:
        """Goes on from a saved step: what is newer is moved out of the way."""
        self.progress = self.earlier = self.checkpoints.standings[step]
        self.checkpoints.set_aside(step)

    def check_nothing_saved(self) -> None:
        """Refuses to begin a run of which nothing could be restored, and which has checkpoints."""
        if self.checkpoints.steps():
            raise InputError(
                f"{self.folder.checkpoints} holds no checkpoint that can be read; --overwrite begins the run again "
                "(one that another version of mtbert_jax saved can be evaluated, but not gone on with)"
            )

    @property
    def pending(self) -> list[StepMetrics]:
        """Metrics of the steps between the last record and the checkpoint that the run goes on from."""
        return unpack(self.progress.pending)

    def make_step(self, plan: Plan) -> TrainStep:
        """The program of a stage's steps."""
        return stage_step(self.setup, plan, self.progress.stage_start)

    def open_stage(self, plan: Plan, state: TrainState) -> int:
        """Gets a stage's batches and dev splits ready; returns the number of examples whose features are kept.

        Scored are the tasks of which this stage or an earlier one has a step.

        Where the stage says so they hold what the encoder says of every example, since it will not change.
        """
        trained = {name for one in self.plans[: plan.number + 1] for name in one.batches.trained}
        self.batches, self.scored = plan.batches, {name: self.dev[name] for name in self.dev if name in trained}
        if not plan.stage.cache_features:
            return 0
        own = [{name: split[name] for name in split if name in plan.stage.tasks} for split in (self.train, self.dev)]
        train, dev = with_features(self.setup, state.params, *own)
        self.scored = {name: dev.get(name, data) for name, data in self.scored.items()}
        self.batches = plan.batches.with_features({name: data.features for name, data in train.items()})  # type: ignore[misc]
        return sum(len(data.ids) for data in (*train.values(), *dev.values()))

    def gather(self, place: int) -> dict[str, Batch | FeatureBatch]:
        """The batches of a stage's step number `place`, by task, laid out over the devices."""
        layout, tasks = self.setup.layout, self.batches.tasks
        return {
            name: layout.batch(lambda rows, stream=tasks[name], index=index: stream.part(index, rows), size)
            for name, index, size in ((n, i, tasks[n].num_rows) for n, i in self.batches.indices(place).items())
        }

    def num_examples(self, place: int) -> int:
        """Number of examples in the batches of a stage's step number `place`."""
        return sum(len(self.batches.tasks[name].rows(index)[0]) for name, index in self.batches.indices(place).items())

    def record(self, plan: Plan, done: int, steps: list[StepMetrics], rate: float) -> Record:
        """Writes the record of the steps since the last one.

        Raises:
            TrainingError: A task was not finite in too many steps in a row.
        """
        steps = jax.device_get(steps)
        self._check_finite(steps, done)
        record = step_record(steps, rate, None if plan.rate is None else float(plan.rate(done - 1)))
        self.write("train", plan, done, {"epoch": done / plan.batches.steps_per_epoch, **record})
        return record

    def _check_finite(self, steps: list[StepMetrics], done: int) -> None:
        limit = self.setup.config.max_bad_steps
        for place, step in enumerate(steps, start=done - len(steps)):
            for task, finite in step.finite.items():
                self.bad_steps[task] = 0 if finite else self.bad_steps.get(task, 0) + 1
                self.trained |= {task} if finite else set()
                if self.bad_steps[task] == limit > 0:
                    rows, _ = self.batches.tasks[task].rows(self.batches.indices(place)[task])
                    ids = ", ".join(self.train[task].ids[row] for row in rows)
                    number = self.progress.stage_start + place + 1
                    at_once = task not in self.trained and self.earlier == Progress()
                    remedy = "look at its labels and its loss_weight" if at_once else "a lower lr may help"
                    since = ", from its first step on" if at_once else ""
                    raise TrainingError(
                        f"task {task}: its loss or gradient was not finite in {limit} steps in a row (max_bad_steps)"
                        f"{since}, the last of them step {number}, a batch of the examples {ids}; {remedy}. "
                        "What was saved before stays"
                    )

    def evaluate(self, plan: Plan, state: TrainState, done: int) -> list[str]:
        """Scores the dev splits, records that, and keeps the best logits; returns what to say, line by line."""
        config, self.score = self.setup.config, None
        if not self.scored:
            return []
        params = state.teacher_params() if config.evaluate == "teacher" else state.params
        scores, logits = evaluate_all(self.setup, self.eval_step, params, self.scored)
        self.write("eval", plan, done, {"split": "dev", "scores": scores})
        wrong = not_finite("dev", self.scored, logits)
        tasks = deciding(config.tasks, labels_of(self.dev), config.checkpoint_metric)
        untrained = [task.name for task in tasks if task.name not in self.scored]
        found = math.nan if untrained else chosen_score(scores, tasks, config.checkpoint_metric)
        self.score = found if np.isfinite(found) and not wrong else None
        better = self.score is not None and (self.progress.best is None or self.score > self.progress.best)
        step = self.progress.stage_start + done
        if better:
            self.progress = replace(self.progress, best=self.score)
            if self.setup.layout.leads:
                save_logits(self.folder, step, logits)
        self.progress = replace(self.progress, stale=0 if better else self.progress.stale + (not untrained))
        mark = "  (best so far)" if better else ""
        if self.score is None:
            why = "logits are not finite" if wrong else "its score is undefined"
            why = f"{', '.join(untrained)} not trained yet" if untrained else why
            mark = f"  (never the best: {why})"
        told = scores_line(scores, config.tasks, config.checkpoint_metric)
        return [f"dev at step {step}: {told}{mark}", *wrong.values()]

    def look(self, plan: Plan, step: TrainStep, state: TrainState, done: int) -> list[str]:
        """Records what a step on each task alone would do to all losses, by the batches of the next two steps."""
        if not plan.stage.compares_tasks:
            return []
        affinity = Affinity(self.setup, plan, self.progress.stage_start, step)
        effects = affinity.effects(state, self.gather(done), self.gather(done + 1))
        self.write("affinity", plan, done, {"effect": effects})
        told = (f"{one} → {other} {share:+.2%}" for one, of in effects.items() for other, share in of.items())
        return [f"affinity at step {self.progress.stage_start + done}: {', '.join(told)}"]

    def end_stage(self, plan: Plan, done: int, compiled_shapes: int, compile_seconds: float) -> None:
        """Notes that a stage has ended, and records what it compiled."""
        self.write("stage", plan, done, {"compiled_shapes": compiled_shapes, "compile_seconds": compile_seconds})
        self.progress = replace(self.progress, stage_done=True)

    def write(self, kind: str, plan: Plan, done: int, record: Record) -> None:
        """One line of ``metrics.jsonl``; its step counts over all stages."""
        place = {"kind": kind, "stage": plan.stage.name, "step": self.progress.stage_start + done}
        if self.metrics:
            self.metrics.write({**place, **record})
            for tracker in self.trackers:
                tracker.write({**place, **record})

    def save(self, state: TrainState, pending: list[StepMetrics], seconds: float) -> None:
        """Saves a checkpoint, with the dev score of this step, `seconds` after the run was opened or restored."""
        seconds, peak = self.earlier.seconds + seconds, max(self.earlier.peak_memory, peak_memory())
        steps = pack(jax.device_get(pending))
        progress = replace(self.progress, pending=steps, seconds=seconds, peak_memory=peak, average=self.score)
        self.checkpoints.save(state, progress)
        self.score = None

    def close(self) -> None:
        """Waits until everything is on disk."""
        for file in (self.metrics, *self.trackers, self.checkpoints):
            if file:
                file.close()


def stage_step(setup: Setup, plan: Plan, start: int) -> TrainStep:
    """The program of a stage's steps, if the stage begins at step `start`."""
    parts = setup.config.micro_batches
    return make_train_step(setup.model, setup.tasks, plan.tx, plan.spec(start), setup.layout, parts)


def first_state(setup: Setup, plan: Plan, params: Params, step: int) -> TrainState:
    """The state at a stage's first step."""
    key, with_teacher = jax.random.key(setup.config.seed), setup.has_teacher(plan.stage)
    return TrainState.create(params, plan.tx, key, plan.frozen, step, with_teacher)


def abstract_state(setup: Setup, plan: Plan) -> TrainState:
    """Shapes, types and places of a stage's state: what a checkpoint is restored into."""
    shapes = jax.eval_shape(lambda params: first_state(setup, plan, params, 0), setup.abstract_params())
    return setup.layout.described(shapes)


def labels_of(datasets: Splits) -> dict[str, np.ndarray]:
    """The labels of the datasets that have them, by task."""
    return {name: data.labels for name, data in datasets.items() if data.labelled}
