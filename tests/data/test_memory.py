"""Rows in memory → files of the run folder, and runs that train on them."""

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.config import Config, TaskConfig
from mtbert_jax.data.memory import in_files
from mtbert_jax.errors import InputError

ROWS = [{"id": "a", "sentence": "good .", "label": 4}, {"id": "b", "sentence": "bad .", "label": 0}]


class Frame:
    """What of pandas is used; pandas itself is no dependency of the tests."""

    iloc = None

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return [{**row, "label": np.int64(row["label"]), "unused": object()} for row in ROWS]


def written(given: Any, **columns: Any) -> list[dict[str, Any]]:
    made, files = in_files({"name": "sst", "train": given, **columns}, Path("data"))
    ((path, text),) = files.items()
    assert made["train"] == str(path)
    assert path.parent == Path("data").resolve()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    "given",
    [
        ROWS,
        tuple(ROWS),
        iter(ROWS),
        Frame(),
        SimpleNamespace(to_dicts=lambda: ROWS),
        {"id": ["a", "b"], "sentence": ["good .", "bad ."], "label": np.array([4, 0])},
    ],
    ids=["list", "tuple", "iterator", "pandas", "polars", "columns"],
)
def test_every_form_of_a_table_makes_the_same_file(given: Any) -> None:
    assert written(given) == ROWS


def test_only_the_tasks_columns_are_kept_and_missing_values_are_left_out() -> None:
    rows = [
        {"one": "a", "two": "b", "same": np.float32(1), "n": 7, "more": {}},
        {"one": "c", "two": "d", "same": math.nan},
    ]
    assert written(rows, text=("one", "two"), label="same", id="n") == [
        {"one": "a", "two": "b", "same": 1.0, "n": 7},
        {"one": "c", "two": "d"},
    ]


def test_names_of_files_stay_and_equal_rows_are_the_same_file() -> None:
    made, files = in_files({"name": "sst", "train": "train.csv", "dev": ROWS, "test": list(ROWS)}, Path("data"))
    assert made["train"] == "train.csv"
    assert [path.name.rpartition("-")[2] for path in files] == [Path(made["dev"]).name.rpartition("-")[2]] * 2
    other = in_files({"name": "../sst", "dev": ROWS[:1]}, Path("data"))
    ((path, _),) = other.files.items()
    assert path.name.startswith("___sst-dev-")
    assert other.task["dev"] != made["dev"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "task sst: train: is a int; give a file's name, a list of dicts, or a data frame"),
        ([], "task sst: train: there are no rows"),
        (["good ."], "task sst: train: row 1 is a str, not a dict of columns"),
        ([ROWS[0], {"text": "good ."}], "task sst: train: row 2 has no 'sentence' (it has 'text')"),
        ([{"sentence": None, "label": 1}], "task sst: train: row 1 has no 'sentence'"),
        ([{**ROWS[0], "label": {1}}], "task sst: train: row 1: 'label' is {1}, a set; give a text, a number or a list"),
        ([{**ROWS[0], "label": math.inf}], "task sst: train: row 1: 'label' is inf"),
        ({"sentence": ["a", "b"], "label": [1]}, "task sst: train: is a dict; give rows, or columns of one length"),
    ],
)
def test_what_is_no_table_is_named(given: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        written(given)
    assert str(caught.value).startswith(message)


def test_a_reader_of_files_says_so() -> None:
    with pytest.raises(InputError, match="task sst: train is a list, not a file's name"):
        mt.read_task(TaskConfig(name="sst", train=ROWS), "train")


def test_a_run_trains_on_rows_and_its_folder_stands_alone(config: Config, tmp_path: Path) -> None:
    """The same scores as from files; resumed with the same rows, refused with others, and nothing is overwritten."""
    tasks = [dataclasses.replace(task, batch_size=8) for task in config.tasks[:1]]
    examples = {split: mt.read_task(tasks[0], split, config.data_dir) for split in ("train", "dev")}
    rows = {
        split: [{"id": e.id, "sentence": e.texts[0], "label": int(e.label)} for e in some]
        for split, some in examples.items()
    }
    config = dataclasses.replace(config, steps=2, eval_every_steps=2)
    task = dataclasses.replace(tasks[0], text=["sentence"], label="label", id="id", test="", **rows)  # type: ignore[arg-type]
    held = dataclasses.replace(config, tasks=[task])  # type: ignore[arg-type]
    run = mt.train(held, out=tmp_path / "rows")
    plain = mt.train(
        dataclasses.replace(config, tasks=(dataclasses.replace(tasks[0], test=""),)), out=tmp_path / "files"
    )
    assert run.scores == plain.scores
    names = sorted(path.name for path in (tmp_path / "rows" / "data").iterdir())
    assert [name.rpartition("-")[0] for name in names] == ["sst-dev", "sst-train"]
    assert run.evaluate("dev") == run.scores
    assert mt.train(held, out=tmp_path / "rows", resume=True).scores == run.scores
    fewer = dataclasses.replace(held, tasks=[dataclasses.replace(task, train=rows["train"][1:])])  # type: ignore[arg-type]
    for resume, message in ((True, "holds a run with another config .tasks.sst.train"), (False, "holds a run already")):
        with pytest.raises(InputError, match=message):
            mt.train(fewer, out=tmp_path / "rows", resume=resume)
    assert sorted(path.name for path in (tmp_path / "rows" / "data").iterdir()) == names
    assert repr(run.model).startswith("MultitaskModel(tasks sst; 0.")
    assert len(repr(run.model)) < 100
