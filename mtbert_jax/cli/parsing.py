"""Reading a command line: the config it names, its own arguments, and what it changes in the config."""

import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tyro

from mtbert_jax.cli import flags
from mtbert_jax.cli.arguments import Ablate, Train
from mtbert_jax.config import Config, StageConfig
from mtbert_jax.config.includes import read_all
from mtbert_jax.config.schema import nearest
from mtbert_jax.data.readers import data_files
from mtbert_jax.errors import InputError
from mtbert_jax.files import is_folder, must_not_begin_at_home, real
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.seeds import load_run_config
from mtbert_jax.training.source import seed_folders

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
            if isinstance(path, Path):
                must_not_begin_at_home(f"--{name.replace('_', '-')} {path}", path)
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
