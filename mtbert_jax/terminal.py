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
FEW = 4  # columns of a table whose cells may break between words


def console() -> Console:
    """Standard output for tables, which nothing cuts off where it is no terminal."""
    made = Console(markup=False, highlight=False)
    if not made.is_terminal:
        made.width = WIDE
    return made


@dataclass(frozen=True)
class Grid:
    """A table of texts for a terminal; one paragraph for each row where it is too wide for it.

    Attributes:
        cells: The rows, the first one the header.
        title: Stands above.
        caption: Stands below.
        left: How many columns are words, from the first on; the others end at the right.
    """

    cells: Sequence[Sequence[str]]
    title: str = ""
    caption: str = ""
    left: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table or the paragraphs, by the width that there is."""
        (header, *lines), table = self.cells, self._table()
        least, most = Measurement.get(console, options.update(max_width=WIDE), table)
        if (least if len(header) <= FEW else most) <= options.max_width:
            yield table
            return
        if self.title:
            yield Text(f"{self.title}:")
        for line in lines:
            pairs = list(zip(header, line, strict=True))[self.left :]
            told = ", ".join(f"{name} {cell}" for name, cell in pairs if cell not in ("", "0"))
            yield Padding(Text(f"{' '.join(filter(None, line[: self.left]))}: {told or 'none'}"), (0, 0, 0, 2))
        if self.caption:
            yield Text(self.caption, style="dim")
        yield Text("")

    def _table(self) -> Table:
        header, *lines = self.cells
        table = Table(title=self.title and Text(self.title), caption=self.caption and Text(self.caption))
        table.title_justify = table.caption_justify = "left"
        for number, column in enumerate(header):
            table.add_column(Text(column), justify="left" if number < self.left else "right")
        for line in lines:
            table.add_row(*map(Text, line))
        return table


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
    return Grid(cells, title, left=2)
