"""The loop: stages, steps, evaluation, checkpoints, early stop, interruption."""

import math
import shutil
from dataclasses import dataclass, replace
from typing import Any

import jax

from mtbert_jax import trees
from mtbert_jax.checks import check_config
from mtbert_jax.config import Config, StageConfig, save_config
from mtbert_jax.data.batches import TrainBatches
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.pretrained import load_pretrained, locate, save_description
from mtbert_jax.schema import difference, to_dict
from mtbert_jax.training.checkpoint import Checkpoints, Progress
from mtbert_jax.training.evaluate import evaluate_all
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.interrupt import Interrupted, Interruption
from mtbert_jax.training.records import Clock, Display, MetricsFile, pack, scores_line, step_record, unpack
from mtbert_jax.training.setup import Setup
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
    stages = [(stage, setup.batches(number, stage, train)) for number, stage in enumerate(config.resolved_stages())]
    chains = [setup.chain(stage, batches) for stage, batches in stages]  # what is wrong in a late stage shows now
    params = setup.initial_params(load_pretrained(directory)[1])
    open_folder(folder, config, resume, overwrite)
    save_description(folder.encoder, setup.bert, setup.tokenizer)

    display = display or Display()
    _announce(display, folder, setup, train, dev, stages)
    with Checkpoints(folder.checkpoints, to_dict(config)) as checkpoints, Interruption() as interruption:
        abstract = [_abstract_state(setup, stage, tx) for (stage, _), (tx, _) in zip(stages, chains, strict=True)]
        state, progress = _restore(checkpoints, abstract) if resume else (None, Progress())
        metrics = MetricsFile(folder.metrics, step=int(state.step) if state else 0)
        loop = Loop(setup, dev, checkpoints, metrics, display, interruption, progress, unpack(progress.pending))
        params = state.params if state else params
        try:
            for number, ((stage, batches), (tx, rate)) in enumerate(zip(stages, chains, strict=True)):
                if number < loop.progress.stage or (number == loop.progress.stage and loop.progress.stage_done):
                    continue
                if state is None or number > loop.progress.stage:
                    state = loop.begin(number, stage, tx, params, state)
                state = loop.run(stage, batches, tx, rate, state)
                params = state.params
        finally:
            display.stop()
            metrics.close()


def _abstract_state(setup: Setup, stage: StageConfig, tx: Any) -> TrainState:
    key = jax.random.key(setup.config.seed)
    return jax.eval_shape(
        lambda params: TrainState.create(params, tx, key, stage.freeze or ()), setup.abstract_params()
    )


def _restore(checkpoints: Checkpoints, targets: list[TrainState]) -> tuple[TrainState | None, Progress]:
    """The newest state that can be read, walking past damaged ones."""
    for step, progress in checkpoints.sound_steps():
        restored = checkpoints.try_restore(step, targets[progress.stage])
        if restored is not None:
            return restored, progress
    return None, Progress()


@dataclass
class Loop:
    """What the steps of all stages share."""

    setup: Setup
    dev: dict[str, Dataset]
    checkpoints: Checkpoints
    metrics: MetricsFile
    display: Display
    interruption: Interruption
    progress: Progress
    pending: list[StepMetrics]

    def __post_init__(self) -> None:
        self.eval_step = make_eval_step(self.setup.model)

    def begin(self, number: int, stage: StageConfig, tx: Any, params: Params, state: TrainState | None) -> TrainState:
        """A state for stage `number`, with a fresh optimizer."""
        step = int(state.step) if state is not None else 0
        self.progress = Progress(stage=number, stage_start=step, best=self.progress.best)
        return TrainState.create(params, tx, jax.random.key(self.setup.config.seed), stage.freeze or (), step)

    def run(self, stage: StageConfig, batches: TrainBatches, tx: Any, rate: Any, state: TrainState) -> TrainState:
        """Runs one stage from where `state` stands to its end."""
        config, start = self.setup.config, self.progress.stage_start
        train_step = make_train_step(self.setup.model, self.setup.tasks, tx, stage.freeze or ())
        done, total = int(state.step) - start, batches.num_steps
        self.display.start(stage.name, done, total)
        clock = Clock()
        ahead = batches[done]
        while done < total:
            batch = ahead
            state, step_metrics = train_step(state, batch)
            done += 1
            if done < total:
                ahead = batches[done]  # gathered while the device computes
            self.pending.append(step_metrics)
            clock.examples += sum(float(b.weights.sum()) for b in batch.values())
            self.display.step(done)

            last = done == total
            if last or done % config.log_every_steps == 0:
                record = step_record(self.pending, clock, float(rate(done - 1)))
                place = {
                    "kind": "train",
                    "stage": stage.name,
                    "step": start + done,
                    "epoch": done / batches.steps_per_epoch,
                }
                self.metrics.write({**place, **record})
                self.display.show(stage.name, record, done)
                self.pending, clock = [], Clock()
            if last or done % (config.eval_every_steps or batches.steps_per_epoch) == 0:
                average = self.evaluate(state, stage, start + done)
                last = last or 0 < config.patience <= self.progress.stale
                if last:
                    shapes = {"compiled_shapes": train_step.compiled_shapes}
                    self.metrics.write({"kind": "stage", "stage": stage.name, "step": start + done, **shapes})
                self.progress = replace(self.progress, stage_done=last)
                self.save(state, average)
                clock = Clock()
            elif config.save_every_steps and done % config.save_every_steps == 0:
                self.save(state)
            if self.interruption.status is not None:
                self.save(state)
                raise Interrupted(self.interruption.status)
            if last:
                break
        return state

    def save(self, state: TrainState, average: float | None = None) -> None:
        """Saves a checkpoint, with the dev average where there is one."""
        self.checkpoints.save(state, replace(self.progress, pending=pack(self.pending)), average)

    def evaluate(self, state: TrainState, stage: StageConfig, step: int) -> float | None:
        """Scores the dev splits, records them, and notes whether they are the best so far; returns their average."""
        if not self.dev:
            return None
        scores = evaluate_all(self.setup, self.eval_step, state.params, self.dev)[0]
        self.metrics.write({"kind": "eval", "split": "dev", "stage": stage.name, "step": step, "scores": scores})
        average = scores["average"]
        better = not math.isnan(average) and (self.progress.best is None or average > self.progress.best)
        best = average if better else self.progress.best
        self.progress = replace(self.progress, best=best, stale=0 if better else self.progress.stale + 1)
        self.display.say(f"dev at step {step}: {scores_line(scores)}{'  (best so far)' if better else ''}")
        return average


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
        old, new = to_dict(folder.load_config()), to_dict(config)
        for name in MAY_CHANGE:
            old.pop(name, None), new.pop(name, None)
        changes = difference(old, new)
        if changes:
            raise InputError(
                f"{folder.path} holds a run with another config ({'; '.join(changes)}); --resume cannot go on"
            )
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        save_config(config, folder.config)
    except OSError as error:
        raise InputError(f"cannot write the run folder {folder.path}: {error.strerror or error}") from None


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
    stages: list[tuple[StageConfig, TrainBatches]],
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
        skipped = [*data.skipped, *(dev[name].skipped if name in dev else [])]
        if skipped:
            display.say(f"task {name}: {len(skipped)} bad rows left out, the first: {skipped[0]}")
    for stage, batches in stages:
        frozen = f", {', '.join(stage.freeze)} frozen" if stage.freeze else ""
        display.say(
            f"stage {stage.name}: {batches.num_steps} steps, {stage.order}{frozen}: {' → '.join(stage.optimizer or ())}"
        )
