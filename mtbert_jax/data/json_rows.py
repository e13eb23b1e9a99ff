"""JSON Lines, and JSON lists of objects → rows."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from mtbert_jax.data.raw_rows import Fault, Row, fault
from mtbert_jax.errors import InputError

_BEGINS = re.compile(r'\{\s*(["}]|$)|\[\s*([\[{\]]|$)')
_BLANK = re.compile(r"\s*")


class Doubled:
    """In place of the value of a key that an object has twice."""


def is_json(name: str, first_line: str) -> bool:
    r"""Whether a file holds JSON, by its name or the beginning of its first line that is not blank.

    >>> is_json("a.json", "id\ttext"), is_json("a.JSONL", ""), is_json("a.txt", ' {"id": 1}'), is_json("a", "[id],text")
    (True, True, True, False)
    """
    named = Path(name).suffix.lower() in (".json", ".jsonl", ".ndjson")
    return named or _BEGINS.match(first_line.strip()) is not None


def json_rows(file: TextIO, name: str) -> Iterator[Row]:
    """The objects of a file, one a line or in a list; `name` is what messages call it.

    Raises:
        InputError: A list is not JSON, or an object takes several lines without being in a list.
    """
    first, begins = next(((line, text) for line, text in enumerate(file, start=1) if text.strip()), (1, ""))
    file.seek(0)
    if begins.lstrip().startswith("["):
        yield from _list_rows(file.read(), name)
        return
    if begins.strip() == "{":
        raise InputError(f"{name}:{first}: an object takes several lines; give one object a line, or a list: [...]")
    for line, text in enumerate(file, start=1):
        if text.strip():
            yield Row(line, _row(text))


def _row(text: str) -> dict[str, Any] | Fault:
    try:
        return _fields(json.loads(text, object_pairs_hook=_object))
    except json.JSONDecodeError as error:
        return fault("is not JSON", f": {error.msg} (column {error.colno})")
    except (ValueError, RecursionError) as error:
        return fault("is not JSON", f": {error}")


def _list_rows(text: str, name: str) -> Iterator[Row]:
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    at, line, counted = text.index("["), 1, 0
    at = _blanks(text, at + 1)
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise InputError(f"{name}:{error.lineno}: is not JSON: {error.msg} (column {error.colno})") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}:{line}: is not JSON: {error}") from None
        yield Row(line, _fields(value))
        at = _blanks(text, at)
        if text[at : at + 1] == ",":
            at = _blanks(text, at + 1)
        elif text[at : at + 1] != "]":
            line += text.count("\n", counted, at)
            raise InputError(f"{name}:{line}: is not JSON: the list does not go on with a comma, nor end with ]")
    rest = _blanks(text, at + 1)
    if rest < len(text):
        line += text.count("\n", counted, rest)
        raise InputError(f"{name}:{line}: more follows the end of the list; give one list, or one object a line")


def _blanks(text: str, at: int) -> int:
    """Where the blanks that begin at a place end."""
    return _BLANK.match(text, at).end()  # type: ignore[union-attr]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        values |= {key: Doubled() for key, count in counts.items() if count > 1}
    return values


def _fields(row: Any) -> dict[str, Any] | Fault:
    if not isinstance(row, dict):
        return fault("is not a JSON object")
    return row
