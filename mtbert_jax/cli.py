"""The command line: train, evaluate, predict.

Exit status: 0 done, 1 failed, 2 what the user gave is wrong (one message on standard error, no traceback).
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from mtbert_jax.config import Config, StageConfig, load_config
from mtbert_jax.host import keep_freed_memory
from mtbert_jax.inference import MultitaskModel, write_results
from mtbert_jax.schema import nearest
from mtbert_jax.training.fit import fit
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.types import InputError

RunPath = Annotated[Path, tyro.conf.Positional]
USAGE = """usage: mtbert COMMAND ...

  train CONFIG.toml [--field value ...]   train a run; any field of the config can be given
  evaluate RUN [--split dev]              score a run's best checkpoint on a split with labels
  predict RUN --task NAME [--input FILE]  label one's own texts, one a line, as JSON Lines
  predict RUN                             write the prediction files of all tasks, dev and test

`mtbert COMMAND --help` explains a command; with a config, `mtbert train CONFIG.toml --help` shows its values.
"""


@dataclass(frozen=True)
class Train:
    """Trains a run: heads and encoder on every task of the config, with checkpoints, records and prediction files.

    Give a config first: `mtbert train CONFIG.toml`. Any field below replaces the config's.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    resume: bool = False
    """Go on with the run in the run folder, from its newest checkpoint."""
    overwrite: bool = False
    """Delete the run in the run folder first."""


@dataclass(frozen=True)
class Evaluate:
    """Scores a run on one split of every task that has labels there, and prints a table, or JSON."""

    run: RunPath
    """The run folder."""
    split: Literal["train", "dev", "test"] = "dev"
    """The split."""
    checkpoint: Literal["best", "latest"] = "best"
    """Which checkpoint: the best by dev average, or the latest."""
    data_dir: str | None = None
    """Folder of the data files, in place of the run's."""
    json: bool = False
    """Print the scores as JSON."""


@dataclass(frozen=True)
class Predict:
    """Predicts one's own texts with `--task`, or else writes the prediction files of all tasks.

    With `--task`, texts come from `--input` or standard input, one example a line, the two texts of a pair separated
    by a tab; out come JSON Lines with label and probabilities. Without it, `predictions/` in the run folder (or
    `--output`) gets `<task>-dev-output.csv` and `<task>-test-output.csv` in the course's format.
    """

    run: RunPath
    """The run folder."""
    task: str | None = None
    """Name of a task."""
    input: Path | None = None
    """File of texts; standard input if left out."""
    output: Path | None = None
    """File of the labels, or folder of the prediction files; standard output or the run folder if left out."""
    checkpoint: Literal["best", "latest"] = "best"
    """Which checkpoint: the best by dev average, or the latest."""
    data_dir: str | None = None
    """Folder of the data files, in place of the run's."""


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("absl").setLevel(logging.ERROR)
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if argv else 2
    keep_freed_memory()
    command = COMMANDS.get(argv[0])
    try:
        if command is None:
            raise InputError(f"unknown command {argv[0]!r}{nearest(argv[0], COMMANDS)} (see mtbert --help)")
        command(argv[1:])
    except InputError as error:
        print(f"mtbert: {error}", file=sys.stderr)
        return 2
    except Interrupted as interrupted:
        return interrupted.status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return 0


def train(args: list[str]) -> None:
    """The command `train`."""
    path = Path(args.pop(0)) if args and not args[0].startswith("-") else None
    loaded = load_config(path) if path else Config()
    given = _parse(Train, args, "mtbert train CONFIG.toml", default=Train(loaded))
    if path is None:
        raise InputError("give a config: mtbert train CONFIG.toml (configs/ holds some)")
    _check_overrides(loaded, given.config)
    config = given.config if given.config.out else dataclasses.replace(given.config, out=f"runs/{path.stem}")
    folder = RunFolder(Path(config.out))
    if given.resume and given.overwrite:
        raise InputError("--resume and --overwrite exclude each other")
    try:
        fit(config, folder, given.resume, given.overwrite)
    except Interrupted:
        print(f"interrupted and saved; go on with: mtbert train {path} --out {folder.path} --resume", file=sys.stderr)
        raise
    results = write_results(folder, config)
    for split in ("dev", "test"):
        if split in results:
            _print_scores(results[split], f"{split}, best checkpoint (step {results['step']})")
    print(f"run folder: {folder.path}")


def _check_overrides(loaded: Config, given: Config) -> None:
    """A field that every stage sets for itself would do nothing on the command line."""
    for field in dataclasses.fields(StageConfig):
        if field.name == "name" or getattr(loaded, field.name) == getattr(given, field.name):
            continue
        own = [
            stage.steps is not None or stage.epochs is not None
            if field.name in ("steps", "epochs")
            else getattr(stage, field.name) is not None
            for stage in given.stages
        ]
        if own and all(own):
            flag = field.name.replace("_", "-")
            raise InputError(f"--{flag} has no effect, every stage sets its own; use --stages.0.{flag} and so on")


def evaluate(args: list[str]) -> None:
    """The command `evaluate`."""
    given = _parse(Evaluate, args, "mtbert evaluate")
    model = MultitaskModel.from_checkpoint(given.run, given.checkpoint, given.data_dir)
    scores = model.evaluate(given.split)[0]
    if not scores:
        raise InputError(f"no task has labels for the split {given.split!r}; mtbert predict writes prediction files")
    if given.json:
        print(json.dumps(scores))
    else:
        _print_scores(scores, f"{given.split}, step {model.step}")


def predict(args: list[str]) -> None:
    """The command `predict`."""
    given = _parse(Predict, args, "mtbert predict")
    model = MultitaskModel.from_checkpoint(given.run, given.checkpoint, given.data_dir)
    if given.task is None:
        if given.input is not None:
            raise InputError("--input needs --task: which task are these texts for?")
        for split in ("dev", "test"):
            _, datasets, logits = model.evaluate(split)
            folder = given.output or RunFolder(given.run).predictions
            for path in model.write_predictions(folder, split, datasets, logits):
                print(path)
        return
    texts = list(_read_texts(given.input))
    rows = zip(texts, model.predict(given.task, texts), strict=True)
    lines = "".join(
        json.dumps({"text": text, "label": label, "probabilities": shares}, ensure_ascii=False) + "\n"
        for text, (label, shares) in rows
    )
    if given.output is None:
        print(lines, end="")
    else:
        given.output.write_text(lines, encoding="utf-8")


def _read_texts(path: Path | None) -> Iterator[str | tuple[str, ...]]:
    try:
        data = sys.stdin.buffer.read() if path is None else path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    for line in data.decode("utf-8", "replace").removesuffix("\n").split("\n") if data else []:
        parts = tuple(line.rstrip("\r").split("\t"))
        yield parts if len(parts) > 1 else parts[0]


def _parse(kind: type[Any], args: list[str], prog: str, default: Any = None) -> Any:
    extra = {} if default is None else {"default": default}
    # A task without a head of its own has no --tasks.N.head flags, rather than a subcommand to choose one.
    return tyro.cli(kind, args=args, prog=prog, config=(tyro.conf.AvoidSubcommands,), **extra)


def _print_scores(scores: dict[str, Any], title: str) -> None:
    table = Table(title=title, title_justify="left")
    for column, justify in (("task", "left"), ("metric", "left"), ("value", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for task, values in scores.items():
        rows = values.items() if isinstance(values, dict) else [("", values)]
        for metric, value in rows:
            table.add_row(task, metric, f"{value:.4f}")
    Console().print(table)


COMMANDS: dict[str, Callable[[list[str]], None]] = {"train": train, "evaluate": evaluate, "predict": predict}
