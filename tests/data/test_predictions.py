"""Prediction files, byte for byte (docs/numerics.md, section 5)."""

import dataclasses
import errno
import re
from pathlib import Path

import numpy as np
import pytest

from mtbert_jax.config import HeadConfig, TaskConfig
from mtbert_jax.data.predictions import prediction_file, read_predictions, write_predictions
from mtbert_jax.errors import InputError
from tests.conftest import course_tasks

PLAIN, PARA, STS = course_tasks(HeadConfig())
SST = dataclasses.replace(PLAIN, output_column="Predicted_Sst")
NLI = TaskConfig("nli", classes=("no", "may, be", 'a "yes"'))


def written(tmp_path: Path, task: TaskConfig, ids: list[str], predicted: list[float]) -> bytes:
    write_predictions(tmp_path / "new" / "folder" / "file.csv", task, ids, np.array(predicted))
    return (tmp_path / "new" / "folder" / "file.csv").read_bytes()


@pytest.mark.parametrize(
    ("task", "column", "predicted", "expected"),
    [
        (SST, "Predicted_Sentiment", [3.0, 0.0], b"id \t Predicted_Sentiment \na1 , 3 \nb2 , 0 \n"),
        (PARA, "Predicted_Is_Paraphrase", [1.0, 0.0], b"id \t Predicted_Is_Paraphrase \na1 , 1.0 \nb2 , 0.0 \n"),
        (STS, "Predicted_Similiary", [4.25, -0.5], b"id \t Predicted_Similiary \na1 , 4.25 \nb2 , -0.5 \n"),
    ],
)
def test_files_are_the_courses(
    task: TaskConfig, column: str, predicted: list[float], expected: bytes, tmp_path: Path
) -> None:
    task = dataclasses.replace(task, output_column=column)
    assert written(tmp_path, task, ["a1", "b2"], predicted) == expected


@pytest.mark.parametrize(
    ("task", "split", "name"),
    [(SST, "dev", "sst-dev-output.csv"), (PARA, "test", "para-test-output.csv"), (STS, "dev", "sts-dev-output.csv")],
)
def test_files_have_the_courses_names(task: TaskConfig, split: str, name: str) -> None:
    assert prediction_file(task, split) == name


@pytest.mark.parametrize(
    ("task", "predicted", "expected"),
    [
        (PLAIN, [3.0, 0.0], "é 1,3\nb2,0\n"),
        (PARA, [1.0, 0.0], "é 1,1\nb2,0\n"),
        (STS, [4.25, -0.5], "é 1,4.25\nb2,-0.5\n"),
        (NLI, [1.0, 2.0], 'é 1,"may, be"\nb2,"a ""yes"""\n'),
    ],
)
def test_without_a_column_of_the_course_files_are_plain_csv_with_classes_by_name(
    task: TaskConfig, predicted: list[float], expected: str, tmp_path: Path
) -> None:
    assert written(tmp_path, task, ["é 1", "b2"], predicted) == f"id,prediction\n{expected}".encode()


@pytest.mark.parametrize("task", [STS, dataclasses.replace(STS, output_column="Predicted_Similiary")])
def test_a_similarity_keeps_all_its_digits(task: TaskConfig, tmp_path: Path) -> None:
    value = float(np.float32(0.1))
    text = written(tmp_path, task, ["a"], [value]).decode().splitlines()[1]
    assert float(text.split(",")[1]) == value


def test_files_of_the_course_are_read_whatever_the_config_says_and_plain_ones_too(tmp_path: Path) -> None:
    """Earlier versions wrote the course's format for every task."""
    write_predictions(tmp_path / "old.csv", SST, ["a", "b"], np.array([3.0, 1.0]))
    assert read_predictions(tmp_path / "old.csv", PLAIN)[1].tolist() == [3.0, 1.0]
    write_predictions(tmp_path / "new.csv", PLAIN, ["a", "b"], np.array([3.0, 1.0]))
    assert read_predictions(tmp_path / "new.csv", SST)[1].tolist() == [3.0, 1.0]


def test_ids_and_predictions_must_be_equally_many(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        written(tmp_path, SST, ["a"], [1.0, 2.0])


@pytest.mark.parametrize(
    ("task", "predicted"),
    [
        (SST, [3.0, 0.0, 4.0]),
        (PARA, [1.0, 0.0, 1.0]),
        (STS, [4.25, -1e-17, float(np.float32(1 / 3))]),
        (PLAIN, [3.0, 0.0, 4.0]),
        (NLI, [2.0, 0.0, 1.0]),
        (dataclasses.replace(NLI, output_column="Predicted_Nli"), [2.0, 0.0, 1.0]),
    ],
)
def test_what_was_written_is_read_back(task: TaskConfig, predicted: list[float], tmp_path: Path) -> None:
    ids = ["a , b", "two\nlines", "é"]
    path = tmp_path / "file.csv"
    write_predictions(path, task, ids, np.array(predicted))
    back, values = read_predictions(path, task)
    assert back == ids
    assert values.tolist() == predicted
    assert values.dtype == np.float64


def test_no_predictions_are_read_back_as_none(tmp_path: Path) -> None:
    write_predictions(tmp_path / "file.csv", SST, [], np.array([]))
    ids, values = read_predictions(tmp_path / "file.csv", SST)
    assert (ids, values.tolist()) == ([], [])


def test_what_is_no_prediction_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    with pytest.raises(InputError, match=r"cannot read the prediction file .*file\.csv"):
        read_predictions(path, SST)
    path.write_bytes(b"\xff \n")
    with pytest.raises(InputError, match=r"file\.csv:1: is not UTF-8 text \(byte 0\)"):
        read_predictions(path, SST)
    path.write_text("id \t Predicted_Sst \na , 3 \nb , x \n")
    with pytest.raises(InputError, match=r"file\.csv:3: 'x' is no prediction of task sst"):
        read_predictions(path, SST)
    for text, message in (
        ("id,prediction\na,3\nb,yes\n", "file.csv:3: 'yes' is no prediction of task sst"),
        ("id,prediction\na,3,1\n", "file.csv:2: has 3 columns, not id and prediction"),
        ("a,3\n", "file.csv:1: is no prediction file: its header is 'a, 3'"),
        ('id,prediction\n"a,3\n', "file.csv:2: cannot be read as a table"),
        ("", "file.csv:1: is no prediction file"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=re.escape(message)):
            read_predictions(path, SST)


def test_a_disk_that_takes_no_more_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is told with the file's name, which the system does not give."""
    path = tmp_path / "file.csv"
    write_predictions(path, PARA, ["a1"], np.array([1.0]))
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_predictions(path, PARA, ["b2", "c3"], np.array([0.0, 1.0]))
    assert (path.read_bytes(), error.value.filename) == (before, str(path))
    assert [*tmp_path.iterdir()] == [path]
