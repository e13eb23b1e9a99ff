"""What a page says of one run: a section each, as HTML."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Literal

import numpy as np

from mtbert_jax.config.schema import to_toml
from mtbert_jax.regularizers.base import RECORD_FIELDS, REGULARIZERS
from mtbert_jax.report.contents import Judgement, RunContents
from mtbert_jax.report.plots import Series, curves, heat, scatter
from mtbert_jax.results.tables import GIB
from mtbert_jax.tasks import kind_of, primary_metric
from mtbert_jax.tasks.scores import AVERAGES
from mtbert_jax.training.display import clock_text

WORST = 8  # mistakes that are shown of each task
FEW_PAIRS = 6  # of tasks: more of them are a matrix rather than lines
WIDE = 30  # times the slowest rate: from there on a rate's scale is logarithmic


def run_body(story: RunContents) -> str:
    """All sections about one run."""
    sections = [
        _state(story),
        _scores(story),
        "<h2>What ran</h2>" + _facts(story),
        "<h2>Learning curves</h2>" + figures(_learning(story)),
        _section("Between tasks", _conflicts(story)),
        _section("Regularisation", figures(_penalties(story))),
        _section("Predictions on dev", _judgements(list(story.judged.values()))),
        _section("Cost", figures(_cost(story)) + _cost_facts(story)),
        *[f'<p class="note">{escape(note)}</p>' for note in story.notes],
    ]
    return "\n".join(section for section in sections if section)


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{body}" if body else ""


def _state(story: RunContents) -> str:
    if story.results is not None:
        return ""
    return (
        f'<p class="note">This run has not ended: its records reach step {story.step}. '
        "Scores below are those of its last evaluation; there are no predictions yet.</p>"
    )


def _scores(story: RunContents) -> str:
    scores = story.scores
    lines = [["task", "metric", "dev"]]
    for task, values in scores.items():
        if isinstance(values, dict):
            lines += [[task, metric, _number(value)] for metric, value in values.items()]
    lines += [[name.replace("_", " "), "", _number(scores[name])] for name in AVERAGES if name in scores]
    return table(lines) if len(lines) > 1 else '<p class="note">There are no dev scores yet.</p>'


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _facts(story: RunContents) -> str:
    config, results = story.config, story.results or {}
    facts = {"folder": str(story.folder.path), "encoder": config.encoder, "seed": str(config.seed)}
    if results:
        facts |= {"checkpoint": f"step {results.get('step')}, the best on dev", "machine": results.get("device", "")}
        facts["versions"] = ", ".join(f"{name} {v}" for name, v in results.get("versions", {}).items())
    for stage in config.resolved_stages():
        length = f"{stage.steps} steps" if stage.steps else f"{stage.epochs:g} epochs"
        frozen = f", {', '.join(stage.freeze)} frozen" if stage.freeze else ""
        chain = " → ".join(stage.optimizer)
        facts[f"stage {stage.name}"] = f"{length}, {stage.order}{frozen}, lr {stage.lr:g}: {chain}"
    for name, sizes in story.sizes.items():
        facts[f"examples of {name}"] = ", ".join(f"{count} {split}" for split, count in sizes.items())
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items() if value)
    toml = escape(to_toml(config))
    return f"<dl>{items}</dl><details><summary>the whole config</summary><pre>{toml}</pre></details>"


def _learning(story: RunContents) -> list[str]:
    plots = []
    for task in story.config.tasks:
        metric = primary_metric(task).name
        losses, scores = story.series("train", "loss", task.name), story.series("eval", "scores", task.name, metric)
        if losses[0] or scores[0]:
            right = (f"dev {metric}", scores) if scores[0] else None
            plots.append(curves(task.name, "training loss", {"loss": [losses]}, right))
    average = story.series("eval", "scores", "average")
    return [*plots, curves("average", "dev average", {"": [average]})] if len(average[0]) > 1 else plots


def _conflicts(story: RunContents) -> str:
    pairs = story.names("cosine")
    if not pairs:
        return ""
    cosine = {pair: story.series("train", "cosine", pair) for pair in pairs}
    conflict = {pair: story.series("train", "conflict", pair) for pair in pairs}
    if len(pairs) <= FEW_PAIRS:
        plots = [
            curves("cosine between gradients of the encoder", "cosine", _alone(cosine)),
            curves("steps in conflict", "share of steps", _alone(conflict)),
        ]
    else:
        tasks = list(dict.fromkeys(task for pair in pairs for task in pair.split("/")))
        plots = [
            heat("mean cosine between gradients", tasks, tasks, _matrix(tasks, cosine)),
            heat("share of steps in conflict", tasks, tasks, _matrix(tasks, conflict)),
        ]
    lines = [["pair", "mean cosine", "steps in conflict"]]
    lines += [[p, f"{np.mean(cosine[p][1]):+.3f}", f"{np.mean(conflict[p][1]):.0%}"] for p in pairs]
    return figures(plots) + f"<details><summary>every pair</summary>{table(lines)}</details>"


def _alone(lines: Mapping[str, Series]) -> dict[str, list[Series]]:
    return {name: [line] for name, line in lines.items()}


def _matrix(tasks: list[str], values: Mapping[str, Series]) -> np.ndarray:
    matrix = np.full((len(tasks), len(tasks)), np.nan)
    for pair, (_, numbers) in values.items():
        one, other = (tasks.index(task) for task in pair.split("/"))
        matrix[max(one, other), min(one, other)] = np.mean(numbers)
    return matrix


def _penalties(story: RunContents) -> list[str]:
    """A plot of whatever training records hold of regularisers, of which this process may not know all."""
    known = {name: title for cls in REGULARIZERS.values() for name, title in cls.titles.items()}
    found = {name for record in story.of("train") for name in record if name not in RECORD_FIELDS}
    titles = {name: title for name, title in known.items() if name in found} | {n: n for n in sorted(found - {*known})}
    return [
        curves(title, name, {task: [story.series("train", name, task)] for task in story.names(name)})
        for name, title in titles.items()
    ]


def _judgements(judged: Sequence[Judgement]) -> str:
    return figures(_agreement(one) for one in judged) + "".join(_mistakes(one) for one in judged)


def _agreement(one: Judgement) -> str:
    task, labels, kind = one.task, one.labels, kind_of(one.task)
    if kind.label_shape(task):
        return ""
    if not kind.one_class_each:
        return scatter(f"{task.name}: predicted beside gold", "gold", labels, "predicted", one.predicted)
    names = kind.classes(task)
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (labels.astype(int), one.predicted.astype(int)), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return heat(f"{task.name}: share of each gold class", names, names, shares, "gold", "predicted")


def _mistakes(one: Judgement) -> str:
    head = "<tr><th>text</th><th>gold</th><th>predicted</th>" + ("<th>loss</th>" if one.losses is not None else "")
    lines = []
    for place in one.worst(WORST):
        text = "<br>".join(escape(part) for part in one.examples[place].texts)
        values = [_label(one, one.labels[place]), _label(one, one.predicted[place])]
        if one.losses is not None:
            values.append(f"{one.losses[place]:.2f}")
        lines.append(f"<tr><td>{text}</td>" + "".join(f'<td class="number">{escape(v)}</td>' for v in values) + "</tr>")
    if not lines:
        return f"<p>{escape(one.task.name)}: no example is missed.</p>"
    table = f'<div class="wide text"><table><thead>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    return f"<details><summary>{escape(one.task.name)}: the {len(lines)} worst mistakes</summary>{table}</details>"


def _label(one: Judgement, value: Any) -> str:
    label = kind_of(one.task).describe(one.task, value)
    if isinstance(label, list):
        return ", ".join(map(str, label)) or "none"
    return f"{label:.2f}" if isinstance(label, float) else str(label)


def _cost(story: RunContents) -> list[str]:
    steps, rates = story.series("train", "examples_per_second")
    if not steps:
        return []
    # Heads on kept features are hundreds of times as fast as what follows.
    scale: Literal["linear", "log"] = "log" if 0 < WIDE * min(rates) < max(rates) else "linear"
    return [curves("throughput", "examples a second", {"": [(steps, rates)]}, scale=scale)]


def _cost_facts(story: RunContents) -> str:
    results, lines = story.results or {}, [["stage", "programs compiled", "compiling"]]
    for record in story.of("stage"):
        seconds = record.get("compile_seconds")
        lines.append([record["stage"], str(record["compiled_shapes"]), "" if seconds is None else clock_text(seconds)])
    facts = []
    if results.get("seconds"):
        facts.append(f"{clock_text(results['seconds'])} of wall time, evaluations and compilation included")
    if results.get("peak_memory_bytes"):
        facts.append(f"{results['peak_memory_bytes'] / GIB:.2f} GiB at the peak")
    text = f"<p>{escape('; '.join(facts))}.</p>" if facts else ""
    return text + (table(lines) if len(lines) > 1 else "")


def figures(svgs: Iterable[str]) -> str:
    """Plots beside each other, as many as the page is wide."""
    text = "".join(f"<figure>{svg}</figure>" for svg in svgs if svg)
    return f'<div class="figures">{text}</div>' if text else ""


def table(cells: list[list[str]]) -> str:
    """Header and lines as a table that scrolls where it is too wide."""
    header, *lines = cells
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
