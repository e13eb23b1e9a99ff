"""A row of a data file → an example of one task."""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from mtbert_jax.config import TaskConfig
from mtbert_jax.data.json_rows import Doubled
from mtbert_jax.data.raw_rows import NUMBERED, Fault, fault
from mtbert_jax.errors import InputError, failures_of
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.arrays import parsed
from mtbert_jax.types import Example

Labels = Literal["needed", "left out", "optional", "ignored"]
"""What a row without a label is: a bad row; left out and counted; an example without one, as in test files; an example
like all others, since no label is read."""
Read = Example | Fault | None
"""What a row gave: the example; what is wrong with the row; or None where it has no label, or one that its task does
not take, and is left out."""
UNKNOWN = ("-1", "-1.0")
"""What stands for a label that is kept secret, in GLUE's test files and many others'."""


def make_example(task: TaskConfig, row: dict[str, Any], number: str, rule: Labels) -> Read:
    """What a task makes of a row that has all required columns; `number` is its id where no column has ids."""
    kind = kind_of(task)
    texts: tuple[str, ...] = ()
    for column in task.text:
        try:
            with failures_of(f"kind {kind.name!r}: text", ValueError):
                texts += (clean(kind.text(row[column])),)
        except ValueError as error:
            return fault(f"field {column!r} {str(error) or f'is {json_type(row[column])}, not a text'}")
    name = _id(task, row[task.id]) if task.id else number
    if isinstance(name, Fault) or rule == "ignored":
        return name if isinstance(name, Fault) else Example(name, texts)
    if row.get(task.label) is None:
        return None if rule == "left out" else Example(name, texts)
    text = _label_text(task, row[task.label])
    if isinstance(text, Fault):
        return text
    try:
        example = Example(name, texts, parsed(task, text))
    except ValueError:
        if rule == "left out" and not text:
            return None
        if rule == "optional" and text in ("", *UNKNOWN):
            return Example(name, texts)
        column, expected = f"column {task.label!r} is", f"not {kind.expected(task)}{_other_form(task, text)}"
        return Fault(f"{column} {expected}" if text else f"{column} empty", f"{column} {text!r}, {expected}")
    with failures_of(f"kind {kind.name!r}: takes or misfit"):
        misfit = kind.misfit(task, example) or "" if kind.takes(task, example.label) else None
    if misfit is None:
        return None
    if misfit:
        return Fault(f"column {task.label!r} does not fit its text", f"column {task.label!r} {misfit}")
    return example


def _id(task: TaskConfig, value: Any) -> str | Fault:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return json.dumps(value)
    if not isinstance(value, str):
        return fault(f"field {task.id!r} is {json_type(value)}, not a text or a number", advice=NUMBERED)
    name = clean(value).strip()
    if not name:
        return fault(f"column {task.id!r} is empty", advice=NUMBERED)
    if len(name.splitlines()) > 1:
        what = f"column {task.id!r} is {name!r}: an id stands in one line of the prediction file"
        return Fault(f"column {task.id!r} is of several lines", what, NUMBERED)
    return name


def _label_text(task: TaskConfig, value: Any) -> str | Fault:
    """A label as a table would have it. Of JSON, true and false are the classes 1 and 0, unless classes have names."""
    if isinstance(value, str):
        return value.strip()
    kind = kind_of(task)
    if isinstance(value, bool):
        fits = not task.classes and kind.classes(task) == ("0", "1")
    else:
        fits = isinstance(value, (int, float)) or (isinstance(value, list) and bool(kind.label_shape(task)))
    if not fits:
        return fault(f"field {task.label!r} is {json_type(value)}, not {kind.expected(task)}")
    return json.dumps(int(value) if isinstance(value, bool) else value)


def _other_form(task: TaskConfig, text: str) -> str:
    """A hint where a label looks like a class in print and is another string: é may be one character, or two."""
    classes = kind_of(task).classes(task)
    same = [name for name in classes if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", text)]
    return f" ({same[0]} is written in another Unicode form there: give both in NFC)" if same else ""


def json_type(value: Any) -> str:
    """What JSON calls a value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, Doubled):
        return "null" if value is None else "there twice"
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else "a number"


def digest(examples: Sequence[Example]) -> str:
    """A number in hexadecimal digits that is another one if any example has another id, text or label."""
    rows = [(example.id, example.texts, example.label) for example in examples]
    return hashlib.sha256(json.dumps(rows, default=np.ndarray.tolist).encode()).hexdigest()


def clean(text: str) -> str:
    """The text with lone surrogates replaced, which files can hold although no text has them: a tokenizer cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def are_unknown(task: TaskConfig, examples: Sequence[Example]) -> bool:
    """Whether all labels that there are stand for none: all blank, or all -1, which a task may have as labels, too."""
    known = [example.label for example in examples if example.label is not None]
    for text in ("", UNKNOWN[0]) if known else ():
        try:
            unknown = parsed(task, text)
        except (ValueError, InputError):  # a plugin's may fail in any way for a text that no row has
            continue
        if all(np.array_equal(label, unknown) for label in known):
            return True
    return False
