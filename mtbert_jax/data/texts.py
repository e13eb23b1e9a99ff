"""Texts of one's own to predict: one example a line, or a file whose columns are named."""

import io
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtbert_jax.config import TaskConfig
from mtbert_jax.data.examples import json_type
from mtbert_jax.data.json_rows import is_json
from mtbert_jax.data.lines import has_tagged_words
from mtbert_jax.data.raw_rows import Fault
from mtbert_jax.data.readers import rows_of
from mtbert_jax.data.tables import delimiter_of
from mtbert_jax.errors import InputError
from mtbert_jax.files import must_be_text, not_utf8
from mtbert_jax.tasks.parsing import parse_list


def read_texts(data: bytes, name: str, task: TaskConfig) -> list[tuple[str, ...]]:
    """The texts of every example, of UTF-8 bytes with or without a byte order mark; `name` may tell the format.

    JSON lists of texts have one example in each place. JSON Lines, lists of JSON objects, CSV files, files with a word
    a line (`.conll`), and tables whose header has the task's text columns are read as data files are. Everything else
    is one example a line, the two texts of a pair separated by a tab; a blank line is an empty text.

    Raises:
        InputError: The bytes are no UTF-8, a JSON list is cut off, a column is missing, or a line has another number of
            texts than the task.
    """
    must_be_text(name, data)
    try:
        text = data.decode("utf-8-sig", "surrogatepass")
    except UnicodeDecodeError:
        raise not_utf8(name, data) from None
    if values := _listed(text, name):
        return list(_by_place(values, name, task))
    first = next((line for line in _lines(text) if line.strip()), "")
    if first and (re.match(r"\s*\[\s*\{", text) or _has_columns(first, name, task)):
        return list(_by_column(text, name, task))
    return list(_by_line(text, name, task))


def _lines(text: str) -> io.StringIO:
    """Goes over the lines, which may end in a CR alone, as data files may; their ends are left as they are."""
    return io.StringIO(text, newline="")


def _listed(text: str, name: str) -> list[Any]:
    """The values of a JSON list that begins with a text; none where the text is no such list."""
    if not re.match(r'\s*\[\s*"', text):
        return []
    try:
        return parse_list(text)
    except ValueError:
        if _is_cut_off(text):
            line = len(list(_lines(text.rstrip())))
            raise InputError(f"{name}:{line}: the JSON list is cut off: it does not end with ]") from None
        return []


def _is_cut_off(text: str) -> bool:
    """Whether a text would be a JSON list of several values if it went on."""
    text = text.rstrip()
    for whole in (text, re.sub(r"\\(u[0-9a-fA-F]{0,3})?$", "", text)):  # an escape may be cut through, too
        for end in ("]", '"]', '""]'):
            with suppress(ValueError):
                if len(parse_list(whole + end)) > 1:
                    return True
    return False


def _has_columns(first: str, name: str, task: TaskConfig) -> bool:
    """Whether texts stand in columns or fields with names, by the first line that is not blank."""
    suffix = Path(name).suffix.lower()
    if suffix == ".csv" or is_json(name, "") or has_tagged_words(name):
        return True
    if is_json(name, first):
        return _is_object(first)
    columns = [column.strip().strip('"') for column in first.split(delimiter_of(name, first))]
    named = suffix in (".tsv", ".tab") or len(columns) > 1  # one word alone may be a text
    return named and all(column in columns for column in task.text)


def _is_object(line: str) -> bool:
    """Whether a line is a JSON object, and no text that begins with a brace."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _by_column(text: str, name: str, task: TaskConfig) -> Iterator[tuple[str, ...]]:
    unlabelled = replace(task, id="", label="")
    for row, example in rows_of(_lines(text), name, unlabelled, "ignored"):
        if isinstance(example, Fault):
            raise InputError(f"{name}:{row.line}: {example.text}; {_wanted(task)}")
        if example is not None:
            yield example.texts


def _by_line(text: str, name: str, task: TaskConfig) -> Iterator[tuple[str, ...]]:
    for number, line in enumerate(_lines(text), start=1):
        parts = tuple(line.rstrip("\r\n").split("\t"))
        if len(parts) != len(task.text):
            raise InputError(f"{name}:{number}: has {len(parts)} texts, separated by tabs; {_wanted(task)}")
        yield parts


def _by_place(values: list[Any], name: str, task: TaskConfig) -> Iterator[tuple[str, ...]]:
    if len(task.text) > 1:
        raise InputError(f"{name}: a list has one text in each place; {_wanted(task)}")
    for place, value in enumerate(values):
        if not isinstance(value, str):
            raise InputError(f"{name}: text {place} of the list is {json_type(value)}, not a text; {_wanted(task)}")
        yield (value,)


def _wanted(task: TaskConfig) -> str:
    each = "two texts a line with a tab between" if len(task.text) == 2 else "one text a line"
    columns = " and ".join(repr(column) for column in task.text)
    return f"task {task.name} takes {each}, or columns named {columns}"
