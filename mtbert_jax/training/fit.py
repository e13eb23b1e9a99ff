"""The loop: stages, steps, evaluation, checkpoints, early stop, interruption."""

import math
import shutil
import time
from dataclasses import dataclass, replace

import jax
import numpy as np

from mtbert_jax import trees
from mtbert_jax.checks import check_config
from mtbert_jax.config import Config, save_config
from mtbert_jax.data.batches import TrainBatches
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.host import peak_memory
from mtbert_jax.pretrained import load_pretrained, locate, save_description
from mtbert_jax.schema import difference, to_dict
from mtbert_jax.training.checkpoint import Checkpoints, Progress
from mtbert_jax.training.evaluate import evaluate_all, with_features
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.interrupt import Interrupted, Interruption
from mtbert_jax.training.records import Clock, Display, MetricsFile, Record, pack, scores_line, step_record, unpack
from mtbert_jax.training.setup import Plan, Setup
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import StepMetrics, make_eval_step, make_train_step
from mtbert_jax.types import InputError, Params

MAY_CHANGE = ("out", "data_dir", "cache_dir", "encoder", "revision", "log_every_steps", "eval_batch_size")
"""Fields that a resumed run may have otherwise: they move files or records, not numbers."""


def fit(
    config: Config,
    folder: RunFolder,
    resume: bool = False,
    overwrite: bool = False,
    display: Display | None = None,
) -> None:
    """Trains a run to its end, leaving checkpoints and records in `folder`.

    Args:
        config: The run.
        folder: New, or with `resume` the folder of the same run.
        resume: Go on from the newest checkpoint that can be read; without one, begin.
        overwrite: Delete the run that lies there, once it is sure that this one can start.
        display: Where progress is shown.

    Raises:
        InputError: Config, encoder, data or folder are not right.
        Interrupted: A signal came; all that was done is saved.
    """
    check_config(config)
    directory = locate(config.encoder, config.revision)
    setup = Setup.load(config, directory)
    train, dev = setup.datasets("train"), setup.datasets("dev")
    _check_datasets(config, train, dev)
    plans = setup.plans(train)
    params = setup.initial_params(load_pretrained(directory)[1])
    open_folder(folder, config, resume, overwrite)
    save_description(folder.encoder, setup.bert, setup.tokenizer)

    display = display or Display()
    _announce(display, folder, setup, train, dev, plans)
    with Checkpoints(folder.checkpoints, to_dict(config)) as checkpoints, Interruption() as interruption:
        state, progress = _restore(setup, plans, checkpoints) if resume else (None, Progress())
        metrics = MetricsFile(folder.metrics, step=int(state.step) if state else 0)
        loop = Loop(setup, train, dev, checkpoints, metrics, display, interruption, progress, unpack(progress.pending))
        try:
            for plan in plans[progress.stage + progress.stage_done :]:
                if state is None or plan.number > loop.progress.stage:
                    state = loop.begin(plan, state.params if state else params, int(state.step) if state else 0)
                state = loop.run(plan, state)
        finally:
            display.stop()
            metrics.close()


def _restore(setup: Setup, plans: list[Plan], checkpoints: Checkpoints) -> tuple[TrainState | None, Progress]:
    """The newest state that can be read, walking past damaged ones."""
    for step, progress in checkpoints.sound_steps():
        restored = checkpoints.try_restore(step, abstract_state(setup, plans[progress.stage]))
        if restored is not None:
            return restored.placed(), progress
    return None, Progress()


def abstract_state(setup: Setup, plan: Plan) -> TrainState:
    """Shapes and types of a stage's state: what a checkpoint is restored into."""
    key = jax.random.key(setup.config.seed)
    with_teacher = setup.has_teacher(plan.stage)
    return jax.eval_shape(
        lambda params: TrainState.create(params, plan.tx, key, plan.frozen, with_teacher=with_teacher),
        setup.abstract_params(),
    )


@dataclass
class Loop:
    """What the steps of all stages share."""

    setup: Setup
    train: dict[str, Dataset]
    dev: dict[str, Dataset]
    checkpoints: Checkpoints
    metrics: MetricsFile
    display: Display
    interruption: Interruption
    progress: Progress
    pending: list[StepMetrics]

    def __post_init__(self) -> None:
        self.eval_step = make_eval_step(self.setup.model)
        self.clock = Clock()
        self.earlier, self.since = self.progress, time.monotonic()

    def begin(self, plan: Plan, params: Params, step: int) -> TrainState:
        """The state at a stage's first step, with a fresh optimizer."""
        self.progress = Progress(stage=plan.number, stage_start=step, best=self.progress.best)
        key, with_teacher = jax.random.key(self.setup.config.seed), self.setup.has_teacher(plan.stage)
        return TrainState.create(params, plan.tx, key, plan.frozen, step, with_teacher).placed()

    def run(self, plan: Plan, state: TrainState) -> TrainState:
        """Runs one stage from where `state` stands to its end."""
        config, batches, dev = self.setup.config, plan.batches, self.dev
        if plan.stage.cache_features:
            batches, dev = self.cache_features(batches, state.params)
        regularizers = plan.regularizers(self.progress.stage_start)
        train_step = make_train_step(self.setup.model, self.setup.tasks, plan.tx, plan.frozen, regularizers)
        done, total = int(state.step) - self.progress.stage_start, batches.num_steps
        self.display.start(plan.stage.name, done, total)
        self.clock = Clock()
        ended = False
        ahead = batches[done]
        while not ended:
            batch = ahead
            state, step_metrics = train_step(state, batch)
            done += 1
            ended = done == total
            ahead = batch if ended else batches[done]  # gathered while the device computes
            self.pending.append(step_metrics)
            self.clock.examples += sum(int(np.count_nonzero(b.weights)) for b in batch.values())
            self.display.step(done)

            if ended or done % config.log_every_steps == 0:
                self.record(plan, done)
            if ended or done % (config.eval_every_steps or batches.steps_per_epoch) == 0:
                average = self.evaluate(plan, state, dev, done)
                if 0 < config.patience <= self.progress.stale and not ended:
                    ended = True
                    self.record(plan, done)
                if ended:
                    self.write("stage", plan, done, {"compiled_shapes": train_step.compiled_shapes})
                self.progress = replace(self.progress, stage_done=ended)
                self.save(state, average)
            elif config.save_every_steps and done % config.save_every_steps == 0:
                self.save(state)
            if self.interruption.status is not None:
                self.save(state)
                raise Interrupted(self.interruption.status)
        return state

    def record(self, plan: Plan, done: int) -> None:
        """Records the steps since the last record, and shows them."""
        if self.pending:
            record = step_record(self.pending, self.clock, float(plan.rate(done - 1)))
            self.write("train", plan, done, {"epoch": done / plan.batches.steps_per_epoch, **record})
            self.display.show(plan.stage.name, record, done)
        self.pending, self.clock = [], Clock()

    def cache_features(self, batches: TrainBatches, params: Params) -> tuple[TrainBatches, dict[str, Dataset]]:
        """Batches and dev splits of what the encoder says of every example, since it will not change."""
        since = time.monotonic()
        train, dev = with_features(self.setup, params, self.train, self.dev)
        examples = sum(len(data.ids) for data in (*train.values(), *dev.values()))
        self.display.say(f"features of {examples} examples kept ({time.monotonic() - since:.0f} s)")
        return batches.with_features({name: data.features for name, data in train.items()}), dev  # type: ignore[misc]

    def evaluate(self, plan: Plan, state: TrainState, dev: dict[str, Dataset], done: int) -> float | None:
        """Scores the dev splits, records them, and notes whether they are the best so far; returns their average."""
        if not dev:
            return None
        params = state.teacher_params() if self.setup.config.evaluate == "teacher" else state.params
        scores = evaluate_all(self.setup, self.eval_step, params, dev)[0]
        self.write("eval", plan, done, {"split": "dev", "scores": scores})
        average = scores["average"]
        better = not math.isnan(average) and (self.progress.best is None or average > self.progress.best)
        best = average if better else self.progress.best
        self.progress = replace(self.progress, best=best, stale=0 if better else self.progress.stale + 1)
        step = self.progress.stage_start + done
        self.display.say(f"dev at step {step}: {scores_line(scores)}{'  (best so far)' if better else ''}")
        self.clock = Clock()  # an evaluation is no training
        return average

    def write(self, kind: str, plan: Plan, done: int, record: Record) -> None:
        """One line of ``metrics.jsonl``; its step counts over all stages."""
        place = {"kind": kind, "stage": plan.stage.name, "step": self.progress.stage_start + done}
        self.metrics.write({**place, **record})

    def save(self, state: TrainState, average: float | None = None) -> None:
        """Saves a checkpoint, with the dev average where there is one."""
        pending = pack(self.pending)
        seconds = self.earlier.seconds + time.monotonic() - self.since
        peak = max(self.earlier.peak_memory, peak_memory())
        progress = replace(self.progress, pending=pending, seconds=seconds, peak_memory=peak)
        self.checkpoints.save(state, progress, average)


def open_folder(folder: RunFolder, config: Config, resume: bool, overwrite: bool = False) -> None:
    """Makes the run folder, or checks that it holds the run that is to go on, or empties it.

    Raises:
        InputError: A run lies there already, or, under `resume`, another one.
    """
    if overwrite:
        delete_run(folder)
    elif folder.config.is_file():
        if not resume:
            raise InputError(
                f"{folder.path} holds a run already; --resume goes on with it, --overwrite deletes it, "
                "--out names another folder"
            )
        changes = config_changes(folder.load_config(), config)
        if changes:
            raise InputError(
                f"{folder.path} holds a run with another config ({'; '.join(changes)}); --resume cannot go on"
            )
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        save_config(config, folder.config)
    except OSError as error:
        raise InputError(f"cannot write the run folder {folder.path}: {error.strerror or error}") from None


def config_changes(old: Config, new: Config) -> list[str]:
    """What makes two configs different runs, one line per field; empty where one may go on as the other."""
    before, after = (
        {name: value for name, value in to_dict(config).items() if name not in MAY_CHANGE} for config in (old, new)
    )
    return difference(before, after)


def delete_run(folder: RunFolder) -> None:
    """Deletes what a run has written, and nothing else that may lie there."""
    for path in (folder.checkpoints, folder.predictions, folder.encoder):
        shutil.rmtree(path, ignore_errors=True)
    for path in (folder.config, folder.metrics, folder.results):
        path.unlink(missing_ok=True)


def _check_datasets(config: Config, train: dict[str, Dataset], dev: dict[str, Dataset]) -> None:
    for task in config.tasks:
        if task.name not in train:
            raise InputError(f'task {task.name} has no train file; give its name as train = "..."')
        if not train[task.name].labelled or (task.name in dev and not dev[task.name].labelled):
            raise InputError(f"task {task.name}: training and dev files need labels")


def _announce(
    display: Display,
    folder: RunFolder,
    setup: Setup,
    train: dict[str, Dataset],
    dev: dict[str, Dataset],
    plans: list[Plan],
) -> None:
    params = trees.count(setup.abstract_params())
    device = jax.devices()[0]
    display.say(
        f"run folder {folder.path}; {params / 1e6:.1f}M parameters; {jax.device_count()} × {device.device_kind}"
    )
    for name, data in train.items():
        lengths = data.tokens.lengths
        counts = f"{len(data.ids)} train, {len(dev[name].ids) if name in dev else 0} dev"
        display.say(f"task {name}: {counts} examples; {lengths.mean():.0f} tokens on average, {lengths.max()} at most")
        epoch = plans[0].batches.tasks[name].num_examples
        if epoch > len(data.ids):
            display.say(f"task {name}: {epoch} examples in an epoch, since those of rare classes repeat")
        skipped = [*data.skipped, *(dev[name].skipped if name in dev else [])]
        if skipped:
            display.say(f"task {name}: {len(skipped)} bad rows left out, the first: {skipped[0]}")
    for plan in plans:
        display.say(f"stage {plan.stage.name}: {', '.join(plan.describe())}: {' → '.join(plan.stage.optimizer or ())}")
