"""Training from Python, and the run that comes of it: what the command line does, as functions and objects.

>>> import mtbert_jax as mt
>>> run = mt.train("configs/demo.toml", lr=2e-4)  # doctest: +SKIP
>>> run.scores["average"], run.model.predict("sst", ["A warm, funny, engaging film."])  # doctest: +SKIP
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtbert_jax.config import Config
from mtbert_jax.config.includes import lay_over
from mtbert_jax.config.schema import describe, from_dict, to_dict
from mtbert_jax.data.memory import in_files
from mtbert_jax.data.readers import SPLITS, Split
from mtbert_jax.errors import InputError
from mtbert_jax.export.description import Format
from mtbert_jax.export.write import export_run
from mtbert_jax.files import input_errors, write_whole
from mtbert_jax.inference import Ensemble, MultitaskModel
from mtbert_jax.report.contents import RunContents
from mtbert_jax.report.curves import plot
from mtbert_jax.report.write import write_report
from mtbert_jax.results.rows import Row, make_row
from mtbert_jax.results.tables import write_tables
from mtbert_jax.results.write import write_results
from mtbert_jax.training.display import Display
from mtbert_jax.training.existing import Existing, check_folder
from mtbert_jax.training.fit import fit
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.prepare import check_config_file
from mtbert_jax.training.records import columns, read_metrics
from mtbert_jax.training.seeds import load_run_config, seeds_apart
from mtbert_jax.training.source import seed_folders

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Run:
    """A run that lies in a folder, finished or not.

    Attributes:
        folder: The run folder.
    """

    folder: RunFolder

    @property
    def path(self) -> Path:
        """Path of the run folder."""
        return self.folder.path

    @cached_property
    def config(self) -> Config:
        """The run's config, complete."""
        return self.folder.load_config()

    @cached_property
    def results(self) -> dict[str, Any]:
        """What ``results.json`` holds.

        Raises:
            InputError: The run has not ended, or the file cannot be read.
        """
        results = self.folder.load_results()
        if results is None:
            raise InputError(
                f"{self.path} holds no results yet: the run has not ended, or results.json is damaged or another run's"
            )
        return results

    @property
    def scores(self) -> dict[str, Any]:
        """Dev scores of the best checkpoint: metrics by task and name, `average` and `plain_average`; plain floats.

        Empty where no task has a dev file.

        Raises:
            InputError: As `results`.
        """
        return self.results.get("dev", {})

    @cached_property
    def history(self) -> dict[str, list[Any]]:
        """The records as columns of one length, ready for a data frame; None where a record lacks a number.

        `kind`, `stage`, `step` and `epoch` come first; then such columns as ``train/loss/sst`` and ``dev/average``.
        """
        return columns(read_metrics(self.folder.metrics))

    @cached_property
    def model(self) -> MultitaskModel:
        """The model of the best checkpoint, ready to predict."""
        return MultitaskModel.from_checkpoint(self.path)

    def evaluate(self, split: Split = "dev") -> dict[str, Any]:
        """Scores of the best checkpoint on one split of every task that has labels there."""
        return self.model.evaluate(split)[0]

    def report(self, out: str | Path | None = None, hide_texts: bool = False) -> Path:
        """Writes a page about the run, by default ``report.html`` in its folder. Returns its path.

        It needs the packages of the extra `report`. With `hide_texts` it shows ids instead of the texts of mistakes.
        """
        return write_report([self.path], None if out is None else Path(out), hide_texts=hide_texts)

    def plot(self, what: str = "losses") -> "Figure":
        """A plot of the records, as the report has it, finished run or not; needs the packages of the extra `report`.

        Args:
            what: `losses`, each task's training loss and dev score; `scores`, the dev scores; `conflicts`, cosines
                between the tasks' gradients and the share of steps in which they are negative; `layers`, that share by
                layer; `weights`, the aggregator's, and shares of the update; `affinity`; `penalties`, terms of
                regularisers; `throughput`; `lr`; or a column of `history`, such as ``train/loss/sst``.

        Returns:
            A figure of matplotlib: ``figure.savefig("losses.png")``, or ``figure.axes`` for one's own changes.

        Raises:
            InputError: There is no such plot, the records hold nothing for it, or matplotlib is missing.
        """
        return plot(RunContents.read_records(self.path, self.path.name), what)

    def export(self, form: Format, out: str | Path | None = None, overwrite: bool = False) -> Path:
        """Writes the best checkpoint for use elsewhere.

        Args:
            form: `hf`, for `transformers`, or `stablehlo`, for plain JAX.
            out: Folder of the export; ``export/<form>`` in the run folder if left out.
            overwrite: Replace an earlier export.

        Returns:
            Path of the folder.
        """
        return export_run(self.path, form, None if out is None else Path(out), "best", overwrite)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


@dataclass(frozen=True, eq=False)
class SeedsOfRun:
    """The runs of one config with several seeds, in folders below one.

    Attributes:
        path: The folder above the runs' folders.
        runs: The runs by seed.
    """

    path: Path
    runs: dict[int, Run]

    @cached_property
    def row(self) -> Row:
        """Means, deviations and intervals over the seeds, as a table shows them."""
        config = next(iter(self.runs.values())).config
        return make_row(self.path.name, config, {seed: run.folder for seed, run in self.runs.items()})

    @property
    def scores(self) -> dict[str, float]:
        """Mean over seeds of each task's primary metric, by task, and of both averages."""
        return {name: value.mean for name, value in self.row.values.items()}

    @cached_property
    def model(self) -> Ensemble:
        """The models of the seeds' best checkpoints as an ensemble: the mean of their logits."""
        return Ensemble(tuple(run.model for run in self.runs.values()))

    def write_tables(self, name: str = "") -> None:
        """Writes ``table.md``, ``table.csv`` and ``table.json`` into the folder; `name` is what the row is called."""
        write_tables([self.row._replace(name=name or self.row.name)], self.path)

    def __repr__(self) -> str:
        return f"SeedsOfRun({str(self.path)!r}, seeds {', '.join(map(str, self.runs))})"


def train(
    config: str | Path | Config,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    display: Display | None = None,
    **fields: Any,
) -> Run | SeedsOfRun:
    """Trains a run to its end, and scores its best checkpoint.

    Args:
        config: A TOML file, or a config, or a run folder, which stands for the config in it.
        out: The run folder; the config's `out`, or ``runs/<name of the file>``, if left out.
        resume: Go on with the run that lies in the folder, from its newest checkpoint; begin where none lies there.
        overwrite: Delete the run that lies in the folder first.
        display: Where progress is shown; standard error if left out.
        fields: Fields of the config to replace, such as ``lr=2e-4``, ``head={"dropout": 0.1}``,
            ``init_from="runs/a"``, which begins with another run's encoder and heads, or
            ``tasks=[{"name": "sst", "batch_size": 8}]``, which changes the task of that name. Lists do for tuples.

    A task's `train`, `dev` and `test` may be rows in memory in place of a file's name: a list of dicts, a data frame of
    pandas or polars, a dataset of `datasets`, or a dict of columns. They are written to ``data/`` in the run folder, as
    JSON Lines, and read from there.

    Returns:
        The finished run; or, for a config with `seeds`, the runs of all seeds.

    Raises:
        InputError: Something given is wrong; nothing has been trained.
        TrainingError: Training cannot go on.
        Interrupted: A signal came; all that was done is saved, and ``resume=True`` goes on with it.
    """
    for name, value in (("resume", resume), ("overwrite", overwrite)):
        if not isinstance(value, bool):
            raise InputError(
                f"train(): {name}: expected true or false, got {describe(value)}; out names the folder of the run"
            )
    if resume and overwrite:
        raise InputError("resume and overwrite exclude each other")
    if not isinstance(config, Config | str | PathLike):
        raise InputError(
            f"train(): expected a config's file, a run folder or a Config, got {describe(config)}; "
            "mt.Config(encoder=..., tasks=[...]) makes a Config of its fields"
        )
    loaded = config if isinstance(config, Config) else load_run_config(Path(config))
    given = to_dict({**fields, **({"out": out} if out else {})})
    for own in (to_dict(loaded), given):
        from_dict(Config, _without_rows(own), "train()")  # both are somebody's code, and no reader has seen them
    table = lay_over(to_dict(loaded), given, by_name=("tasks",))
    place = table["out"] or ("" if isinstance(config, Config) else f"runs/{Path(config).stem}")
    if not str(place):
        raise InputError('out: name the run folder, such as out="runs/mine"')
    existing: Existing = "resume" if resume else "overwrite" if overwrite else "refuse"
    tasks = [in_files(task, Path(place) / "data") for task in table["tasks"]]
    table = {**table, "tasks": [task.task for task in tasks], "out": str(place)}
    complete = from_dict(Config, table, "train()")
    if not isinstance(config, Config):
        check_config_file(Path(config), complete, existing)
    _write_rows(complete, {path: text for task in tasks for path, text in task.files.items()}, existing)
    return train_in(complete, existing, display)


def _without_rows(table: dict[str, Any]) -> dict[str, Any]:
    """A config's table with a file's name in place of rows in memory, whose types are not the config's affair."""
    tasks = table.get("tasks")
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        return table
    rows = [{split: "rows" for split in SPLITS if task.get(split) is not None} for task in tasks]
    return {**table, "tasks": [{**task, **own} for task, own in zip(tasks, rows, strict=True)]}


def _write_rows(config: Config, files: Mapping[Path, str], existing: Existing) -> None:
    """Writes what tasks have in memory into the run folder, unless the folder is not free."""
    for _, own in seeds_apart(config, RunFolder(Path(config.out))) if files else ():
        check_folder(own, config, existing)
    for path, text in files.items():
        with input_errors(f"cannot write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text)


def train_in(config: Config, existing: Existing, display: Display | None = None) -> Run | SeedsOfRun:
    """Trains a run in the folder that its config names; `train` explains the rest."""
    folder = RunFolder(Path(config.out))
    read = fit(config, folder, existing, display)
    runs = seeds_apart(config, folder)
    for _, own in runs:
        write_results(own, own.load_config(), read)
    if not config.seeds:
        return Run(folder)
    return SeedsOfRun(folder.path, {own_config.seed: Run(own) for own_config, own in runs})


def load_run(path: str | Path) -> Run | SeedsOfRun:
    """The run, or the runs of several seeds, that lie in a folder.

    Raises:
        InputError: None lies there.
    """
    if not isinstance(path, str | PathLike):
        raise InputError(f"load_run(): expected the path of a run folder, got {describe(path)}")
    folder = RunFolder(Path(path))
    if seeds := seed_folders(folder.path):
        return SeedsOfRun(folder.path, {seed: Run(own) for seed, own in seeds.items()})
    folder.load_config()
    return Run(folder)
