"""Prediction files: plain CSV, or the course's format byte for byte (docs/numerics.md, section 5).

A task with an `output_column` has the course's format. What is read may be of either.
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.errors import InputError, failures_of
from mtbert_jax.files import must_be_file, read_text, write_whole
from mtbert_jax.limits import LARGEST_PREDICTIONS, LONGEST_FIELD
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.arrays import finite_rows, stack_labels

Predictions = Float[np.ndarray, "example *label"]
COLUMNS = ["id", "prediction"]
"""Header of a plain prediction file."""
_COURSE = "id \t "
"""How the course's header begins."""


def prediction_file(task: TaskConfig, split: str) -> str:
    """``sst-dev-output.csv`` and its like."""
    return f"{task.name}-{split}-output.csv"


def header(task: TaskConfig) -> str:
    r"""The first line in the course's format, without its end: ``id \t Predicted_Sentiment``, and a blank."""
    return f"{_COURSE}{task.output_column} "


def write_predictions(path: Path, task: TaskConfig, ids: list[str], predicted: Predictions) -> None:
    r"""Writes the prediction of every example.

    A plain file has the columns `id` and `prediction`: the class by its name, or whatever else the task's kind writes.
    The course's format is the header ``id \t <column> \n``, then rows ``<id> , <prediction> \n`` with classes as in the
    data files, binary predictions as 0.0 or 1.0, and numbers as they are.

    Raises:
        InputError: A prediction is not finite.
    """
    wrong = np.flatnonzero(~finite_rows(predicted))
    if len(wrong):
        raise InputError(
            f"{path} is not written: {len(wrong)} of {len(ids)} predictions of task {task.name} are not finite, the "
            f"first that of id {ids[wrong[0]]!r}"
        )
    kind, pairs = kind_of(task), zip(ids, predicted, strict=True)
    text = io.StringIO()
    if task.output_column:
        text.write(f"{header(task)}\n")
        text.writelines(f"{name} , {kind.format(task, value)} \n" for name, value in pairs)
    else:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((name, _plain(task, value)) for name, value in pairs)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.getvalue())


def _plain(task: TaskConfig, value: Any) -> str:
    kind = kind_of(task)
    return kind.classes(task)[int(value)] if kind.one_class_each else kind.format(task, value)


def read_predictions(path: Path, task: TaskConfig) -> tuple[list[str], Predictions]:
    """What `write_predictions` wrote: identifiers, and predictions as the task's kind makes them.

    Raises:
        InputError: The file is missing, or is no prediction file of this task.
    """
    must_be_file(path)
    try:
        text = read_text(path, LARGEST_PREDICTIONS)
    except OSError as error:
        raise InputError(f"cannot read the prediction file {path}: {error.strerror or error}") from None
    ids, values = [], []
    for line, name, written in _course_rows(text) if text.startswith(_COURSE) else _plain_rows(path, text):
        try:
            with failures_of(f"kind {task.kind!r}: read", ValueError):
                values.append(kind_of(task).read(task, written))
        except ValueError:
            raise InputError(f"{path}:{line}: {written!r} is no prediction of task {task.name}") from None
        ids.append(name)
    return ids, stack_labels(task, values)


def _course_rows(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, id and prediction of every row."""
    line = 2
    for row in text.split(" \n")[1:-1]:
        name, _, written = row.rpartition(" , ")
        yield line, name, written
        line += 1 + row.count("\n")


def _plain_rows(path: Path, text: str) -> Iterator[tuple[int, str, str]]:
    """Line, id and prediction of every row."""
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        first = next(reader, [])
        if first != COLUMNS:
            raise InputError(f"{path}:1: is no prediction file: its header is {', '.join(first)!r}")
        for fields in reader:
            if len(fields) != len(COLUMNS):
                raise InputError(f"{path}:{reader.line_num}: has {len(fields)} columns, not id and prediction")
            yield reader.line_num, fields[0], fields[1]
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: cannot be read as a table: {error}") from None
