"""One self-contained HTML page about one run or several: no network, no scripts."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np

from mtbert_jax.config import Config
from mtbert_jax.host import write_whole
from mtbert_jax.metrics import PRIMARY
from mtbert_jax.report.differences import differences
from mtbert_jax.report.plots import Series, curves, heat, scatter
from mtbert_jax.report.rows import Row, make_row
from mtbert_jax.report.story import Judgement, Story
from mtbert_jax.report.tables import GIB, caption, gain_texts, gains_caption, notes, texts
from mtbert_jax.schema import to_toml
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.records import clock_text
from mtbert_jax.types import InputError

WORST = 8  # mistakes that are shown of each task
FEW_PAIRS = 6  # of tasks: more of them are a matrix rather than lines
STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 74rem; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { text-align: right; padding: .2rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } thead th { white-space: nowrap; }
.text td { text-align: left; overflow-wrap: anywhere; } .text td.number { text-align: right; white-space: nowrap; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: .5rem 1.5rem; }
figure { margin: 0; } svg { width: 100%; height: auto; display: block; }
pre { background: var(--faint); padding: .75rem; overflow-x: auto; font-size: .85rem; }
.note { background: var(--faint); border-left: 3px solid #e8590c; padding: .5rem .75rem; } .quiet { opacity: .75; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; margin: .5rem 0; } footer { margin-top: 2rem; opacity: .75; font-size: .85rem; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
"""


def page(stories: Sequence[Story], version: str) -> str:
    """The page: the one run, or what sets several apart, and then each of them.

    Args:
        stories: One or more.
        version: Of this program.
    """
    if len(stories) == 1:
        title, body = f"Run {stories[0].name}", run_body(stories[0])
    else:
        title, body = f"{len(stories)} runs", comparison_body(stories)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n"
        f"<footer>Written by mtbert_jax {escape(version)}.</footer>\n</body></html>\n"
    )


def comparison_body(stories: Sequence[Story]) -> str:
    """The table of several runs, their curves laid over each other, and each of them folded away."""
    rows = rows_of(stories)
    gains = differences(rows)
    parts = [f'<p class="quiet">{escape(caption(rows))}</p>', _table(texts(rows))]
    parts += [f"<p>{escape(note)}</p>" for note in notes(rows)]
    if gains:
        parts += ["<h2>Differences</h2>", f'<p class="quiet">{escape(gains_caption(gains))}</p>']
        parts.append(_table(gain_texts(gains)))
    keys: list[tuple[str, tuple[str, ...]]] = [("average", ("scores", "average"))]
    keys += [(f"{task} {metric}", ("scores", task, metric)) for task, metric in _metrics(stories).items()]
    figures = []
    for title, key in keys:
        lines = {story.name: story.series("eval", *key) for story in stories}
        figures.append(curves(f"dev {title}", title, {name: line for name, line in lines.items() if line[0]}))
    parts += ["<h2>Dev scores while training</h2>", _figures(figures), "<h2>Each run</h2>"]
    parts += [f"<details><summary>{escape(s.name)}</summary>{run_body(s)}</details>" for s in stories]
    return "\n".join(parts)


def rows_of(stories: Sequence[Story]) -> list[Row]:
    """Runs that differ in their seed only are one row."""
    groups: list[tuple[Config, str, dict[int, RunFolder]]] = []
    for story in stories:
        config = replace(story.config, seed=0, out="")
        group = next((g for g in groups if g[0] == config and story.config.seed not in g[2]), None)
        if group is None:
            name = re.sub(r"/seed\d+$", "", story.name)
            taken = [g[1] for g in groups]
            group = (config, name if name not in taken else story.name, {})
            groups.append(group)
        group[2][story.config.seed] = story.folder
    return [make_row(name, next(iter(folders.values())).load_config(), folders) for _, name, folders in groups]


def run_body(story: Story) -> str:
    """All sections about one run."""
    sections = [
        _state(story),
        _scores(story),
        "<h2>What ran</h2>" + _facts(story),
        "<h2>Learning curves</h2>" + _figures(_learning(story)),
        _section("Between tasks", _conflicts(story)),
        _section("Regularisation", _figures(_penalties(story))),
        _section("Predictions on dev", _judgements(list(story.judged.values()))),
        _section("Cost", _figures(_cost(story)) + _cost_facts(story)),
        *[f'<p class="note">{escape(note)}</p>' for note in story.notes],
    ]
    return "\n".join(section for section in sections if section)


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{body}" if body else ""


def _state(story: Story) -> str:
    if story.results is not None:
        return ""
    return (
        f'<p class="note">This run has not ended: its records reach step {story.step}. '
        "Scores below are those of its last evaluation; there are no predictions yet.</p>"
    )


def _scores(story: Story) -> str:
    scores = story.scores
    lines = [["task", "metric", "dev"]]
    for task, values in scores.items():
        if isinstance(values, dict):
            lines += [[task, metric, _number(value)] for metric, value in values.items()]
    lines += [
        [name.replace("_", " "), "", _number(scores[name])] for name in ("average", "plain_average") if name in scores
    ]
    return _table(lines) if len(lines) > 1 else '<p class="note">There are no dev scores yet.</p>'


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _facts(story: Story) -> str:
    config, results = story.config, story.results or {}
    facts = {"folder": str(story.folder.path), "encoder": config.encoder, "seed": str(config.seed)}
    if results:
        facts |= {"checkpoint": f"step {results.get('step')}, the best on dev", "machine": results.get("device", "")}
        facts["versions"] = ", ".join(f"{name} {v}" for name, v in results.get("versions", {}).items())
    for stage in config.resolved_stages():
        length = f"{stage.steps} steps" if stage.steps else f"{stage.epochs:g} epochs"
        frozen = f", {', '.join(stage.freeze)} frozen" if stage.freeze else ""
        chain = " → ".join(stage.optimizer or ())
        facts[f"stage {stage.name}"] = f"{length}, {stage.order}{frozen}, lr {stage.lr:g}: {chain}"
    for name, sizes in story.sizes.items():
        facts[f"examples of {name}"] = ", ".join(f"{count} {split}" for split, count in sizes.items())
    items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items() if value)
    toml = escape(to_toml(config))
    return f"<dl>{items}</dl><details><summary>the whole config</summary><pre>{toml}</pre></details>"


def _learning(story: Story) -> list[str]:
    figures = []
    for task in story.config.tasks:
        metric = PRIMARY[task.kind]
        losses, scores = story.series("train", "loss", task.name), story.series("eval", "scores", task.name, metric)
        if losses[0] or scores[0]:
            points = {f"dev {metric}": scores} if scores[0] else None
            figures.append(curves(task.name, "training loss", {"loss": losses}, points=points))
    average = story.series("eval", "scores", "average")
    return [*figures, curves("average", "dev average", {"average": average})] if len(average[0]) > 1 else figures


def _conflicts(story: Story) -> str:
    pairs = story.names("cosine")
    if not pairs:
        return ""
    cosine = {pair: story.series("train", "cosine", pair) for pair in pairs}
    conflict = {pair: story.series("train", "conflict", pair) for pair in pairs}
    if len(pairs) <= FEW_PAIRS:
        figures = [
            curves("cosine between gradients of the encoder", "cosine", cosine),
            curves("steps in conflict", "share of steps", conflict),
        ]
    else:
        tasks = list(dict.fromkeys(task for pair in pairs for task in pair.split("/")))
        figures = [
            heat("mean cosine between gradients", tasks, tasks, _matrix(tasks, cosine), ".2f", "", ""),
            heat("share of steps in conflict", tasks, tasks, _matrix(tasks, conflict), ".2f", "", ""),
        ]
    lines = [["pair", "mean cosine", "steps in conflict"]]
    lines += [[p, f"{np.mean(cosine[p][1]):+.3f}", f"{np.mean(conflict[p][1]):.0%}"] for p in pairs]
    return _figures(figures) + f"<details><summary>every pair</summary>{_table(lines)}</details>"


def _matrix(tasks: list[str], values: Mapping[str, Series]) -> np.ndarray:
    matrix = np.full((len(tasks), len(tasks)), np.nan)
    for pair, (_, numbers) in values.items():
        one, other = (tasks.index(task) for task in pair.split("/"))
        matrix[max(one, other), min(one, other)] = np.mean(numbers)
    return matrix


def _penalties(story: Story) -> list[str]:
    titles = {
        "smoothness": "SMART: smoothness R_s",
        "noise": "SMART: mean norm of a token's noise",
        "proximal": "distance to the teacher, D_Breg",
    }
    return [
        curves(title, key, {name: story.series("train", key, name) for name in story.names(key)})
        for key, title in titles.items()
        if story.names(key)
    ]


def _judgements(judged: Sequence[Judgement]) -> str:
    return _figures(_agreement(one) for one in judged) + "".join(_mistakes(one) for one in judged)


def _agreement(one: Judgement) -> str:
    task, labels = one.task, one.labels
    if task.kind == "regression":
        return scatter(f"{task.name}: predicted beside gold", "gold", labels, "predicted", one.predicted)
    names = [str(name) for name in (task.classes or range(task.num_label_classes))]
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (labels.astype(int), one.predicted.astype(int)), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return heat(f"{task.name}: share of each gold class", names, names, shares, ".2f", "gold", "predicted")


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


def _label(one: Judgement, value: float) -> str:
    if one.task.kind == "regression":
        return f"{value:.2f}"
    return one.task.classes[int(value)] if one.task.classes else str(int(value))


def _cost(story: Story) -> list[str]:
    rate = story.series("train", "examples_per_second")
    return [curves("throughput", "examples a second", {"": rate})] if rate[0] else []


def _cost_facts(story: Story) -> str:
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
    return text + (_table(lines) if len(lines) > 1 else "")


def _metrics(stories: Sequence[Story]) -> dict[str, str]:
    """The primary metric of every task of any run."""
    return {task.name: PRIMARY[task.kind] for story in stories for task in story.config.tasks}


def _figures(figures: Iterable[str]) -> str:
    text = "".join(f"<figure>{figure}</figure>" for figure in figures)
    return f'<div class="figures">{text}</div>' if text else ""


def _table(cells: list[list[str]]) -> str:
    header, *lines = cells
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def write_page(path: Path, stories: Sequence[Story], version: str) -> None:
    """Writes the page, whole or not at all.

    Raises:
        InputError: It cannot be written, or matplotlib is missing.
    """
    text = page(stories, version)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise InputError(f"cannot write the report {path}: {error.strerror or error}") from None
