"""The course's prediction files held against its data files, whoever wrote them (docs/numerics.md, section 5)."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from mtbert_jax.config import TaskConfig
from mtbert_jax.data.predictions import header
from mtbert_jax.data.readers import read_split
from mtbert_jax.errors import InputError, plain
from mtbert_jax.files import not_utf8
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.arrays import parsed

_PAIR = ("sentence1", "sentence2")
COURSE = {
    task.name: task
    for task in (
        TaskConfig("sst", text=("sentence",), num_classes=5, output_column="Predicted_Sentiment"),
        TaskConfig("cfimdb", text=("sentence",), num_classes=2, output_column="Predicted_Sentiment"),
        TaskConfig("para", "binary", text=_PAIR, output_column="Predicted_Is_Paraphrase"),
        TaskConfig("sts", "regression", _PAIR, label_range=(0.0, 5.0), output_column="Predicted_Similiary"),
    )
}
"""The course's tasks by their names, as far as its prediction files tell of them."""


def check_pair(path: Path, data: Path) -> tuple[int, list[str]]:
    """Holds a prediction file against its data file; the header tells the task, the files' names SST from CFIMDB.

    Returns:
        How many predictions there must be; and what is wrong, one line each. Quotes in the data file are taken as the
            prediction file fits better: as csv has them, or as text.

    Raises:
        InputError: A file cannot be read, or the header is of none of the course's tasks.
    """
    told = _lines(path)[0]
    named = {task.output_column: task for task in COURSE.values() if task.name != "cfimdb"}
    task = next((task for column, task in named.items() if column in told.split()), None)
    if task is None:
        columns = ", ".join(repr(header(known)) for known in named.values())
        raise InputError(f"{path}:1: the header is {told!r}; it must be one of {columns}")
    if task.name == "sst" and "cfimdb" in f"{path.name} {data.name}".lower():
        task = COURSE["cfimdb"]
    source = dataclasses.replace(task, test=str(data.absolute()))
    checked: list[tuple[int, list[str]]] = []
    refused = ""
    for quotes in (True, False):  # a stray quote is no fault of the prediction file
        try:
            examples = read_split(dataclasses.replace(source, quotes=quotes), "test", labels=False).examples
        except InputError as error:
            refused = refused or str(error)
            continue
        checked.append((len(examples), list(faults(path, task, [example.id for example in examples]))))
    if not checked:
        raise InputError(refused)
    return min(checked, key=lambda one: len(one[1]))


def faults(path: Path, task: TaskConfig, ids: Sequence[str]) -> Iterator[str]:
    """What is wrong with a prediction file, one line each that names the file and its line; `ids` are in order."""
    (first, *lines), kind = _lines(path), kind_of(task)
    if first != header(task):
        yield plain(f"{path}:1: the header is {first!r}, not {header(task)!r}")
    due = dict.fromkeys(ids)
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=2):
        name, comma, rest = line.rpartition(" , ")
        if not comma or not rest.endswith(" "):
            yield plain(f"{path}:{number}: {line[:100]!r} is no row such as 'id , prediction '")
            continue
        if name not in due:
            yield plain(f"{path}:{number}: id {name!r} does not stand in the data file")
        elif name in seen:
            yield plain(f"{path}:{number}: id {name!r} stands already in line {seen[name]}")
        else:
            seen[name] = number
        try:
            parsed(task, rest[:-1])
        except ValueError:
            yield plain(f"{path}:{number}: prediction {rest[:-1]!r} is not {kind.expected(task)}")
    in_order = [name for name in due if name in seen]
    for name, wanted in zip(seen, in_order, strict=True):
        if name != wanted:
            yield plain(f"{path}:{seen[name]}: id {name!r} stands where the data file has {wanted!r}")
            break
    if missing := [name for name in due if name not in seen]:
        yield plain(f"{path}: {len(missing)} of {len(due)} ids of the data file are missing, the first: {missing[0]!r}")


def _lines(path: Path) -> list[str]:
    """The lines, the header first; their ends may be of either kind, and the last one may lack it."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InputError(f"cannot read the prediction file {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise not_utf8(path, error.object) from None
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
