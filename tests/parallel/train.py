"""Run in a process of its own: one run, or one process's part of it, that may be stopped after some steps.

python -m tests.parallel.train SPEC.json
"""

import contextlib
import json
import os
import sys
from pathlib import Path

import jax
from rich.console import Console

from mtbert_jax.config import load_config
from mtbert_jax.parallel import join_processes
from mtbert_jax.training.display import Display
from mtbert_jax.training.fit import fit
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.interrupt import Interrupted


class Quiet(Display):
    """Shows nothing; sends itself SIGTERM at a step of the run."""

    def __init__(self, at: int | None) -> None:
        super().__init__(Console(quiet=True))
        self.at = at

    def step(self, step: int) -> None:
        """Counts."""
        if step == self.at:
            os.kill(os.getpid(), 15)


def main(path: Path) -> None:
    """Trains as the file says."""
    spec = json.loads(path.read_text())
    jax.config.update("jax_num_cpu_devices", spec["devices"])
    join_processes(spec.get("coordinator"), spec.get("processes"), spec.get("process"))
    config = load_config(spec["config"])
    with contextlib.suppress(Interrupted):
        fit(config, RunFolder(Path(config.out)), "resume", Quiet(spec.get("stop_at")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
