"""The scores of one task, of several, and their averages."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.config.schema import nearest
from mtbert_jax.errors import InputError
from mtbert_jax.tasks.arrays import predictions
from mtbert_jax.tasks.metrics import Metric
from mtbert_jax.tasks.registry import counted, kind_of, primary_metric

AVERAGES = ("average", "plain_average")
"""Names of both averages, beside the tasks' in a dict of scores."""


def task_scores(task: TaskConfig, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """All metrics of a task by name, the primary one first, of float64 predictions and labels; NaN if undefined.

    >>> task_scores(TaskConfig(kind="binary"), np.array([1.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0]))["accuracy"]
    0.6666666666666666
    """
    primary = primary_metric(task)
    return {metric.name: metric(predictions, labels) for metric in dict.fromkeys((primary, *kind_of(task).metrics))}


def averages(scores: Mapping[str, Mapping[str, float]], tasks: Sequence[TaskConfig]) -> dict[str, float]:
    """The paper's average of the tasks' primary metrics, and the plain one (docs/numerics.md, section 1.3).

    `average` maps each metric onto the unit interval first: Pearson's r to (r + 1) / 2, which reproduces the paper's
    .780; an error e to 1 / (1 + e). `plain_average` maps errors alone.
    """
    tasks = counted(tasks)
    values = [scores[task.name][primary_metric(task).name] for task in tasks]
    return dict(zip(AVERAGES, map(float, means(values, tasks)), strict=True))


def means(values: Sequence[Any], tasks: Sequence[TaskConfig]) -> tuple[np.ndarray, np.ndarray]:
    """Both averages of one primary metric per task, numbers or arrays of numbers.

    >>> tasks = [TaskConfig(kind="binary"), TaskConfig(kind="regression")]
    >>> [float(mean) for mean in means([0.5, 0.5], tasks)]
    [0.625, 0.5]
    """
    metrics = [primary_metric(task) for task in tasks]
    mapped = [metric.on_unit(value) for metric, value in zip(metrics, values, strict=True)]
    plain = [x if metric.best == "max" else y for metric, x, y in zip(metrics, values, mapped, strict=True)]
    return np.mean(mapped, axis=0), np.mean(plain, axis=0)


def score(
    tasks: Mapping[str, TaskConfig],
    logits: Mapping[str, Float[np.ndarray, "example output"]],
    labels: Mapping[str, Float[np.ndarray, "example *label"]],
) -> dict[str, Any]:
    """Metrics of each task that has logits, and both averages, as ``results.json`` holds them.

    All metrics of a task are NaN where a logit of it is not finite; so are then both averages.
    """
    scores: dict[str, Any] = {
        name: task_scores(tasks[name], predictions(tasks[name], values), labels[name].astype(np.float64))
        for name, values in logits.items()
    }
    return {**scores, **averages(scores, [tasks[name] for name in logits])}


def deciding(
    tasks: Sequence[TaskConfig], labels: Mapping[str, Float[np.ndarray, "example *label"]], which: str
) -> tuple[TaskConfig, ...]:
    """The tasks that `which`, a config's `checkpoint_metric`, can go by: those whose score can have a value at all.

    Pearson's r of labels that are all equal has none, whatever a model predicts: one such task would leave the average
    of all tasks, and with it the best checkpoint, undefined for the whole run. Here perfect predictions are scored.
    """
    name = which.partition(".")[0]
    asked = [task for task in tasks if task.name in labels and (which in AVERAGES or task.name == name)]
    asked = list(counted(asked))
    own = {task.name: labels[task.name].astype(np.float64) for task in asked}
    perfect = {task.name: kind_of(task).perfect(own[task.name]) for task in asked}
    return tuple(task for task in asked if np.isfinite(_chosen_metric(task, which)(perfect[task.name], own[task.name])))


def chosen_score(scores: Mapping[str, Any], tasks: Sequence[TaskConfig], which: str) -> float:
    """The score that the best checkpoint is chosen by, larger the better, of the `deciding` tasks; NaN if undefined."""
    if not tasks:
        return math.nan
    if which in AVERAGES:
        return averages(scores, tasks)[which]
    metric = _chosen_metric(tasks[0], which)
    return metric.gain(scores[tasks[0].name][metric.name])


def _chosen_metric(task: TaskConfig, which: str) -> Metric:
    """The metric of a task that `which` is about."""
    name = which.partition(".")[2] if which not in AVERAGES else ""
    return next((metric for metric in kind_of(task).metrics if metric.name == name), primary_metric(task))


def check_chosen_score(tasks: Sequence[TaskConfig], which: str) -> None:
    """Refuses a `checkpoint_metric` that is no average, task or metric of the run, or of a task without a dev file."""
    if which in AVERAGES:
        return
    name, dot, metric = which.partition(".")
    task = next((task for task in tasks if task.name == name), None)
    known = [*AVERAGES, *(task.name for task in tasks)]
    if task is None:
        raise InputError(f"checkpoint_metric = {which!r} is none of {', '.join(known)}{nearest(name, known)}")
    names = [one.name for one in kind_of(task).metrics]
    if dot and metric not in names:
        hint = nearest(metric, names)
        raise InputError(f"checkpoint_metric = {which!r}: task {name} has the metrics {', '.join(names)}{hint}")
    if not task.dev:
        raise InputError(f"checkpoint_metric = {which!r}: task {name} has no dev file")
