"""Labels and predictions of many examples as arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.config.schema import describe
from mtbert_jax.errors import InputError, failures_of
from mtbert_jax.tasks.kind import IGNORED, PER_PLACE
from mtbert_jax.tasks.metrics import NUMBERS
from mtbert_jax.tasks.parsing import LARGEST_LABEL
from mtbert_jax.tasks.registry import kind_of


def predictions(task: TaskConfig, logits: Float[np.ndarray, "example output"]) -> Float[np.ndarray, "example *label"]:
    """What a task's kind predicts, shaped like labels; NaN for every example with a logit that is not finite.

    An argmax of NaN is class 0, and NaN > 0 is false: left to `TaskKind.predict`, they would be ordinary predictions.

    >>> predictions(TaskConfig(kind="binary"), np.array([[2.0], [-1.0], [np.nan]]))
    array([ 1.,  0., nan])
    """
    predicted = np.asarray(kind_of(task).predict(logits), np.float64)
    known = finite_rows(logits)
    return np.where(known.reshape(-1, *[1] * (predicted.ndim - 1)), predicted, np.nan)


def finite_rows(values: Float[np.ndarray, "example ..."]) -> Bool[np.ndarray, " example"]:
    """Whether all numbers of an example are finite."""
    return np.isfinite(values).all(axis=tuple(range(1, np.ndim(values))))


def parsed(task: TaskConfig, text: str) -> Any:
    """The label that a task's kind makes of a text.

    Raises:
        ValueError: It makes none, or one that is not finite in float32, which a training set must not hold.
        InputError: Its `parse` fails otherwise, or returns what is no label of the task.
    """
    kind = kind_of(task)
    with failures_of(f"kind {kind.name!r}: parse", ValueError):
        label = kind.parse(task, text)
    shape = kind.label_shape(task)
    if shape == () and type(label) is float and abs(label) <= LARGEST_LABEL:  # most are, and NumPy takes its time
        return label
    with failures_of(f"kind {kind.name!r}: parse"):
        found = np.asarray(label)
    if (found.ndim != 1 if shape == (PER_PLACE,) else found.shape != shape) or found.dtype.kind not in NUMBERS:
        one = "a list of numbers" if shape == (PER_PLACE,) else f"numbers of shape {shape}" if shape else "a number"
        raise InputError(f"kind {kind.name!r}: parse returns {describe(label)} for {text!r}; it must be {one}")
    if not (np.abs(found) <= LARGEST_LABEL).all():
        raise ValueError(text)
    return label


def stack_labels(task: TaskConfig, labels: Sequence[Any], width: int = 0) -> Float[np.ndarray, "example *label"]:
    """Labels or predictions of examples as one array, float64; None is a label that is not known.

    Rows of any length are filled up with `IGNORED`, to `width` or to the longest one. Other labels that are not known
    are zeros.
    """
    shape = kind_of(task).label_shape(task)
    if shape != (PER_PLACE,):
        return np.array([np.zeros(shape) if label is None else label for label in labels], np.float64)
    rows = [() if label is None else label for label in labels]
    stacked = np.full((len(rows), max([1, width, *map(len, rows)])), float(IGNORED))
    for own, row in zip(stacked, rows, strict=True):
        own[: len(row)] = row
    return stacked
