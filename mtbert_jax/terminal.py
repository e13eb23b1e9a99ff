"""Tables on standard output, without colours where it is no terminal, by ``NO_COLOR``, and on dumb terminals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

WIDE = 1000  # columns where no terminal limits them
FEW = 4  # columns of a table that stays one however narrow the terminal is


def console() -> Console:
    """Standard output for tables, which nothing cuts off where it is no terminal."""
    made = Console(markup=False, highlight=False)
    if not made.is_terminal:
        made.width = WIDE
    return made


@dataclass(frozen=True)
class Grid:
    """A table of texts for a terminal; one paragraph for each row where a table of many columns is too wide for it."""

    table: Table
    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    left: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table or the paragraphs, by the width that there is."""
        needed = Measurement.get(console, options.update(max_width=WIDE), self.table).maximum
        if len(self.header) <= FEW or needed <= options.max_width:
            yield self.table
            return
        if self.table.title:
            yield Text(f"{self.table.title}:")
        for line in self.lines:
            told = (f"{name} {cell}" for name, cell in zip(self.header, line, strict=True) if cell not in ("", "0"))
            name, values = " ".join(line[: self.left]), list(told)[self.left :]
            yield Padding(Text(f"{name}: {', '.join(values) or 'none'}"), (0, 0, 0, 2))
        if self.table.caption:
            yield Text(f"{self.table.caption}", style="dim")
        yield Text("")


def grid(cells: Sequence[Sequence[str]], title: str = "", caption: str = "", left: int = 1) -> Grid:
    """A table of texts, the first row its header. The first `left` columns are words; the others end at the right."""
    header, *lines = cells
    table = Table(title=title and Text(title), caption=caption and Text(caption), title_justify="left")
    table.caption_justify = "left"
    for number, column in enumerate(header):
        table.add_column(Text(column), justify="left" if number < left else "right")
    for line in lines:
        table.add_row(*map(Text, line))
    return Grid(table, header, lines, left)


def number_text(value: float, digits: int = 4) -> str:
    """A score for a person.

    >>> number_text(0.5), number_text(float("nan"))
    ('0.5000', 'undefined')
    """
    return f"{value:.{digits}f}" if math.isfinite(value) else "undefined"


def scores_table(scores: dict[str, Any], title: str) -> Grid:
    """Scores by task and metric, and their averages."""
    cells = [["task", "metric", "value"]]
    for task, values in scores.items():
        rows = values.items() if isinstance(values, dict) else [("", values)]
        cells += [[task, metric, number_text(value)] for metric, value in rows]
    return grid(cells, title, left=2)
