"""Rows as files hold them: a line number, and fields by column or what is wrong with them."""

from typing import Any, NamedTuple

SKIP = 'bad_rows = "skip" would leave such rows out'
NUMBERED = 'id = "" numbers the rows instead, and keeps them all'


class Fault(NamedTuple):
    """What is wrong with a row, in words that quote nothing of it and many rows can share; in full; and a way out."""

    reason: str
    text: str
    advice: str = SKIP


class Row(NamedTuple):
    """One row: the line that it begins in, from 1; its fields by column, or its fault; and how many lines it takes.

    Fields of a table are texts, those of JSON any value; None, which is null, is read as if the field were missing.
    """

    line: int
    fields: dict[str, Any] | Fault
    height: int = 1


def fault(text: str, rest: str = "", advice: str = SKIP) -> Fault:
    """A fault whose reason is `text`; `rest` follows where it is told in full."""
    return Fault(text, text + rest, advice)
