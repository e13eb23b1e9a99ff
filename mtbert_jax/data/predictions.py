"""Prediction files in the course's format, byte for byte (docs/numerics.md, section 5)."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.errors import InputError
from mtbert_jax.files import must_be_file, read_text
from mtbert_jax.limits import LARGEST_PREDICTIONS
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.kind import finite_rows

Predictions = Float[np.ndarray, "example *label"]


def prediction_file(task: TaskConfig, split: str) -> str:
    """``sst-dev-output.csv`` and its like."""
    return f"{task.name}-{split}-output.csv"


def header(task: TaskConfig) -> str:
    r"""The first line, without its end: ``id \t Predicted_Sentiment``, and a blank."""
    return f"id \t {task.output_column or f'Predicted_{task.name.capitalize()}'} "


def write_predictions(path: Path, task: TaskConfig, ids: list[str], predicted: Predictions) -> None:
    r"""Writes the header ``id \t <column> \n``, then ``<id> , <prediction> \n`` for every example.

    Each as the task's kind writes it: classes as in the data files, binary predictions as 0.0 or 1.0, numbers as they
    are.

    Raises:
        InputError: A prediction is not finite.
    """
    wrong = np.flatnonzero(~finite_rows(predicted))
    if len(wrong):
        raise InputError(
            f"{path} is not written: {len(wrong)} of {len(ids)} predictions of task {task.name} are not finite, the "
            f"first that of id {ids[wrong[0]]!r}"
        )
    rows = (f"{name} , {kind_of(task).format(task, value)} \n" for name, value in zip(ids, predicted, strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{header(task)}\n" + "".join(rows), encoding="utf-8")


def read_predictions(path: Path, task: TaskConfig) -> tuple[list[str], Float[np.ndarray, " example"]]:
    """What `write_predictions` wrote: identifiers, and predictions as the task's kind makes them.

    Raises:
        InputError: The file is missing, or is no prediction file of this task.
    """
    must_be_file(path)
    try:
        rows = read_text(path, LARGEST_PREDICTIONS).split(" \n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the prediction file {path}: {error}") from None
    ids, values = [], []
    for number, row in enumerate(rows[1:-1], start=2):
        name, _, text = row.rpartition(" , ")
        try:
            values.append(kind_of(task).read(task, text))
        except ValueError:
            raise InputError(f"{path}:{number}: {text!r} is no prediction of task {task.name}") from None
        ids.append(name)
    return ids, np.array(values, np.float64)
