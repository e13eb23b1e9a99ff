"""Rows of data files: TSV, CSV and JSON Lines that were cut, mixed up, or written by somebody with other ideas."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from mtbert_jax.config import TaskConfig
from mtbert_jax.data.predictions import read_predictions, write_predictions
from mtbert_jax.data.readers import Reading, read_split
from mtbert_jax.data.tokens import tokenize_texts
from mtbert_jax.encoders.tokenizer import load_tokenizer
from mtbert_jax.tasks import kind_of
from tests.fuzz.attempts import fuzz, outcome
from tests.fuzz.strategies import odd_numbers, odd_texts, odd_values, spoiled
from tests.tally import Tally

TASKS = (
    TaskConfig("sst", "classification", ("a",), "label", num_classes=5),
    TaskConfig("named", "classification", ("a",), "label", classes=("no", "maybe", "yes")),
    TaskConfig("para", "binary", ("a", "b"), "label"),
    TaskConfig("sts", "regression", ("a", "b"), "label", id="", label_range=(0.0, 5.0)),
)
COLUMNS = ("id", "a", "b", "label")
LABELS = ["0", "1", "1.0", "3", "yes", "no", "", "nan", "-0", "1e999", "٣", "1_0", "0x1", "5" * 400]
labels = st.one_of(st.sampled_from(["0", "1"]), st.sampled_from(LABELS), odd_texts)
texts = st.one_of(st.sampled_from(["the film was good .", "a song"]), odd_texts)


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """A table, in part sound, and its name."""
    header = list(COLUMNS)
    if draw(st.integers(0, 3)) == 0:
        header[draw(st.integers(0, 3))] = draw(st.one_of(st.sampled_from(["", "id", "a", "lable"]), odd_texts))
    rows = []
    for number in range(draw(st.integers(0, 4))):
        row = [draw(st.one_of(st.just(f"r{number}"), odd_texts)), draw(texts), draw(texts), draw(labels)]
        rows.append(row[: draw(st.sampled_from([4, 4, 4, 3, 0]))] + draw(st.sampled_from([[], [], ["more"]])))
    separator, end = draw(st.sampled_from(["\t", "\t", ",", ";"])), draw(st.sampled_from(["\n", "\r\n", "\r"]))

    def field(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if quoted else text

    quoted = draw(st.booleans())
    lines = [separator.join(map(field, row)) for row in [header, *rows]]
    text = draw(st.sampled_from(["", "", "\ufeff"])) + end.join(lines) + draw(st.sampled_from([end, ""]))
    return draw(st.sampled_from(["rows.csv", "rows.tsv", "rows"])), text.encode("utf-8", "surrogatepass")


@st.composite
def json_lines(draw: st.DrawFn) -> tuple[str, bytes]:
    """JSON Lines, in part sound, and their name."""
    lines = []
    for number in range(draw(st.integers(1, 4))):
        name = draw(st.one_of(st.just(f"r{number}"), odd_texts))
        row: Any = {"id": name, "a": draw(texts), "b": draw(texts), "label": draw(st.sampled_from([0, 1, "1"]))}
        for name in draw(st.sampled_from([(), (), (), *((column,) for column in COLUMNS)])):
            row[name] = draw(st.one_of(odd_numbers, odd_values))
        row = row if draw(st.integers(0, 19)) else draw(odd_values)
        lines.append(json.dumps(row, ensure_ascii=draw(st.booleans())))
    return draw(st.sampled_from(["rows.jsonl", "rows.ndjson"])), "\n".join(lines).encode("utf-8", "surrogatepass")


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    name, data = draw(st.one_of(tables(), json_lines()))
    return name, draw(spoiled(data)) if draw(st.booleans()) else data


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("cases", [pytest.param(40), pytest.param(700, marks=pytest.mark.slow)])
def test_any_file_of_rows_is_read_or_refused(cases: int, place: Path, encoder_dir: Path, tally: Tally) -> None:
    tokenizer = load_tokenizer(encoder_dir)

    def case(given: tuple[tuple[str, bytes], int, bool, str, str]) -> None:
        (name, data), number, quotes, split, bad_rows = given
        task = dataclasses.replace(TASKS[number], quotes=quotes, train=name, test=name)
        (place / name).write_bytes(data)

        def door() -> None:
            reading = read_split(task, split, place, bad_rows)  # type: ignore[arg-type]
            tokenize_texts(tokenizer, [example.texts for example in reading.examples], 16)
            check_reading(reading, task, place / "predictions.csv")

        outcome(door, place, name)

    given = st.tuples(
        files(),
        st.integers(0, len(TASKS) - 1),
        st.booleans(),
        st.sampled_from(["train", "test"]),
        st.sampled_from(["error", "skip"]),
    )
    tally("rows fuzzed", fuzz(given, case, cases))


def check_reading(reading: Reading, task: TaskConfig, path: Path) -> None:
    """What was read can be trained on, and goes through a prediction file."""
    for example in reading.examples:
        assert len(example.texts) == len(task.text)
        "".join(example.texts).encode()
        assert example.label is None or math.isfinite(example.label)
        classes = kind_of(task).classes(task)
        assert not classes or example.label in (None, *range(len(classes)))
    assert all(message.isprintable() for message in reading.skipped)
    ids = [example.id for example in reading.examples]
    assert len(set(ids)) == len(ids)
    write_predictions(path, task, ids, np.zeros(len(ids)))
    assert read_predictions(path, task)[0] == ids
