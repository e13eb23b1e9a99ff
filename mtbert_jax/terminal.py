"""Tables on standard output, without colours where it is no terminal, by ``NO_COLOR``, and on dumb terminals."""

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 1000  # columns where no terminal limits them


def console() -> Console:
    """Standard output for tables, which nothing cuts off where it is no terminal."""
    made = Console(markup=False, highlight=False)
    if not made.is_terminal:
        made.width = WIDE
    return made


def grid(cells: Sequence[Sequence[str]], title: str = "", caption: str = "", left: int = 1) -> Table:
    """A table of texts, the first row its header. The first `left` columns are words; the others end at the right."""
    header, *lines = cells
    table = Table(title=title and Text(title), caption=caption and Text(caption), title_justify="left")
    table.caption_justify = "left"
    for number, column in enumerate(header):
        table.add_column(Text(column), justify="left" if number < left else "right")
    for line in lines:
        table.add_row(*map(Text, line))
    return table


def number_text(value: float, digits: int = 4) -> str:
    """A score for a person.

    >>> number_text(0.5), number_text(float("nan"))
    ('0.5000', 'undefined')
    """
    return f"{value:.{digits}f}" if math.isfinite(value) else "undefined"


def scores_table(scores: dict[str, Any], title: str) -> Table:
    """Scores by task and metric, and their averages."""
    cells = [["task", "metric", "value"]]
    for task, values in scores.items():
        rows = values.items() if isinstance(values, dict) else [("", values)]
        cells += [[task, metric, number_text(value)] for metric, value in rows]
    return grid(cells, title, left=2)
