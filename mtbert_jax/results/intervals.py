"""How far scores depend on which examples happen to be in the dev files."""

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.tasks import primary_metric
from mtbert_jax.tasks.scores import AVERAGES, means

RESAMPLES = 1000
CONFIDENCE = 0.95
_AT_ONCE = 50  # resamples in memory; the numbers that are drawn depend on it

Interval = tuple[float, float]


class Judged(NamedTuple):
    """Predictions of one task, one row per seed, beside the labels of the same examples."""

    task: TaskConfig
    predicted: Float[np.ndarray, "seed example *label"]
    labels: Float[np.ndarray, "example *label"]


def bootstrap(tasks: Mapping[str, Judged], minus: Mapping[str, Judged] | None = None) -> dict[str, Interval]:
    """Percentile intervals of the primary metrics and both averages, all of them means over seeds.

    A resample draws as many examples of each task, two or more, as it has, with replacement, and the same ones for
    every seed: the interval is about the dev files, not about seeds. The same tasks with as many examples draw the same
    ones. With `minus`, another model's predictions, the intervals are of what the first is better by.

    Returns:
        Intervals by task, and under `average` and `plain_average`; NaN where a metric is undefined in some resample.
    """
    from scipy import stats  # here, since it takes longer to import than the rest of this package

    def statistic(*chosen: np.ndarray, axis: int) -> np.ndarray:
        del axis  # the last one
        scores = scores_of(tasks, chosen)
        return scores if minus is None else scores - scores_of({name: minus[name] for name in tasks}, chosen)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # of a NaN, which is what is returned
        result = stats.bootstrap(
            [np.arange(len(task.labels)) for task in tasks.values()],
            statistic,
            n_resamples=RESAMPLES,
            batch=_AT_ONCE,
            vectorized=True,
            axis=-1,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(0),
        )
    low, high = result.confidence_interval
    ends = zip(low.tolist(), high.tolist(), strict=True)
    return dict(zip([*tasks, *AVERAGES], ends, strict=True))


def scores_of(tasks: Mapping[str, Judged], chosen: Sequence[np.ndarray]) -> Float[np.ndarray, "score resample"]:
    """Primary metrics and both averages, means over seeds, of chosen examples of each task, ``[resample example]``."""
    values = [seed_mean(task, rows) for task, rows in zip(tasks.values(), chosen, strict=True)]
    return np.stack([*values, *means(values, [task.task for task in tasks.values()])])


def seed_mean(task: Judged, chosen: np.ndarray) -> Float[np.ndarray, " resample"]:
    """The primary metric of the chosen examples, ``[resample example]``, as a mean over seeds."""
    metric, labels = primary_metric(task.task), task.labels[chosen]
    return np.mean([metric.of_resamples(predicted[chosen], labels) for predicted in task.predicted], axis=0)
