"""One run's part in training: its batches, checkpoints, records and standing; runs of several seeds are replicas.

A replica's folder holds what the run would have left alone, and can be resumed, scored and tabled as such.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import jax
import numpy as np

from mtbert_jax.config import Config
from mtbert_jax.config.schema import to_dict
from mtbert_jax.data.batches import TaskBatches, TrainBatches
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.errors import InputError
from mtbert_jax.machine import peak_memory
from mtbert_jax.parallel import Layout
from mtbert_jax.training.checkpoint import Checkpoints, Progress
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.records import MetricsFile, Record, read_metrics
from mtbert_jax.training.setup import Plan, Setup
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.trackers import Tracker
from mtbert_jax.types import Batch, FeatureBatch, Params


def seeds_apart(config: Config, folder: RunFolder) -> list[tuple[Config, RunFolder]]:
    """The runs that `config` stands for: itself, or one per seed, in folders of their own."""
    if not config.seeds:
        return [(config, folder)]
    folders = {seed: RunFolder(folder.path / f"seed{seed}") for seed in config.seeds}
    return [(replace(config, seed=seed, seeds=(), out=str(own.path)), own) for seed, own in folders.items()]


@dataclass
class Replica:
    """One run among those that train together.

    Attributes:
        setup: Its config and what belongs to it.
        folder: Its folder.
        plans: Its stages.
        checkpoints: Its checkpoints.
        metrics: Its records; None in a process that writes none.
        writers: Where they go besides.
        progress: Where it stands.
        earlier: Where it stood when it was opened or restored.
        batches: The present stage's batches.
        dev: The dev splits, as the present stage reads them.
    """

    setup: Setup
    folder: RunFolder
    plans: list[Plan]
    checkpoints: Checkpoints
    metrics: MetricsFile | None = None
    writers: list[Tracker] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)
    earlier: Progress = field(default_factory=Progress)
    batches: TrainBatches = None  # type: ignore[assignment]
    dev: dict[str, Dataset] = field(default_factory=dict)

    @classmethod
    def open(cls, setup: Setup, folder: RunFolder, plans: list[Plan]) -> "Replica":
        """A replica at its beginning."""
        return cls(setup, folder, plans, Checkpoints(folder.checkpoints, to_dict(setup.config)))

    def open_records(self, step: int) -> None:
        """Opens the records, less what lies after `step`."""
        self.metrics, config = MetricsFile(self.folder.metrics, step), self.setup.config
        self.writers = [Tracker(name, self.folder, to_dict(config)) for name in config.writers]
        for record in read_metrics(self.folder.metrics) if self.writers else ():
            self._pass_on(record)  # what was written before a writer was asked for, or while it failed

    @property
    def standings(self) -> dict[int, Progress]:
        """Where it stood at each step that was saved when it was opened, newest first."""
        return self.checkpoints.standings

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return f"seed {self.setup.config.seed}"

    def begin(self, plan: Plan, params: Params, step: int) -> TrainState:
        """The state at a stage's first step, with a fresh optimizer."""
        self.progress = Progress(stage=plan.number, stage_start=step, best=self.progress.best)
        return first_state(self.setup, plan, params, step)

    def note_scores(self, average: float) -> bool:
        """Takes note of a dev average; whether it is the best so far."""
        better = not math.isnan(average) and (self.progress.best is None or average > self.progress.best)
        best = average if better else self.progress.best
        self.progress = replace(self.progress, best=best, stale=0 if better else self.progress.stale + 1)
        return better

    def write(self, kind: str, plan: Plan, done: int, record: Record) -> None:
        """One line of ``metrics.jsonl``; its step counts over all stages."""
        place = {"kind": kind, "stage": plan.stage.name, "step": self.progress.stage_start + done}
        if self.metrics:
            self.metrics.write({**place, **record})
            self._pass_on({**place, **record})

    def _pass_on(self, record: Record) -> None:
        for writer in self.writers:
            writer.write(record)

    def save(self, state: TrainState, average: float | None, pending: tuple[Record, ...], seconds: float) -> None:
        """Saves a checkpoint, with the dev average where there is one.

        Args:
            state: This replica's.
            average: The dev average at this step.
            pending: Steps since the last record, packed.
            seconds: Wall time since the replica was opened or restored.
        """
        seconds, peak = self.earlier.seconds + seconds, max(self.earlier.peak_memory, peak_memory())
        progress = replace(self.progress, pending=pending, seconds=seconds, peak_memory=peak, average=average)
        self.checkpoints.save(state, progress)

    def close(self) -> None:
        """Waits until everything is on disk."""
        if self.metrics:
            self.metrics.close()
        for writer in self.writers:
            writer.close()
        self.checkpoints.close()


def groups(replicas: Sequence[Replica], at_once: int, resume: bool) -> list[list[Replica]]:
    """The replicas that train together: so many at once, and under `resume` such as stand at the same step."""
    steps = [next(iter(replica.standings), None) if resume else None for replica in replicas]
    found = []
    for step in dict.fromkeys(steps):
        alike = [replica for replica, own in zip(replicas, steps, strict=True) if own == step]
        found += [alike[start : start + at_once] for start in range(0, len(alike), at_once)]
    return found


def first_state(setup: Setup, plan: Plan, params: Params, step: int) -> TrainState:
    """The state at a stage's first step."""
    key, with_teacher = jax.random.key(setup.config.seed), setup.has_teacher(plan.stage)
    return TrainState.create(params, plan.tx, key, plan.frozen, step, with_teacher)


def abstract_state(setup: Setup, plan: Plan) -> TrainState:
    """Shapes, types and places of a stage's state: what a checkpoint is restored into."""
    shapes = jax.eval_shape(lambda params: first_state(setup, plan, params, 0), setup.abstract_params())
    return setup.layout.described(shapes)


def restore(replicas: Sequence[Replica], layout: Layout) -> TrainState | None:
    """The newest state that all replicas have and that can be read, walking past damaged ones; sets their progress.

    Raises:
        InputError: There are checkpoints, but none can be read.
    """
    for step in sorted(set.intersection(*(set(replica.standings) for replica in replicas)), reverse=True):
        states = []
        for replica in replicas:
            target = abstract_state(replica.setup, replica.plans[replica.standings[step].stage])
            restored = replica.checkpoints.try_restore(step, target)
            if restored is None:
                break
            states.append(restored)
        else:
            for replica in replicas:
                replica.progress = replica.earlier = replica.standings[step]
                replica.checkpoints.set_aside(step)
            return TrainState.together(states, layout)
    for replica in replicas:
        if replica.checkpoints.steps():
            raise InputError(
                f"{replica.folder.checkpoints} holds no checkpoint that can be read; --overwrite begins the run again"
            )
    return None


def gather(replicas: Sequence[Replica], layout: Layout, step: int) -> dict[str, Batch | FeatureBatch]:
    """The batches of a stage's step `step`, by task; with a leading `replica` axis where the layout is wide."""
    batches = {}
    for name, index in replicas[0].batches.indices(step).items():
        streams = [replica.batches.tasks[name] for replica in replicas]
        size = streams[0].num_rows
        if layout.wide:
            length = max(stream.rows(index)[1] for stream in streams)
            batches[name] = layout.batch(partial(_stacked, streams, index, length), len(streams), size)
        else:
            batches[name] = layout.batch(partial(streams[0].part, index), size)
    return batches


def _stacked(streams: Sequence[TaskBatches], index: int, length: int, some: slice, rows: slice) -> Batch | FeatureBatch:
    own = [stream.part(index, rows, length) for stream in streams[some]]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *own)


def num_examples(replicas: Sequence[Replica], step: int) -> int:
    """Examples in the batches of a step, all replicas together."""
    return sum(
        len(replica.batches.tasks[name].rows(index)[0])
        for replica in replicas
        for name, index in replica.batches.indices(step).items()
    )
