"""The command `predict`: texts in, JSON Lines out; or the prediction files of a run."""

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import track

from mtbert_jax.cli import arguments, parsing
from mtbert_jax.config import Task
from mtbert_jax.data.readers import SPLITS
from mtbert_jax.data.texts import read_texts
from mtbert_jax.errors import InputError
from mtbert_jax.files import input_errors, json_lines, must_be_writable, must_spare, written_whole
from mtbert_jax.inference import Ensemble, MultitaskModel, Predictor, files_read_of, load_predictor, output_folder
from mtbert_jax.inference.predictor import warn_of_rows_left_out
from mtbert_jax.training.evaluate import not_finite

logger = logging.getLogger(__name__)
LONG = 1000
"""Texts from which on a terminal shows how far they are."""


def predict(args: list[str]) -> None:
    """The command `predict`."""
    given = parsing.parse(arguments.Predict, args, "mtbert predict")
    if given.task is None and given.input is not None:
        raise InputError("--input needs --task: which task are these texts for?")
    if given.soft_labels is not None and (given.task is None or given.output is not None):
        raise InputError("--soft-labels FILE needs --task, and takes the place of --output")
    if given.output is not None and given.task is not None:
        must_be_writable(given.output)
    if given.soft_labels is not None:
        must_be_writable(given.soft_labels)
    if given.task is None:
        folder = output_folder(given.runs, given.output, "predictions")
        _write_files(load_model(given), folder)
        return
    model = load_model(given)
    read = [*([] if given.input is None else [(given.input, "the --input")]), *files_read_of(given.runs, model)]
    for flag, path in (("--output", given.output), ("--soft-labels", given.soft_labels)):
        if path is not None:
            must_spare(flag, path, read)
    if given.soft_labels is not None:
        own = None if given.input is None else _read_texts(given.input, model, model.task(given.task))
        with _output(given.soft_labels) as file:
            file.write(json_lines(model.soft_labels(given.task, own)))
    else:
        texts = _read_texts(given.input, model, model.predicting(given.task))
        predictions = model.stream(given.task, texts)
        with _output(given.output) as file:
            for text, said in _shown(zip(texts, predictions, strict=True), len(texts), given.output):
                row = {"text": text if len(text) > 1 else text[0], **said._asdict()}
                file.write(json_lines([row]))


def load_model(given: arguments.Evaluate | arguments.Predict) -> MultitaskModel | Ensemble:
    """The model or ensemble that a command names, which scores those tasks in both orders that the command says."""
    model = load_predictor(given.runs, given.checkpoint, given.data_dir)
    return model if given.both_orders is None else model.with_both_orders(given.both_orders)


def _write_files(model: Predictor, folder: Path) -> None:
    """The prediction files of all tasks, dev and test."""
    read = {split: model.datasets(split) for split in SPLITS[1:]}  # both, before anything is computed
    wrong: list[str] = []
    for split, datasets in read.items():
        warn_of_rows_left_out(datasets)
        logits = model.score(datasets)[1]
        for path in model.write_predictions(folder, split, datasets, logits):
            print(path)
        wrong += not_finite(split, datasets, logits).values()
    if wrong:
        more = f"; and {len(wrong) - 1} more files" if len(wrong) > 1 else ""
        raise InputError(f"no prediction file is written where predictions would be made up: {wrong[0]}{more}")


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """Standard output; or a file that is there whole or as it was before."""
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
    else:
        with written_whole(path) as file:
            yield file


def _shown(rows: Iterable[Any], count: int, output: Path | None) -> Iterable[Any]:
    """The rows, with a bar on a terminal where there are many, and their lines do not go there themselves."""
    console = Console(file=sys.stderr)
    on_screen = output is None and sys.stdout.isatty()
    shown = console.is_terminal and count >= LONG and not on_screen
    return track(rows, "predicting", count, console=console) if shown else rows


def _read_texts(path: Path | None, model: Predictor, task: Task) -> list[tuple[str, ...]]:
    """The texts of a file or of standard input; a warning says how many the model reads a part of alone."""
    with input_errors(f"cannot read {path}"):
        data = sys.stdin.buffer.read() if path is None else path.read_bytes()
    texts = read_texts(data, "standard input" if path is None else str(path), task)
    if cut := model.cut_off(task.name, texts):
        which = "the text has" if len(texts) == 1 else f"{cut} of {len(texts)} texts have"
        logger.warning("%s more tokens than max_length of task %s, and what is beyond is cut off", which, task.name)
    return texts
