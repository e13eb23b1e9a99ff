"""The command line: train, check-data, ablate, evaluate, predict, submission, report, export.

Exit status: 0 done, 1 failed, 2 what the user gave is wrong (one message on standard error, no traceback).
"""

import dataclasses
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from mtbert_jax.ablation.execute import execute
from mtbert_jax.ablation.planned import plan_runs
from mtbert_jax.ablation.processes import has_accelerator
from mtbert_jax.cli.arguments import (
    CheckData,
    Completion,
    Evaluate,
    Export,
    Predict,
    Report,
    Submission,
    Train,
    colour_as_asked,
    parse,
    parse_ablate,
    parse_train,
    split_config,
)
from mtbert_jax.cli.check_data import check_data
from mtbert_jax.cli.completion import completion_script
from mtbert_jax.config.schema import nearest
from mtbert_jax.errors import InputError, TrainingError, plain
from mtbert_jax.export.write import export_run
from mtbert_jax.files import write_whole
from mtbert_jax.inference import MultitaskModel, write_results
from mtbert_jax.machine import devices_are_found, keep_compiled_programs, keep_freed_memory, machine_summary
from mtbert_jax.parallel import join_processes
from mtbert_jax.plugins import run_plugins
from mtbert_jax.report.contents import RunContents, find_runs
from mtbert_jax.report.page import write_page
from mtbert_jax.results.rows import make_row
from mtbert_jax.results.tables import terminal, write_tables
from mtbert_jax.submission.hand_in import HandIn, hand_in
from mtbert_jax.terminal import console, scores_table
from mtbert_jax.training.fit import fit
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.training.prepare import rehearse
from mtbert_jax.training.replica import seeds_apart
from mtbert_jax.version import __version__

USAGE = """usage: mtbert COMMAND ...

  train CONFIG.toml [--field value ...]   train a run; any field of the config can be given
  check-data CONFIG.toml [--json FILE]    what the data hold: bad rows, labels, lengths, texts that come twice
  ablate CONFIG.toml ... [--seeds 0 1 2]  train several configs with several seeds; one table of all
  evaluate RUN [--split dev]              score a run's best checkpoint on a split with labels
  predict RUN --task NAME [--input FILE]  label one's own texts, one a line, as JSON Lines
  predict RUN                             write the prediction files of all tasks, dev and test
  submission RUN                          the same to hand in, checked; --check FILE --data FILE checks others
  report RUN ... [--out FILE.html]        one page about a run, or about several beside each other
  export RUN --format hf|stablehlo        a checkpoint for transformers, or for plain JAX
  completion bash|zsh|fish                what a shell reads to complete all this
  --version                               versions of this program and of JAX, and the devices

Exit status: 0 done; 1 failed; 2 what was given is wrong, and the message says what would be right. After a signal that
was heeded, which saves the run first: 0 after SIGTERM, 130 after Ctrl-C.
`mtbert COMMAND --help` explains a command; with a config, `mtbert train CONFIG.toml --help` shows its values.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.root.handlers:
        if type(handler) is logging.StreamHandler:  # perhaps not ours: importing orbax already makes one
            handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs what it raises, and we say that in one line
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if argv else 2
    colour_as_asked()
    if argv[0] == "--version":
        print(version())
        return 0
    keep_freed_memory()
    keep_compiled_programs()
    command = COMMANDS.get(argv[0])
    try:
        if command is None:
            raise InputError(f"unknown command {argv[0]!r}{nearest(argv[0], COMMANDS)} (see mtbert --help)")
        return command(argv[1:]) or 0
    except InputError as error:
        print(f"mtbert: {error}", file=sys.stderr)
        return 2
    except TrainingError as error:
        print(f"mtbert: {error}", file=sys.stderr)
        return 1
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
    except OSError as error:  # a full disk, mostly
        place = error.filename or "a file"
        print(f"mtbert: {plain(f'{place}: {error.strerror or error}')}", file=sys.stderr)
        return 1


def version() -> str:
    """This program's version, JAX's, and the devices that JAX finds."""
    found = (
        machine_summary() if devices_are_found() else f"no device (JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')})"
    )
    return plain(f"mtbert_jax {__version__}, jax {jax.__version__}, {found}")


def train(args: list[str]) -> None:
    """The command `train`."""
    path, args = split_config(Train, args, "mtbert train")
    given: Train = parse_train(path, args, "mtbert train CONFIG.toml")
    config = given.config if given.config.out else dataclasses.replace(given.config, out=f"runs/{path.stem}")
    folder = RunFolder(Path(config.out))
    run_plugins(given.plugins)
    if given.resume and given.overwrite:
        raise InputError("--resume and --overwrite exclude each other")
    if given.dry_run:
        for line in rehearse(config):
            print(line)
        return
    join_processes(given.coordinator, given.num_processes, given.process_id)
    try:
        fit(config, folder, given.resume, given.overwrite)
    except Interrupted:
        again = [arg for arg in args if arg not in ("--overwrite", "--resume")]
        command = shlex.join(["mtbert", "train", str(path), *again, "--resume"])
        print(f"interrupted and saved; go on with: {command}", file=sys.stderr)
        raise
    runs = seeds_apart(config, folder)
    results = [write_results(own, own_config) for own_config, own in runs]
    if jax.process_index() > 0:
        return
    if config.seeds:
        folders = {own_config.seed: own for own_config, own in runs}
        row = make_row(path.stem, dataclasses.replace(config, seeds=()), folders)
        write_tables([row], folder.path)
        console().print(terminal([row]))
        print(f"table: {folder.path / 'table'}.md, .csv, .json; runs: {', '.join(own.path.name for _, own in runs)}")
        return
    for split in ("dev", "test"):
        if split in results[0]:
            console().print(scores_table(results[0][split], f"{split}, best checkpoint (step {results[0]['step']})"))
    print(f"run folder: {folder.path}")


def ablate(args: list[str]) -> int:
    """The command `ablate`; returns 1 if a run failed."""
    given, configs, overrides = parse_ablate(args)
    cells = plan_runs(configs, given.seeds, given.out, overrides)
    together = given.together == "on" or (given.together == "auto" and len(given.seeds) > 1 and has_accelerator())
    if given.at_once > 1 and has_accelerator():
        raise InputError(
            "--at-once shares the cores of a CPU out, but here is a GPU or TPU; --together trains seeds there"
        )
    try:
        rows, gains, failed = execute(cells, given.out, None, together, given.at_once, given.against)
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
    path, args = split_config(CheckData, args, "mtbert check-data")
    given: CheckData = parse_train(path, args, "mtbert check-data CONFIG.toml", CheckData)
    found = check_data(given.config)
    console().print(found.tables())
    if given.json:
        try:
            write_whole(given.json, json.dumps(found.as_dict(), indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {given.json}: {error.strerror or error}") from None
    if found.problems:
        more = f"; and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
        raise InputError(f"training would refuse these data: {found.problems[0]}{more}")


def evaluate(args: list[str]) -> None:
    """The command `evaluate`."""
    given = parse(Evaluate, args, "mtbert evaluate")
    model = MultitaskModel.from_checkpoint(given.run, given.checkpoint, given.data_dir)
    scores = model.evaluate(given.split)[0]
    if not scores:
        raise InputError(f"no task has labels for the split {given.split!r}; mtbert predict writes prediction files")
    if given.json:
        print(json.dumps(scores))
    else:
        console().print(scores_table(scores, f"{given.split}, step {model.step}"))


def predict(args: list[str]) -> None:
    """The command `predict`."""
    given = parse(Predict, args, "mtbert predict")
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


def submission(args: list[str]) -> None:
    """The command `submission`."""
    given = parse(Submission, args, "mtbert submission")
    for line in hand_in(HandIn(**vars(given))):
        print(line)


def report(args: list[str]) -> None:
    """The command `report`."""
    given = parse(Report, args, "mtbert report")
    if not given.runs:
        raise InputError("give one or more run folders: mtbert report RUN ...")
    paths = find_runs(given.runs)
    places = [path.resolve() for path in paths]
    alone = places[0].parents[1 if places[0].name.startswith("seed") else 0]
    root = os.path.commonpath(places) if len(places) > 1 else alone
    names = [str(place.relative_to(root)) for place in places]
    stories = [RunContents.read(path, name, given.data_dir) for path, name in zip(paths, names, strict=True)]
    out = given.out or (given.runs[0] if len(given.runs) == 1 else Path()) / "report.html"
    if given.hide_texts:
        stories = [story.without_texts() for story in stories]
    write_page(out, stories, __version__)
    print(f"report: {out}")


def export(args: list[str]) -> None:
    """The command `export`."""
    given = parse(Export, args, "mtbert export")
    print(f"export: {export_run(given.run, given.format, given.out, given.checkpoint, given.overwrite)}")


def completion(args: list[str]) -> None:
    """The command `completion`."""
    print(completion_script(parse(Completion, args, "mtbert completion").shell), end="")


def _read_texts(path: Path | None) -> Iterator[str | tuple[str, ...]]:
    try:
        data = sys.stdin.buffer.read() if path is None else path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    for line in data.decode("utf-8", "replace").removesuffix("\n").split("\n") if data else []:
        parts = tuple(line.rstrip("\r").split("\t"))
        yield parts if len(parts) > 1 else parts[0]


COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "train": train,
    "check-data": check,
    "ablate": ablate,
    "evaluate": evaluate,
    "predict": predict,
    "submission": submission,
    "report": report,
    "export": export,
    "completion": completion,
}
