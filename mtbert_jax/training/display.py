"""Progress for a person: a live line on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mtbert_jax.config import TaskConfig
from mtbert_jax.tasks import primary_metric
from mtbert_jax.terminal import number_text
from mtbert_jax.training.records import Record


class Display:
    """Progress for a person: one live line on a terminal, a plain line per record elsewhere."""

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self._console = console or Console(file=sys.stderr, highlight=False, soft_wrap=True, quiet=quiet)
        self._progress: Progress | None = None
        self._total = 0
        self._shown = (0, 0.0)

    def start(self, stage: str, step: int, total: int) -> None:
        """Begins a stage that is at `step` of `total`."""
        self.stop()
        self._total = total
        self._shown = (step, time.monotonic())
        if self._console.is_terminal:
            stage_name, text = TextColumn("{task.description}"), TextColumn("{task.fields[text]}")
            columns = (SpinnerColumn(), stage_name, BarColumn(20), text, TimeElapsedColumn())
            self._progress = Progress(*columns, console=self._console)
            self._bar = self._progress.add_task(stage, total=total, completed=step, text="compiling …")
            self._progress.start()

    def compiling(self, stage: str) -> None:
        """Says that the programs of a stage are being compiled; a bar says so from its start."""
        if not self._progress:
            self.say(f"{stage}: compiling …")

    def step(self, step: int) -> None:
        """Moves the bar."""
        if self._progress:
            self._progress.update(self._bar, completed=step)

    def show_losses(self, stage: str, losses: Mapping[str, float], step: int) -> None:
        """Shows the losses of a single step, before there is a record; `step` counts from the stage's first."""
        self._write(stage, step, f"loss {_listed(losses)}")

    def show(self, stage: str, record: Record, step: int) -> None:
        """Shows a training record; `step` counts from the stage's first."""
        before, since = self._shown
        self._shown = (step, time.monotonic())
        left = (self._shown[1] - since) / max(step - before, 1) * (self._total - step)
        losses = _listed(record["loss"])
        losses += "".join(f"  {task} left out {n}×" for task, n in record.get("left_out", {}).items())
        rate = f"{record['examples_per_second']:.0f} ex/s"
        self._write(stage, step, f"{rate}  {clock_text(left)} left  loss {losses}")

    def _write(self, stage: str, step: int, text: str) -> None:
        text = f"step {step}/{self._total}  {text}"
        if self._progress:
            self._progress.update(self._bar, completed=step, text=text)
        else:
            self.say(f"{stage}: {text}")

    def say(self, text: str) -> None:
        """One line, above the bar where there is one."""
        self._console.print(text, markup=False, highlight=False)

    def stop(self) -> None:
        """Takes the bar away."""
        if self._progress:
            self._progress.stop()
            self._progress = None


def _listed(losses: Mapping[str, float]) -> str:
    return "  ".join(f"{task} {value:.3f}" for task, value in losses.items())


def clock_text(seconds: float) -> str:
    """Minutes and seconds, and hours where there are any.

    >>> clock_text(67.4), clock_text(7384)
    ('1:07', '2:03:04')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def scores_line(scores: dict[str, Any], tasks: Sequence[TaskConfig]) -> str:
    """``sst accuracy 0.512  sts pearson undefined  average undefined``: primary metrics, and the paper's average."""
    primary = [(task.name, primary_metric(task).name) for task in tasks if task.name in scores]
    parts = [f"{task} {metric} {number_text(scores[task][metric], 3)}" for task, metric in primary]
    return "  ".join([*parts, f"average {number_text(scores['average'])}"])
