"""One process of an ablation: started, watched, stopped when this one is, and kept from running twice."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.text import Text

from mtbert_jax.ablation.cells import Cell, Together
from mtbert_jax.training.interrupt import Interruption

# Makes a log end with the error: lines in their order, and no remark of JAX's below it.
LAST_WORDS = {"PYTHONUNBUFFERED": "1", "JAX_TRACEBACK_FILTERING": "off"}
POLL = 0.2  # seconds between two looks at a running cell
TAIL = 4096  # bytes at the end of a log in which its last line is looked for


def has_accelerator() -> bool:
    """Whether JAX finds more than a CPU; asked in a process of its own, which lets go of the device again."""
    answer = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.default_backend())"], capture_output=True, text=True, check=False
    )
    return answer.returncode == 0 and answer.stdout.strip() != "cpu"


def run_cell(cell: Cell | Together, interruption: Interruption, console: Console) -> str:
    """Runs one cell to its end, or until a signal that came here, and was passed on, has stopped it.

    Returns:
        Nothing where the run is finished now, else what went wrong.
    """
    try:
        cell.folder.path.mkdir(parents=True, exist_ok=True)
        with cell.log.open("ab") as log:
            if not _lock(log):
                return "another process is still at work in this folder"
            start = log.tell()
            status = console.status(Text("")) if console.is_terminal else contextlib.nullcontext()
            with status as spinner:
                show = (lambda: spinner.update(Text(_last_line(cell.log, start)))) if spinner else None
                code = _wait(cell.command, log, interruption, show)
    except OSError as error:
        return str(error)
    if code == 0 and cell.finished:
        return ""
    if code == 0 and (changes := cell.changes()):
        return f"it was run with another config ({'; '.join(changes)}); has {cell.source} been edited meanwhile?"
    what = f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
    return f"{what}: {_last_line(cell.log, start)}"


def _wait(command: list[str], log: BinaryIO, interruption: Interruption, show: Callable[[], None] | None) -> int:
    """Runs a command to its end; a signal that comes meanwhile is passed on, once.

    The process gets a group of its own: of a Ctrl-C, which a terminal sends to the whole group, it sees just the one
    that is passed on.
    """
    with _process(command, log) as process:
        passed = False
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(POLL)
            if interruption.status is not None and not passed:
                process.send_signal(signal.SIGINT if interruption.status == 130 else signal.SIGTERM)
                passed = True
            if show:
                show()


@contextlib.contextmanager
def _process(command: list[str], log: BinaryIO) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 - this very program
        command,
        env={**os.environ, **LAST_WORDS},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:  # a second Ctrl-C: at once
            process.kill()
            process.wait()


def _lock(log: BinaryIO) -> bool:
    """Whether nobody else runs this cell; the lock is the log's, and so also the process's that prints into it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _last_line(path: Path, start: int) -> str:
    """The last line that is not empty, of what was printed after byte `start`."""
    with path.open("rb") as file:
        file.seek(max(start, path.stat().st_size - TAIL))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it printed nothing")
