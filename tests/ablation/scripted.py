"""Runs that run a little script instead of training."""

import io
import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mtbert_jax.ablation.execute import AblationResult, execute
from mtbert_jax.ablation.planned import PlannedRun
from mtbert_jax.config import Config

ROOT = Path(__file__).parents[2]
FINISH = """
    (folder / 'config.toml').write_text('')
    (folder / 'results.json').write_text('{"seed": 0, "seconds": 5.0}')
"""


@dataclass(frozen=True)
class Scripted(PlannedRun):
    """A run that runs a little script instead of training; `folder` is its folder there."""

    script: str = ""

    @property
    def command(self) -> list[str]:
        start = f"import os, pathlib, signal, sys, time\nfolder = pathlib.Path({self.config.out!r})\n"
        return [sys.executable, "-S", "-c", start + textwrap.dedent(self.script)]


def scripted(out: Path, name: str, script: str = FINISH, seed: int = 0) -> Scripted:
    config = Config(seed=seed, out=str(out / name / f"seed{seed}"))
    return Scripted(Path(f"{name}.toml"), config, script=script)


def quietly(runs: list[Scripted], out: Path, at_once: int = 1) -> tuple[AblationResult, list[str]]:
    """Runs the runs; also what was said."""
    console = Console(file=io.StringIO(), width=10)  # lines are not cut, however narrow
    outcome = execute(runs, out, console, at_once=at_once)
    assert isinstance(console.file, io.StringIO)
    return outcome, re.sub(r"\d+:\d\d\b", "a while", console.file.getvalue()).splitlines()
