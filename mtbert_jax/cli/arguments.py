"""What each command takes, and how it is read from the command line."""

import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mtbert_jax.cli import flags
from mtbert_jax.config import Config, StageConfig
from mtbert_jax.config.includes import read_all
from mtbert_jax.config.schema import nearest
from mtbert_jax.data.readers import data_files
from mtbert_jax.errors import InputError
from mtbert_jax.files import is_folder, real
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.seeds import load_run_config
from mtbert_jax.training.source import seed_folders

RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="The run folder.")]
RunPaths = Annotated[
    tuple[Path, ...],
    tyro.conf.Positional,
    tyro.conf.arg(help="The run folder; of several, or of one that holds several seeds, the mean of their logits."),
]
Which = Annotated[
    Literal["best", "latest"],
    tyro.conf.arg(help="Which checkpoint: the best by the config's `checkpoint_metric`, or the latest."),
]
BothOrders = Annotated[
    tuple[str, ...] | None,
    tyro.conf.arg(
        help="Tasks over pairs to score in both orders, in place of those whose `both_orders` the run has set; none if "
        "no name follows."
    ),
]
DataDir = Annotated[str | None, tyro.conf.arg(help="Folder of the data files, in place of the run's.")]
_PLUGINS = "Python files to run first, which may register task kinds, encoder families, aggregators and regularisers."
Plugins = Annotated[tuple[Path, ...], tyro.conf.arg(help=_PLUGINS)]


@dataclass(frozen=True)
class Train:
    """Trains a run: heads and encoder on every task of the config, with checkpoints, records and prediction files.

    Give a config: `mtbert train CONFIG.toml`. Any field below replaces the config's; tasks and stages have their names,
    too: `--tasks.sst.batch-size 8`. `mtbert train RUN --resume` goes on with a run by the config in its folder;
    `--init-from RUN` begins a new one with its encoder and heads.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    resume: bool = False
    """Go on with the run in the run folder, from its newest checkpoint."""
    overwrite: bool = False
    """Delete the run in the run folder first."""
    dry_run: bool = False
    """Say what would be trained, on what, in which shapes and how much memory, and stop."""
    plugins: Plugins = ()
    coordinator: str | None = None
    """Train with others: `HOST:PORT` of process 0, or `auto`, where the cluster tells (SLURM, Open MPI, TPU pods)."""
    num_processes: int | None = None
    """Number of processes, where the cluster does not tell."""
    process_id: int | None = None
    """Number of this process, from 0, where the cluster does not tell."""


@dataclass(frozen=True)
class CheckData:
    """Says what the data of a config hold: rows, bad rows, labels, lengths in tokens, texts that come twice, batches.

    Give a config first: `mtbert check-data CONFIG.toml`. Of the encoder only the tokenizer is read. Rows are named by
    their lines; no text is printed. The exit status is 2 if training would refuse the data.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    json: Path | None = None
    """Write the same as JSON to this file, too."""
    plugins: Plugins = ()


@dataclass(frozen=True)
class Augment:
    """Writes a training file of pairs with the pairs that follow from its own: the transitive closure of its labels.

    Give a config first: `mtbert augment CONFIG.toml --task para --write more.jsonl`. If a and b mean the same, and b
    and c do, so do a and c; if a and d differ, so do d and all that mean the same as a. The new file has the old rows
    and the new ones, as JSON Lines with the task's columns.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    task: str | None = None
    """Name of a task over pairs with the labels 0 and 1; may be left out where there is one only."""
    write: Path = Path("augmented.jsonl")
    """The file that is written, JSON Lines."""
    cap: int = 10
    """Most new pairs from one group of texts that mean the same, or from two that differ; 0 for no limit."""
    negatives: bool = True
    """Write new negative pairs, too."""
    plugins: Plugins = ()


@dataclass(frozen=True)
class Evaluate:
    """Scores a run on one split of every task that has labels there, and prints a table, or JSON.

    Several runs are scored as an ensemble: `mtbert evaluate RUN RUN` scores the mean of their logits.
    """

    runs: RunPaths = ()
    split: Literal["train", "dev", "test"] = "dev"
    """The split."""
    checkpoint: Which = "best"
    data_dir: DataDir = None
    both_orders: BothOrders = None
    json: bool = False
    """Print the scores as JSON."""
    plugins: Plugins = ()


@dataclass(frozen=True)
class Predict:
    """Predicts one's own texts with `--task`, or else writes the prediction files of all tasks.

    With `--task`, texts come from `--input` or standard input: one example a line, the two texts of a pair separated
    by a tab; or a JSON list of texts; or JSON Lines, or a table with a header, that have the task's text columns. Out
    come JSON Lines with label and probabilities. Without it, `predictions/` in the run folder (or `--output`) gets
    `<task>-dev-output.csv` and `<task>-test-output.csv`: plain CSV, or the course's format for tasks with an
    `output_column`.

    With `--task` and `--soft-labels` a training file for `kind = "distribution"` is written: the texts of `--input`, or
    of the task's training file, with this run's probabilities as labels.

    Several runs predict as an ensemble, by the mean of their logits.
    """

    runs: RunPaths = ()
    task: str | None = None
    """Name of a task."""
    input: Path | None = None
    """File of texts; standard input if left out."""
    output: Path | None = None
    """File of the labels, or folder of the prediction files; standard output or the run folder if left out."""
    soft_labels: Path | None = None
    """File of probabilities as labels, JSON Lines, that another run can be trained on."""
    checkpoint: Which = "best"
    data_dir: DataDir = None
    both_orders: BothOrders = None
    plugins: Plugins = ()


@dataclass(frozen=True)
class Submission:
    """Writes the dev and test prediction files of a run in the course's format, and checks them; or checks others.

    Several runs predict as an ensemble, by the mean of their logits, and need `--output`.

    `mtbert submission RUN` predicts every row, whether or not its label can be used, and sets similarities beyond the
    task's range to its ends. `mtbert submission --check FILE ... --data FILE ...` checks files that were made
    elsewhere: header, ids in the data file's order, none missing, doubled or unknown, and every prediction.
    """

    runs: RunPaths = ()
    output: Path | None = None
    """Folder of the files; `submission` in the run folder if left out."""
    checkpoint: Which = "best"
    data_dir: DataDir = None
    check: tuple[Path, ...] = ()
    """Prediction files of the course's tasks to be checked; the header tells the task."""
    data: tuple[Path, ...] = ()
    """With `--check`: the data file of each of them, in the same order."""
    plugins: Plugins = ()


@dataclass(frozen=True)
class Ablate:
    """Trains several configs with several seeds, one after the other, and sets their dev scores side by side.

    What follows `--` goes to every run, as `mtbert train` takes it: `mtbert ablate a.toml b.toml -- --steps 500`. Runs
    lie in `<out>/<config name>/seed<N>`, tables (Markdown, CSV, JSON) in `<out>`. The same command goes on where it was
    stopped; once all runs are finished it only writes the tables.
    """

    configs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """The configs; each is a row of the table."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """The seeds."""
    out: Path = Path("runs/ablation")
    """Folder of the run folders and the tables."""
    together: Literal["auto", "on", "off"] = "auto"
    """Train all seeds of a config in one program, as many as fit into memory; `auto`: where there is a GPU or TPU."""
    at_once: int = 1
    """Processes at the same time, each on its share of the CPU's cores; on a CPU more work gets done so."""
    against: tuple[str, ...] = ()
    """Names of configs that a second table sets the others beside; the first config if left out."""


@dataclass(frozen=True)
class Report:
    """Writes one HTML page about a run, or about several beside each other.

    A folder that is no run itself stands for all runs below it. Runs that differ in their seed only share a row.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders, finished or not, or folders of such."""
    out: Path | None = None
    """The page; `report.html` in the folder that was given, or here, where several were."""
    data_dir: str | None = None
    """Folder of the data files, in place of the runs'."""
    hide_texts: bool = False
    """Shows the ids of mistakes instead of their texts, for data that must not be passed on."""
    plugins: Plugins = ()


@dataclass(frozen=True)
class Export:
    """Writes a checkpoint for use elsewhere, and prints the folder: encoder, heads, tokenizer and a page about them.

    `hf`: an encoder for `AutoModel`, heads as safetensors, and a model card with the code that joins them. `stablehlo`:
    a program per task by `jax.export`, for CPUs and NVIDIA GPUs, and a script that needs JAX and a tokenizer only.
    """

    run: RunPath
    format: Literal["hf", "stablehlo"]
    """For `transformers`, or for plain JAX."""
    out: Path | None = None
    """The folder of the export; `export/<format>` in the run folder if left out."""
    checkpoint: Which = "best"
    overwrite: bool = False
    """Replace an earlier export."""
    plugins: Plugins = ()


@dataclass(frozen=True)
class Completion:
    """Prints what a shell reads to complete commands, flags and file names.

    bash: `eval "$(mtbert completion bash)"` in ~/.bashrc; zsh: `mtbert completion zsh > DIR/_mtbert`, for a DIR in
    $fpath; fish: `mtbert completion fish > ~/.config/fish/completions/mtbert.fish`.
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """The shell."""


OWN = ("out", "seed", "seeds", "resume", "overwrite", "dry-run", "coordinator", "num-processes", "process-id")
"""Flags of `train` that `ablate` gives every run itself."""


def colour_as_asked() -> None:
    """Keeps colours out of --help and of what is said of wrong flags where `NO_COLOR` or a file asks for that."""
    wanted = sys.stdout.isatty() and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    tyro._experimental_options["ansi_codes"] = wanted


def parse(kind: type[Any], args: Sequence[str], prog: str, default: Any = None) -> Any:
    """Reads a command's arguments; --help ends the program, what is wrong is an `InputError`."""
    command, name = kind if default is None else default, " ".join(prog.split()[:2])
    flags.check_flags(command, args, name)
    flags.check_values(command, args, name)
    extra = {} if default is None else {"default": default}
    # A task without a head of its own has no --tasks.N.head flags, rather than a subcommand to choose one.
    given = tyro.cli(kind, args=args, prog=prog, config=(tyro.conf.AvoidSubcommands,), **extra)
    for name, value in vars(given).items():
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, Path) and path.parts[:1] == ("~",):
                flag = f"--{name.replace('_', '-')}"  # a shell leaves the ~ in --out=~/page.html
                raise InputError(f"{flag} {path}: ~ does not stand for the home folder here; write the whole path")
    return given


def named_plugins(args: Sequence[str]) -> list[Path]:
    """The plugins that a command line names, wherever they stand in it.

    They run before anything else is read, since what they register may be what the other arguments name.

    >>> [str(path) for path in named_plugins(["run", "--plugins", "a.py", "b.py", "--lr", "1", "--plugins=c.py"])]
    ['a.py', 'b.py', 'c.py']
    """
    found, naming = [], False
    for arg in args:
        if arg.startswith("-"):
            naming = arg == "--plugins"
            found += [Path(arg.partition("=")[2])] if arg.startswith("--plugins=") else []
        elif naming:
            found.append(Path(arg))
    return found


def split_config(kind: type[Any], args: list[str], prog: str) -> tuple[Path, list[str]]:
    """The config of a command, wherever it stands, and its other arguments. --help alone ends the program."""
    place = flags.config_place(kind, args)
    if place is not None:
        return Path(args[place]), args[:place] + args[place + 1 :]
    if "-h" in args or "--help" in args:
        parse(kind, ["--help"], f"{prog} CONFIG.toml", default=kind(Config()))
    raise InputError(f"give a config: {prog} CONFIG.toml (configs/ holds some)")


def parse_train(path: Path, args: Sequence[str], prog: str, kind: type[Any] = Train) -> Any:
    """Reads the arguments that follow a config, or a run folder; a flag that would do nothing is an `InputError`."""
    loaded = load_run_config(path)
    args = flags.by_number(args, loaded)
    given = parse(kind, args, prog, default=kind(flags.with_own_tables(loaded, args)))
    _check_overrides(path, loaded, given.config)
    return given


def parse_ablate(args: Sequence[str]) -> tuple[Ablate, list[tuple[Path, Config]], list[str]]:
    """The arguments of `ablate`; its configs by file, with all that follows `--` in them; and what follows `--`."""
    at = args.index("--") if "--" in args else len(args)
    overrides = list(args[at + 1 :])
    flags.check_values(Ablate, args[:at], "mtbert ablate")
    given, unknown = tyro.cli(Ablate, args=args[:at], prog="mtbert ablate", return_unknown_args=True)
    if unknown:
        raise InputError(
            f"ablate has no {unknown[0]}; what is for the runs follows --: mtbert ablate CONFIG.toml -- ..."
        )
    if not given.configs:
        raise InputError("give one or more configs: mtbert ablate CONFIG.toml ...")
    names = [path.stem for path in given.configs]
    for name in given.against:
        if name not in names:
            raise InputError(f"--against {name}: no such config{nearest(name, names)} (configs: {', '.join(names)})")
    for flag in overrides:
        name = flag.partition("=")[0].removeprefix("--").removeprefix("no-")
        if flag.startswith("--") and name in OWN:
            raise InputError(f"--{name} cannot follow --: ablate gives every run its own")
    return given, [(path, _config_of(path, overrides)) for path in given.configs], overrides


def _config_of(path: Path, overrides: Sequence[str]) -> Config:
    """One of several configs with flags; what is wrong with a flag is told with the config that it does not fit."""
    try:
        return parse_train(path, overrides, f"mtbert train {path}").config
    except InputError as error:
        raise (error if str(path) in str(error) else InputError(f"{path}: {error}")) from None


def files_read(path: Path, config: Config) -> Iterator[tuple[Path, str]]:
    """Every file and folder that a config leads to, each with words for it; `path` is its file, or a run folder."""
    for run in (path, Path(config.init_from or path)):
        for own in (RunFolder(run), *seed_folders(run).values()) if is_folder(run) else ():
            yield from own.read_again()
    for file, _ in [] if is_folder(path) else read_all(path):
        yield file, "the config" if real(file) == real(path) else "a file that the config includes"
    yield from data_files(config)
    if is_folder(config.encoder):
        yield Path(config.encoder), "the folder of the encoder"


def _check_overrides(path: Path, loaded: Config, given: Config) -> None:
    """A field that every stage sets for itself would do nothing on the command line, nor would epochs beside steps."""
    before: list[Config | StageConfig] = [loaded, *loaded.stages]
    now: list[Config | StageConfig] = [given, *given.stages]
    for number, (old, new) in enumerate(zip(before, now, strict=True)):
        name = f"stages.{number - 1}." if number else ""
        if new.epochs != old.epochs and new.steps is not None and new.steps == old.steps:
            raise InputError(
                f"{path}: --{name}epochs has no effect, steps = {new.steps} gives the length; add --{name}steps None"
            )
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
            raise InputError(
                f"{path}: --{flag} has no effect, every stage sets its own; use --stages.0.{flag} and so on, "
                f"or names: --stages.{given.resolved_stages()[0].name}.{flag}"
            )
