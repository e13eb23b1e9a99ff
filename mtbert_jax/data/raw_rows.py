"""Rows as files hold them: a line number, and fields by column or what is wrong with them."""

from typing import Any, NamedTuple

SKIP = 'bad_rows = "skip" would leave such rows out'
NUMBERED = 'id = "" numbers the rows instead, and keeps them all'


class Fault(NamedTuple):
    """What is wrong with a row.

    Attributes:
        reason: The fault in words that many rows can share; nothing of the row is quoted.
        text: The fault in full.
        advice: A way out.
    """

    reason: str
    text: str
    advice: str = SKIP


class Row(NamedTuple):
    """One row.

    Attributes:
        line: Line of the file that the row begins in, from 1.
        fields: Fields by column, or the row's fault. Fields of a table are texts, those of JSON any value but null.
        height: Number of lines that the row takes.
    """

    line: int
    fields: dict[str, Any] | Fault
    height: int = 1


def fault(text: str, rest: str = "", advice: str = SKIP) -> Fault:
    """A fault whose reason is `text`; `rest` follows where it is told in full."""
    return Fault(text, text + rest, advice)
