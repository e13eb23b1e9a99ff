"""One self-contained HTML page about one run or several: no network, no scripts."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mtbert_jax.config import Config
from mtbert_jax.files import input_errors, write_whole
from mtbert_jax.report.contents import RunContents
from mtbert_jax.report.curves import overlaid
from mtbert_jax.report.plots import Plot, check_packages, svg
from mtbert_jax.report.sections import Body, Section, average_text, run_body
from mtbert_jax.report.verdict import comparison
from mtbert_jax.results.differences import differences
from mtbert_jax.results.rows import Row, make_row
from mtbert_jax.results.tables import caption, gain_texts, gains_caption, notes, texts
from mtbert_jax.tasks import primary_metric
from mtbert_jax.training.folder import RunFolder


def page(runs: Sequence[RunContents], version: str) -> str:
    """The page about one run, or about what sets several apart and then about each; by this version of the program."""
    check_packages()
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    templates = Environment(
        loader=PackageLoader("mtbert_jax.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # matplotlib escapes what stands in a plot
    templates.filters["svg"] = lambda plot: Markup(svg(plot))  # noqa: S704
    if len(runs) == 1:
        title, body, each = f"Run {runs[0].name}", run_body(runs[0]), []
    else:
        title, body, each = f"{len(runs)} runs", comparison_body(runs), [run_body(run) for run in runs]
    text = templates.get_template("page.html").render(title=title, body=body, runs=each, version=version)
    return text.lstrip()


def comparison_body(runs: Sequence[RunContents]) -> Body:
    """The table of several runs, and their curves laid over each other."""
    groups = group_runs(runs)
    rows = [row for row, _ in groups]
    gains = differences(rows)
    tasks = {task.name: primary_metric(task).name for run in runs for task in run.config.tasks}
    by_path = {folder.path: row.name for row, folders in groups for folder in folders.values()}
    names = {run.name: by_path[run.folder.path] for run in runs}
    seeds = max(len(folders) for _, folders in groups)
    lead = "Thin lines are single seeds; the thick one is their mean." if seeds > 1 else ""
    scores = [overlaid(runs, names, "dev average", "average", "scores", "average")]
    scores += [
        overlaid(runs, names, f"dev {task} {metric}", f"{task} {metric}", "scores", task, metric)
        for task, metric in tasks.items()
    ]
    losses = [overlaid(runs, names, f"{task}: training loss", "training loss", "loss", task) for task in tasks]
    averages = {average_text(run.config) for run in runs}
    alike = len({average_text(run.config) for run in runs if run.results is not None}) < 2
    text = averages.pop() if len(averages) == 1 else "average: the mean over the tasks of each run."
    sections = [
        Section("Scores", f"{caption(rows)} {text}", cells=texts(rows), lines=notes(rows)),
        Section("Differences", gains_caption(gains), cells=gain_texts(gains)) if gains else Section(""),
        Section("Dev scores while training", lead, _drawn(scores)),
        Section("Training losses", lead, _drawn(losses)),
    ]
    return Body("", comparison(rows, gains, alike), (), [one for one in sections if one], ())


def _drawn(plots: Sequence[Plot | None]) -> list[Plot]:
    return [plot for plot in plots if plot is not None]


def group_runs(runs: Sequence[RunContents]) -> list[tuple[Row, dict[int, RunFolder]]]:
    """Runs that differ in their seed only are one row: it, and its runs' folders by seed."""
    groups: list[tuple[Config, str, dict[int, RunFolder]]] = []
    for run in runs:
        config = replace(run.config, seed=0, out="")
        group = next((g for g in groups if g[0] == config and run.config.seed not in g[2]), None)
        if group is None:
            name = re.sub(r"(^|/)seed\d+$", "", run.name) or run.folder.path.resolve().parent.name
            taken = [g[1] for g in groups]
            group = (config, name if name not in taken else run.name, {})
            groups.append(group)
        group[2][run.config.seed] = run.folder
    return [(make_row(name, config, folders), folders) for config, name, folders in groups]


def write_page(path: Path, runs: Sequence[RunContents], version: str) -> None:
    """Writes the page, whole or not at all; `InputError` if it cannot be written, or a package is missing."""
    text = page(runs, version)
    with input_errors(f"cannot write the report {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
