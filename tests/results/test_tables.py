"""One table in four forms."""

import csv
import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from mtbert_jax.errors import InputError
from mtbert_jax.results.differences import Difference
from mtbert_jax.results.rows import Row, Value
from mtbert_jax.results.tables import (
    as_json,
    caption,
    comma_separated,
    gains_caption,
    markdown,
    terminal,
    texts,
    write_tables,
)

RESULT = {"seed": 0, "dev": {"average": 0.7}, "device": "1 × abacus, 2 CPU cores"}
FULL = Row(
    "pcgrad",
    (0, 1),
    (0, 1),
    {"sst": "accuracy", "sts": "pearson"},
    {
        "sst": Value(0.4756, 0.0123, (0.45, 0.5)),
        "sts": Value(-0.25, 0.5, (-0.5, 0.25)),
        "average": Value(0.4253, 0.25, (0.4126, 0.4374)),
        "plain_average": Value(0.1128, 0.125, (0.0, 0.25)),
    },
    3723.4,
    3 * 2**29,
    "",
    (RESULT, RESULT),
    rate=107.3,
)
SHORT = Row(
    "a|b [red]",
    (0, 1),
    (1,),
    {"nli": "accuracy", "sts": "pearson"},
    {
        "nli": Value(0.5, None, None),
        "sts": Value(math.nan, None, None),
        "average": Value(math.nan, None, None),
        "plain_average": Value(math.nan, None, None),
    },
    None,
    None,
    "no interval: labels are missing",
    ({"seed": 1, "dev": {}},),
)
EMPTY = Row("none", (0, 1), (), {}, {}, None, None, "", ())
ROWS = [FULL, SHORT, EMPTY]


def test_the_text_cell_by_cell() -> None:
    header, full, short, empty = texts(ROWS)
    assert header == [
        "config", "seeds", "sst accuracy", "sts pearson", "nli accuracy", "average", "95% interval", "plain average",
        "wall time", "examples/s", "peak memory",
    ]  # fmt: skip
    assert full == [
        "pcgrad", "2", "0.476 ± 0.012", "-0.250 ± 0.500", "", "0.425 ± 0.250", "0.413 to 0.437", "0.113 ± 0.125",
        "1:02:03", "107", "1.50 GiB",
    ]  # fmt: skip
    assert short == ["a|b [red]", "1 of 2", "", "nan", "0.500", "nan", "", "nan", "", "", ""]
    assert empty == ["none", "0 of 2", *[""] * 9]


def test_a_task_that_is_of_another_kind_elsewhere_has_two_columns() -> None:
    other = SHORT._replace(metrics={"sst": "pearson"}, values={**SHORT.values, "sst": Value(0.9, None, None)})
    header, full, short = texts([FULL, other])
    assert header[2:5] == ["sst accuracy", "sts pearson", "sst pearson"]
    assert (full[2], full[4]) == ("0.476 ± 0.012", "")
    assert (short[2], short[4]) == ("", "0.900")
    first, second = csv.DictReader(io.StringIO(comma_separated([FULL, other])))
    assert (first["sst_pearson_mean"], second["sst_accuracy_mean"], second["sst_pearson_mean"]) == ("", "", "0.9")


def test_the_caption_says_what_the_numbers_are() -> None:
    words = ["Scores on dev", "sample standard deviation over seeds", "95%", "bootstrap over dev examples"]
    words += ["Wall time and examples a second (in the last stage): medians", "peak memory: the largest"]
    for word in words:
        assert word in caption([FULL])
    assert "(2 seeds)" in caption([FULL])
    assert "(1 seed)" in caption([SHORT])
    assert "(0 to 2 seeds)" in caption(ROWS)


def test_markdown_has_the_same_cells_under_a_caption_and_over_notes() -> None:
    paragraphs = markdown(ROWS).split("\n\n")
    assert paragraphs[0] == caption(ROWS)
    header, rule, *lines = paragraphs[1].splitlines()
    assert lines[1].startswith(r"| a\|b [red] | 1 of 2 |")
    assert rule == "| --- |" + " ---: |" * 10
    for line, cells in zip([header, *lines], texts(ROWS), strict=True):
        bare = line.removeprefix("| ").removesuffix(" |").replace(r"\|", "¦")
        assert [cell.replace("¦", "|") for cell in bare.split(" | ")] == cells
    assert paragraphs[2] == "Machine: 1 × abacus, 2 CPU cores."
    assert paragraphs[3] == "a|b [red]: no interval: labels are missing.\n"


def test_differences_stand_in_a_table_of_their_own() -> None:
    gain = Difference("b", "a", (0, 1), {"sst": "accuracy"}, {"sst": Value(-0.0123, 0.002, (-0.02, 0.001))})
    text = markdown(ROWS, [gain])
    assert text.startswith(markdown(ROWS))
    below = text.removeprefix(markdown(ROWS)).strip().split("\n\n")
    assert below[0] == gains_caption([gain])
    assert below[1].splitlines()[2] == "| b | a | 2 | -0.012 ± 0.002 |  |  |"
    described = json.loads(as_json(ROWS, [gain]))["differences"]
    assert described[0]["tasks"]["sst"] == {
        "metric": "accuracy", "mean": -0.0123, "sd": 0.002, "interval": [-0.02, 0.001]
    }  # fmt: skip
    console = Console(width=200, file=io.StringIO())
    console.print(terminal(ROWS, [gain]))
    assert "-0.012 ± 0.002" in console.file.getvalue()  # type: ignore[attr-defined]


def test_machines_that_differ_are_all_named() -> None:
    other = {"device": "8 × loom, 96 CPU cores"}
    assert "Machines: 1 × abacus, 2 CPU cores; 8 × loom, 96 CPU cores." in markdown(
        [FULL._replace(results=(RESULT, other))]
    )


def test_csv_json_and_markdown_agree() -> None:
    lines = list(csv.DictReader(io.StringIO(comma_separated(ROWS))))
    described = json.loads(as_json(ROWS))["rows"]
    cells = texts(ROWS)
    for row, line, entry, text in zip(ROWS, lines, described, cells[1:], strict=True):
        assert line["config"] == entry["config"] == text[0] == row.name
        assert int(line["seeds"]) == len(entry["seeds"]) == int(text[1].split(" ")[0])
        scores = {**entry["tasks"], **{name: entry[name] for name in ("average", "plain_average") if name in entry}}
        assert set(scores) == set(row.values)
        for name, score in scores.items():
            column = f"{name}_{score['metric']}" if "metric" in score else name
            mean, sd = line[f"{column}_mean"], line[f"{column}_sd"]
            shown = text[cells[0].index(column.replace("_", " "))]
            if score["mean"] is None:
                assert (mean, shown) == ("nan", "nan")
            else:
                assert float(mean) == score["mean"] == row.values[name].mean
                assert shown.startswith(f"{score['mean']:.3f}")
            assert (float(sd) if sd else None) == score["sd"] == row.values[name].sd
            assert score["interval"] == (list(row.values[name].interval) if row.values[name].interval else None)
            if "metric" not in score:
                ends = [line[f"{name}_{end}"] for end in ("low", "high")]
                assert [float(end) for end in ends if end] == (score["interval"] or [])
        assert (float(line["seconds_median"]) if line["seconds_median"] else None) == entry["seconds_median"]
        assert line["examples_per_second_median"] == str(entry["examples_per_second_median"] or "")
        assert line["peak_memory_bytes_max"] == str(entry["peak_memory_bytes_max"] or "")
    assert len({len(line) for line in lines}) == 1


def test_json_holds_every_runs_results_and_no_nan() -> None:
    text = as_json(ROWS)
    assert "NaN" not in text
    document = json.loads(text)
    assert document["rows"][0]["runs"] == [RESULT, RESULT]
    assert (document["split"], document["confidence"], document["resamples"]) == ("dev", 0.95, 1000)
    assert document["rows"][1]["planned_seeds"] == [0, 1]
    assert document["rows"][1]["note"] == "no interval: labels are missing"
    assert document["rows"][0]["tasks"]["sts"]["interval"] == [-0.5, 0.25]


def test_the_terminals_table_holds_the_same_cells() -> None:
    console = Console(width=400, file=io.StringIO())
    console.print(terminal(ROWS))
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    lines = [[cell.strip() for cell in line[1:-1].split("│")] for line in printed.splitlines() if line[0] in "┃│"]
    header = [cell.strip() for cell in printed.splitlines()[1][1:-1].split("┃")]
    assert [header, *lines[1:]] == texts(ROWS)  # "[red]" too: a name is no markup
    assert "a|b [red]: no interval: labels are missing." in printed


def test_the_three_files_are_replaced(tmp_path: Path) -> None:
    write_tables([FULL], tmp_path / "new" / "folder")
    write_tables(ROWS, tmp_path / "new" / "folder")
    files = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "new" / "folder").iterdir()}
    assert files == {"table.md": markdown(ROWS), "table.csv": comma_separated(ROWS), "table.json": as_json(ROWS)}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the tables in .*file"):
        write_tables([FULL], tmp_path / "file")
