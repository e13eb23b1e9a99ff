"""Files → examples; every bad row by file and line (docs/numerics.md, section 5)."""

import bz2
import dataclasses
import gzip
import json
import lzma
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from mtbert_jax.config import Config, TaskConfig
from mtbert_jax.data.examples import clean
from mtbert_jax.data.readers import read_split, read_task
from mtbert_jax.errors import InputError
from mtbert_jax.tasks import kind_of
from mtbert_jax.types import Example

SST = TaskConfig("sst", "classification", ("sentence",), "sentiment", train="a.csv", test="a.csv", num_classes=5)
PARA = TaskConfig("para", "binary", ("sentence1", "sentence2"), "is_duplicate", train="a.csv")
STS = TaskConfig("sts", "regression", ("a",), "score", train="a.csv", label_range=(0.0, 5.0))
JSONL = dataclasses.replace(SST, train="a.jsonl", test="a.jsonl")
HEADER = "\tid\tsentence\tsentiment\n"


def write(data: Path, text: str | bytes, task: TaskConfig = SST) -> None:
    (data / task.train).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))


def read(data: Path, text: str | bytes, task: TaskConfig = SST) -> list[Example]:
    write(data, text, task)
    return read_task(task, "train", data)


def refusal(data: Path, text: str | bytes, task: TaskConfig = SST) -> str:
    """What is said of a bad file, after its folder; one line always."""
    with pytest.raises(InputError) as error:
        read(data, text, task)
    message = str(error.value)
    assert "\n" not in message
    return message.replace(f"{data}/", "")


def test_a_tab_separated_file_named_csv_is_read_by_its_header(tmp_path: Path) -> None:
    rows = read(tmp_path, HEADER + "0\tx1\tA fine, warm film .\t3\n1\tx2\tdull\t0\n")
    assert rows == [Example("x1", ("A fine, warm film .",), 3.0), Example("x2", ("dull",), 0.0)]


def test_a_comma_separated_file_is_read_too(tmp_path: Path) -> None:
    (row,) = read(tmp_path, 'sentiment,id,sentence\n3,x1,"A fine, warm film ."\n')
    assert row == Example("x1", ("A fine, warm film .",), 3.0)


def test_pairs_have_two_texts_and_binary_labels_are_written_as_decimals(tmp_path: Path) -> None:
    rows = read(
        tmp_path, "\tid\tsentence1\tsentence2\tis_duplicate\n0\ta\tone\ttwo\t1.0\n1\tb\tthree\tfour\t0.0\n", PARA
    )
    assert rows == [Example("a", ("one", "two"), 1.0), Example("b", ("three", "four"), 0.0)]


def test_the_courses_three_files_are_read(config: Config) -> None:
    sizes = [(len(read_task(task, "train", config.data_dir)), len(task.text)) for task in config.tasks]
    assert sizes == [(37, 1), (37, 2), (37, 2)]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_either_line_end_and_a_missing_last_one_are_fine(end: str, tmp_path: Path) -> None:
    rows = read(tmp_path, HEADER.replace("\n", end) + f"0\ta\tone\t1{end}1\tb\ttwo\t2")
    assert rows == [Example("a", ("one",), 1.0), Example("b", ("two",), 2.0)]


def test_json_lines_are_read(tmp_path: Path) -> None:
    text = '{"id": 7, "sentence": "é\\n", "sentiment": 2}\n\n{"sentence": "b", "id": "x", "sentiment": "4"}\n'
    rows = read(tmp_path, text, JSONL)
    assert rows == [Example("7", ("é\n",), 2.0), Example("x", ("b",), 4.0)]


def test_doubled_quotes_in_a_quoted_field_are_one_quote(tmp_path: Path) -> None:
    """docs/numerics.md, section 5."""
    (row,) = read(tmp_path, HEADER + '0\ta\t"he said ""no""\tand\nleft"\t1\n')
    assert row.texts == ('he said "no"\tand\nleft',)


def test_a_quote_inside_a_field_is_text(tmp_path: Path) -> None:
    assert read(tmp_path, HEADER + '0\ta\ta 5" disc\t1\n')[0].texts == ('a 5" disc',)


def test_without_quotes_every_quote_is_text(tmp_path: Path) -> None:
    rows = read(tmp_path, HEADER + '0\ta\t"so" he\t1\n1\tb\t"open\t2\n', dataclasses.replace(SST, quotes=False))
    assert [row.texts[0] for row in rows] == ['"so" he', '"open']


@pytest.mark.parametrize(("field", "line"), [('"open', 3), ('"so" he', 3)])
def test_broken_quotes_are_named_by_their_first_line_with_a_hint(field: str, line: int, tmp_path: Path) -> None:
    message = refusal(tmp_path, HEADER + f"0\ta\tone\t1\n1\tb\t{field}\t2\n2\tc\tthree\t1\n")
    assert message.startswith(f"a.csv:{line}: cannot be read as a table")
    assert "set quotes = false" in message


@pytest.mark.parametrize("header", ['"id\tsentence\tsentiment\n', '"id" x\tsentence\tsentiment\n'])
def test_broken_quotes_in_the_header_are_named_too(header: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, header + "a\tone\t1\n").startswith("a.csv:1: cannot be read as a table")


def test_lines_are_counted_in_the_file_whatever_quoted_fields_hold(tmp_path: Path) -> None:
    assert refusal(tmp_path, HEADER + '0\ta\t"one\ntwo\nthree"\t1\n\n1\tb\tfour\t9\n').startswith("a.csv:6: ")


@pytest.mark.parametrize("task", [SST, JSONL])
def test_a_byte_order_mark_is_passed_over(task: TaskConfig, tmp_path: Path) -> None:
    table = "id\tsentence\tsentiment\na\tone\t1\n"
    text = '{"id": "a", "sentence": "one", "sentiment": 1}\n' if task is JSONL else table
    assert read(tmp_path, "\ufeff" + text, task) == [Example("a", ("one",), 1.0)]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("1\tb\ttwo", "has 3 columns where the header has 4"),
        ("1\tb\ttwo\t1\t", "has 5 columns where the header has 4"),
        ("1\tb\ttwo\t", "column 'sentiment' is '', not a whole number from 0 to 4"),
        ("1\tb\ttwo\tgood", "column 'sentiment' is 'good', not a whole number from 0 to 4"),
        ("1\tb\ttwo\t5", "column 'sentiment' is '5', not a whole number from 0 to 4"),
        ("1\tb\ttwo\t1.5", "column 'sentiment' is '1.5', not a whole number from 0 to 4"),
        ("1\t \ttwo\t1", "column 'id' is empty"),
        ("1\ta\ttwo\t1", "id 'a' stands already in line 2"),
    ],
)
def test_a_bad_row_of_a_table_is_named_by_file_and_line(row: str, problem: str, tmp_path: Path) -> None:
    text = HEADER + f"0\ta\tone\t1\n{row}\n"
    assert refusal(tmp_path, text).startswith(f"a.csv:3: {problem} (")
    reading = read_split(SST, "train", tmp_path, "skip")
    assert [example.id for example in reading.examples] == ["a"]
    assert reading.skipped == [f"{tmp_path}/a.csv:3: {problem}"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{", "is not JSON: "),
        ("[" * 100000, "is not JSON: "),
        ("[1]", "is not a JSON object"),
        ('{"id": "b", "sentence": "x"}', "has no field 'sentiment'"),
        ('{"id": "b", "sentiment": 1}', "has no field 'sentence'"),
        ('{"id": "b", "sentence": "x", "sentiment": null}', "field 'sentiment' is null"),
        ('{"id": "b", "sentence": null, "sentiment": 1}', "field 'sentence' is null"),
        ('{"id": null, "sentence": "x", "sentiment": 1}', "field 'id' is null"),
        ('{"id": "b", "sentence": "x", "sentiment": NaN}', "column 'sentiment' is 'NaN', not a whole number"),
        ('{"id": "a", "sentence": "x", "sentiment": 1}', "id 'a' stands already in line 1"),
    ],
)
def test_a_bad_json_row_is_named_by_file_and_line(row: str, problem: str, tmp_path: Path) -> None:
    text = f'{{"id": "a", "sentence": "one", "sentiment": 1}}\n\n{row}\n'
    assert refusal(tmp_path, text, JSONL).startswith(f"a.jsonl:3: {problem}")
    assert len(read_split(JSONL, "train", tmp_path, "skip").skipped) == 1


def test_a_text_that_is_null_is_a_bad_row_and_not_the_word_null(tmp_path: Path) -> None:
    assert "a.jsonl:1" in refusal(tmp_path, '{"id": "a", "sentence": null, "sentiment": 1}\n', JSONL)


def test_every_skipped_row_is_counted(tmp_path: Path) -> None:
    """docs/numerics.md, section 5: the Quora dev file has two rows with no usable label."""
    write(tmp_path, "id\tsentence1\tsentence2\tis_duplicate\na\tx\ty\t1.0\nb\tx\ty\t\nc\tx\ty\t0.0\nd\tx\n", PARA)
    reading = read_split(PARA, "train", tmp_path, "skip")
    assert [example.id for example in reading.examples] == ["a", "c"]
    assert [message.rpartition("/")[2][:8] for message in reading.skipped] == ["a.csv:3:", "a.csv:5:"]


def test_a_file_without_a_usable_row_is_refused_even_when_rows_are_skipped(tmp_path: Path) -> None:
    write(tmp_path, HEADER + "0\ta\tone\t9\n")
    with pytest.raises(InputError, match="a.csv: no usable rows"):
        read_split(SST, "train", tmp_path, "skip")


@pytest.mark.parametrize("text", ["", HEADER, "\n"])
def test_a_file_without_rows_is_refused(text: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, text) == "a.csv: no rows"


def test_a_missing_column_is_named_with_the_nearest_known(tmp_path: Path) -> None:
    assert refusal(tmp_path, "id\tsentense\tsentiment\na\tone\t1\n") == (
        "a.csv:1: no column 'sentence'; did you mean 'sentense'? (columns: id, sentense, sentiment)"
    )
    assert refusal(tmp_path, "id\tsentence\tsentiments\na\tone\t1\n").startswith("a.csv:1: no column 'sentiment'; did")


@pytest.mark.parametrize(
    ("task", "text"), [(SST, "\tid\tsentence\n0\ta\tone\n"), (JSONL, '{"id": "a", "sentence": "one"}\n')]
)
def test_a_test_file_alone_may_lack_its_labels(task: TaskConfig, text: str, tmp_path: Path) -> None:
    write(tmp_path, text, task)
    assert read_task(task, "test", tmp_path) == [Example("a", ("one",), None)]
    with pytest.raises(InputError, match="no (column|field) 'sentiment'"):
        read_task(task, "train", tmp_path)


def test_without_an_id_column_rows_are_numbered_from_0(tmp_path: Path) -> None:
    task = dataclasses.replace(SST, id="")
    assert [row.id for row in read(tmp_path, "sentence\tsentiment\none\t1\ntwo\t2\n", task)] == ["0", "1"]


def test_class_names_become_their_places(tmp_path: Path) -> None:
    task = dataclasses.replace(SST, num_classes=0, classes=("no", "maybe", "yes"))
    assert [row.label for row in read(tmp_path, HEADER + "0\ta\tx\tyes\n1\tb\tx\tno\n", task)] == [2.0, 0.0]
    message = refusal(tmp_path, HEADER + "0\ta\tx\tYes\n", task)
    assert message.startswith("a.csv:2: column 'sentiment' is 'Yes', not one of no, maybe, yes (bad_rows")
    task = dataclasses.replace(task, classes=("cafe\u0301", "bar"))  # as macOS writes it
    message = refusal(tmp_path, HEADER + "0\ta\tx\tcaf\u00e9\n", task)
    assert "(cafe\u0301 is written in another Unicode form there: give both in NFC)" in message


@pytest.mark.parametrize(
    ("task", "good", "bad"),
    [
        (STS, "0 2.5 5.000", "5.001 -0.1 nan"),
        (dataclasses.replace(STS, label_range=()), "-1e9 7", "inf nan"),
        (PARA, "0.0 1.0 1", "2 -1 0.5 nan"),
        (SST, "0 4 3.0", "5 1.5 -1 inf"),
    ],
)
def test_labels_stay_in_their_range(task: TaskConfig, good: str, bad: str) -> None:
    kind = kind_of(task)
    assert [kind.parse(task, text) for text in good.split()] == [float(text) for text in good.split()]
    for text in bad.split():
        with pytest.raises(ValueError, match=re.escape(text)):
            kind.parse(task, text)


def test_lone_surrogates_are_replaced(tmp_path: Path) -> None:
    (row,) = read(tmp_path, '{"id": "a\\udc00", "sentence": "x\\ud83d y \\ud83d\\ude00", "sentiment": 1}\n', JSONL)
    assert row == Example("a?", ("x? y 😀",), 1.0)
    assert clean("é 漢 😀") == "é 漢 😀"


def test_bytes_of_lone_surrogates_are_replaced_too(tmp_path: Path) -> None:
    (row,) = read(tmp_path, HEADER.encode() + b"0\ta\tx \xed\xa0\xbd y\t1\n")
    assert row.texts == ("x ? y",)


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\u2028b", "a \nx2 , 1"])
def test_an_id_of_two_lines_is_a_bad_row(name: str, tmp_path: Path) -> None:
    """It would be two rows of the prediction file."""
    message = refusal(tmp_path, json.dumps({"id": name, "sentence": "x", "sentiment": 1}), JSONL)
    assert message.startswith(f"a.jsonl:1: column 'id' is {name!r}: an id stands in one line")


def test_what_is_said_of_a_row_that_is_left_out_can_be_printed(tmp_path: Path) -> None:
    write(tmp_path, HEADER + "0\ta\tone\t1\n1\tb\ttwo\t\x1b[2J\u202e9\n")
    (message,) = read_split(SST, "train", tmp_path, "skip").skipped
    assert message.isprintable()
    assert "x1b[2J" in message


def test_labels_of_many_classes_are_not_searched_one_by_one() -> None:
    task = dataclasses.replace(SST, num_classes=10**12)
    kind = kind_of(task)
    assert kind.parse(task, "999999999999.0") == 999999999999.0
    with pytest.raises(ValueError, match="0.5"):
        kind.parse(task, "0.5")


def test_an_empty_text_is_a_text(tmp_path: Path) -> None:
    assert read(tmp_path, HEADER + "0\ta\t\t1\n") == [Example("a", ("",), 1.0)]


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_text_of_a_megabyte_is_read_whole(quote: str, tmp_path: Path) -> None:
    text = "word " * 200_000
    assert read(tmp_path, HEADER + f"0\ta\t{quote}{text}{quote}\t1\n")[0].texts == (text,)
    assert read(tmp_path, json.dumps({"id": "a", "sentence": text, "sentiment": 1}), JSONL)[0].texts == (text,)


@pytest.mark.parametrize("task", [SST, JSONL])
@pytest.mark.parametrize("filler", [5, 20_000])
def test_a_byte_that_is_not_utf8_is_named_by_its_place_in_the_file(
    filler: int, task: TaskConfig, tmp_path: Path
) -> None:
    table = b"id\tsentence\tsentiment\na\t%b\t1\nb\t"
    start = (table if task is SST else b'{"id": "a", "sentence": "%b", "sentiment": 1}\n{"id": "') % (b"x" * filler)
    line = 3 if task is SST else 2
    assert (
        refusal(tmp_path, start + b"\xff\t1\n", task) == f"{task.train}:{line}: is not UTF-8 text (byte {len(start)})"
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (gzip.compress(HEADER.encode()), "is compressed by gzip; unpack it first"),
        (bz2.compress(HEADER.encode()), "is compressed by bzip2; unpack it first"),
        (lzma.compress(HEADER.encode()), "is compressed by xz; unpack it first"),
        (b"PK\x03\x04\x14\0", "is a ZIP archive or an Excel file; unpack it, or save the table as CSV"),
        (b"PAR1\x15\x04", "is a Parquet file; save it as CSV or JSON Lines"),
        (b"<!DOCTYPE html>\n<html></html>", "is a page of HTML, as a failed download leaves"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is Git LFS's pointer to a file that was not fetched"),
        (HEADER.encode("utf-16"), "is not UTF-8 text (byte 0): it begins as UTF-16 does; save it as UTF-8"),
        (HEADER.encode("utf-16-le"), "has NUL bytes in its first line, as binary files and UTF-16 have"),
    ],
    ids=["gzip", "bzip2", "xz", "zip", "parquet", "html", "lfs", "utf-16", "utf-16 without a mark"],
)
@pytest.mark.parametrize("task", [SST, JSONL])
def test_what_is_no_text_is_called_what_it_is(task: TaskConfig, data: bytes, said: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, data, task).startswith(f"{task.train}: {said}")


def test_a_nul_inside_a_text_is_of_the_text(tmp_path: Path) -> None:
    assert read(tmp_path, HEADER + "0\ta\tso \0 so\t1\n") == [Example("a", ("so \0 so",), 1.0)]


def test_a_score_without_a_range_is_any_finite_number(tmp_path: Path) -> None:
    task = dataclasses.replace(STS, label_range=())
    assert read(tmp_path, "id,a,score\nx,fine,-1e9\n", task)[0].label == -1e9
    assert refusal(tmp_path, "id,a,score\nx,fine,inf\n", task).startswith(
        "a.csv:2: column 'score' is 'inf', not a finite number"
    )


def test_a_table_without_a_header_is_told_that_it_needs_one(tmp_path: Path) -> None:
    said = "a.csv:1: no column 'sentence'; its first line must name the columns (columns: 0, fine, 1)"
    assert refusal(tmp_path, "0,fine,1\n1,dull,0\n").startswith(said)


def test_a_missing_file_a_missing_folder_and_a_missing_name_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the data file .*a.csv: No such file"):
        read_task(SST, "train", tmp_path)
    with pytest.raises(InputError, match="data folder .*nowhere does not exist"):
        read_task(SST, "train", tmp_path / "nowhere")
    with pytest.raises(InputError, match="task sst has no dev file"):
        read_task(SST, "dev", tmp_path)


def test_json_booleans_are_binary_labels(tmp_path: Path) -> None:
    task = TaskConfig("t", "binary", ("x",), "y", id="", train="a.jsonl")
    (tmp_path / "a.jsonl").write_text('{"x": "one", "y": true}\n{"x": "two", "y": false}\n')
    assert [example.label for example in read_task(task, "train", tmp_path)] == [1.0, 0.0]


def test_a_split_or_a_task_of_wrong_types_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="split = 'trian' is none of train, dev, test; did you mean 'train'"):
        read_task(SST, "trian", tmp_path)  # type: ignore[arg-type]
    wrong = dataclasses.replace(SST, text="sentence")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"task sst: text: expected a list, got 'sentence'; write \['sentence'\]"):
        read_task(wrong, "train", tmp_path)


SCORE = TaskConfig("score", "regression", ("text",), "y", id="", train="a.csv", test="a.csv")
SCORES = "text\ty\na\t1\nb\tnan\nc\t3\n"
"""The second row, of line 3, has a label that `float` takes and nothing can be trained on."""


@pytest.mark.parametrize(
    ("name", "own", "message"),
    [
        ("parse", lambda text: float(text), "3: column 'y' is 'nan', not a finite number"),
        ("parse", lambda text: 1e300, "2: column 'y' is '1', not a finite number"),
        ("parse", lambda text: {}[text], "2: kind 'regression': parse: KeyError: '1'"),
        ("parse", lambda text: sys.exit(0), "2: kind 'regression': parse: SystemExit: 0"),
        ("parse", lambda text: "x", "2: kind 'regression': parse returns 'x' for '1'; it must be a number"),
        ("parse", lambda text: None, "2: kind 'regression': parse returns None for '1'; it must be a number"),
        ("parse", lambda text: [1.0, 2.0], "2: kind 'regression': parse returns a list for '1'; it must be a number"),
        ("parse", lambda text: [[1.0], []], "2: kind 'regression': parse: ValueError: setting an array element"),
        ("text", lambda value: None, "2: kind 'regression': text: AttributeError: "),
        ("takes", lambda label: label["y"], "2: kind 'regression': takes or misfit: "),
        ("misfit", lambda example: example.y, "2: kind 'regression': takes or misfit: AttributeError: "),
    ],
)
def test_a_kind_that_cannot_read_a_row_is_named_with_it(
    name: str, own: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label that is not finite is a bad row; what else a plugin's kind does wrong is no fault of the row's."""
    monkeypatch.setattr(type(kind_of(SCORE)), name, lambda self, *values: own(values[-1]))
    assert refusal(tmp_path, SCORES, SCORE).startswith(f"a.csv:{message}")


def test_a_row_whose_label_is_not_finite_can_be_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(kind_of(SCORE)), "parse", lambda self, task, text: float(text))
    write(tmp_path, SCORES)
    found = read_split(SCORE, "train", tmp_path, "skip")
    assert [example.label for example in found.examples] == [1.0, 3.0]
    assert found.bad[0][0] == 3


@pytest.mark.parametrize("label", [5.0, -1.0, 0.5])
def test_a_label_is_the_place_of_a_class(label: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(kind_of(SST)), "parse", lambda self, task, text: label)
    what = f"parse returns {label}, which is the place of none of the 5 classes"
    assert refusal(tmp_path, HEADER + "0\tx\ta\t1\n") == f"a.csv:2: kind 'classification': {what}"
