"""What a page says of one run: a section each, as data that the templates make HTML of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mtbert_jax.config import Config
from mtbert_jax.config.schema import to_toml
from mtbert_jax.optim.chain import uses_rate
from mtbert_jax.report import curves
from mtbert_jax.report.contents import Judgement, RunContents
from mtbert_jax.report.effects import mean_effects, sentences
from mtbert_jax.report.plots import Plot, heat, scatter
from mtbert_jax.report.verdict import verdict
from mtbert_jax.results.tables import GIB
from mtbert_jax.tasks import kind_of, primary_metric
from mtbert_jax.tasks.metrics import Metric
from mtbert_jax.tasks.registry import counted
from mtbert_jax.tasks.scores import AVERAGES
from mtbert_jax.training.display import clock_text

WORST = 8  # mistakes that are shown of each task
Cells = Sequence[Sequence[str | Sequence[str]]]
"""Header and lines of a table; a cell of several texts has a line for each."""


@dataclass(frozen=True)
class Fold:
    """What is folded away below its title: a table, of which the first column is running `text` perhaps, or `pre`."""

    title: str
    cells: Cells = ()
    text: bool = False
    pre: str = ""


@dataclass(frozen=True)
class Section:
    """A section of a page, in the order of its fields."""

    title: str
    lead: str = ""
    plots: Sequence[Plot] = ()
    cells: Cells = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    lines: Sequence[str] = ()
    folds: Sequence[Fold] = ()

    def __bool__(self) -> bool:
        return bool(self.plots or self.cells or self.facts or self.lines or self.folds)


@dataclass(frozen=True)
class Body:
    """All that stands on a page about one run, or about several beside each other.

    Attributes:
        name: Name of the run.
        verdict: What it came to, in a paragraph.
        before: Notes above everything.
        sections: Sections that have something to show.
        after: Notes below everything.
    """

    name: str
    verdict: str
    before: Sequence[str]
    sections: Sequence[Section]
    after: Sequence[str]


def run_body(run: RunContents) -> Body:
    """All sections about one run."""
    sections = [
        _scores(run),
        _learning(run),
        _conflicts(run),
        _judgements(list(run.judged.values())),
        Section("Regularisation", "Unweighted terms, as the losses have them.", curves.penalties(run)),
        _facts(run),
        _cost(run),
    ]
    shown = [section for section in sections if section]
    return Body(run.name, verdict(run), _state(run), shown, run.notes)


def _state(run: RunContents) -> list[str]:
    if run.results is not None:
        return []
    return [
        f"This run has not ended: its records reach step {run.step}. "
        "Scores below are those of its last evaluation; there are no predictions yet."
    ]


def _scores(run: RunContents) -> Section:
    scores = run.scores
    cells: list[list[str | Sequence[str]]] = [["task", "metric", "dev"]]
    for task, values in scores.items():
        if isinstance(values, dict):
            cells += [[task, metric, _number(value)] for metric, value in values.items()]
    cells += [[name.replace("_", " "), "", _number(scores[name])] for name in AVERAGES if name in scores]
    if len(cells) == 1:
        return Section("Scores", lines=["There are no dev scores yet."])
    which = "the best checkpoint" if run.results is not None else "the last evaluation"
    return Section("Scores", f"On dev, of {which}. {average_text(run.config)}", cells=cells)


def average_text(config: Config) -> str:
    """What the averages of a config's tasks are means of.

    >>> from mtbert_jax.config import TaskConfig
    >>> average_text(Config(tasks=(TaskConfig("sst"), TaskConfig("sts", "regression"), TaskConfig("mlm", "masked_lm"))))
    'average: the mean over tasks of sst accuracy, sts (pearson + 1) / 2; plain average: without such maps.'
    >>> average_text(Config(tasks=(TaskConfig("sts", "regression", metric="mae"),)))
    'average: the mean over tasks of sts 1 / (1 + mae); plain average: without such maps, but for sts mae.'
    """
    scored = [task for task in config.tasks if task.dev or not config.data_dir] or config.tasks
    metrics = {task.name: primary_metric(task) for task in counted(scored)}
    listed = ", ".join(f"{task} {_mapped(metric)}" for task, metric in metrics.items())
    errors = ", ".join(f"{task} {metric.name}" for task, metric in metrics.items() if metric.best == "min")
    but = f", but for {errors}" if errors else ""
    return f"average: the mean over tasks of {listed}; plain average: without such maps{but}."


def _mapped(metric: Metric) -> str:
    """How a metric enters the average."""
    at = np.array([0.2, 0.6])
    if np.allclose(metric.on_unit(at), at):
        return metric.name
    if np.allclose(metric.on_unit(at), (at + 1) / 2):
        return f"({metric.name} + 1) / 2"
    if np.allclose(metric.on_unit(at), 1 / (1 + at)):
        return f"1 / (1 + {metric.name})"
    return f"{metric.name}, mapped onto 0 to 1"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _facts(run: RunContents) -> Section:
    config, results = run.config, run.results or {}
    facts = {"folder": str(run.folder.path), "encoder": config.encoder, "seed": str(config.seed)}
    if results:
        facts |= {"checkpoint": f"step {results.get('step')}, the best on dev", "machine": results.get("device", "")}
        facts["versions"] = ", ".join(f"{name} {v}" for name, v in results.get("versions", {}).items())
    for stage in config.resolved_stages():
        length = f"{stage.steps} steps" if stage.steps else f"{stage.epochs:g} epochs"
        frozen = f", {', '.join(stage.freeze)} frozen" if stage.freeze else ""
        chain = " → ".join(stage.optimizer)
        if config.lora.rank and "encoder" not in stage.freeze:
            frozen = f", LoRA of rank {config.lora.rank}{frozen}"
        rate = f", lr {stage.lr:g}" if uses_rate(stage.optimizer) else ""
        facts[f"stage {stage.name}"] = f"{length}, {stage.order}{frozen}{rate}: {chain}"
    for name, sizes in run.sizes.items():
        facts[f"examples of {name}"] = ", ".join(f"{count} {split}" for split, count in sizes.items())
    known = {key: str(value) for key, value in facts.items() if value}
    return Section("What ran", facts=known, folds=[Fold("the whole config", pre=to_toml(config))])


def _learning(run: RunContents) -> Section:
    plots = [*curves.losses(run), *curves.average(run)]
    lead = "Training loss on the left axis, dev score on the right one, each in the colour of its line. "
    return Section("Learning curves", lead + points_text(run), plots)


def points_text(run: RunContents) -> str:
    """What a point of training records is a mean of."""
    return f"A point of training is a mean over {run.window_steps} steps, at the last of them." if run.parts else ""


def _conflicts(run: RunContents) -> Section:
    pairs = run.names("cosine")
    if not pairs:
        return Section("Between tasks")
    cells: list[list[str | Sequence[str]]] = [["pair", "mean cosine", "steps in conflict"]]
    cells += [[p, f"{run.share('cosine', p)[0]:+.3f}", f"{run.share('conflict', p)[0]:.0%}"] for p in pairs]
    lead = (
        "Two tasks conflict in a step if the cosine between their gradients of the encoder is negative. Unrelated "
        "gradients would do so in about half of the steps."
    )
    plots = [*curves.conflicts(run), *curves.layers(run), *curves.weights(run), *curves.affinity(run)]
    lines = sentences(mean_effects(run.of("affinity")))
    return Section("Between tasks", lead, plots, lines=lines, folds=[Fold("every pair", cells)])


def _judgements(judged: Sequence[Judgement]) -> Section:
    plots = [plot for one in judged if (plot := _agreement(one))]
    mistakes = [_mistakes(one) for one in judged]
    lines = [one for one in mistakes if isinstance(one, str)]
    folds = [one for one in mistakes if isinstance(one, Fold)]
    lead = "Of the best checkpoint. A line of a table of classes is all examples of a gold class, as shares of 1."
    return Section("Predictions on dev", lead, plots, lines=lines, folds=folds)


def _agreement(one: Judgement) -> Plot | None:
    task, labels, kind = one.task, one.labels, kind_of(one.task)
    if kind.label_shape(task):
        return None
    if not kind.one_class_each:
        return scatter(f"{task.name}: predicted beside gold", "gold", labels, "predicted", one.predicted)
    names = kind.classes(task)
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (labels.astype(int), one.predicted.astype(int)), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return heat(f"{task.name}: share of each gold class", names, names, shares, "gold", "predicted")


def _mistakes(one: Judgement) -> Fold | str:
    cells: list[list[str | Sequence[str]]] = [
        ["text", "gold", "predicted", *(["loss"] if one.losses is not None else [])]
    ]
    for place in one.worst(WORST):
        line = [one.examples[place].texts, _label(one, one.labels[place]), _label(one, one.predicted[place])]
        cells.append([*line, *([f"{one.losses[place]:.2f}"] if one.losses is not None else [])])
    if len(cells) == 1:
        return f"{one.task.name}: no example is missed."
    return Fold(f"{one.task.name}: the {len(cells) - 1} worst mistakes", cells, text=True)


def _label(one: Judgement, value: Any) -> str:
    label = kind_of(one.task).describe(one.task, value)
    if isinstance(label, list):
        return ", ".join(map(str, label)) or "none"
    return f"{label:.2f}" if isinstance(label, float) else str(label)


def _cost(run: RunContents) -> Section:
    results = run.results or {}
    cells: list[list[str | Sequence[str]]] = [["stage", "programs compiled", "compiling"]]
    for record in run.of("stage"):
        seconds = record.get("compile_seconds")
        cells.append([record["stage"], str(record["compiled_shapes"]), "" if seconds is None else clock_text(seconds)])
    facts = []
    if results.get("seconds"):
        facts.append(f"{clock_text(results['seconds'])} of wall time, evaluations and compilation included")
    if results.get("peak_memory_bytes"):
        facts.append(f"{results['peak_memory_bytes'] / GIB:.2f} GiB at the peak")
    lines = [f"{'; '.join(facts)}."] if facts else []
    return Section("Cost", plots=curves.throughput(run), cells=cells if len(cells) > 1 else [], lines=lines)
