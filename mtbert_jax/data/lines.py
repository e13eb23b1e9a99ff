"""Files without named columns: a text a line, or a word a line with its tag beside it (CoNLL)."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from mtbert_jax.config import TaskConfig
from mtbert_jax.data.raw_rows import Fault, Row, fault
from mtbert_jax.errors import InputError
from mtbert_jax.tasks import kind_of

TAGGED = (".conll", ".bio", ".iob", ".iob2")
_BLANKS, _TABS = re.compile(r" +"), re.compile(r" *\t[ \t]*")


def has_tagged_words(name: str) -> bool:
    """Whether a file has a word a line, by its name."""
    return Path(name).suffix.lower() in TAGGED


def text_lines(file: TextIO, name: str, task: TaskConfig) -> Iterator[Row]:
    """The lines but for blank ones, a text each; their numbers from 0 are the ids.

    Raises:
        InputError: The task reads two texts.
    """
    _must_read_one(task, f"{name}: a plain text file has one text a line")
    texts = ((line, text.strip()) for line, text in enumerate(file, start=1) if text.strip())
    for number, (line, text) in enumerate(texts):
        yield Row(line, _fields(task, number, text))


def tagged_words(file: TextIO, name: str, task: TaskConfig) -> Iterator[Row]:
    """The sentences of a file with a word a line and blank lines between sentences; their numbers from 0 are the ids.

    Columns lie between tabs, or between blanks in a line without tabs. The first one has the word, the last one its
    tag. What lies between them is passed over, and so are lines that begin with ``-DOCSTART-``, and those above a
    sentence that begin with ``#`` and do not end in a tag of the task.

    Raises:
        InputError: The task reads two texts.
    """
    _must_read_one(task, f"{name}: a file with a word a line has one text in a sentence")
    words: list[list[str]] = []
    begins, number, tags = 0, 0, kind_of(task).classes(task)
    for line, text in enumerate(itertools.chain(file, [""]), start=1):
        columns = (_TABS if "\t" in text.strip() else _BLANKS).split(text.strip())
        is_comment = not words and columns[0].startswith("#") and len(columns) > 1 and columns[-1] not in tags
        if columns[0] and not columns[0].startswith("-DOCSTART-") and not is_comment:
            begins = begins if words else line
            words.append(columns)
        elif words:
            yield Row(begins, _sentence(task, number, words, begins))
            words, number = [], number + 1


def _sentence(task: TaskConfig, number: int, words: list[list[str]], begins: int) -> dict[str, Any] | Fault:
    """The row of a sentence, by its lines; or its fault."""
    width = len(words[0])
    for place, columns in enumerate(words):
        if len(columns) != width:
            return fault(
                "words of one sentence have different numbers of columns",
                f": {width} in line {begins}, {len(columns)} in line {begins + place}",
            )
    texts = [columns[0] for columns in words]
    fields = _fields(task, number, texts if kind_of(task).reads == "tokens" else " ".join(texts))
    return fields | ({task.label: [columns[-1] for columns in words]} if task.label and width > 1 else {})


def _fields(task: TaskConfig, number: int, text: Any) -> dict[str, Any]:
    """A row by columns, as the task names them."""
    return {task.text[0]: text, **({task.id: str(number)} if task.id else {})}


def _must_read_one(task: TaskConfig, holds: str) -> None:
    if len(task.text) != 1:
        raise InputError(f"{holds}, and task {task.name} reads {len(task.text)}")
