"""Rows as a table: Markdown and a terminal's for people, CSV and JSON for programs."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group

from mtbert_jax.config.schema import finite
from mtbert_jax.errors import InputError
from mtbert_jax.files import input_errors, write_whole
from mtbert_jax.results.differences import Difference
from mtbert_jax.results.intervals import CONFIDENCE, RESAMPLES
from mtbert_jax.results.rows import Row, Value
from mtbert_jax.tasks.scores import AVERAGES
from mtbert_jax.terminal import Grid
from mtbert_jax.training.display import clock_text

GIB = 2**30


def check_tables(folder: Path) -> None:
    """Refuses a folder where somebody else's file has the name of a table that `write_tables` writes."""
    for name, start in (("md", "Scores on dev, mean"), ("csv", "config,seeds"), ("json", '{\n  "caption": ')):
        path = folder / f"table.{name}"
        with input_errors(f"cannot read {path}"):
            if path.exists() and not path.read_bytes().startswith(start.encode()):
                raise InputError(f"{path} is no table of runs, and one would be written there; give another --out")


def write_tables(rows: Sequence[Row], folder: Path, gains: Sequence[Difference] = ()) -> None:
    """Writes ``table.md``, ``table.csv`` and ``table.json``, each whole or not at all.

    Raises:
        InputError: They cannot be written, or what lies there is somebody else's.
    """
    check_tables(folder)
    texts = {"md": markdown(rows, gains), "csv": comma_separated(rows), "json": as_json(rows, gains)}
    with input_errors(f"cannot write the tables in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_whole(folder / f"table.{name}", text)


def caption(rows: Sequence[Row]) -> str:
    """What the numbers are."""
    counts = sorted({len(row.seeds) for row in rows})
    seeds = " to ".join(str(count) for count in (counts[:1] if len(counts) == 1 else (counts[0], counts[-1])))
    return (
        f"Scores on dev, mean ± sample standard deviation over seeds ({seeds} {'seed' if counts == [1] else 'seeds'}). "
        f"The interval of the average: {CONFIDENCE:.0%}, percentile bootstrap over dev examples, {RESAMPLES} "
        "resamples, the same ones for every seed. Wall time and examples a second (in the last stage): medians over "
        "seeds; peak memory: the largest."
    )


def markdown(rows: Sequence[Row], gains: Sequence[Difference] = ()) -> str:
    """A Markdown table under its caption, and notes below it; then, perhaps, one of differences."""
    text = f"{caption(rows)}\n\n{_grid(texts(rows))}" + "".join(f"\n{line}\n" for line in notes(rows))
    return text + (f"\n{gains_caption(gains)}\n\n{_grid(gain_texts(gains))}" if gains else "")


def _grid(cells: list[list[str]]) -> str:
    header, *lines = cells
    ruled = [header, ["---", *["---:"] * (len(header) - 1)], *lines]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in ruled)


def terminal(rows: Sequence[Row], gains: Sequence[Difference] = ()) -> Group:
    """The same for a terminal."""
    tables = [Grid(texts(rows), caption="\n".join([caption(rows), *notes(rows)]))]
    return Group(*tables, *([Grid(gain_texts(gains), caption=gains_caption(gains))] if gains else []))


def notes(rows: Sequence[Row]) -> list[str]:
    """What the runs were on, and what is missing in single rows."""
    results = [result for row in rows for result in row.results]
    machines = dict.fromkeys(result["device"] for result in results if "device" in result)
    ran = [f"Machine{'s' if len(machines) > 1 else ''}: {'; '.join(machines)}."] if machines else []
    return [*ran, *(f"{row.name}: {row.note}." for row in rows if row.note)]


def texts(rows: Sequence[Row]) -> list[list[str]]:
    """Header and lines; a cell is blank where the row has no such number."""
    tasks = task_columns(rows)
    header = ["config", "seeds", *(f"{task} {metric}" for task, metric in tasks)]
    header += ["average", f"{CONFIDENCE:.0%} interval", "plain average", "wall time", "examples/s", "peak memory"]
    lines = []
    for row in rows:
        average = row.values.get("average")
        short = "" if len(row.seeds) == len(row.planned) else f" of {len(row.planned)}"
        lines.append(
            [
                row.name,
                f"{len(row.seeds)}{short}",
                *(_score(row.values[task] if row.metrics.get(task) == metric else None) for task, metric in tasks),
                _score(average),
                _ends(average),
                _score(row.values.get("plain_average")),
                "" if row.seconds is None else clock_text(row.seconds),
                "" if row.rate is None else f"{row.rate:.0f}",
                "" if row.peak_memory is None else f"{row.peak_memory / GIB:.2f} GiB",
            ]
        )
    return [header, *lines]


def task_columns(rows: Iterable[Row | Difference]) -> list[tuple[str, str]]:
    """Tasks with their metrics: the first row's in its order, then what the next ones add."""
    return list(dict.fromkeys(pair for row in rows for pair in row.metrics.items()))


def _score(value: Value | None, sign: str = "") -> str:
    if value is None:
        return ""
    return f"{value.mean:{sign}.3f}" + ("" if value.sd is None else f" ± {value.sd:.3f}")


def _ends(value: Value | None, sign: str = "") -> str:
    return f"{value.interval[0]:{sign}.3f} to {value.interval[1]:{sign}.3f}" if value and value.interval else ""


def gains_caption(gains: Sequence[Difference]) -> str:
    """What the numbers of the second table are."""
    errors = ", ".join(dict.fromkeys(f"{task} {gain.metrics[task]}" for gain in gains for task in gain.errors))
    text = (
        "What a config is better by than another, mean ± sample standard deviation over the seeds that both have, each "
        f"seed beside itself. Intervals: {CONFIDENCE:.0%}, bootstrap over dev examples, the same ones for both; they "
        "leave out what other seeds would change."
    )
    return text + (f" Of {errors} less is better, so that there a gain is below 0." if errors else "")


def gain_texts(gains: Sequence[Difference]) -> list[list[str]]:
    """Header and lines of the second table."""
    tasks = task_columns(gains)
    header = ["config", "less", "seeds", *(f"{task} {metric}" for task, metric in tasks), "average"]
    lines = []
    for gain in gains:
        scores = [gain.values.get(task) if gain.metrics.get(task) == metric else None for task, metric in tasks]
        average = gain.values.get("average")
        shown = [_score(score, "+") for score in [*scores, average]]
        lines.append([gain.name, gain.against, str(len(gain.seeds)), *shown, _ends(average, "+")])
    return [[*header, f"{CONFIDENCE:.0%} interval"], *lines]


def comma_separated(rows: Sequence[Row]) -> str:
    """One line per row, numbers with all their digits; empty where the row has no such number."""
    tasks = task_columns(rows)
    lines = []
    for row in rows:
        line: dict[str, Any] = {"config": row.name, "seeds": len(row.seeds)}
        for task, metric in tasks:
            value = row.values[task] if row.metrics.get(task) == metric else None
            line |= {f"{task}_{metric}_mean": value and value.mean, f"{task}_{metric}_sd": value and value.sd}
        for name in AVERAGES:
            value = row.values.get(name)
            low, high = value.interval if value and value.interval else (None, None)
            line |= {f"{name}_mean": value and value.mean, f"{name}_sd": value and value.sd}
            line |= {f"{name}_low": low, f"{name}_high": high}
        costs = {"seconds_median": row.seconds, "examples_per_second_median": row.rate}
        lines.append({**line, **costs, "peak_memory_bytes_max": row.peak_memory})
    file = io.StringIO()
    writer = csv.DictWriter(file, lines[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def as_json(rows: Sequence[Row], gains: Sequence[Difference] = ()) -> str:
    """Everything: the rows, per-task intervals too, the results of every run, and differences."""
    about = {"caption": caption(rows), "split": "dev", "confidence": CONFIDENCE, "resamples": RESAMPLES}
    described = [
        {
            "config": row.name,
            "seeds": row.seeds,
            "planned_seeds": row.planned,
            **_values(row),
            "seconds_median": row.seconds,
            "examples_per_second_median": row.rate,
            "peak_memory_bytes_max": row.peak_memory,
            "note": row.note,
            "runs": row.results,
        }
        for row in rows
    ]
    less = [{"config": gain.name, "against": gain.against, "seeds": gain.seeds, **_values(gain)} for gain in gains]
    document = finite({**about, "rows": described, "differences": less})
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _values(of: Row | Difference) -> dict[str, Any]:
    tasks = {task: {"metric": metric, **of.values[task]._asdict()} for task, metric in of.metrics.items()}
    return {"tasks": tasks, **{name: of.values[name]._asdict() for name in AVERAGES if name in of.values}}
