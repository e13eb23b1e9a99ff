"""TSV and CSV: delimiters, headers, and quotes that would swallow rows."""

import dataclasses
from pathlib import Path

import pytest

from mtbert_jax.config import TaskConfig
from mtbert_jax.data.readers import Split, read_split
from mtbert_jax.errors import InputError

PAIR = TaskConfig("q", text=("sentence1", "sentence2"), id="", num_classes=2)
ONE = TaskConfig("one", text=("sentence",), id="", num_classes=5)
WITH_ID = dataclasses.replace(ONE, id="id")


def texts(tmp_path: Path, name: str, text: str, task: TaskConfig, split: Split = "train") -> list[tuple[str, ...]]:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    read = read_split(dataclasses.replace(task, **{split: name}), split, tmp_path)  # type: ignore[arg-type]
    return [example.texts for example in read.examples]


def refusal(tmp_path: Path, name: str, text: str, task: TaskConfig, split: Split = "train") -> str:
    with pytest.raises(InputError) as error:
        texts(tmp_path, name, text, task, split)
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{tmp_path}/", "")


HEAD = "label\tsentence1\tsentence2\n"


@pytest.mark.parametrize(
    ("name", "text", "task", "split", "lines"),
    [
        ("q.tsv", HEAD + '1\t"the film\tthe\n0\tthe film"\tthe\n1\tfilm\tfilm\n0\tthe\tfilm\n', PAIR, "train", (2, 3)),
        ("q.tsv", HEAD + '0\ta\tb\n\n1\t"the film\tthe\n0\ta\tb\n1\tc\td\n9\tthe film"\tthe\n', PAIR, "train", (4, 7)),
        ("q.tsv", HEAD + '1\tthe\t"film\n0\tthe\tfilm"\n', PAIR, "train", (2, 3)),
        ("q.tsv", HEAD + '1\t"the film\n0\tthe film"\tthe\n', PAIR, "train", (2, 3)),  # its first line is short
        ("q.tsv", HEAD + '1\t"the film\tthe\n0\tthe film\tthe"\n', PAIR, "train", (2, 3)),  # two columns, as quoted
        ("t.tsv", "sentence\n\"the film\na cat\"\n", ONE, "test", (2, 3)),
        ("sst.csv", '\tid\tsentence\n0\ta1\t"the film\n1\ta2\ta cat"\n2\ta3\tgood\n', WITH_ID, "test", (2, 3)),
        ("q.csv", 'label,sentence1,sentence2\n1,"the film,the\n0,the film",the\n', PAIR, "train", (2, 3)),
        ("q.csv", 'label,sentence1,sentence2\n1,"the film,the\n7,the film",the\n', PAIR, "train", (2, 3)),
        ("o.csv", 'sentence,label\n"the film,1\na film",0\n', ONE, "train", (2, 3)),
        ("o.csv", 'sentence,label\n"the film,1\na,2\nb,x\na film",0\n', ONE, "train", (2, 5)),
        ("o.csv", 'id,sentence\na1,"the film\na2,a cat"\n', WITH_ID, "test", (2, 3)),
    ],
)  # fmt: skip
def test_a_stray_quote_never_swallows_rows(
    name: str, text: str, task: TaskConfig, split: Split, lines: tuple[int, int], tmp_path: Path
) -> None:
    """Neither in training, nor where bad rows are left out, since then good ones would be left out with them."""
    first, last = lines
    message = refusal(tmp_path, name, text, task, split)
    assert message.startswith(
        f"{name}:{first}: cannot be read as a table: a quote opens here and closes in line {last}"
    )
    assert "set quotes = false" in message
    named = dataclasses.replace(task, **{split: name})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a quote opens here"):
        read_split(named, split, tmp_path, "skip")
    plain = read_split(dataclasses.replace(named, quotes=False), split, tmp_path, "count")
    assert len(plain.examples) + len(plain.bad) == len([line for line in text.splitlines() if line]) - 1


@pytest.mark.parametrize(
    ("name", "text", "task", "split", "expected"),
    [
        ("a.csv", 'sentence,label\n"Hello, world\nbye",1\n', ONE, "train", ["Hello, world\nbye"]),
        ("a.csv", 'sentence,label\n"I rate it, 4\nbye",1\n', ONE, "train", ["I rate it, 4\nbye"]),
        ("a.csv", 'sentence,label\n"paid 1,000\nor so",1\n', ONE, "train", ["paid 1,000\nor so"]),
        ("a.csv", 'id,sentence\n5,"Hello\nthere, friend"\n6,b\n', WITH_ID, "test", ["Hello\nthere, friend", "b"]),
        ("a.csv", 'sentence,label\r\n"a\r\n\r\nb, c",1\r\n"d",0\r\n', ONE, "train", ["a\r\n\r\nb, c", "d"]),
        ("a.csv", 'sentence\n"a film\nof mine"\n', ONE, "test", ["a film\nof mine"]),
        ("a.csv", 'sentence,label\n"said ""no"", and\nleft",1\n', ONE, "train", ['said "no", and\nleft']),
        ("a.csv", 'id,sentence,label\n"a","x,y\nz,w","1"\n', WITH_ID, "train", ["x,y\nz,w"]),
        ("a.tsv", 'sentence\tlabel\n"line one\nline two"\t1\n', ONE, "train", ["line one\nline two"]),
        ("a.tsv", 'id\tsentence\tlabel\na\t"one\tand\ntwo"\t1\n', WITH_ID, "train", ["one\tand\ntwo"]),
        ("a.tsv", 'sentence\tlabel\n"one, two\nthree, four"\t1\n', ONE, "train", ["one, two\nthree, four"]),
    ],
)
def test_fields_of_several_lines_that_are_quoted_on_purpose_are_read_and_counted(
    name: str, text: str, task: TaskConfig, split: Split, expected: list[str], tmp_path: Path
) -> None:
    assert texts(tmp_path, name, text, task, split) == [(one,) for one in expected]
    read = read_split(dataclasses.replace(task, **{split: name}), split, tmp_path)  # type: ignore[arg-type]
    assert read.several == [2]


def test_a_row_that_quotes_leave_too_short_is_told_so(tmp_path: Path) -> None:
    message = refusal(tmp_path, "q.tsv", HEAD + '1\t"the film\tthe"\n', PAIR)
    assert message.startswith(
        "q.tsv:2: has 2 columns where the header has 3 (it has as many if quotes are text: quotes"
    )
    assert "quotes" not in refusal(tmp_path, "q.tsv", HEAD + '1\t"the film"\n', PAIR)


def test_a_header_of_several_lines_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, "q.csv", 'sentence,label,"more\nthe film,1,x"\na,1,b\n', ONE)
    assert message.startswith("q.csv:1: cannot be read as a table: a quote opens in the header and closes in line 2")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "id\tsentence\tlabel\nx\tone, two\t1\n"),
        ("a.csv", 'id,sentence,label\nx,"one, two",1\n'),
        ("a.csv", 'id,sentence,label,"a\tb"\nx,"one, two",1,\n'),
        ("a.TSV", "id\tsentence\tlabel,or so\tlabel\nx\tone, two\t\t1\n"),
        ("a.txt", "id\tsentence\tlabel\nx\tone, two\t1\n"),
        ("a", 'id,sentence,label\nx,"one, two",1\n'),
        ("a.tsv", "\ufeff\n  \nid\tsentence\tlabel\n\nx\tone, two\t1\n\n"),
    ],
)
def test_the_name_tells_the_delimiter_and_otherwise_the_header(name: str, text: str, tmp_path: Path) -> None:
    assert texts(tmp_path, name, text, WITH_ID) == [("one, two",)]


@pytest.mark.parametrize(
    ("name", "header", "hint"),
    [
        ("a.tsv", "id,sentence,label", "the header was split at tabs, and seems to have commas: name the file .csv"),
        ("a.csv", "id\tsentence\tlabel\t,", "the header was split at commas, and seems to have tabs: name the file"),
        ("a.csv", "id;sentence;label", "the header was split at commas, and seems to have semicolons: write it"),
        ("a.txt", "id | sentence | label", "the header was split at commas, and seems to have bars: write it"),
        ("a.csv", "sep=;", "delete line 1, which is meant for Excel"),
    ],
)  # fmt: skip
def test_a_header_that_makes_sense_with_another_delimiter_is_named(
    name: str, header: str, hint: str, tmp_path: Path
) -> None:
    message = refusal(tmp_path, name, f"{header}\n", WITH_ID)
    assert message.startswith(f"{name}:1: no column 'sentence'; {hint}")


@pytest.mark.parametrize("header", ["sentence,label,sentence", "label,sentence,label", "sentence,label,id,id"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_column_that_is_read_stands_once_in_the_header(header: str, split: Split, tmp_path: Path) -> None:
    row = ",".join("1" for _ in header.split(","))
    task = WITH_ID if "id" in header else ONE
    message = refusal(tmp_path, "a.csv", f"{header}\n{row}\n", task, split)
    twice = max(header.split(","), key=header.split(",").count)
    assert message == f"a.csv:1: column {twice!r} stands twice in the header; give each a name of its own"


def test_columns_that_nobody_reads_may_have_one_name(tmp_path: Path) -> None:
    assert texts(tmp_path, "a.tsv", "\t\tsentence\tlabel\tx\tx\n0\t0\tone\t1\t\t\n", ONE) == [("one",)]


def test_an_id_column_that_is_not_there_can_be_done_without(tmp_path: Path) -> None:
    message = refusal(tmp_path, "a.csv", "text,label\none,1\n", dataclasses.replace(WITH_ID, text=("text",)))
    assert message.startswith("a.csv:1: no column 'id' (columns: text, label); id = \"\" numbers the rows instead")


def test_blank_lines_do_not_shift_line_numbers(tmp_path: Path) -> None:
    text = "\n\nsentence\tlabel\n\n   \none\t1\n\r\ntwo\t9\n"
    assert refusal(tmp_path, "a.tsv", text, ONE).startswith("a.tsv:8: column 'label' is '9'")
