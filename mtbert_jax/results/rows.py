"""Finished runs of one config with several seeds → one row: means, spreads, intervals, and what it took."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mtbert_jax.config import Config, TaskConfig
from mtbert_jax.data.examples import digest
from mtbert_jax.data.predictions import prediction_file, read_predictions
from mtbert_jax.data.readers import read_for_run
from mtbert_jax.errors import InputError
from mtbert_jax.files import must_lie_in
from mtbert_jax.results.intervals import Interval, Judged, bootstrap
from mtbert_jax.tasks import kind_of, primary_metric
from mtbert_jax.tasks.arrays import stack_labels
from mtbert_jax.tasks.scores import AVERAGES
from mtbert_jax.training.existing import config_changes
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.records import read_metrics
from mtbert_jax.types import Example


class Value(NamedTuple):
    """One score over several seeds.

    Attributes:
        mean: The mean.
        sd: The sample standard deviation; None with one seed.
        interval: Where the mean could lie with other dev examples, or None where that cannot be said.
    """

    mean: float
    sd: float | None
    interval: Interval | None


class Row(NamedTuple):
    """All runs of one config.

    Attributes:
        planned: The seeds that were asked for.
        seeds: Seeds whose run is finished.
        metrics: The primary metric's name, by task, in the config's order.
        values: Scores on dev by task, and under the names of `AVERAGES`.
        seconds: Wall time of training, the median over seeds; None where the runs do not tell.
        peak_memory: Most memory in use at once, in bytes, the largest of all seeds; None where the runs do not tell.
        note: Why there is no interval, or nothing.
        results: The ``results.json`` of every finished run, in the order of `seeds`.
        judged: Predictions on dev beside labels, by task; empty where they cannot be read.
        rate: Examples a second in the last stage, the median over seeds; None where a run has no such record.
    """

    name: str
    planned: tuple[int, ...]
    seeds: tuple[int, ...]
    metrics: dict[str, str]
    values: dict[str, Value]
    seconds: float | None
    peak_memory: int | None
    note: str
    results: tuple[dict[str, Any], ...]
    judged: Mapping[str, Judged] = MappingProxyType({})
    rate: float | None = None

    def scores(self, name: str) -> list[float]:
        """A task's primary metric, or an average, of every finished run."""
        dev = [results["dev"] for results in self.results]
        return [score[name][self.metrics[name]] if name in self.metrics else score[name] for score in dev]


def read_results(folder: RunFolder, config: Config) -> dict[str, Any] | None:
    """The results of a run, or None where it is not finished, or is another one."""
    if not folder.config.is_file() or config_changes(folder.load_config(), config):
        return None
    return folder.load_results()


def make_row(name: str, config: Config, runs: Mapping[int, RunFolder]) -> Row:
    """The row of one config, which all runs have but for seed and folder; `runs` by seed, finished or not."""
    read = {seed: read_results(folder, replace(config, seed=seed)) for seed, folder in runs.items()}
    done = {seed: results for seed, results in read.items() if results is not None}
    scores = [results.get("dev", {}) for results in done.values()]
    tasks = [task for task in config.tasks if scores and all(_has(score, task) for score in scores)]
    metrics = {task.name: primary_metric(task).name for task in tasks}
    columns = {name: [score[name][metric] for score in scores] for name, metric in metrics.items()}
    averages = [name for name in AVERAGES if tasks and all(name in score for score in scores)]
    columns |= {name: [score[name] for score in scores] for name in averages}
    judged: dict[str, Judged] = {}
    able = [task for task in tasks if not kind_of(task).auxiliary]  # the others have no prediction files
    scored = [task for task in able if np.isfinite(columns[task.name]).all()]  # of the others there may be no file
    try:
        judged = judge(config, scored, [runs[seed] for seed in done], scores)
        ends = bootstrap(judged) if judged else {}
        if len(scored) < len(able):
            nowhere = (np.nan, np.nan)
            ends = {name: ends.get(name, nowhere) for name in (task.name for task in able)} | dict.fromkeys(
                AVERAGES, nowhere
            )
        intervals = {name: interval for name, interval in ends.items() if np.isfinite(interval).all()}
        undefined = ", ".join(name for name in ends if name not in intervals)
        note = f"no interval of {undefined}: undefined in some resample" if undefined else ""
    except InputError as error:
        intervals, note = {}, f"no interval: {error}"
    return Row(
        name=name,
        planned=tuple(runs),
        seeds=tuple(done),
        metrics=metrics,
        values={name: Value(*spread(values), intervals.get(name)) for name, values in columns.items()},
        seconds=statistics.median(seconds) if (seconds := _all("seconds", done)) else None,
        peak_memory=max(peaks) if (peaks := _all("peak_memory_bytes", done)) else None,
        note=note,
        results=tuple(done.values()),
        judged=judged,
        rate=statistics.median(rates) if done and all(rates := [throughput(runs[seed]) for seed in done]) else None,
    )


def throughput(folder: RunFolder) -> float:
    """Examples a second in a run's last stage, the median over its records; 0 where it has none."""
    records = [record for record in read_metrics(folder.metrics) if record["kind"] == "train"]
    rates = [record["examples_per_second"] for record in records if record["stage"] == records[-1]["stage"]]
    return statistics.median(rates) if rates else 0.0


def _has(scores: dict[str, Any], task: TaskConfig) -> bool:
    """Whether a task's primary metric is among the scores."""
    return isinstance(scores.get(task.name), dict) and primary_metric(task).name in scores[task.name]


def _all(key: str, done: dict[int, dict[str, Any]]) -> list[Any]:
    """A number of every run; nothing unless all of them tell it."""
    values = [results.get(key) for results in done.values()]
    return values if all(values) else []


def spread(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation, which a single value has not.

    >>> spread([0.5, 0.7])
    (0.6, 0.1414...)
    """
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def judge(
    config: Config, tasks: list[TaskConfig], runs: list[RunFolder], scores: list[dict[str, Any]]
) -> dict[str, Judged]:
    """Prediction files of finished runs, which give their scores, beside the labels in the data files, by task."""
    judged = {}
    for task in tasks:
        examples = read_for_run(config, task, "dev").examples
        labels = stack_labels(task, [example.label for example in examples])
        labels = labels.astype(np.float32).astype(np.float64)  # as in a Dataset
        if len(labels) < 2:
            raise InputError(f"task {task.name} has one dev example only")
        rows = []
        for folder, score in zip(runs, scores, strict=True):
            path, predicted = dev_predictions(folder, task, examples)
            metric = primary_metric(task)
            again = metric(predicted, labels)
            if not np.isclose(again, score[task.name][metric.name], rtol=0, atol=1e-6, equal_nan=True):
                raise InputError(
                    f"{path} does not give the {metric.name} in results.json; have the labels changed since?"
                )
            rows.append(predicted)
        judged[task.name] = Judged(task, np.stack(rows), labels)
    return judged


def dev_predictions(
    folder: RunFolder, task: TaskConfig, examples: Sequence[Example]
) -> tuple[Path, Float[np.ndarray, " example"]]:
    """A run's prediction file of these dev examples, and what it holds; `InputError` if it is of others."""
    known = folder.load_data().get(task.name, {}).get("dev")
    if known is not None and known != digest(examples):
        raise InputError(f"{task.dev} holds other examples than when the run was scored")
    path = folder.predictions / prediction_file(task, "dev")
    must_lie_in(folder.path, path)
    ids, predicted = read_predictions(path, task)
    if ids != [example.id for example in examples]:
        raise InputError(f"{path} has other ids than {task.dev}")
    return path, predicted
