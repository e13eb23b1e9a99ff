"""Texts to predict: lines, tables and JSON."""

import dataclasses

import pytest

from mtbert_jax.config import TaskConfig
from mtbert_jax.data.texts import read_texts
from mtbert_jax.errors import InputError

ONE = TaskConfig("sst", text=("sentence",), num_classes=2)
PAIR = TaskConfig("para", "binary", text=("a", "b"))


def read(text: str | bytes, task: TaskConfig = ONE, name: str = "standard input") -> list[tuple[str, ...]]:
    return read_texts(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"), name, task)


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_texts(start: str, end: str) -> None:
    lines = ["one, two", "", '{"open', "sentence", "[1]", '"quoted"']
    assert read(start + end.join(lines) + end) == [(line,) for line in lines]
    assert read(start + end.join(["x\ty", "", "z\t"]).replace(f"{end}{end}", end), PAIR) == [("x", "y"), ("z", "")]


def test_nothing_is_no_text() -> None:
    assert read("") == read(b"", PAIR) == read("", name="a.jsonl") == []
    assert read("\n") == [("",)]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("id\tsentence\tlabel\n1\tthe film\t0\n\n2\ta cat\t1\n", "standard input"),
        ("\ufeffid\tsentence\n1\tthe film\n2\ta cat\n", "a.tsv"),
        ("sentence\nthe film\na cat\n", "a.tsv"),
        ('sentence,id\n"the film",1\na cat,2\n', "a.csv"),
        ("id,sentence\n1,the film\n2,a cat\n", "standard input"),
        ('{"sentence": "the film", "label": 1}\n\n{"sentence": "a cat"}\n', "standard input"),
        ('[{"sentence": "the film"},\n{"sentence": "a cat"}]\n', "a.txt"),
        ('["the film", "a cat"]\n', "standard input"),
        ('\n[\n  "the film",\r\n  "a cat"\n]\n', "a.json"),
        ("id\tsentence\r1\tthe film\r2\ta cat\r", "standard input"),
        ('[\n  {\n"sentence": "the film"\n}, {"sentence": "a cat"}]\n', "standard input"),
        ('{"sentence": "the film"}\n{"sentence": "a cat"}\n', "a.JSON"),
    ],
)
def test_columns_with_the_tasks_names_are_read(text: str, name: str) -> None:
    assert read(text, name=name) == [("the film",), ("a cat",)]


def test_what_is_no_whole_list_of_texts_is_a_text() -> None:
    for line in ('["open', '["one"] and more', "[]", "[1]", "[[1]]", '"one"'):
        assert read(line) == [(line,)]
        assert read(f'["one"]\n{line}') == [('["one"]',), (line,)]


@pytest.mark.parametrize(
    "text",
    ['["one", "tw', '["one",\n "two"', '["one", ', '["one", "\\', '["one", "\\u00', '["one", "\\\\', '["one", 2\n'],
)
def test_a_list_that_is_cut_off_is_refused(text: str) -> None:
    line = len(text.splitlines())
    for name in ("standard input", "f.json"):
        with pytest.raises(InputError, match=f"^{name}:{line}: the JSON list is cut off: it does not end with ]$"):
            read(text, name=name)


def test_a_text_of_a_list_may_have_tabs_and_line_breaks_and_be_empty() -> None:
    assert read('["a\\tb", "c\\nd", ""]') == [("a\tb",), ("c\nd",), ("",)]


def test_pairs_are_read_by_column_in_the_tasks_order() -> None:
    assert read("b\ta\n1\t2\n", PAIR) == read('{"b": "1", "a": "2"}', PAIR) == [("2", "1")]


def test_quotes_are_the_tasks() -> None:
    text = 'id\tsentence\n1\t"so" he\n2\tb\n'
    assert read(text, dataclasses.replace(ONE, quotes=False)) == [('"so" he',), ("b",)]
    with pytest.raises(InputError, match=r"standard input:2: cannot be read as a table.*set quotes = false"):
        read(text)


@pytest.mark.parametrize(
    ("text", "task", "name", "message"),
    [
        (
            "x\ty\none\nz\tw\n",
            PAIR,
            "f.txt",
            "f.txt:2: has 1 texts, separated by tabs; task para takes two texts",
        ),
        (
            "one\n\ntwo\tthree\n",
            ONE,
            "f.txt",
            "f.txt:3: has 2 texts, separated by tabs; task sst takes one text",
        ),
        ("x\ty\tz\n", PAIR, "standard input", "standard input:1: has 3 texts, separated by tabs"),
        ("x\ty\n\n", PAIR, "f", "f:2: has 1 texts"),
        ("text,label\none,1\n", ONE, "f.csv", "f.csv:1: no column 'sentence' (columns: text, label)"),
        (
            '{"text": "one"}\n',
            ONE,
            "f",
            "f:1: has no field 'sentence'; task sst takes one text a line, or columns",
        ),
        ('{"sentence": "one"}\n\n{"sentence": 1}\n', ONE, "f", "f:3: field 'sentence' is a number, not a text"),
        ('{"sentence": "one"}\nplain\n', ONE, "f", "f:2: is not JSON"),
        ('["one", 2]', ONE, "f", "f: text 1 of the list is a number, not a text; task sst takes one text a line"),
        ('["one", null]', ONE, "f", "f: text 1 of the list is null, not a text"),
        ('[\n"x",\n"y"]', PAIR, "f", "f: a list has one text in each place; task para takes two texts a line"),
        ("a\tb\n1\t2\n1\n", PAIR, "f.tsv", "f.tsv:3: has 1 columns where the header has 2"),
        (b"good\n\xe9t\xe9\n", ONE, "f.txt", "f.txt:2: is not UTF-8 text (byte 5)"),
        (b"\xef\xbb\xbfgood\n\xff\n", ONE, "standard input", "standard input:2: is not UTF-8 text (byte 8)"),
        (b"a\rb\r\n\nd\xff\n", ONE, "f", "f:4: is not UTF-8 text (byte 7)"),
        ("good".encode("utf-16"), ONE, "f", "f: is not UTF-8 text (byte 0): it begins as UTF-16 does"),
    ],
)
def test_what_does_not_fit_is_named_by_its_line(text: str | bytes, task: TaskConfig, name: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        read(text, task, name)
    assert str(error.value).startswith(message)
