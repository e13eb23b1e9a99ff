"""The runs of an ablation: one config with one seed each, and which of them share a process."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mtbert_jax.checks import check_config
from mtbert_jax.config import Config
from mtbert_jax.config.schema import difference
from mtbert_jax.errors import InputError
from mtbert_jax.results.rows import Row, make_row, read_results
from mtbert_jax.training.existing import config_changes
from mtbert_jax.training.folder import RunFolder

FILES = ("encoder", "revision", "data_dir")  # may change from run to resumed run, yet could be others altogether


@dataclass(frozen=True)
class PlannedRun:
    """One config with one seed: one run.

    Attributes:
        source: The config's file.
        config: The run, with its seed and its folder.
        overrides: What the command line replaces of the file's fields.
    """

    source: Path
    config: Config
    overrides: tuple[str, ...] = ()

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(Path(self.config.out))

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.folder.path / "log.txt"

    @property
    def command(self) -> list[str]:
        """The run as a command: it goes on where the folder stands."""
        own = ["--seed", str(self.config.seed), "--out", self.config.out, "--resume"]
        return [sys.executable, "-m", "mtbert_jax", "train", str(self.source), *own, *self.overrides]

    @property
    def finished(self) -> bool:
        """Whether the results of this very run are there."""
        results = read_results(self.folder, self.config)
        return results is not None and not results.get("pending")

    def changes(self) -> list[str]:
        """What makes the run in the folder another one than this, one line per field; empty where none is there."""
        return config_changes(self.folder.load_config(), self.config) if self.folder.config.is_file() else []

    def __str__(self) -> str:
        return f"{self.source.stem} seed {self.config.seed}"


@dataclass(frozen=True)
class SeedGroup:
    """Runs of one config whose seeds train in one process.

    Attributes:
        runs: Two or more, which differ in their seeds.
    """

    runs: tuple[PlannedRun, ...]

    @property
    def source(self) -> Path:
        """The config's file."""
        return self.runs[0].source

    @property
    def folder(self) -> RunFolder:
        """The folder of the runs' folders."""
        return RunFolder(self.runs[0].folder.path.parent)

    @property
    def log(self) -> Path:
        """What the process printed."""
        return self.folder.path / "log.txt"

    @property
    def command(self) -> list[str]:
        """All runs as one command."""
        seeds = [str(run.config.seed) for run in self.runs]
        own = ["--seeds", *seeds, "--out", str(self.folder.path), "--resume"]
        return [sys.executable, "-m", "mtbert_jax", "train", str(self.source), *own, *self.runs[0].overrides]

    @property
    def finished(self) -> bool:
        """Whether the results of all are there."""
        return all(run.finished for run in self.runs)

    def changes(self) -> list[str]:
        """What makes a run in one of the folders another one; empty where none is there."""
        return next((changes for run in self.runs if (changes := run.changes())), [])

    def __str__(self) -> str:
        return f"{self.source.stem} seeds {', '.join(str(run.config.seed) for run in self.runs)}"


def jobs(runs: Sequence[PlannedRun], together: bool) -> list[PlannedRun | SeedGroup]:
    """One process for each run, or one per config."""
    if not together:
        return list(runs)
    return [SeedGroup(some) if len(some) > 1 else some[0] for some in by_config(runs)]


def by_config(runs: Sequence[PlannedRun]) -> list[tuple[PlannedRun, ...]]:
    """The runs of each config, in the order of the runs."""
    sources = dict.fromkeys(run.source for run in runs)
    return [tuple(run for run in runs if run.source == source) for source in sources]


def plan_runs(
    configs: Sequence[tuple[Path, Config]], seeds: Sequence[int], out: Path, overrides: Sequence[str] = ()
) -> tuple[PlannedRun, ...]:
    """All runs in order, every config with the first seed, then with the second: so the table has all rows early.

    Raises:
        InputError: A config is wrong, two runs would share a folder, or a folder holds another run.
    """
    if not seeds:
        raise InputError("give one or more seeds: --seeds 0 1 2")
    stems = [path.stem for path, _ in configs]
    for name, values in (("config name", stems), ("seed", list(map(str, seeds)))):
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise InputError(f"{name} {twice[0]} is given twice; each run needs a folder of its own")
    runs = []
    for seed in seeds:
        for path, config in configs:
            folder = out / path.stem / f"seed{seed}"
            runs.append(PlannedRun(path, replace(config, seed=seed, out=str(folder)), tuple(overrides)))
    for run in runs:
        try:
            check_config(run.config)
        except InputError as error:
            raise InputError(f"{run.source}: {error}") from None
        if changes := run.changes():
            raise InputError(
                f"{run.folder.path} holds a run with another config ({'; '.join(changes)}); "
                "give another --out, or delete that folder to have it run anew"
            )
    return tuple(runs)


def table(runs: Sequence[PlannedRun]) -> list[Row]:
    """One row per config, in the order of the runs, from what is finished."""
    return [
        make_row(own[0].source.stem, own[0].config, {run.config.seed: run.folder for run in own})
        for own in by_config(runs)
    ]


def moved(run: PlannedRun) -> list[str]:
    """Files that the run in the folder had at other places, one line each."""
    if not run.folder.config.is_file():
        return []
    configs = run.folder.load_config(), run.config
    named = [name for name in FILES if getattr(run.config, name)]  # what is left out is filled in when the run begins
    before, after = ({name: getattr(config, name) for name in named} for config in configs)
    return difference(before, after)
