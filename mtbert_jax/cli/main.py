"""The command line: a thin shell over `mtbert_jax.run` and its neighbours.

Exit status: 0 done, 1 failed, 2 what the user gave is wrong (one message on standard error, no traceback).
"""

import dataclasses
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mtbert_jax.ablation.execute import execute
from mtbert_jax.ablation.planned import plan_runs
from mtbert_jax.ablation.processes import has_accelerator
from mtbert_jax.cli import arguments, parsing
from mtbert_jax.cli.augment import augment_pairs
from mtbert_jax.cli.check_data import check_data
from mtbert_jax.cli.completion import completion_script
from mtbert_jax.cli.predict import load_model, predict
from mtbert_jax.config.schema import finite, nearest
from mtbert_jax.errors import InputError, TrainingError, plain
from mtbert_jax.export.write import export_run
from mtbert_jax.files import input_errors, must_be_writable, must_spare, write_whole
from mtbert_jax.machine import devices_are_found, keep_compiled_programs, keep_freed_memory, machine_summary
from mtbert_jax.parallel import join_processes
from mtbert_jax.plugins import run_plugins
from mtbert_jax.report.write import write_report
from mtbert_jax.results.tables import check_tables, terminal
from mtbert_jax.run import Run, train_in
from mtbert_jax.start import done, escape_what_cannot_be_printed, started
from mtbert_jax.submission.hand_in import hand_in
from mtbert_jax.terminal import console, scores_table
from mtbert_jax.training.describe import rehearse
from mtbert_jax.training.existing import Existing
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.training.prepare import check_config_file
from mtbert_jax.version import __version__


def train(args: list[str]) -> None:
    """The command `train`."""
    path, args = parsing.split_config(arguments.Train, args, "mtbert train")
    given: arguments.Train = parsing.parse_train(path, args, "mtbert train CONFIG.toml")
    config = given.config if given.config.out else dataclasses.replace(given.config, out=f"runs/{path.stem}")
    if given.resume and given.overwrite:
        raise InputError("--resume and --overwrite exclude each other")
    existing: Existing = "resume" if given.resume else "overwrite" if given.overwrite else "refuse"
    check_config_file(path, config, existing)
    if config.seeds:
        check_tables(Path(config.out))
    if given.dry_run:
        for line in rehearse(config, existing):
            print(line)
        return
    keep_freed_memory(not config.remat)  # memory is what such a run lacks, and time is what it gives for it
    join_processes(given.coordinator, given.num_processes, given.process_id)
    try:
        run = train_in(config, existing)
    except Interrupted:
        again = [arg for arg in args if arg not in ("--overwrite", "--resume")]
        command = shlex.join(["mtbert", "train", str(path), *again, "--resume"])
        print(f"interrupted and saved; go on with: {command}", file=sys.stderr)
        raise
    if jax.process_index() > 0:
        return
    if isinstance(run, Run):
        for split in ("dev", "test"):
            if split in run.results:
                title = f"{split}, best checkpoint (step {run.results['step']})"
                console().print(scores_table(run.results[split], title))
        print(f"run folder: {run.path}")
        return
    run.write_tables(path.stem)
    console().print(terminal([run.row._replace(name=path.stem)]))
    print(f"table: {run.path / 'table'}.md, .csv, .json; runs: {', '.join(own.path.name for own in run.runs.values())}")


def ablate(args: list[str]) -> int:
    """The command `ablate`; returns 1 if a run failed."""
    given, configs, overrides = parsing.parse_ablate(args)
    planned = plan_runs(configs, given.seeds, given.out, overrides)
    together = given.together == "on" or (given.together == "auto" and len(given.seeds) > 1 and has_accelerator())
    if given.at_once > 1 and has_accelerator():
        raise InputError(
            "--at-once shares the cores of a CPU out, but here is a GPU or TPU; --together trains seeds there"
        )
    try:
        rows, gains, failed = execute(planned, given.out, None, together, given.at_once, given.against)
    except Interrupted:
        print(f"interrupted; go on with the same command: {shlex.join(['mtbert', 'ablate', *args])}", file=sys.stderr)
        raise
    console().print(terminal(rows, gains))
    print(f"tables: {given.out / 'table'}.md, .csv, .json")
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0


def check(args: list[str]) -> None:
    """The command `check-data`."""
    path, args = parsing.split_config(arguments.CheckData, args, "mtbert check-data")
    given = parsing.parse_train(path, args, "mtbert check-data CONFIG.toml", arguments.CheckData)
    if given.json:
        must_be_writable(given.json)
        must_spare("--json", given.json, parsing.files_read(path, given.config))
    found = check_data(given.config)
    console().print(found.tables())
    for line in found.warnings:
        print(plain(line), file=sys.stderr)
    print("\n".join(plain(line) for line in found.verdict().splitlines()))
    if given.json:
        with input_errors(f"cannot write {given.json}"):
            write_whole(given.json, json.dumps(found.as_dict(), indent=2, ensure_ascii=False) + "\n")
    if found.problems:
        more = f"; and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
        raise InputError(f"training would refuse these data: {found.problems[0]}{more}")


def augment(args: list[str]) -> None:
    """The command `augment`."""
    path, args = parsing.split_config(arguments.Augment, args, "mtbert augment")
    given = parsing.parse_train(path, args, "mtbert augment CONFIG.toml", arguments.Augment)
    must_spare("--write", given.write, parsing.files_read(path, given.config))
    for line in augment_pairs(given.config, given.task, given.write, given.cap, given.negatives):
        print(line)


def evaluate(args: list[str]) -> None:
    """The command `evaluate`."""
    given = parsing.parse(arguments.Evaluate, args, "mtbert evaluate")
    model = load_model(given)
    scores = model.evaluate(given.split)[0]
    if not scores:
        raise InputError(f"no task has labels for the split {given.split!r}; mtbert predict writes prediction files")
    if given.json:
        print(json.dumps(finite(scores), allow_nan=False))
    else:
        console().print(scores_table(scores, f"{given.split}, {model.title}"))


def submission(args: list[str]) -> None:
    """The command `submission`."""
    given = parsing.parse(arguments.Submission, args, "mtbert submission")
    for line in hand_in(given.runs, given.output, given.checkpoint, given.data_dir, given.check, given.data):
        print(line)


def report(args: list[str]) -> None:
    """The command `report`."""
    given = parsing.parse(arguments.Report, args, "mtbert report")
    if not given.runs:
        raise InputError("give one or more run folders: mtbert report RUN ...")
    print(f"report: {write_report(given.runs, given.out, given.data_dir, given.hide_texts)}")


def export(args: list[str]) -> None:
    """The command `export`."""
    given = parsing.parse(arguments.Export, args, "mtbert export")
    print(f"export: {export_run(given.run, given.format, given.out, given.checkpoint, given.overwrite)}")


def completion(args: list[str]) -> None:
    """The command `completion`."""
    shell = parsing.parse(arguments.Completion, args, "mtbert completion").shell
    print(completion_script(shell, {name: command.arguments for name, command in COMMANDS.items()}), end="")


class Command(NamedTuple):
    """One command: what runs it and returns an exit status, or None for 0; and what it takes."""

    run: Callable[[list[str]], int | None]
    arguments: type[Any]


COMMANDS = {
    "train": Command(train, arguments.Train),
    "check-data": Command(check, arguments.CheckData),
    "augment": Command(augment, arguments.Augment),
    "ablate": Command(ablate, arguments.Ablate),
    "evaluate": Command(evaluate, arguments.Evaluate),
    "predict": Command(predict, arguments.Predict),
    "submission": Command(submission, arguments.Submission),
    "report": Command(report, arguments.Report),
    "export": Command(export, arguments.Export),
    "completion": Command(completion, arguments.Completion),
}
"""All commands."""

USAGE = """usage: mtbert COMMAND ...

  train CONFIG.toml [--field value ...]     train a run; any field of the config can be given
  check-data CONFIG.toml [--json FILE]      what the data hold: bad rows, labels, lengths, repeats
  augment CONFIG.toml --write FILE.jsonl    a training file of pairs with those that follow from its own
  ablate CONFIG.toml ... [--seeds 0 1 2]    train several configs with several seeds; one table
  evaluate RUN ... [--split dev]            score a run's best checkpoint on a split; several runs as an ensemble
  predict RUN ... [--task NAME] [--input FILE]
                                            label one's own texts, one a line; without --task, write prediction files
  submission RUN ...                        prediction files to hand in, checked; --check FILE --data FILE checks others
  report RUN ... [--out FILE.html]          one page about a run, or about several
  export RUN --format hf|stablehlo          a checkpoint for transformers, or plain JAX
  completion bash|zsh|fish                  what a shell reads to complete all this
  --version                                 versions of this program and of JAX, and the devices

Every command takes --plugins FILE.py: Python that registers task kinds, encoder families, aggregators, regularisers.
Exit status: 0 done; 1 failed; 2 what was given is wrong, and the message says what would be right. After a signal that
was heeded, which saves the run first: 0 after SIGTERM or SIGHUP, 130 after Ctrl-C.
`mtbert COMMAND --help` explains a command; with a config, `mtbert train CONFIG.toml --help` shows its values.
"""


"""What ``mtbert --help`` prints."""


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    escape_what_cannot_be_printed()
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.root.handlers:
        if type(handler) is logging.StreamHandler:  # perhaps not ours: importing orbax already makes one
            handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs what it raises, and we say that in one line
    try:
        started()
        status = _run(argv)
        sys.stdout.flush()  # here, where it can be told that nobody takes it
        return status
    except (InputError, TrainingError) as error:
        print(f"mtbert: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except Interrupted as interrupted:
        return interrupted.status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except (RuntimeError, AssertionError):
        if devices_are_found():
            raise
        wanted = os.environ.get("JAX_PLATFORMS", "")
        print(
            f"mtbert: JAX_PLATFORMS={plain(wanted)}: JAX finds no such device here; unset it to take any",
            file=sys.stderr,
        )
        return 2
    except OSError as error:  # a full disk, mostly; or a folder that may not be entered
        place = error.filename or "standard output or a file"
        print(f"mtbert: {plain(f'{place}: {error.strerror or error}')}", file=sys.stderr)
        return 2 if isinstance(error, PermissionError) else 1
    finally:
        done()


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if argv else 2
    parsing.colour_as_asked()
    if argv[0] == "--version":
        print(version())
        return 0
    keep_freed_memory()
    keep_compiled_programs()
    command = COMMANDS.get(argv[0])
    if command is None:
        raise InputError(f"unknown command {argv[0]!r}{nearest(argv[0], COMMANDS)} (see mtbert --help)")
    run_plugins(parsing.named_plugins(argv[1:]))
    return command.run(argv[1:]) or 0


def version() -> str:
    """This program's version, JAX's, and the devices that JAX finds."""
    wanted = os.environ.get("JAX_PLATFORMS", "")
    found = machine_summary() if devices_are_found() else f"no device (JAX_PLATFORMS={wanted})"
    return plain(f"mtbert_jax {__version__}, jax {jax.__version__}, {found}")
