"""An ablation from its cells to its table."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from mtbert_jax.ablation.cells import Cell, jobs, moved, table
from mtbert_jax.ablation.processes import run_cell
from mtbert_jax.report.rows import Row
from mtbert_jax.report.tables import write_tables
from mtbert_jax.training.interrupt import Interrupted, Interruption
from mtbert_jax.training.records import clock_text


class Outcome(NamedTuple):
    """How an ablation ended.

    Attributes:
        rows: The table.
        failed: One line for every cell that failed.
    """

    rows: list[Row]
    failed: list[str]


def run(cells: Sequence[Cell], out: Path, console: Console | None = None, together: bool = False) -> Outcome:
    """Runs what is not finished yet; the tables in `out` are written anew after every run.

    Args:
        cells: As `plan` gives them.
        out: The tables' folder.
        console: Where progress is shown; standard error if left out.
        together: Train all seeds of a config in one process.

    Raises:
        Interrupted: A signal came; the running cell has had it too, and has ended.
    """
    console = console or Console(stderr=True)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    unfinished = [cell for cell in cells if not cell.finished]
    if len(unfinished) < len(cells):
        say(f"{len(cells) - len(unfinished)} of {len(cells)} runs are finished already")
    todo = jobs(unfinished, together)
    for cell in cells:
        for line in moved(cell):
            say(f"{cell}: {line}; taken for the same, elsewhere")
    rows, failed = None, []
    with Interruption() as interruption:
        for number, job in enumerate(todo, start=1):
            if interruption.status is not None:
                raise Interrupted(interruption.status)
            place = f"[{number}/{len(todo)}] {job}"
            say(f"{place}: started, log in {job.log}")
            since = time.monotonic()
            trouble = run_cell(job, interruption, console)
            took = clock_text(time.monotonic() - since)
            if not trouble:
                say(f"{place}: finished after {took}")
                rows = table(cells)
                write_tables(rows, out)
            elif interruption.status is None:
                say(f"{place}: failed after {took}: {trouble}")
                failed.append(f"{job} failed: {trouble} (log: {job.log})")
            else:
                say(f"{place}: interrupted after {took}")
                raise Interrupted(interruption.status)
    if rows is None:
        rows = table(cells)
        write_tables(rows, out)
    return Outcome(rows, failed)
