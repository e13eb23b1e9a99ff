"""Progress for a person: a live line on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from mtbert_jax.config import TaskConfig
from mtbert_jax.machine import working_seconds
from mtbert_jax.tasks import primary_metric
from mtbert_jax.tasks.scores import AVERAGES
from mtbert_jax.terminal import number_text
from mtbert_jax.training.records import Record

ROOMY = 110  # columns of a terminal with room for a bar and the time since the start
GAP = "  "


class Display:
    """Progress for a person: one live line on a terminal, or several where it is narrow; plain lines elsewhere.

    A narrow terminal has no bar, and what matters first: the step, the time left, and the losses.
    """

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self._console = console or Console(file=sys.stderr, highlight=False, soft_wrap=True, quiet=quiet)
        self._progress: Progress | None = None
        self._total = 0
        self._shown = (0, 0.0)

    def start(self, stage: str, step: int, total: int) -> None:
        """Begins a stage that is at `step` of `total`."""
        self.stop()
        self._total = total
        self._shown = (step, working_seconds())
        if self._console.is_terminal and not self._console.is_dumb_terminal:  # which shows a bar at its end only
            stage_name = TextColumn("{task.description}", markup=False)
            text = TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True))
            columns: list[ProgressColumn] = [SpinnerColumn(), stage_name, text]
            if self._roomy:
                columns = [SpinnerColumn(), stage_name, BarColumn(20), text, TimeElapsedColumn()]
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
        self._write(stage, step, _losses(losses))

    def show(self, stage: str, record: Record, step: int) -> None:
        """Shows a training record; `step` counts from the stage's first."""
        before, since = self._shown
        self._shown = (step, working_seconds())
        left = (self._shown[1] - since) / max(step - before, 1) * (self._total - step)
        losses = _losses(record["loss"])
        losses += [f"{task} left out {n}×" for task, n in record.get("left_out", {}).items()]
        rate, rest = f"{record['examples_per_second']:.0f} ex/s", f"{clock_text(left)} left"
        narrow = self._progress and not self._roomy
        self._write(stage, step, [rest, *losses, rate] if narrow else [rate, rest, *losses])

    @property
    def _roomy(self) -> bool:
        return self._console.width >= ROOMY

    def _write(self, stage: str, step: int, parts: Sequence[str]) -> None:
        parts = [f"step {step}/{self._total}", *parts]
        if not self._progress:
            self.say(f"{stage}: {GAP.join(parts)}")
            return
        beside = len("⠋ ") + len(stage) + 1 + (len("0:00:00 ") + 21 if self._roomy else 0)
        self._progress.update(self._bar, completed=step, text=folded(parts, self._console.width - beside))

    def say(self, text: str) -> None:
        """One line, above the bar where there is one; a terminal's lines break between words."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=not self._console.is_terminal)

    def stop(self) -> None:
        """Takes the bar away."""
        if self._progress:
            self._progress.stop()
            self._progress = None


def _losses(losses: Mapping[str, float]) -> list[str]:
    """Each task's loss, the first with the word in front."""
    listed = [f"{task} {value:.3f}" for task, value in losses.items()]
    return [f"loss {listed[0]}", *listed[1:]] if listed else []


def folded(parts: Sequence[str], width: int) -> str:
    r"""Parts beside each other, on as many lines as they need.

    >>> folded(["step 8/32", "0:30 left", "loss sst 1.6", "sts 4.1"], 24)
    'step 8/32  0:30 left\nloss sst 1.6  sts 4.1'
    """
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}{GAP}{part}" if lines[-1] else part
        if lines[-1] and len(longer) > width:
            lines.append(part)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def clock_text(seconds: float) -> str:
    """Minutes and seconds, and hours where there are any.

    >>> clock_text(67.4), clock_text(7384)
    ('1:07', '2:03:04')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def scores_line(scores: dict[str, Any], tasks: Sequence[TaskConfig], which: str = AVERAGES[0]) -> str:
    """``sst accuracy 0.512  sts pearson undefined  average undefined``: primary metrics, and the paper's average.

    So is `which`, the score that the best checkpoint is chosen by, where it is none of them.
    """
    shown = [(task.name, primary_metric(task).name) for task in tasks if task.name in scores]
    name, _, metric = which.partition(".")
    if metric and name in scores and (name, metric) not in shown:
        shown.append((name, metric))
    parts = [f"{task} {metric} {number_text(scores[task][metric], 3)}" for task, metric in shown]
    averages = [own for own in AVERAGES if own in (AVERAGES[0], which)]
    return "  ".join([*parts, *(f"{own.replace('_', ' ')} {number_text(scores[own])}" for own in averages)])
