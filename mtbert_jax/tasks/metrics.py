"""Scores of predictions against labels, on the host, in float64."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mtbert_jax.config import Kind

PRIMARY = {"classification": "accuracy", "binary": "accuracy", "regression": "pearson"}
"""The metric by which a task of each kind enters the averages."""


def predictions(kind: Kind, logits: Float[np.ndarray, "example output"]) -> Float[np.ndarray, " example"]:
    """Logits → class index, 0 / 1, or value. A binary logit of exactly 0 counts as 0."""
    if kind == "classification":
        return np.argmax(logits, axis=-1).astype(np.float64)
    if kind == "binary":
        return (logits[:, 0] > 0).astype(np.float64)
    return logits[:, 0].astype(np.float64)


def task_metrics(
    kind: Kind, predicted: Float[np.ndarray, " example"], labels: Float[np.ndarray, " example"]
) -> dict[str, float]:
    """Accuracy and F1 (of class 1, or the mean over classes), or Pearson's r and Spearman's ρ.

    A correlation is NaN where predictions or labels are constant.

    >>> task_metrics("binary", np.array([1.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0]))["accuracy"]
    0.6666666666666666
    """
    if kind == "regression":
        from scipy import stats  # here, since it takes longer to import than the rest of this package

        return {"pearson": pearson(predicted, labels), "spearman": pearson(*map(stats.rankdata, (predicted, labels)))}
    classes = np.array([1.0]) if kind == "binary" else np.union1d(predicted, labels)
    scores = [f1(predicted == c, labels == c) for c in classes]
    return {"accuracy": float(np.mean(predicted == labels)), "f1": float(np.mean(scores))}


def f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """F1 of two bool arrays; 0 where neither holds a True."""
    total = int(predicted.sum()) + int(labels.sum())
    return 2 * int((predicted & labels).sum()) / total if total else 0.0


def pearson(x: Float[np.ndarray, " example"], y: Float[np.ndarray, " example"]) -> float:
    """Pearson's r, NaN for fewer than two examples or where one side is constant."""
    if len(x) < 2 or not np.isfinite(x).all() or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    # Exactly rounded sums: a BLAS's differ in the last bit with the arrays' place in memory.
    try:
        return statistics.correlation(x.tolist(), y.tolist())
    except statistics.StatisticsError:  # a spread so small that its square is 0
        return math.nan


def averages(scores: dict[str, dict[str, float]], kinds: dict[str, Kind]) -> dict[str, float]:
    """The paper's average and the plain one over tasks (NUMERICS, section 1).

    `average` maps Pearson's r to (r + 1) / 2 first; it reproduces the paper's .780. `plain_average` does not map it.
    """
    average, plain = means([scores[task][PRIMARY[kind]] for task, kind in kinds.items()], list(kinds.values()))
    return {"average": float(average), "plain_average": float(plain)}


def means(values: Sequence[Any], kinds: Sequence[Kind]) -> tuple[np.ndarray, np.ndarray]:
    """Both averages of one primary metric per task, numbers or arrays of numbers: the paper's and the plain one.

    >>> [float(mean) for mean in means([0.5, 0.5], ["binary", "regression"])]
    [0.625, 0.5]
    """
    mapped = [(x + 1) / 2 if kind == "regression" else x for x, kind in zip(values, kinds, strict=True)]
    return np.mean(mapped, axis=0), np.mean(values, axis=0)
