"""Rows without a label: in test files, in files of one task, and in files that tasks share."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mtbert_jax.config import Config, TaskConfig
from mtbert_jax.data.readers import is_shared, read_for_run, read_split, read_task
from mtbert_jax.errors import InputError
from mtbert_jax.tasks import kind_of

TASK = TaskConfig("x", text=("t",), label="x", id="", num_classes=3, train="a.tsv", dev="a.tsv", test="a.tsv")
Y = dataclasses.replace(TASK, name="y", label="y")


def write(tmp_path: Path, text: str, name: str = "a.tsv") -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")


def labels(tmp_path: Path, rows: list[str], **task: Any) -> list[Any]:
    write(tmp_path, "t\tx\n" + "".join(f"text\t{row}\n" for row in rows))
    return [example.label for example in read_task(dataclasses.replace(TASK, **task), "test", tmp_path)]


RANGE = {"kind": "regression", "num_classes": 0, "label_range": (0.0, 5.0)}
FREE = {"kind": "regression", "num_classes": 0}
SIGNS = {"num_classes": 0, "classes": ("-1", "0", "1")}
TOPICS = {"kind": "multilabel", "num_classes": 0, "classes": ("a", "b")}


@pytest.mark.parametrize(
    ("rows", "task", "expected"),
    [
        (["-1", "-1"], {}, [None, None]),
        (["", "  "], {}, [None, None]),
        (["-1", "2", "", "-1.0"], {}, [None, 2.0, None, None]),
        (["-1", "1"], {"kind": "binary", "num_classes": 0}, [None, 1.0]),
        (["-1.0", ""], RANGE, [None, None]),
        (["-1.0", "-1"], FREE, [None, None]),  # a label, too, but not of every row
        (["-1.0", "2"], FREE, [-1.0, 2.0]),
        (["-1", "1"], SIGNS, [0.0, 2.0]),
        (["-1", "-1"], {"num_classes": 0, "classes": ("no", "yes")}, [None, None]),
    ],
)
def test_in_a_test_file_a_blank_and_minus_one_are_no_label(
    rows: list[str], task: dict[str, Any], expected: list[Any], tmp_path: Path
) -> None:
    assert labels(tmp_path, rows, **task) == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["", " "], [None, None]),
        (["", "-1"], [None, None]),
        (["-1", "-1"], [None, None]),
        (["", "a"], [[0, 0], [1, 0]]),
        (["b", "-1", ""], [[0, 1], None, [0, 0]]),
    ],
)
def test_a_blank_label_that_is_one_is_none_where_no_row_has_another(
    rows: list[str], expected: list[Any], tmp_path: Path
) -> None:
    assert [None if label is None else label.tolist() for label in labels(tmp_path, rows, **TOPICS)] == expected
    write(tmp_path, "t\tx\nfirst\t\nsecond\t\n")
    training = read_task(dataclasses.replace(TASK, **TOPICS), "train", tmp_path)  # type: ignore[arg-type]
    assert [example.label.tolist() for example in training] == [[0, 0], [0, 0]]


def test_a_kind_whose_parse_fails_for_blanks_reads_test_files_without_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind_of(TASK), "parse", lambda task, text: float(ord(text[0]) - ord("0")))
    assert labels(tmp_path, ["1", "2"]) == [1.0, 2.0]


def test_json_has_no_label_by_null_by_minus_one_and_by_leaving_it_out(tmp_path: Path) -> None:
    write(tmp_path, '{"t": "a", "x": null}\n{"t": "b", "x": -1}\n{"t": "c"}\n{"t": "d", "x": 1}\n{"t": "e", "x": ""}\n')
    assert [example.label for example in read_task(TASK, "test", tmp_path)] == [None, None, None, 1.0, None]


@pytest.mark.parametrize("column", ["X", " x", "x ", " X "])
def test_a_label_that_is_written_otherwise_is_not_passed_over(column: str, tmp_path: Path) -> None:
    write(tmp_path, f"t\t{column}\na\t1\n")
    with pytest.raises(InputError) as caught:
        read_split(TASK, "test", tmp_path)
    told = f"{tmp_path}/a.tsv:1: no column 'x'; did you mean {column!r}? (columns: t, {column})"
    assert str(caught.value) == told
    assert [e.label for e in read_split(TASK, "test", tmp_path, labels=False).examples] == [None]
    write(tmp_path, f'{{"t": "a", "x": 1}}\n{{"t": "b", "{column}": 1}}\n', "a.jsonl")
    with pytest.raises(InputError, match=rf"a\.jsonl:2: has no field 'x'; did you mean '{column}'\? \(bad_rows"):
        read_split(dataclasses.replace(TASK, test="a.jsonl"), "test", tmp_path)


def test_columns_of_other_names_are_no_labels(tmp_path: Path) -> None:
    """Nor are those that the task reads otherwise, however they are written."""
    write(tmp_path, "X\tx1\txs\na\t1\t1\n")
    assert read_task(dataclasses.replace(TASK, text=("X",)), "test", tmp_path)[0].label is None
    assert read_task(dataclasses.replace(TASK, text=("x1",), id="X"), "test", tmp_path)[0].label is None


def test_another_label_that_is_none_stays_a_bad_row(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.tsv:3: column 'x' is '-2', not a whole number from 0 to 2"):
        labels(tmp_path, ["-1", "-2"])


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize("label", ["", " ", "-1"])
def test_training_and_dev_rows_need_their_label(split: Any, label: str, tmp_path: Path) -> None:
    write(tmp_path, f"t\tx\na\t1\nb\t{label}\n")
    with pytest.raises(InputError, match=r"a\.tsv:3: column 'x' is '(-1)?', not a whole number from 0 to 2 \(bad_rows"):
        read_split(TASK, split, tmp_path)


def test_in_a_file_of_several_tasks_a_blank_label_is_left_out_of_its_task_alone(tmp_path: Path) -> None:
    write(tmp_path, "t\tx\ty\na\t1\t\nb\t\t2\nc\t0\t1\n")
    config = Config(tasks=(TASK, Y), data_dir=str(tmp_path))
    x, y = (read_for_run(config, task, "train") for task in config.tasks)
    assert [(e.id, e.texts[0], e.label) for e in x.examples] == [("0", "a", 1.0), ("2", "c", 0.0)]
    assert [(e.id, e.texts[0], e.label) for e in y.examples] == [("1", "b", 2.0), ("2", "c", 1.0)]
    assert (x.unlabelled, y.unlabelled, x.bad, y.bad) == ([3], [2], [], [])


def test_other_faults_of_a_shared_file_are_not_left_out(tmp_path: Path) -> None:
    config = Config(tasks=(TASK, Y), data_dir=str(tmp_path))
    for row, what in (("b\t9\t1", "column 'x' is '9'"), ("b\t1", "has 2 columns"), ("b\t-1\t1", "column 'x' is '-1'")):
        write(tmp_path, f"t\tx\ty\na\t1\t\n{row}\n")
        with pytest.raises(InputError, match=rf"a\.tsv:3: {what}"):
            read_for_run(config, TASK, "train")
    write(tmp_path, "t\tz\ty\na\t1\t1\n")
    with pytest.raises(InputError, match=r"a\.tsv:1: no column 'x'"):
        read_for_run(config, TASK, "dev")


def test_json_of_several_tasks_may_leave_labels_out(tmp_path: Path) -> None:
    write(tmp_path, '{"t": "a", "x": 1}\n{"t": "b", "y": 2, "x": null}\n{"t": "c", "x": ""}\n')
    config = Config(tasks=(TASK, Y), data_dir=str(tmp_path))
    assert read_for_run(config, TASK, "train").unlabelled == [2, 3]
    assert read_for_run(config, Y, "train").unlabelled == [1, 3]
    with pytest.raises(InputError, match=r"a\.tsv: no row has a label of task z in 'z'"):
        read_for_run(config, dataclasses.replace(Y, name="z", label="z"), "train")


def test_a_file_is_shared_whatever_it_is_called(tmp_path: Path) -> None:
    write(tmp_path, "t\tx\ty\na\t1\t\n")
    (tmp_path / "link.tsv").symlink_to(tmp_path / "a.tsv")
    linked = dataclasses.replace(Y, train=str(tmp_path / "link.tsv"), dev="", test="")
    assert is_shared(TASK, "train", (TASK, linked), tmp_path)
    assert not is_shared(TASK, "train", (TASK, dataclasses.replace(linked, label="x")), tmp_path)
    assert not is_shared(TASK, "train", (TASK, dataclasses.replace(linked, train="b.tsv")), tmp_path)
