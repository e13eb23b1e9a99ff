"""Runs of several seeds that train in one program: the only file that knows of more than one run.

Every run keeps the folder that it would have alone: it can be resumed, scored and tabled as such. States and batches
carry a leading `replica` axis; the step is the single run's, vmapped over that axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mtbert_jax.config import Config, load_config
from mtbert_jax.data.batches import TaskBatches
from mtbert_jax.errors import InputError
from mtbert_jax.files import is_folder
from mtbert_jax.machine import free_memory
from mtbert_jax.parallel import REPLICA, Layout, agreed
from mtbert_jax.training.active import ActiveRun, stage_step
from mtbert_jax.training.checkpoint import Progress
from mtbert_jax.training.display import Display
from mtbert_jax.training.existing import config_changes
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.loop import Trained
from mtbert_jax.training.memory import estimate
from mtbert_jax.training.plan import Plan
from mtbert_jax.training.records import Record, mean_record
from mtbert_jax.training.source import seed_folders
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import TrainStep
from mtbert_jax.training.update import StepMetrics
from mtbert_jax.types import Batch, FeatureBatch, Params

SHARE_OF_MEMORY = 0.8
"""Share of the free memory that seeds which train together may take, by estimate."""


def seeds_apart(config: Config, folder: RunFolder) -> list[tuple[Config, RunFolder]]:
    """The runs that `config` stands for: itself, or one per seed, in folders of their own."""
    if not config.seeds:
        return [(config, folder)]
    folders = {seed: RunFolder(folder.path / f"seed{seed}") for seed in config.seeds}
    return [(replace(config, seed=seed, seeds=(), out=str(own.path)), own) for seed, own in folders.items()]


def load_run_config(path: Path) -> Config:
    """The config in a file; or of the run, or of several seeds' runs together, in a folder, to be run there again."""
    if not is_folder(path):
        return load_config(path)
    seeds = seed_folders(path)
    if not seeds:
        return replace(RunFolder(path).load_config(), out=str(path))
    first, *others = (own.load_config() for own in seeds.values())
    for seed, own in zip(list(seeds)[1:], others, strict=True):
        if changes := config_changes(first, replace(own, seed=first.seed)):
            raise InputError(
                f"{path} holds runs of several configs (seed{seed}: {'; '.join(changes)}); name one of their folders"
            )
    return replace(first, seed=0, seeds=tuple(seeds), out=str(path))


def groups(runs: Sequence[ActiveRun], at_once: int, resume: bool) -> list[list[ActiveRun]]:
    """The runs that train together: so many at once, and under `resume` such as stand at the same step."""
    steps = [next(iter(run.checkpoints.standings), None) if resume else None for run in runs]
    found = []
    for step in dict.fromkeys(steps):
        alike = [run for run, own in zip(runs, steps, strict=True) if own == step]
        found += [alike[start : start + at_once] for start in range(0, len(alike), at_once)]
    return found


def fitting(run: ActiveRun, count: int, layout: Layout) -> tuple[int, str]:
    """How many of `count` seeds fit into memory together, as far as that can be told; and what to say unless all do."""
    room = free_memory() if count > 1 else None
    if room is None:
        return count, ""
    room = int(agreed(room, np.min))
    need = max(estimate(run.setup, plan, layout).total for plan in run.plans)
    side = layout.mesh.shape[REPLICA] if layout.mesh else 1
    number = max(1, int(SHARE_OF_MEMORY * room / need)) * side
    if number >= count:
        return count, ""
    told = f"each needs about {need / 2**30:.1f} GiB, {room / 2**30:.1f} are free"
    return number, f"{number} of {count} seeds at once: {told}"


def trained_together(runs: Sequence[ActiveRun], layout: Layout, resume: bool, display: Display) -> list[Trained]:
    """What the loop trains, one after the other: a single run, or seeds in groups that fit into memory."""
    if not layout.wide:
        return [*runs]
    at_once, told = fitting(runs[0], len(runs), layout)
    if told:
        display.say(told)
    return [SeedRuns(some, layout) for some in groups(runs, at_once, resume)]


@dataclass
class SeedRuns:
    """Runs that stand at the same step as one, for the loop: it does for all what `ActiveRun` does for one."""

    runs: Sequence[ActiveRun]
    layout: Layout

    def __post_init__(self) -> None:
        self.setup, self.plans = self.runs[0].setup, self.runs[0].plans

    @property
    def progress(self) -> Progress:
        """Where the first run stands; stages and steps are the same for all."""
        return self.runs[0].progress

    def open_records(self, step: int) -> None:
        """Opens the records of all."""
        for run in self.runs:
            run.open_records(step)

    def begin(self, plan: Plan) -> TrainState:
        """The states at the first step: each seed has heads of its own."""
        return self._entered(plan, 0, [run.first_params() for run in self.runs])

    def go_on(self, plan: Plan, state: TrainState) -> TrainState:
        """The states at a later stage's first step."""
        params = [self._own(state, number).params for number in range(len(self.runs))]
        return self._entered(plan, int(state.step), params)

    def _entered(self, plan: Plan, step: int, params: Sequence[Params]) -> TrainState:
        for run in self.runs:
            run.enter(plan, step)
        return together([run.new_state(plan, own) for run, own in zip(self.runs, params, strict=True)], self.layout)

    def restore(self) -> TrainState | None:
        """The newest state that all runs have and that can be read; None where nothing has been saved."""
        for step in sorted(set.intersection(*(set(run.checkpoints.standings) for run in self.runs)), reverse=True):
            states = [run.try_restore(step) for run in self.runs]
            if all(state is not None for state in states):
                for run in self.runs:
                    run.stand_at(step)
                return together([state for state in states if state is not None], self.layout)
        for run in self.runs:
            run.check_nothing_saved()
        return None

    @property
    def pending(self) -> list[StepMetrics]:
        """Metrics since the last record, all runs' together."""
        own = zip(*(run.pending for run in self.runs), strict=True)
        return [jax.tree.map(lambda *leaves: np.stack(leaves), *steps) for steps in own]

    def make_step(self, plan: Plan) -> TrainStep:
        """The step of all runs in one program."""
        return stage_step(replace(self.setup, layout=self.layout), plan, self.progress.stage_start)

    def open_stage(self, plan: Plan, state: TrainState) -> int:
        """Gets every run's batches and dev splits ready; the number of examples whose features are kept."""
        own = enumerate(self.runs)
        return sum(run.open_stage(run.plans[plan.number], self._own(state, number)) for number, run in own)

    def gather(self, place: int) -> dict[str, Batch | FeatureBatch]:
        """The batches of a step, by task, stacked over the runs."""
        batches = {}
        for name, index in self.runs[0].batches.indices(place).items():
            streams = [run.batches.tasks[name] for run in self.runs]
            length = max(stream.rows(index)[1] for stream in streams)
            part = partial(_stacked, streams, index, length)
            batches[name] = self.layout.batch(part, len(streams), streams[0].num_rows)
        return batches

    def num_examples(self, place: int) -> int:
        """Number of examples in the batches of a step, all runs together."""
        return sum(run.num_examples(place) for run in self.runs)

    def record(self, plan: Plan, done: int, steps: list[StepMetrics], rate: float) -> Record:
        """Writes every run's record; what is shown is their mean."""
        pairs = zip(self.runs, self._apart(steps), strict=True)
        return mean_record([run.record(plan, done, own, rate / len(self.runs)) for run, own in pairs])

    def evaluate(self, plan: Plan, state: TrainState, done: int) -> list[str]:
        """Scores every run on its dev splits."""
        said = []
        for number, run in enumerate(self.runs):
            lines = run.evaluate(plan, self._own(state, number), done)
            said += [f"seed {run.setup.config.seed}: {line}" for line in lines]
        return said

    def look(self, plan: Plan, step: TrainStep, state: TrainState, done: int) -> list[str]:
        """Nothing: `check_config` refuses looks at several seeds."""
        return []

    def end_stage(self, plan: Plan, done: int, compiled_shapes: int, compile_seconds: float) -> None:
        """Notes that a stage has ended."""
        for run in self.runs:
            run.end_stage(plan, done, compiled_shapes, compile_seconds)

    def save(self, state: TrainState, pending: list[StepMetrics], seconds: float) -> None:
        """Saves a checkpoint of each."""
        for number, (run, own) in enumerate(zip(self.runs, self._apart(pending), strict=True)):
            run.save(self._own(state, number), own, seconds)

    def _apart(self, steps: list[StepMetrics]) -> list[list[StepMetrics]]:
        """The metrics of each run, on the host; here the device is waited for."""
        steps = jax.device_get(steps)
        return [[jax.tree.map(itemgetter(n), step) for step in steps] for n in range(len(self.runs))]

    def _own(self, state: TrainState, number: int) -> TrainState:
        return state_of(state, number, self.layout)


def together(states: Sequence[TrainState], layout: Layout) -> TrainState:
    """The states of several runs as one, with a leading `replica` axis on all but the step; laid out over devices."""

    def stack(*states: TrainState) -> TrainState:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)._replace(step=states[0].step)

    return layout.computed(stack, *states)


@partial(jax.jit, static_argnums=2)
def state_of(state: TrainState, number: Int[Array, ""] | int, layout: Layout) -> TrainState:
    """The state of one run among several; `layout` is the wide one."""
    rest = state._replace(step=None)  # type: ignore[arg-type]
    return layout.split(jax.tree.map(lambda leaf: leaf[number], rest)._replace(step=state.step))


def _stacked(streams: Sequence[TaskBatches], index: int, length: int, some: slice, rows: slice) -> Batch | FeatureBatch:
    own = [stream.part(index, rows, length) for stream in streams[some]]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *own)
