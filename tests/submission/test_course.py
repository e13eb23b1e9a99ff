"""Prediction files held against data files: every fault by file and line (docs/numerics.md, section 5)."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mtbert_jax.config import TaskConfig
from mtbert_jax.data.predictions import prediction_file, write_predictions
from mtbert_jax.errors import InputError
from mtbert_jax.submission.course import COURSE, check_pair, faults

SST, PARA, STS = COURSE["sst"], COURSE["para"], COURSE["sts"]
IDS = ["a1", "b2", "c3"]
HEADER = "id \t Predicted_Sentiment \n"


def found(tmp_path: Path, text: str, task: TaskConfig = SST, ids: list[str] = IDS) -> list[str]:
    path = tmp_path / "f.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return [line.replace(str(path), "f.csv") for line in faults(path, task, ids)]


@pytest.mark.parametrize(
    ("task", "values"), [(SST, [0.0, 4.0, 2.0]), (PARA, [0.0, 1.0, 1.0]), (STS, [0.0, 5.0, 1 / 3])]
)
def test_what_this_library_writes_is_right(task: TaskConfig, values: list[float], tmp_path: Path) -> None:
    write_predictions(tmp_path / "f.csv", task, IDS, np.array(values))
    assert list(faults(tmp_path / "f.csv", task, IDS)) == []


def test_names_of_the_course_are_those_of_numerics() -> None:
    assert [prediction_file(task, "dev") for task in (SST, PARA, STS)] == [
        f"{name}-dev-output.csv" for name in ("sst", "para", "sts")
    ]


@pytest.mark.parametrize("text", ["a1 , 3 \r\nb2 , 0 \r\nc3 , 4.0 \r\n", "a1 , 3 \nb2 , 0 \nc3 , 4 "])
def test_other_line_ends_are_fine(text: str, tmp_path: Path) -> None:
    assert found(tmp_path, HEADER + text) == []


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("a1 , 3 \nb2 , 5 \nc3 , 0 \n", "f.csv:3: prediction '5' is not a whole number from 0 to 4"),
        ("a1 , 3 \nb2 , -1 \nc3 , 0 \n", "f.csv:3: prediction '-1' is not a whole number from 0 to 4"),
        ("a1 , 3 \nb2 , 2.5 \nc3 , 0 \n", "f.csv:3: prediction '2.5' is not a whole number from 0 to 4"),
        ("a1 , 3 \nb2 , nan \nc3 , 0 \n", "f.csv:3: prediction 'nan' is not a whole number from 0 to 4"),
        ("a1 , 3 \nb2 , ٣ \nc3 , 0 \n", "f.csv:3: prediction '٣' is not a whole number from 0 to 4"),
        ("a1 , 3 \nb2 , 1_0 \nc3 , 0 \n", "f.csv:3: prediction '1_0' is not a whole number from 0 to 4"),
        ("a1 , 3 \nb2 ,  \nc3 , 0 \n", "f.csv:3: prediction '' is not a whole number from 0 to 4"),
        ("a1 , 3 \nb2, 1\nc3 , 0 \n", "f.csv:3: 'b2, 1' is no row such as 'id , prediction '"),
        ("a1 , 3 \n\nb2 , 1 \nc3 , 0 \n", "f.csv:3: '' is no row such as 'id , prediction '"),
        ("a1 , 3 \nb2 , 1 \nx , 0 \nc3 , 1 \n", "f.csv:4: id 'x' does not stand in the data file"),
        ("a1 , 3 \nb2 , 1 \na1 , 0 \nc3 , 1 \n", "f.csv:4: id 'a1' stands already in line 2"),
        ("a1 , 3 \nc3 , 1 \nb2 , 0 \n", "f.csv:3: id 'c3' stands where the data file has 'b2'"),
        ("a1 , 3 \nc3 , 1 \n", "f.csv: 1 of 3 ids of the data file are missing, the first: 'b2'"),
        ("", "f.csv: 3 of 3 ids of the data file are missing, the first: 'a1'"),
    ],
)
def test_each_fault_is_named_by_its_line(rows: str, expected: str, tmp_path: Path) -> None:
    lines = found(tmp_path, HEADER + rows)
    assert expected in lines
    assert len(lines) == (2 if "no row" in expected and "b2 , 1" not in rows else 1)  # that row's id is missing, too


def test_a_header_is_held_against_the_tasks(tmp_path: Path) -> None:
    (line,) = found(tmp_path, "id,Predicted_Sentiment\na1 , 3 \nb2 , 1 \nc3 , 0 \n")
    assert line == r"f.csv:1: the header is 'id,Predicted_Sentiment', not 'id \t Predicted_Sentiment '"


@pytest.mark.parametrize("value", ["-0.1", "5.01", "inf", "nan", "good"])
def test_similarities_lie_in_the_tasks_range(value: str, tmp_path: Path) -> None:
    text = f"id \t Predicted_Similiary \na1 , {value} \nb2 , 5.0 \nc3 , 1e-3 \n"
    assert found(tmp_path, text, STS) == [f"f.csv:2: prediction {value!r} is not a number from 0.0 to 5.0"]
    free = dataclasses.replace(STS, label_range=())
    assert bool(found(tmp_path, text, free)) == (value in ("inf", "nan", "good"))


def test_classes_may_have_names(tmp_path: Path) -> None:
    task = TaskConfig("nli", classes=("no", "may be"), output_column="Predicted_Nli")
    text = "id \t Predicted_Nli \na1 , no \nb2 , maybe \nc3 , may be \n"
    assert found(tmp_path, text, task) == ["f.csv:3: prediction 'maybe' is not one of no, may be"]


def test_ids_are_looked_up_as_the_reader_has_them(tmp_path: Path) -> None:
    assert found(tmp_path, HEADER + "a , b , 3 \n", ids=["a , b"]) == []


def pair(tmp_path: Path, name: str, column: str, values: list[str], header: str) -> tuple[Path, Path]:
    path, data = tmp_path / f"{name}-out.csv", tmp_path / f"{name}-data.csv"
    path.write_text(f"id \t {column} \n" + "".join(f"x{n} , {value} \n" for n, value in enumerate(values)))
    rows = "".join(f"{n}\tx{n}\t" + "\t".join(["text"] * header.count("sentence")) + "\n" for n in range(len(values)))
    data.write_text(f"\tid\t{header}\n{rows}")
    return path, data


@pytest.mark.parametrize(
    ("name", "column", "header", "good", "bad"),
    [
        ("sst", "Predicted_Sentiment", "sentence", ["0", "4"], "5"),
        ("cfimdb", "Predicted_Sentiment", "sentence", ["0", "1"], "2"),
        ("para", "Predicted_Is_Paraphrase", "sentence1\tsentence2", ["0.0", "1.0"], "0.5"),
        ("sts", "Predicted_Similiary", "sentence1\tsentence2", ["0.25", "5.0"], "5.5"),
    ],
)
def test_the_header_tells_the_task(
    name: str, column: str, header: str, good: list[str], bad: str, tmp_path: Path
) -> None:
    assert check_pair(*pair(tmp_path, name, column, good, header)) == (2, [])
    path, data = pair(tmp_path, name, column, [*good, bad], header)
    assert [line.partition(": ")[0] for line in check_pair(path, data)[1]] == [f"{path}:4"]


def test_a_row_whose_label_cannot_be_used_needs_a_prediction_like_any_other(tmp_path: Path) -> None:
    path, data = pair(tmp_path, "para", "Predicted_Is_Paraphrase", ["0.0", "1.0"], "sentence1\tsentence2")
    data.write_text("\tid\tsentence1\tsentence2\tis_duplicate\n0\tx0\ta\tb\t1.0\n1\tx1\ta\tb\t\n")
    assert check_pair(path, data) == (2, [])


def test_what_cannot_be_checked_is_refused(tmp_path: Path) -> None:
    path, data = pair(tmp_path, "sst", "Predicted_Sentiment", ["0"], "sentence")
    with pytest.raises(InputError, match="cannot read the prediction file"):
        check_pair(tmp_path / "nowhere.csv", data)
    with pytest.raises(InputError, match="cannot read the data file"):
        check_pair(path, tmp_path / "nowhere.csv")
    path.write_text("Predicted\n")
    with pytest.raises(InputError, match=r"sst-out\.csv:1: the header is 'Predicted'; it must be one of"):
        check_pair(path, data)
    path.write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"sst-out\.csv:1: is not UTF-8 text \(byte 0\)"):
        check_pair(path, data)


def test_quotes_in_the_data_file_are_no_fault_of_the_predictions(tmp_path: Path) -> None:
    path, data = pair(tmp_path, "sst", "Predicted_Sentiment", ["1", "2", "0"], "sentence")
    for first, second in (('"the film', 'a cat"'), ('"the film', "a cat"), ('"so" he', "a cat"), ('"a"', 'a "cat')):
        data.write_text(f"\tid\tsentence\n0\tx0\t{first}\n1\tx1\t{second}\n2\tx2\tgood\n")
        assert check_pair(path, data) == (3, [])
    data.write_text('\tid\tsentence\n0\tx0\t"two\nlines"\n1\tx1\t"a ""cat"""\n2\tx2\tgood\n')
    assert check_pair(path, data) == (3, [])
    data.write_text('\tid\tsentence\n0\tx0\t"the film\n1\tx1\ta cat"\n3\tx3\tgood\n')
    assert len(check_pair(path, data)[1]) == 2  # x2 is unknown, x3 is missing
    data.write_text("\tid\tsentence\n0\tx0\n")
    with pytest.raises(InputError, match=r"sst-data\.csv:2: has 2 columns"):
        check_pair(path, data)
