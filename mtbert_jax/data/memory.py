"""Examples in memory → JSON Lines files that a run reads as any other.

A run folder must stand alone: to be resumed, evaluated and reported. So rows that a program hands over are written to
the run folder before training begins. A file's name holds a hash of its contents: the same rows make the same file, and
a run that is resumed with other rows is refused as one with another config.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mtbert_jax.config import TaskConfig
from mtbert_jax.data.readers import SPLITS
from mtbert_jax.errors import InputError
from mtbert_jax.files import json_lines

Rows = list[dict[str, Any]]
DIGITS = 12
"""Of the hash in a file's name."""
DEFAULTS = TaskConfig()
MISSING = ("NAType", "NaTType")
"""What pandas has in place of a value, beside NaN."""


class InMemory(NamedTuple):
    """A task's table, with names of files in place of rows; and what those files are to hold."""

    task: dict[str, Any]
    files: dict[Path, str]


def in_files(task: Mapping[str, Any], folder: Path) -> InMemory:
    """A task's table, whose splits may be rows in memory, and the files in `folder` that are to hold them.

    Only the columns that the task names are kept. Nothing is written.

    Raises:
        InputError: A split is no table, a row lacks a text, or a value can stand in no file.
    """
    made, files = dict(task), {}
    for split in SPLITS:
        given = task.get(split)
        if given is None or isinstance(given, str):
            continue
        name = str(task.get("name") or "task")
        where = f"task {name}: {split}"
        text = json_lines(_rows(given, task, where))
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
        path = folder.resolve() / f"{re.sub(r'[^a-zA-Z0-9_-]', '_', name)}-{split}-{digest}.jsonl"
        made[split], files[path] = str(path), text
    return InMemory(made, files)


def _rows(given: Any, task: Mapping[str, Any], where: str) -> Rows:
    """The task's columns of every row."""
    texts = task.get("text") or DEFAULTS.text
    texts = (texts,) if isinstance(texts, str) else tuple(texts)
    wanted = (*texts, task.get("label") or DEFAULTS.label, task.get("id", DEFAULTS.id))
    rows = []
    for number, row in enumerate(_records(given, where), start=1):
        if not isinstance(row, Mapping):
            raise InputError(f"{where}: row {number} is a {type(row).__name__}, not a dict of columns")
        if missing := [column for column in texts if row.get(column) is None]:
            raise InputError(f"{where}: row {number} has no {missing[0]!r} (it has {', '.join(map(repr, row))})")
        cells = {column: _cell(row[column], f"{where}: row {number}: {column!r}") for column in wanted if column in row}
        rows.append({column: value for column, value in cells.items() if value is not None})
    if not rows:
        raise InputError(f"{where}: there are no rows")
    return rows


def _records(given: Any, where: str) -> Iterable[Any]:
    """Rows as dicts: of a data frame (pandas, polars), a table by columns, or whatever yields dicts."""
    if hasattr(given, "to_dicts"):
        return given.to_dicts()
    if hasattr(given, "to_dict") and hasattr(given, "iloc"):
        return given.to_dict("records")
    if isinstance(given, Mapping):
        columns = {name: list(values) for name, values in given.items() if not isinstance(values, str)}
        sizes = {name: len(values) for name, values in columns.items()}
        if len(columns) < len(given) or len(set(sizes.values())) > 1:
            raise InputError(f"{where}: is a dict; give rows, or columns of one length (their lengths are {sizes})")
        return (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    if isinstance(given, Iterable):
        return given
    raise InputError(f"{where}: is a {type(given).__name__}; give a file's name, a list of dicts, or a data frame")


def _cell(value: Any, where: str) -> Any:
    """A value as JSON has it; None where it is missing. NumPy's numbers and arrays are taken for Python's."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if value is None or type(value).__name__ in MISSING or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str | bool | int | float) and value not in (math.inf, -math.inf):
        return value
    if isinstance(value, list | tuple):
        return [_cell(item, where) for item in value]
    raise InputError(f"{where} is {value!r:.60}, a {type(value).__name__}; give a text, a number or a list")
