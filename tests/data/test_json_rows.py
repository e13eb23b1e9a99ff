"""JSON Lines and lists of JSON objects, and values of the wrong type."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from mtbert_jax.config import TaskConfig
from mtbert_jax.data.readers import read_split
from mtbert_jax.errors import InputError
from mtbert_jax.types import Example

TASK = TaskConfig("one", text=("sentence",), num_classes=3)
ROWS = [{"id": 1, "sentence": "the film", "label": 2}, {"id": "b", "sentence": "a\ncat", "label": "0"}]
A = '{"id": 1, "sentence": "a", "label": 1}'
EXAMPLES = [Example("1", ("the film",), 2.0), Example("b", ("a\ncat",), 0.0)]


def read(tmp_path: Path, text: str, name: str = "a.jsonl", **task: Any) -> list[Example]:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    return read_split(dataclasses.replace(TASK, train=name, **task), "train", tmp_path).examples


def refusal(tmp_path: Path, text: str, name: str = "a.jsonl", **task: Any) -> str:
    with pytest.raises(InputError) as error:
        read(tmp_path, text, name, **task)
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize("name", ["a.jsonl", "a.JSONL", "a.json", "a.Json", "a.ndjson", "a.txt", "a", "a.tsv"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n"])
def test_json_is_known_by_its_first_character(name: str, start: str, tmp_path: Path) -> None:
    lines = "\n".join(map(json.dumps, ROWS)) + "\n"
    assert read(tmp_path, start + lines, name) == EXAMPLES
    assert read(tmp_path, start + json.dumps(ROWS), name) == EXAMPLES
    assert read(tmp_path, start + json.dumps(ROWS, indent=2), name) == EXAMPLES
    assert read(tmp_path, start + f"[\r\n{lines.strip()}\r\n]\r\n".replace("}\n{", "},\n{"), name) == EXAMPLES


def test_a_table_whose_header_has_brackets_is_a_table(tmp_path: Path) -> None:
    assert read(tmp_path, "[id],sentence,label\nx,one,1\n", "a.csv", id="[id]") == [Example("x", ("one",), 1.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'[\n{A},\n\n{{"id": 2,\n "sentence": "b", "label": 7}}]', "4: column 'label' is '7'"),
        ('[\n{"id": 1, "sentence": "a", "label": 1},\n5]', "3: is not a JSON object"),
        (f'[\n{A}\n{{"id": 2}}]', "3: is not JSON: the list does not go on with a comma"),
        ('[\n{"id": 1, "sentence": "a", "label": 1},\n{"id" 2}]', "3: is not JSON: Expecting ':' delimiter (column 7)"),
        ('[\n{"id": 1, "sentence": "a", "label": 1},\n', "3: is not JSON: Expecting value"),
        ('[{"id": 1, "sentence": "a", "label": 1}]\n\n{"id": 2}', "3: more follows the end of the list"),
        ('{\n  "id": 1,\n  "sentence": "a"\n}\n', "1: an object takes several lines; give one object a line"),
        (f'{A}\n\n{{"id": 2 "sentence"}}\n', "3: is not JSON: Expecting ',' delimiter (column 10)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_line_in_the_file(text: str, message: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, text, "a.json").startswith(f"a.json:{message}")


def test_an_empty_list_has_no_rows(tmp_path: Path) -> None:
    assert refusal(tmp_path, "[ ]\n") == "a.jsonl: no rows"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sentence", ["a"], "field 'sentence' is a list, not a text"),
        ("sentence", {"en": "a"}, "field 'sentence' is an object, not a text"),
        ("sentence", 7, "field 'sentence' is a number, not a text"),
        ("sentence", 0.5, "field 'sentence' is a number, not a text"),
        ("sentence", False, "field 'sentence' is false, not a text"),
        ("id", True, "field 'id' is true, not a text or a number"),
        ("id", [1], "field 'id' is a list, not a text or a number"),
        ("label", [1], "field 'label' is a list, not a whole number from 0 to 2"),
        ("label", {}, "field 'label' is an object, not a whole number from 0 to 2"),
        ("label", True, "field 'label' is true, not a whole number from 0 to 2"),
    ],
)
def test_a_value_of_the_wrong_type_is_no_text(field: str, value: Any, message: str, tmp_path: Path) -> None:
    good = {"id": 1, "sentence": "a", "label": 1}
    text = "\n\n".join(map(json.dumps, [good, {**good, "id": 2, field: value}]))
    assert refusal(tmp_path, text).startswith(f"a.jsonl:3: {message}")
    ((line, bad),) = read_split(dataclasses.replace(TASK, train="a.jsonl"), "train", tmp_path, "skip").bad
    assert (line, bad.reason) == (3, message)


@pytest.mark.parametrize("classes", [("no", "yes"), ("false", "true"), ("0", "1")])
def test_true_is_no_name_of_a_class(classes: tuple[str, ...], tmp_path: Path) -> None:
    text = '{"id": 1, "sentence": "a", "label": true}'
    message = refusal(tmp_path, text, num_classes=0, classes=classes)
    assert message.startswith(f"a.jsonl:1: field 'label' is true, not one of {', '.join(classes)}")


def test_true_is_class_1_of_two_without_names_and_no_number(tmp_path: Path) -> None:
    text = '{"id": 1, "sentence": "a", "label": true}'
    assert read(tmp_path, text, num_classes=2)[0].label == 1.0
    assert "is true, not a finite number" in refusal(tmp_path, text, kind="regression", num_classes=0)


def test_a_number_is_an_id_and_a_label_also_of_classes_with_names(tmp_path: Path) -> None:
    text = '{"id": 1.5, "sentence": "a", "label": 3}'
    assert read(tmp_path, text, num_classes=0, classes=("3", "5")) == [Example("1.5", ("a",), 0.0)]


@pytest.mark.parametrize("field", ["id", "sentence", "label"])
def test_a_field_stands_once_in_an_object(field: str, tmp_path: Path) -> None:
    text = f'{{"id": "1", "sentence": "a", "label": "1", "other": 1, "other": 2, "{field}": "2"}}'
    assert refusal(tmp_path, text).startswith(f"a.jsonl:1: field {field!r} is there twice")


def test_an_object_without_an_id_can_be_numbered(tmp_path: Path) -> None:
    text = '{"sentence": "a", "label": 1}\n'
    assert refusal(tmp_path, text) == (
        "a.jsonl:1: has no field 'id' (id = \"\" numbers the rows instead, and keeps them all)"
    )
    assert read(tmp_path, text, id="") == [Example("0", ("a",), 1.0)]
