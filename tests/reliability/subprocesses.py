"""Processes of the command line that start at once: one process imports it and then forks, on demand, such as run it.

    python -m tests.reliability.subprocesses

reads jobs as JSON lines and answers each with two lines: the process's number, and its exit status once it has ended.
"""

import json
import os
import resource
import select
import subprocess
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Job:
    """One process of the command line.

    Attributes:
        args: What `mtbert` is given.
        log: File that its output is appended to.
        batches: File to which a line is appended for each batch that it gathers: stage, step and a sum of the rows.
        folder: With `fault`, operations on files below this folder are counted.
        fault: Number of the operation that fails as if the disk were full, and with it all that follow; 0 for none.
        file_limit: Bytes after which no file can grow; 0 for no limit.
        cores: Cores that it may use; 0 for all.
        environment: Variables of its own.
    """

    args: Sequence[str]
    log: str
    batches: str = ""
    folder: str = ""
    fault: int = 0
    file_limit: int = 0
    cores: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)


class Child:
    """A process that the fork server started."""

    def __init__(self, lines: Any) -> None:
        self._lines = lines
        self.pid = int(lines.readline())
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status, or minus the signal that ended it; None while it runs."""
        if self._status is None and select.select([self._lines], [], [], 0)[0]:
            self._status = int(self._lines.readline())
        return self._status

    def wait(self, seconds: float = 120.0) -> int:
        """Waits for its exit status.

        Raises:
            TimeoutError: It hangs.
        """
        deadline = time.monotonic() + seconds
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, 9)
                raise TimeoutError(f"a process did not end within {seconds} s")
            time.sleep(0.002)
        return status

    def kill(self) -> None:
        """Ends it by SIGKILL, unless it has just ended by itself."""
        if self.poll() is None:
            os.kill(self.pid, 9)
            self.wait()


class ForkServer:
    """Starts jobs, one at a time."""

    def __init__(self, cache: Path) -> None:
        # JAX keeps compiled programs there, also such as took no time.
        keep = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.subprocesses"],
            cwd=ROOT,
            env={**os.environ, **keep},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()

    def start(self, job: Job) -> Child:
        """Starts a job; the one before must have ended."""
        self._process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")  # type: ignore[union-attr]
        return Child(self._process.stdout)


def serve() -> None:
    """Imports the command line, then forks a process for every job."""
    from mtbert_jax.cli.main import main

    for line in sys.stdin:
        job = Job(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            become(job)
            sys.exit(main(list(job.args)))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def become(job: Job) -> None:
    """Makes this process the job's own: its output, and what is watched or fails in it."""
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
        os.dup2(os.open(path, flags), number)
    os.dup2(1, 2)
    os.environ.update(job.environment)
    if job.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.cores])
    if job.batches:
        note_batches(job.batches)
    if job.fault:
        fail_from(job.fault, job.folder)
    if job.file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.file_limit, job.file_limit))


def note_batches(file: str) -> None:
    """Writes down which rows every batch holds."""
    from mtbert_jax.training.active import ActiveRun

    gather = ActiveRun.gather

    def noting(run: Any, step: int) -> Any:
        stage, tasks = run.progress.stage, run.batches.tasks
        rows = {name: tasks[name].rows(k)[0].tolist() for name, k in run.batches.indices(step).items()}
        with Path(file).open("a", encoding="utf-8") as lines:
            lines.write(f"{stage} {step} {zlib.crc32(json.dumps(rows).encode())}\n")
        return gather(run, step)

    ActiveRun.gather = noting  # type: ignore[method-assign]


def fail_from(number: int, folder: str) -> None:
    """From the operation `number` on, every one that would change a file below `folder` fails: the disk is full."""
    done = 0
    changing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal done
        if event == "open":
            changes = isinstance(args[2], int) and bool(args[2] & changing)
        else:
            changes = event in ("os.mkdir", "os.rename")
        if changes and isinstance(args[0], str | bytes | os.PathLike) and os.fsdecode(args[0]).startswith(folder):
            done += 1
            if done >= number:
                raise OSError(28, os.strerror(28), os.fsdecode(args[0]))

    sys.addaudithook(hook)


if __name__ == "__main__":
    serve()
