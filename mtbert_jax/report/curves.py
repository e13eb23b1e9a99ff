"""The plots of a run's records, by name: a page shows them, and `Run.plot` returns them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mtbert_jax.config.schema import nearest
from mtbert_jax.errors import InputError
from mtbert_jax.regularizers.base import PLACE, RECORD_FIELDS, REGULARIZERS
from mtbert_jax.report.contents import RunContents
from mtbert_jax.report.effects import mean_effects
from mtbert_jax.report.plots import Plot, Scale, Series, curves, figure, heat
from mtbert_jax.tasks import primary_metric
from mtbert_jax.training.records import columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW_PAIRS = 6  # of tasks: more of them are a matrix rather than lines
WIDE = 30  # times the slowest rate: from there on a rate's scale is logarithmic


def marks(run: RunContents) -> dict[float, str]:
    """Steps that every plot over steps marks: ends of stages but the last, and the best checkpoint."""
    ends = {record["step"]: f"end of {record['stage']}" for record in run.of("stage")}
    found = {step: text for step, text in ends.items() if step < run.step}
    best = (run.results or {}).get("step")
    return {**found, best: "best checkpoint"} if isinstance(best, int) and run.scores else dict(found)


def losses(run: RunContents) -> list[Plot]:
    """Training loss of every task, and its dev score on an axis at the right."""
    plots = []
    for task in run.config.tasks:
        metric = primary_metric(task).name
        loss, scores = run.means("loss", task.name), run.series("eval", "scores", task.name, metric)
        if loss[0] or scores[0]:
            right = (f"dev {metric}", scores) if scores[0] else None
            plots.append(curves(task.name, "training loss", {"training loss": [loss]}, right, marks=marks(run)))
    return plots


def scores(run: RunContents) -> list[Plot]:
    """Dev scores: the average, and every task's primary metric."""
    keys = {
        f"{task.name} {primary_metric(task).name}": (task.name, primary_metric(task).name) for task in run.config.tasks
    }
    found = [("average", run.series("eval", "scores", "average"))]
    found += [(name, run.series("eval", "scores", *key)) for name, key in keys.items()]
    return [curves(f"dev {name}", name, {name: [line]}, marks=marks(run)) for name, line in found if line[0]]


def average(run: RunContents) -> list[Plot]:
    """The dev average, where there are two values or more."""
    line = run.series("eval", "scores", "average")
    return [curves("average", "dev average", {"": [line]}, marks=marks(run))] if len(line[0]) > 1 else []


def conflicts(run: RunContents) -> list[Plot]:
    """Cosines between tasks' gradients, and the share of steps in which they are negative."""
    pairs = run.names("cosine")
    if not pairs:
        return []
    if len(pairs) <= FEW_PAIRS:
        shown = marks(run)
        return [
            curves("cosine between gradients of the encoder", "cosine", _by_pair(run, "cosine"), marks=shown),
            curves("steps in conflict", "share of steps", _by_pair(run, "conflict"), marks=shown),
        ]
    tasks = list(dict.fromkeys(task for pair in pairs for task in pair.split("/")))
    return [
        heat("mean cosine between gradients", tasks, tasks, _matrix(run, tasks, "cosine")),
        heat("share of steps in conflict", tasks, tasks, _matrix(run, tasks, "conflict")),
    ]


def layers(run: RunContents) -> list[Plot]:
    """Share of steps in which two tasks' gradients conflict, by layer of the encoder: a mean over all pairs."""
    names = run.names("layer_conflict")
    if not names:
        return []
    shares = np.array([[run.share("layer_conflict", name)[0]] for name in names])
    return [heat("steps in conflict, by layer", names, ["all pairs"], shares)]


def weights(run: RunContents) -> list[Plot]:
    """The weights that the aggregator gave the tasks' gradients, and each task's share of the update."""
    shown = {"weight": "weight of a gradient", "share": "share of the update"}
    return [
        curves(title, key, {task: [run.means(key, task)] for task in run.names(key)}, marks=marks(run))
        for key, title in shown.items()
        if run.names(key)
    ]


def affinity(run: RunContents) -> list[Plot]:
    """By how much a step on one task alone lowers each task's loss on its next batch: a mean over all looks."""
    effects = mean_effects(run.of("affinity"))
    if not effects:
        return []
    tasks = list(effects)
    matrix = np.array([[100 * effects[one][other].mean for other in tasks] for one in tasks])
    return [heat("loss lowered, in %", tasks, tasks, matrix, "by a step on", "loss of")]


def _by_pair(run: RunContents, key: str) -> dict[str, list[Series]]:
    return {pair: [run.means(key, pair)] for pair in run.names(key)}


def _matrix(run: RunContents, tasks: list[str], key: str) -> np.ndarray:
    matrix = np.full((len(tasks), len(tasks)), np.nan)
    for pair in run.names(key):
        one, other = (tasks.index(task) for task in pair.split("/"))
        matrix[max(one, other), min(one, other)], _ = run.share(key, pair)
    return matrix


def penalties(run: RunContents) -> list[Plot]:
    """A plot of whatever training records hold of regularisers, of which this process may not know all."""
    known = {name: title for cls in REGULARIZERS.values() for name, title in cls.titles.items()}
    found = {name for record in run.of("train") for name in record if name not in RECORD_FIELDS}
    titles = {name: title for name, title in known.items() if name in found} | {n: n for n in sorted(found - {*known})}
    return [
        curves(title, name, {task: [run.means(name, task)] for task in run.names(name)}, marks=marks(run))
        for name, title in titles.items()
    ]


def throughput(run: RunContents) -> list[Plot]:
    """Examples a second."""
    steps, rates = run.means("examples_per_second")
    if not steps:
        return []
    # Heads on kept features are hundreds of times as fast as what follows.
    scale: Scale = "log" if 0 < WIDE * min(rates) < max(rates) else "linear"
    return [curves("throughput", "examples a second", {"": [(steps, rates)]}, scale=scale, marks=marks(run))]


def learning_rate(run: RunContents) -> list[Plot]:
    """The learning rate."""
    line = run.series("train", "lr")
    return [curves("learning rate", "learning rate", {"": [line]}, marks=marks(run))] if line[0] else []


PLOTS: Mapping[str, Callable[[RunContents], list[Plot]]] = {
    "losses": losses,
    "scores": scores,
    "conflicts": conflicts,
    "layers": layers,
    "weights": weights,
    "affinity": affinity,
    "penalties": penalties,
    "throughput": throughput,
    "lr": learning_rate,
}
"""Plots by the names that `Run.plot` takes."""


def plot(run: RunContents, what: str) -> "Figure":
    """A figure of matplotlib: the plots of one name of `PLOTS`, or one column of the records.

    Raises:
        InputError: There is no such plot, or nothing in the records for it; or matplotlib is missing.
    """
    if what in PLOTS:
        plots = PLOTS[what](run)
        if not plots:
            raise InputError(f"nothing to plot: the records of {run.folder.path} hold no {what}{_why(run, what)}")
    else:
        plots = [_column(run, what)]
    return figure(plots, face="white")


def _why(run: RunContents, what: str) -> str:
    if not run.records:
        return "; there are none yet"
    if what == "affinity":
        return "; affinity_every_steps looks for it"
    several = ("conflicts", "layers", "weights")
    return "; gradients of two tasks or more in a step have them" if what in several else ""


def _column(run: RunContents, what: str) -> Plot:
    found = columns(run.records)
    numbers = [name for name in found if name not in PLACE]
    if what not in numbers:
        raise InputError(
            f"plot({what!r}): choose one of {', '.join(PLOTS)}, or a column of the run's history: "
            f"{', '.join(numbers) or 'it has none yet'}{nearest(what, (*PLOTS, *numbers))}"
        )
    pairs = [(step, value) for step, value in zip(found["step"], found[what], strict=True) if value is not None]
    return curves(what, what, {what: [([step for step, _ in pairs], [value for _, value in pairs])]}, marks=marks(run))


def overlaid(runs: Sequence[RunContents], names: Mapping[str, str], title: str, y: str, *key: str) -> Plot | None:
    """One number of several runs; None where none has it.

    Args:
        runs: The runs.
        names: What the legend calls each run, by its name; runs of one name are drawn thin, and their mean over them.
        title: Of the plot.
        y: Of its axis.
        key: ``scores`` of evaluations, or a number of training records: its path in a record.
    """
    lines: dict[str, list[Series]] = {}
    for run in runs:
        line = run.series("eval", *key) if key[0] == "scores" else run.means(*key)
        if line[0]:
            lines.setdefault(names[run.name], []).append(line)
    return curves(title, y, lines) if lines else None
