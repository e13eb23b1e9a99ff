"""An ablation from its runs to its table."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from mtbert_jax.ablation.planned import PlannedRun, jobs, moved, table
from mtbert_jax.ablation.processes import share_cores, work
from mtbert_jax.results.differences import Difference, differences
from mtbert_jax.results.rows import Row
from mtbert_jax.results.tables import check_tables, write_tables
from mtbert_jax.training.display import clock_text
from mtbert_jax.training.interrupt import Interrupted, Interruption


class AblationResult(NamedTuple):
    """How an ablation ended: the table, what rows are better by than others, and one line for every run that failed."""

    rows: list[Row]
    gains: list[Difference]
    failed: list[str]


def execute(
    runs: Sequence[PlannedRun],
    out: Path,
    console: Console | None = None,
    together: bool = False,
    at_once: int = 1,
    against: Sequence[str] = (),
) -> AblationResult:
    """Runs what is not finished yet; the tables in `out` are written anew after every run.

    Args:
        runs: As `plan_runs` gives them.
        out: The tables' folder.
        console: Where progress is shown; standard error if left out.
        together: Train all seeds of a config in one process.
        at_once: How many processes run at the same time, each on its share of the CPU's cores.
        against: Configs that the table sets the others beside.

    Raises:
        InputError: There are fewer cores than `at_once`, or files of others stand where the tables go.
        Interrupted: A signal came; the runs at work have had it too, and have ended.
    """
    check_tables(out)
    console, shares = console or Console(stderr=True), share_cores(at_once)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    unfinished = [run for run in runs if not run.finished]
    if len(unfinished) < len(runs):
        say(f"{len(runs) - len(unfinished)} of {len(runs)} runs are finished already")
    todo = jobs(unfinished, together)
    for run in runs:
        for line in moved(run):
            say(f"{run}: {line}; taken for the same, elsewhere")

    def tabulated() -> tuple[list[Row], list[Difference]]:
        rows = table(runs)
        gains = differences(rows, against)
        write_tables(rows, out, gains)
        return rows, gains

    tables, failed, left = None, [], len(todo)
    status = console.status(Text("")) if console.is_terminal else contextlib.nullcontext()
    with Interruption() as interruption, status as spinner:
        show = (lambda lines: spinner.update(Text("\n  ".join(lines)))) if spinner else None
        events = work(todo, shares, interruption, show)
        with contextlib.closing(events):  # its processes end with it
            for event in events:
                name = f"[{event.number}/{len(todo)}] {event.run}"
                if event.seconds is None:
                    say(f"{name}: started, log in {event.run.log}")
                    continue
                took = clock_text(event.seconds)
                if event.trouble and interruption.status is not None:
                    say(f"{name}: interrupted after {took}")
                    continue
                left -= 1
                if event.trouble:
                    say(f"{name}: failed after {took}: {event.trouble}")
                    failed.append(f"{event.run} failed: {event.trouble} (log: {event.run.log})")
                else:
                    say(f"{name}: finished after {took}")
                    tables = tabulated()
    if left:
        raise Interrupted(interruption.status or 0)
    return AblationResult(*(tables or tabulated()), failed)
