"""Data files → examples. Every bad row is named by file and line.

Reads TSV and CSV with a header, and JSON Lines or lists of JSON objects. Columns are found by name.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

import numpy as np

from mtbert_jax.config import Config, TaskConfig
from mtbert_jax.config.schema import nearest
from mtbert_jax.data.json_rows import Doubled, is_json, json_rows
from mtbert_jax.data.raw_rows import NUMBERED, SKIP, Fault, Row, fault
from mtbert_jax.data.tables import check_columns, open_table
from mtbert_jax.errors import InputError, plain
from mtbert_jax.files import is_folder, must_be_file, must_lie_in, not_utf8, real
from mtbert_jax.tasks import kind_of
from mtbert_jax.types import Example

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
Labels = Literal["needed", "left out", "optional", "ignored"]
"""What a row without a label is: a bad row; left out and counted; an example without one, as in test files; an example
like all others, since no label is read."""
Read = Example | Fault | None
"""What a row gave: the example; what is wrong with the row; or None where it has no label and is left out."""
UNKNOWN = ("-1", "-1.0")
"""What stands for a label that is kept secret, in GLUE's test files and many others'."""


class BadRow(NamedTuple):
    """A row that was left out since something is wrong with it.

    Attributes:
        line: Line that the row begins in.
        reason: Reason of its fault.
        advice: A way out.
    """

    line: int
    reason: str
    advice: str = SKIP


class Reading(NamedTuple):
    """What a file gave.

    Attributes:
        examples: The good rows, in the file's order.
        skipped: One message for every bad row that was left out.
        lines: Line that each good row begins in.
        bad: The rows behind `skipped`.
        unlabelled: Lines of rows that were left out since they have no label of this task, in a file of several tasks.
        several: Lines where rows begin that take several.
    """

    examples: list[Example]
    skipped: list[str]
    lines: list[int]
    bad: list[BadRow]
    unlabelled: list[int]
    several: list[int]


def read_task(task: TaskConfig, split: Split, data_dir: str | Path = ".") -> list[Example]:
    """The examples of one split of a task; any bad row is an error.

    Raises:
        InputError: The file is missing, lacks a column, or has a bad row.
    """
    return read_split(task, split, data_dir).examples


def read_for_run(
    config: Config,
    task: TaskConfig,
    split: Split,
    bad_rows: Literal["error", "skip", "count"] | None = None,
    labels: bool = True,
) -> Reading:
    """Reads one split as a run does: bad rows as its config says, and blank labels left out of files of several tasks.

    Args:
        config: The run's config.
        task: One of its tasks.
        split: The split.
        bad_rows: In place of the config's, as `read_split` takes it.
        labels: As `read_split` takes it.

    Raises:
        InputError: As `read_split`.
    """
    shared = is_shared(task, split, config.tasks, config.data_dir)
    return read_split(task, split, config.data_dir, bad_rows or config.bad_rows, labels, shared)


def is_shared(task: TaskConfig, split: Split, tasks: Sequence[TaskConfig], data_dir: str | Path) -> bool:
    """Whether a task's file is also another task's, which has its labels in another column."""
    file = real(Path(data_dir) / getattr(task, split))
    others = [Path(data_dir) / getattr(o, s) for o in tasks if o.label != task.label for s in SPLITS if getattr(o, s)]
    return any(real(other) == file for other in others)


def read_split(
    task: TaskConfig,
    split: Split,
    data_dir: str | Path = ".",
    bad_rows: Literal["error", "skip", "count"] = "error",
    labels: bool = True,
    shared: bool = False,
) -> Reading:
    """Reads one split.

    In a test file the label's column may be missing, and a blank label or -1 is none, unless -1 is a label of the task
    and not all rows have it.

    Args:
        task: Names the file and its columns.
        split: The split.
        data_dir: Folder that the file's name is relative to.
        bad_rows: `error` stops at the first bad row; `skip` leaves it out and reports it; `count` does the same, and
            takes a file without any good row, too.
        labels: False passes labels over: a row is then as good without one.
        shared: Whether other tasks have labels in other columns of the file. A row of a training or dev file without
            a label of this task is then left out and counted; otherwise it is a bad row.

    Raises:
        InputError: The file is missing, lacks a column, or has a bad row under `error`.
    """
    path = _path(task, split, Path(data_dir))
    rule: Labels = "optional" if split == "test" else "left out" if shared else "needed"
    reading = Reading([], [], [], [], [], [])
    seen: dict[str, int] = {}
    for row, result in _rows(path, task, rule if labels else "ignored"):
        if row.height > 1:
            reading.several.append(row.line)
        if isinstance(result, Example) and result.id in seen:
            told = f"id {result.id!r} stands already in line {seen[result.id]}"
            result = Fault("its id stands in an earlier row", told, NUMBERED)
        if result is None:
            reading.unlabelled.append(row.line)
        elif isinstance(result, Example):
            seen[result.id] = row.line
            reading.lines.append(row.line)
            reading.examples.append(result)
        elif bad_rows == "error":
            raise InputError(f"{path}:{row.line}: {result.text} ({result.advice})")
        else:
            reading.skipped.append(plain(f"{path}:{row.line}: {result.text}"))
            reading.bad.append(BadRow(row.line, result.reason, result.advice))
    if not reading.examples and (bad_rows != "count" or not (reading.bad or reading.unlabelled)):
        raise InputError(_no_rows(path, task, reading))
    if rule == "optional" and _all_unknown(task, reading.examples):
        reading = reading._replace(examples=[example._replace(label=None) for example in reading.examples])
    return reading


def _path(task: TaskConfig, split: Split, data_dir: Path) -> Path:
    name = getattr(task, split)
    if not name:
        raise InputError(f'task {task.name} has no {split} file; give its name as {split} = "..."')
    if not is_folder(data_dir):
        raise InputError(f"data folder {data_dir} does not exist; give the right one with --data-dir")
    path = data_dir / name
    if not Path(name).is_absolute():  # a whole path says openly where it leads
        must_lie_in(data_dir, path, "give its whole path if that is meant")
    must_be_file(path, f"the {split} file of task {task.name}")
    return path


def _no_rows(path: Path, task: TaskConfig, reading: Reading) -> str:
    if reading.skipped:
        first = reading.skipped[0].removeprefix(f"{path}:")
        return f"{path}: no usable rows: {len(reading.skipped)} bad ones, the first in line {first}"
    if reading.unlabelled:
        return f"{path}: no row has a label of task {task.name} in {task.label!r}"
    return f"{path}: no rows"


def _all_unknown(task: TaskConfig, examples: Sequence[Example]) -> bool:
    """Whether every label is -1, which a task may have as a label, too."""
    try:
        unknown = kind_of(task).parse(task, UNKNOWN[0])
    except ValueError:
        return False
    return all(example.label is not None and np.array_equal(example.label, unknown) for example in examples)


def _rows(path: Path, task: TaskConfig, rule: Labels) -> Iterator[tuple[Row, Read]]:
    try:
        with path.open(encoding="utf-8-sig", errors="surrogatepass", newline="") as file:
            yield from rows_of(file, str(path), task, rule)
    except UnicodeDecodeError:
        raise not_utf8(path, path.read_bytes()) from None
    except OSError as error:
        raise InputError(f"cannot read the data file {path}: {error.strerror or error}") from None


def rows_of(file: TextIO, name: str, task: TaskConfig, rule: Labels) -> Iterator[tuple[Row, Read]]:
    """The rows of an open file, and what the task makes of each.

    Args:
        file: The file, with line ends as they are.
        name: What messages call it; its suffix may tell the format.
        task: Names the columns.
        rule: How rows without a label are taken.

    Raises:
        InputError: The file is no table and no JSON, or a table lacks a column.
    """
    required = [*task.text, *([task.label] if rule in ("needed", "left out") else []), *([task.id] if task.id else [])]
    first = next((line for line in file if line.strip()), "")
    file.seek(0)
    if is_json(name, first):
        rows = json_rows(file, name)
        if rule == "left out":
            required.remove(task.label)
    else:
        table = open_table(file, name, task.quotes)
        optional = task.label if rule == "optional" else ""
        if table.columns:
            check_columns(table, required, optional, NUMBERED if task.id else "")
        rows = table.rows(lambda fields: isinstance(_example(task, fields, "0", rule), Example))
    for number, row in enumerate(rows):
        fields = row.fields
        if isinstance(fields, Fault):
            yield row, fields
        elif missing := [column for column in required if column not in fields]:
            advice = NUMBERED if missing[0] == task.id else SKIP
            yield row, fault(f"has no field {missing[0]!r}", nearest(missing[0], fields), advice)
        else:
            yield row, _example(task, fields, str(number), rule)


def _example(task: TaskConfig, row: dict[str, Any], number: str, rule: Labels) -> Read:
    for column in task.text:
        if not isinstance(row[column], str):
            return fault(f"field {column!r} is {_json_type(row[column])}, not a text")
    texts = tuple(clean(row[column]) for column in task.text)
    name = _id(task, row[task.id]) if task.id else number
    if isinstance(name, Fault) or rule == "ignored":
        return name if isinstance(name, Fault) else Example(name, texts)
    if task.label not in row:
        return None if rule == "left out" else Example(name, texts)
    text = _label_text(task, row[task.label])
    if isinstance(text, Fault):
        return text
    kind = kind_of(task)
    try:
        return Example(name, texts, kind.parse(task, text))
    except ValueError:
        if rule == "left out" and not text:
            return None
        if rule == "optional" and text in ("", *UNKNOWN):
            return Example(name, texts)
        column, expected = f"column {task.label!r} is", f"not {kind.expected(task)}"
        return Fault(f"{column} {expected}" if text else f"{column} empty", f"{column} {text!r}, {expected}")


def _id(task: TaskConfig, value: Any) -> str | Fault:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return json.dumps(value)
    if not isinstance(value, str):
        return fault(f"field {task.id!r} is {_json_type(value)}, not a text or a number", advice=NUMBERED)
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
        return fault(f"field {task.label!r} is {_json_type(value)}, not {kind.expected(task)}")
    return json.dumps(int(value) if isinstance(value, bool) else value)


def _json_type(value: Any) -> str:
    """What JSON calls a value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Doubled):
        return "there twice"
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else "a number"


def clean(text: str) -> str:
    """The text with lone surrogates replaced, which files can hold although no text has them: a tokenizer cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
