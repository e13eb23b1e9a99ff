"""The processes of an ablation: started, watched, stopped when this one is, and kept from running twice."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from mtbert_jax.ablation.planned import PlannedRun, SeedGroup
from mtbert_jax.errors import InputError
from mtbert_jax.files import lock_file
from mtbert_jax.machine import own_cores
from mtbert_jax.training.interrupt import Interruption

# Makes a log end with the error: lines in their order, and no remark of JAX's below it.
LAST_WORDS = {"PYTHONUNBUFFERED": "1", "JAX_TRACEBACK_FILTERING": "off"}
POLL = 0.2  # seconds between two looks at a running process
TAIL = 4096  # bytes at the end of a log in which its last line is looked for


def has_accelerator() -> bool:
    """Whether JAX finds more than a CPU; asked in a process of its own, which lets go of the device again."""
    answer = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.default_backend())"], capture_output=True, text=True, check=False
    )
    return answer.returncode == 0 and answer.stdout.strip() != "cpu"


def share_cores(among: int) -> list[tuple[int, ...]]:
    """This process's CPU cores in so many shares, of which none is larger than another by more than one.

    One share is empty, which stands for all of them; so are all where the system does not bind processes to cores.
    """
    if among < 1:
        raise InputError(f"--at-once {among}: must be at least 1")
    cores = own_cores()
    if among == 1 or not cores:
        return [()] * among
    if len(cores) < among:
        raise InputError(f"--at-once {among}: there are {len(cores)} CPU cores, and each process needs one")
    ends = [round(place * len(cores) / among) for place in range(among + 1)]
    return [tuple(cores[start:end]) for start, end in pairwise(ends)]


class Event(NamedTuple):
    """A process begins, or has ended after so many seconds, perhaps in trouble; runs are numbered from 1."""

    number: int
    run: PlannedRun | SeedGroup
    seconds: float | None = None
    trouble: str = ""


def work(
    runs: Sequence[PlannedRun | SeedGroup],
    shares: Sequence[tuple[int, ...]],
    interruption: Interruption,
    show: Callable[[list[str]], None] | None = None,
) -> Generator[Event, None, None]:
    """Takes runs to their ends, or until a signal that came here, and was passed on, has stopped them.

    As many run at the same time as there are `shares` of cores. `show` gets the last lines of all that run.
    """
    free, waiting = list(shares), list(enumerate(runs, start=1))
    with contextlib.ExitStack() as stack:
        running: list[_Process] = []
        while running or (waiting and interruption.status is None):
            while waiting and interruption.status is None and free:
                number, run = waiting.pop(0)
                yield Event(number, run)
                try:
                    running.append(stack.enter_context(_Process(number, run, free[0])))
                    free.pop(0)
                except OSError as error:
                    yield Event(number, run, 0.0, str(error))
            for process in list(running):
                if process.wait(POLL / len(running)):
                    running.remove(process)
                    free.append(process.cores)
                    yield Event(process.number, process.run, time.monotonic() - process.since, process.trouble())
                elif interruption.status is not None:
                    process.stop(interruption.status)
            if show:
                show([process.last_line() for process in running])


class _Process:
    """A run at work. As a context, it leaves nothing running.

    It has a process group of its own: of a Ctrl-C, which a terminal sends to the whole group, it sees just the one that
    is passed on.
    """

    def __init__(self, number: int, run: PlannedRun | SeedGroup, cores: tuple[int, ...]) -> None:
        """Starts it, on the given CPU cores, or on all if there are none; `OSError` if it cannot be started."""
        self.number, self.run, self.cores, self.since = number, run, cores, time.monotonic()
        self._signalled = False
        run.folder.path.mkdir(parents=True, exist_ok=True)
        with run.log.open("ab") as log:
            if not lock_file(log):  # the process that prints into it then holds it, too
                raise BlockingIOError("another process is still at work in this folder")
            self._start = log.tell()
            with _on(cores):
                self._process = subprocess.Popen(  # noqa: S603 - this very program
                    run.command,
                    env={**os.environ, **LAST_WORDS},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:  # a second Ctrl-C: at once
            self._process.kill()
            self._process.wait()

    def stop(self, status: int) -> None:
        """Passes a signal on, once: the one that asks for this exit status."""
        if not self._signalled:
            self._process.send_signal(signal.SIGINT if status == 130 else signal.SIGTERM)
            self._signalled = True

    def wait(self, seconds: float) -> bool:
        """Whether it ends within so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def trouble(self) -> str:
        """Of one that has ended: nothing where the run is finished now, else what went wrong."""
        code, run = self._process.returncode, self.run
        if code == 0 and run.finished:
            return ""
        if code == 0 and (changes := run.changes()):
            return f"it was run with another config ({'; '.join(changes)}); has {run.source} been edited meanwhile?"
        what = f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        return f"{what}: {self.last_line()}"

    def last_line(self) -> str:
        """The last line that is not empty, of what it has printed."""
        try:
            with self.run.log.open("rb") as file:
                file.seek(max(self._start, self.run.log.stat().st_size - TAIL))
                lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
        except OSError as error:  # somebody has deleted it
            return f"its log cannot be read: {error.strerror or error}"
        return next((line for line in reversed(lines) if line), "it printed nothing")


@contextlib.contextmanager
def _on(cores: tuple[int, ...]) -> Iterator[None]:
    """Binds this thread to some CPU cores, if there are any: what it starts meanwhile is bound to them from birth."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
