"""Prediction files, byte for byte (NUMERICS, section 5)."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mtbert_jax.config import HeadConfig, TaskConfig
from mtbert_jax.data.writers import prediction_file, write_predictions
from tests.conftest import course_tasks

SST, PARA, STS = course_tasks(HeadConfig())


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


def test_the_column_is_named_after_the_task_by_default(tmp_path: Path) -> None:
    assert written(tmp_path, SST, [], []) == b"id \t Predicted_Sst \n"


def test_named_classes_are_written_by_name(tmp_path: Path) -> None:
    task = TaskConfig("nli", classes=("no", "maybe", "yes"))
    assert written(tmp_path, task, ["é"], [2.0]) == "id \t Predicted_Nli \né , yes \n".encode()


def test_a_similarity_keeps_all_its_digits(tmp_path: Path) -> None:
    value = float(np.float32(0.1))
    text = written(tmp_path, STS, ["a"], [value]).decode().splitlines()[1]
    assert float(text.split(" , ")[1]) == value


def test_ids_and_predictions_must_be_equally_many(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="zip"):
        written(tmp_path, SST, ["a"], [1.0, 2.0])
