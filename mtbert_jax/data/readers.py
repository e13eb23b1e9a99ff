"""Data files → examples. Every bad row is named by file and line.

Reads TSV and CSV with a header, and JSON Lines or lists of JSON objects, whose columns are found by name; files with a
word a line (CoNLL), and for auxiliary tasks plain text.
"""

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

from mtbert_jax.config import Config, TaskConfig
from mtbert_jax.config.schema import describe, folded, from_dict, must_be_among, nearest, to_dict
from mtbert_jax.data.examples import Labels, Read, are_unknown, make_example
from mtbert_jax.data.json_rows import is_json, json_rows
from mtbert_jax.data.lines import TAGGED, has_tagged_words, tagged_words, text_lines
from mtbert_jax.data.raw_rows import NUMBERED, SKIP, Fault, Row, fault
from mtbert_jax.data.tables import check_columns, open_table
from mtbert_jax.errors import InputError, plain
from mtbert_jax.files import HEAD, is_folder, must_be_file, must_be_text, must_lie_in, not_utf8, real
from mtbert_jax.tasks import kind_of
from mtbert_jax.types import Example

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = ("train", "dev", "test")


class Reading(NamedTuple):
    """What a file gave.

    Attributes:
        examples: The good rows, in the file's order.
        skipped: One message for every bad row that was left out.
        lines: Line that each good row begins in.
        bad: The rows behind `skipped`: the line that each begins in, and its fault.
        unlabelled: Lines of rows without a label of this task, left out of a file of several tasks; or with one that
            the task does not take.
        several: Lines where rows begin that take several.
        columns: The columns, or the fields of the first row that can be read.
    """

    examples: list[Example]
    skipped: list[str]
    lines: list[int]
    bad: list[tuple[int, Fault]]
    unlabelled: list[int]
    several: list[int]
    columns: list[str]


def read_task(task: TaskConfig, split: Split, data_dir: str | Path = ".") -> list[Example]:
    """The examples of one split of a task; any bad row is an error.

    Raises:
        InputError: The file is missing, lacks a column, or has a bad row; or the split is none, or a field of the task
            is of another type, or the task itself.
    """
    if not isinstance(task, TaskConfig):
        raise InputError(f"task is {describe(task)}: give an mt.TaskConfig, such as one of a config's tasks")
    must_be_among("split", split, SPLITS)
    fields = {name: value for name, value in to_dict(task).items() if name not in SPLITS}  # these may be no strings
    from_dict(type(task), fields, f"task {task.name}")
    return read_split(task, split, data_dir).examples


def read_for_run(
    config: Config,
    task: TaskConfig,
    split: Split,
    bad_rows: Literal["error", "skip", "count"] | None = None,
    labels: bool = True,
) -> Reading:
    """Reads one split as a run does: bad rows as its config says, and blank labels left out of files of several tasks.

    Arguments and errors are those of `read_split`.
    """
    shared = is_shared(task, split, config.tasks, config.data_dir)
    return read_split(task, split, config.data_dir, bad_rows or config.bad_rows, labels, shared)


def data_files(config: Config) -> Iterator[tuple[Path, str]]:
    """Every data file of a config, and what it is in words."""
    for task in config.tasks:
        for split in SPLITS:
            if getattr(task, split):
                yield Path(config.data_dir) / getattr(task, split), _words(task, split)


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

    In a test file the label's column may be missing, and a blank label or -1 is none, unless it is a label of the task
    and some row has another.

    Args:
        task: Names the file, below `data_dir`, and its columns.
        split: The split.
        data_dir: Folder that the file's name is relative to.
        bad_rows: `error` stops at the first; `skip` leaves them out and reports them; `count` does, even if none is
            good.
        labels: False passes labels over: a row is then as good without one.
        shared: Other tasks have labels in other columns: a row of a training or dev file without one of this task is
            not bad, but left out and counted.

    Raises:
        InputError: The file is missing, lacks a column, or has a bad row under `error`.
    """
    path = _path(task, split, Path(data_dir))
    labels = labels and kind_of(task).reads_label(task)
    rule: Labels = "optional" if split == "test" else "left out" if shared else "needed"
    reading = Reading([], [], [], [], [], [], [])
    seen: dict[str, int] = {}
    for row, result in _rows(path, task, rule if labels else "ignored"):
        if not (reading.columns or isinstance(row.fields, Fault)):
            reading.columns.extend(row.fields)
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
            reading.bad.append((row.line, result))
    if not reading.examples and (bad_rows != "count" or not (reading.bad or reading.unlabelled)):
        raise InputError(_no_rows(path, task, reading))
    if rule == "optional" and are_unknown(task, reading.examples):
        reading = reading._replace(examples=[example._replace(label=None) for example in reading.examples])
    _check_classes(path, task, reading)
    return reading


def _path(task: TaskConfig, split: Split, data_dir: Path) -> Path:
    name = getattr(task, split)
    if not name:
        raise InputError(f'task {task.name} has no {split} file; give its name as {split} = "..."')
    if not isinstance(name, str):
        raise InputError(f"task {task.name}: {split} is a {type(name).__name__}, not a file's name; train() takes rows")
    if not is_folder(data_dir):
        raise InputError(f"data folder {data_dir} does not exist; give the right one with --data-dir")
    path = data_dir / name
    if not Path(name).is_absolute():  # a whole path says openly where it leads
        must_lie_in(data_dir, path, "give its whole path if that is meant")
    must_be_file(path, _words(task, split))
    return path


def _words(task: TaskConfig, split: Split) -> str:
    return f"the {split} file of task {task.name}"


def _check_classes(path: Path, task: TaskConfig, reading: Reading) -> None:
    """Refuses a label that is the place of no class; not row by row, since naming all classes takes its time."""
    kind = kind_of(task)
    count = len(kind.classes(task)) if kind.one_class_each else 0
    for example, line in zip(reading.examples, reading.lines, strict=True) if count else ():
        if example.label is not None and not (0 <= example.label < count and example.label == int(example.label)):
            what = f"parse returns {describe(example.label)}, which is the place of none of the {count} classes"
            raise InputError(f"{path}:{line}: kind {kind.name!r}: {what}")


def _no_rows(path: Path, task: TaskConfig, reading: Reading) -> str:
    if reading.skipped:
        first = reading.skipped[0].removeprefix(f"{path}:")
        return f"{path}: no usable rows: {len(reading.skipped)} bad ones, the first in line {first}"
    if kind_of(task).auxiliary and reading.unlabelled:
        return f"{path}: every row has {kind_of(task).lacks(task)}, in {task.label!r}"
    if reading.unlabelled:
        return f"{path}: no row has a label of task {task.name} in {task.label!r}"
    return f"{path}: no rows"


def _rows(path: Path, task: TaskConfig, rule: Labels) -> Iterator[tuple[Row, Read]]:
    try:
        with path.open("rb") as data:
            must_be_text(path, data.peek(HEAD))
            file = io.TextIOWrapper(data, encoding="utf-8-sig", errors="surrogatepass", newline="")
            yield from rows_of(file, str(path), task, rule)
    except UnicodeDecodeError:
        raise not_utf8(path, path.read_bytes()) from None
    except OSError as error:
        raise InputError(f"cannot read the data file {path}: {error.strerror or error}") from None


def rows_of(file: TextIO, name: str, task: TaskConfig, rule: Labels) -> Iterator[tuple[Row, Read]]:
    """The rows of an open file, with line ends as they are, and what the task makes of each; its name tells the format.

    Raises:
        InputError: The file is no table and no JSON, or a table lacks a column.
    """
    is_plain = kind_of(task).auxiliary and Path(name).suffix.lower() == ".txt"
    rule = "ignored" if is_plain else rule
    required = [*task.text, *([task.label] if rule in ("needed", "left out") else []), *([task.id] if task.id else [])]
    first = next((line for line in file if line.strip()), "")
    file.seek(0)
    if is_plain:
        rows = text_lines(file, name, task)
    elif has_tagged_words(name):
        rows = tagged_words(file, name, task)
    elif is_json(name, first):
        rows = json_rows(file, name)
        if rule == "left out":
            required.remove(task.label)
    else:
        table = open_table(file, name, task.quotes)
        optional = task.label if rule == "optional" else ""
        headless = f"; a file with a word a line is named {TAGGED[0]}" if kind_of(task).reads == "tokens" else ""
        if rule == "optional" and _is_written_otherwise(task, table.columns):
            required.insert(len(task.text), task.label)
        if table.columns:
            check_columns(table, required, optional, NUMBERED if task.id else "", headless)
        rows = table.rows(lambda fields: isinstance(make_example(task, fields, "0", rule), Example))
    for number, row in enumerate(rows):
        fields = row.fields
        if isinstance(fields, Fault):
            yield row, fields
        elif missing := [column for column in required if fields.get(column) is None]:
            advice = NUMBERED if missing[0] == task.id else SKIP
            yield row, _missing(missing[0], fields, advice)
        elif rule == "optional" and _is_written_otherwise(task, fields):
            yield row, _missing(task.label, fields, SKIP)
        else:
            try:
                made = make_example(task, fields, str(number), rule)
            except InputError as error:  # of the task's kind
                raise InputError(f"{name}:{row.line}: {error}") from error
            yield row, made


def _missing(column: str, fields: Mapping[str, Any], advice: str) -> Fault:
    if column in fields:
        return fault(f"field {column!r} is null", advice=advice)
    return fault(f"has no field {column!r}", nearest(column, fields), advice)


def _is_written_otherwise(task: TaskConfig, names: Collection[str]) -> bool:
    """Whether names lack a task's label, but for capitals and blanks around: nobody means it to be missing then."""
    label, others = folded(task.label), (*task.text, task.id)
    return task.label not in names and any(folded(name) == label for name in names if name not in others)
