"""What one row is better by than another: the same seeds, the same dev examples."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtbert_jax.results.intervals import bootstrap
from mtbert_jax.results.rows import Row, Value, spread
from mtbert_jax.tasks import primary_metric
from mtbert_jax.tasks.scores import AVERAGES


class Difference(NamedTuple):
    """One row beside another.

    Attributes:
        seeds: The seeds that both have.
        metrics: The metric of every task that both have with the same dev labels.
        values: Score of the row less that of the other, by task, and under the names of `AVERAGES` where all tasks are
            the same; the deviation is over seeds, each beside itself.
        errors: Tasks whose metric is better the less it is, so that a gain is below 0.
    """

    name: str
    against: str
    seeds: tuple[int, ...]
    metrics: dict[str, str]
    values: dict[str, Value]
    errors: tuple[str, ...] = ()


def differences(rows: Sequence[Row], against: Sequence[str] = ()) -> list[Difference]:
    """Every other row beside each of the named ones; beside the first row if none is named.

    What has no seed or no task in common is left out.
    """
    by_name = {row.name: row for row in rows}
    others = [by_name[name] for name in against] or list(rows[:1])
    found = [difference(row, other) for other in others for row in rows if row is not other]
    return [one for one in found if one.values]


def difference(row: Row, other: Row) -> Difference:
    """One row beside another."""
    seeds = tuple(seed for seed in row.seeds if seed in other.seeds)
    here, there = ([one.seeds.index(seed) for seed in seeds] for one in (row, other))
    alike = [name for name in row.judged if name in other.judged and _same(row, other, name)] if seeds else []
    mine = {name: row.judged[name]._replace(predicted=row.judged[name].predicted[here]) for name in alike}
    theirs = {name: other.judged[name]._replace(predicted=other.judged[name].predicted[there]) for name in alike}
    names = [*alike, *(AVERAGES if alike and set(alike) == set(row.metrics) == set(other.metrics) else ())]
    intervals = bootstrap(mine, theirs) if alike else {}
    values = {}
    for name in names:
        gains = np.array(row.scores(name))[here] - np.array(other.scores(name))[there]
        interval = intervals[name]
        values[name] = Value(*spread(gains.tolist()), interval if np.isfinite(interval).all() else None)
    errors = tuple(name for name in alike if primary_metric(row.judged[name].task).best == "min")
    return Difference(row.name, other.name, seeds, {name: row.metrics[name] for name in alike}, values, errors)


def _same(row: Row, other: Row, task: str) -> bool:
    """Whether both rows have a task with the same metric on the same labels."""
    one, two = row.judged[task], other.judged[task]
    return row.metrics[task] == other.metrics[task] and np.array_equal(one.labels, two.labels)


def same_labels(row: Row, other: Row) -> bool:
    """Whether two rows were scored on the same dev labels, as far as these can be read."""
    shared = {*row.judged} & {*other.judged}
    return all(np.array_equal(row.judged[name].labels, other.judged[name].labels) for name in shared)
