"""Data files → examples. Every bad row is named by file and line.

Reads TSV and CSV with a header (the header line tells which: the course's files are tab-separated although named
``.csv``) and JSON Lines. Columns are found by name.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mtbert_jax.config import TaskConfig
from mtbert_jax.config.schema import nearest
from mtbert_jax.errors import InputError, plain
from mtbert_jax.files import is_folder, must_be_file, must_lie_in
from mtbert_jax.limits import LONGEST_FIELD
from mtbert_jax.tasks import kind_of
from mtbert_jax.types import Example

Split = Literal["train", "dev", "test"]
Row = tuple[int, "dict[str, str] | Fault"]
"""A line number with its fields by column, or with what is wrong with it."""


class Fault(NamedTuple):
    """What is wrong with a row.

    Attributes:
        reason: In words that many rows can share; nothing of the row is quoted.
        text: In full.
    """

    reason: str
    text: str


class BadRow(NamedTuple):
    """A row that was left out.

    Attributes:
        line: Where it begins.
        reason: Of the fault.
    """

    line: int
    reason: str


class Reading(NamedTuple):
    """What a file gave.

    Attributes:
        examples: The good rows, in the file's order.
        skipped: One message for every bad row that was left out.
        lines: Where each good row begins.
        bad: The rows behind `skipped`.
    """

    examples: list[Example]
    skipped: list[str]
    lines: list[int]
    bad: list[BadRow]


def read_task(task: TaskConfig, split: Split, data_dir: str | Path = ".") -> list[Example]:
    """The examples of one split of a task; any bad row is an error.

    Raises:
        InputError: The file is missing, lacks a column, or has a bad row.
    """
    return read_split(task, split, data_dir).examples


def read_split(
    task: TaskConfig,
    split: Split,
    data_dir: str | Path = ".",
    bad_rows: Literal["error", "skip"] = "error",
    labels: bool = True,
) -> Reading:
    """Reads one split.

    Args:
        task: Names the file and its columns.
        split: `train`, `dev` or `test`; in a test file the label column may be missing.
        data_dir: Folder that the file's name is relative to.
        bad_rows: `error` stops at the first bad row, `skip` leaves it out and reports it.
        labels: False passes labels over: a row is then as good without one.

    Raises:
        InputError: The file is missing, lacks a column, or has a bad row under `error`.
    """
    name = getattr(task, split)
    if not name:
        raise InputError(f'task {task.name} has no {split} file; give its name as {split} = "..."')
    if not is_folder(data_dir):
        raise InputError(f"data folder {data_dir} does not exist; give the right one with --data-dir")
    path = Path(data_dir) / name
    if not Path(name).is_absolute():  # a whole path says openly where it leads
        must_lie_in(Path(data_dir), path, "give its whole path if that is meant")
    must_be_file(path, f"the {split} file of task {task.name}")
    rows = _jsonl_rows(path) if path.suffix in (".jsonl", ".ndjson") else _table_rows(path, task.quotes)
    examples: list[Example] = []
    skipped: list[str] = []
    bad: list[BadRow] = []
    lines: dict[str, int] = {}
    for number, (line, row) in enumerate(_with_columns(rows, task, labels and split != "test", path)):
        result = row if isinstance(row, Fault) else _example(task, row, str(number), labels)
        if isinstance(result, Example) and result.id in lines:
            result = Fault(
                "its id stands in an earlier row", f"id {result.id!r} stands already in line {lines[result.id]}"
            )
        if isinstance(result, Example):
            lines[result.id] = line
            examples.append(result)
        elif bad_rows == "skip":
            skipped.append(plain(f"{path}:{line}: {result.text}"))
            bad.append(BadRow(line, result.reason))
        else:
            raise InputError(f'{path}:{line}: {result.text} (bad_rows = "skip" would leave such rows out)')
    if not examples:
        raise InputError(f"{path}: no {'usable ' if skipped else ''}rows")
    return Reading(examples, skipped, list(lines.values()), bad)


def _table_rows(path: Path, quotes: bool) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_FIELD)
    line = 1
    try:
        with path.open(encoding="utf-8-sig", errors="surrogatepass", newline="") as file:
            delimiter = "\t" if "\t" in file.readline() else ","
            file.seek(0)
            quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
            reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
            header = next(reader, [])
            line = reader.line_num + 1
            for fields in reader:
                if len(fields) == len(header):
                    yield line, dict(zip(header, fields, strict=True))
                elif fields:
                    yield (
                        line,
                        Fault(
                            "has another number of columns than the header",
                            f"has {len(fields)} columns where the header has {len(header)}",
                        ),
                    )
                line = reader.line_num + 1
    except csv.Error as error:
        hint = "; if quotes are plain text in this file, set quotes = false" if quotes else ""
        raise InputError(f"{path}:{line}: cannot be read as a table: {error}{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(_unreadable(path, error)) from None


def _jsonl_rows(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", errors="surrogatepass") as file:
            for line, text in enumerate(file, start=1):
                if text.strip():
                    yield line, _json_row(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(_unreadable(path, error)) from None


def _json_row(text: str) -> dict[str, str] | Fault:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _fault("is not JSON", f": {error}")
    if not isinstance(row, dict):
        return _fault("is not a JSON object")
    return {key: _json_text(value) for key, value in row.items() if value is not None}


def _json_text(value: Any) -> str:
    """A field as a table would have it: true and false as 1 and 0."""
    if isinstance(value, bool):
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value)


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"{path}: is not UTF-8 text (byte {_bad_byte(path)})"
    return f"cannot read the data file {path}: {error.strerror or error}"


def _bad_byte(path: Path) -> int:
    try:
        path.read_bytes().decode(errors="surrogatepass")
    except UnicodeDecodeError as error:  # a file's own error counts from the start of its last chunk
        return error.start
    return 0


def _with_columns(rows: Iterator[Row], task: TaskConfig, labels: bool, path: Path) -> Iterator[Row]:
    """Checks every row's columns: a table's once for all, JSON objects' one by one."""
    required = [*task.text, *([task.id] if task.id else []), *([task.label] if labels else [])]
    jsonl = path.suffix in (".jsonl", ".ndjson")
    for line, row in rows:
        missing = [] if isinstance(row, Fault) else [column for column in required if column not in row]
        if missing and not jsonl:
            known = [column for column in row if column]
            raise InputError(
                f"{path}:1: no column {missing[0]!r}{nearest(missing[0], known)} (columns: {', '.join(known)})"
            )
        yield line, _fault(f"has no field {missing[0]!r}") if missing else row


def _fault(text: str, rest: str = "") -> Fault:
    return Fault(text, text + rest)


def _example(task: TaskConfig, row: dict[str, str], number: str, labels: bool = True) -> Example | Fault:
    """The example, or what is wrong with the row."""
    texts = tuple(clean(row[column]) for column in task.text)
    name = clean(row[task.id]).strip() if task.id else number
    if not name:
        return _fault(f"column {task.id!r} is empty")
    if len(name.splitlines()) > 1:
        what = f"column {task.id!r} is {name!r}: an id stands in one line of the prediction file"
        return Fault(f"column {task.id!r} is of several lines", what)
    if task.label not in row or not labels:
        return Example(name, texts)
    kind, text = kind_of(task), row[task.label].strip()
    try:
        return Example(name, texts, kind.parse(task, text))
    except ValueError:
        column, expected = f"column {task.label!r} is", f"not {kind.expected(task)}"
        return Fault(f"{column} {expected}", f"{column} {text!r}, {expected}")


def clean(text: str) -> str:
    """The text with lone surrogates replaced, which files can hold although no text has them: a tokenizer cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
