"""One self-contained HTML page about one run or several: no network, no scripts."""

import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from mtbert_jax.config import Config
from mtbert_jax.files import input_errors, write_whole
from mtbert_jax.report.contents import RunContents
from mtbert_jax.report.plots import Series, curves
from mtbert_jax.report.sections import figures, run_body, table
from mtbert_jax.results.differences import differences
from mtbert_jax.results.rows import Row, make_row
from mtbert_jax.results.tables import caption, gain_texts, gains_caption, notes, texts
from mtbert_jax.tasks import primary_metric
from mtbert_jax.training.folder import RunFolder

STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 84rem; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { text-align: right; padding: .2rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } th, td { white-space: nowrap; }
.text td { text-align: left; overflow-wrap: anywhere; white-space: normal; }
.text td.number { text-align: right; white-space: nowrap; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: .5rem 1.5rem; }
figure { margin: 0; } svg { width: 100%; height: auto; display: block; }
pre { background: var(--faint); padding: .75rem; overflow-x: auto; font-size: .85rem; }
.note { background: var(--faint); border-left: 3px solid #e8590c; padding: .5rem .75rem; } .quiet { opacity: .75; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
summary { cursor: pointer; margin: .5rem 0; } footer { margin-top: 2rem; opacity: .75; font-size: .85rem; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
"""


def page(stories: Sequence[RunContents], version: str) -> str:
    """The page about one run, or about what sets several apart and then about each; by this version of the program."""
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


def comparison_body(stories: Sequence[RunContents]) -> str:
    """The table of several runs, their curves laid over each other, and each of them folded away."""
    groups = group_runs(stories)
    rows = [row for row, _ in groups]
    gains = differences(rows)
    parts = [f'<p class="quiet">{escape(caption(rows))}</p>', table(texts(rows))]
    parts += [f"<p>{escape(note)}</p>" for note in notes(rows)]
    if gains:
        parts += ["<h2>Differences</h2>", f'<p class="quiet">{escape(gains_caption(gains))}</p>']
        parts.append(table(gain_texts(gains)))
    keys: list[tuple[str, tuple[str, ...]]] = [("average", ("scores", "average"))]
    tasks = {task.name: primary_metric(task).name for story in stories for task in story.config.tasks}
    keys += [(f"{task} {metric}", ("scores", task, metric)) for task, metric in tasks.items()]
    named = {folder.path: row.name for row, folders in groups for folder in folders.values()}
    scores = [_overlaid(stories, named, f"dev {title}", title, "eval", *key) for title, key in keys]
    losses = [_overlaid(stories, named, f"{task} training loss", "loss", "train", "loss", task) for task in tasks]
    parts += ["<h2>Dev scores while training</h2>", figures(scores)]
    parts += ["<h2>Training losses</h2>", figures(losses), "<h2>Each run</h2>"]
    parts += [f"<details><summary>{escape(s.name)}</summary>{run_body(s)}</details>" for s in stories]
    return "\n".join(parts)


def _overlaid(stories: Sequence[RunContents], named: dict[Path, str], title: str, y: str, *key: str) -> str:
    """One number of all runs; the runs of a row look alike."""
    lines: dict[str, list[Series]] = {}
    for story in stories:
        line = story.series(*key)
        if line[0]:
            lines.setdefault(named[story.folder.path], []).append(line)
    return curves(title, y, lines)


def group_runs(stories: Sequence[RunContents]) -> list[tuple[Row, dict[int, RunFolder]]]:
    """Runs that differ in their seed only are one row: it, and its runs' folders by seed."""
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
    return [(make_row(name, config, folders), folders) for config, name, folders in groups]


def write_page(path: Path, stories: Sequence[RunContents], version: str) -> None:
    """Writes the page, whole or not at all; `InputError` if it cannot be written, or matplotlib is missing."""
    text = page(stories, version)
    with input_errors(f"cannot write the report {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
