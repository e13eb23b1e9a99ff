"""What may come of any input, in one place: success, or one plain message; in time, in bounds, and in its folder."""

import faulthandler
import io
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis.strategies import SearchStrategy

from mtbert_jax.cli.main import main
from mtbert_jax.errors import LONGEST_MESSAGE, InputError

SECONDS = 5.0
"""Of all processor cores together: other processes of a busy machine do not count."""
BYTES = 2 * 2**30
PATIENCE = 20
"""Seconds of the clock after which a case that waits for something is interrupted; twice that ends the process."""
SLOW = 100
"""Cases from which on they differ from run to run."""


def fuzz(strategy: SearchStrategy[Any], case: Callable[[Any], None], cases: int) -> int:
    """Puts so many cases through `case`; few of them are always the same ones.

    Returns:
        How many there were: a strategy can run out.
    """
    count = 0

    def counted(given: Any) -> None:
        nonlocal count
        count += 1
        case(given)

    settings = hypothesis.settings(
        max_examples=cases,
        derandomize=cases < SLOW,
        deadline=None,
        database=None,
        print_blob=cases >= SLOW,
        verbosity=Verbosity.normal,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    settings(hypothesis.given(strategy)(counted))()
    return count


def outcome(door: Callable[[], object], place: Path, *names: str) -> str | None:
    """Opens a door of the library, and holds what comes of it against the rule.

    Args:
        door: What to call.
        place: The folder of this case: nothing may be written elsewhere.
        names: A message has one of these in it: files, fields.

    Returns:
        The message, or None where there was nothing to complain about.

    Raises:
        AssertionError: The rule is broken.
        Exception: Whatever else `door` raises.
    """
    message = None
    with guarded(place):
        try:
            door()
        except InputError as error:
            message = str(error)
    if message is not None:
        assert message.isprintable(), message
        assert 10 < len(message) <= LONGEST_MESSAGE + 20, message
        assert any(name in message for name in names), f"{message!r} has none of {names} in it"
    return message


def command(*argv: str) -> str:
    """Runs the command line in this process.

    Returns:
        What it printed on standard output.

    Raises:
        InputError: It ended with status 2; the message is the one line that it printed.
        AssertionError: It ended otherwise, or printed more.
    """
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([*argv])
    if status == 2:
        lines = err.getvalue().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("mtbert: "), lines
        raise InputError(lines[0].removeprefix("mtbert: "))
    assert status == 0, err.getvalue()
    return out.getvalue()


@contextmanager
def guarded(place: Path) -> Iterator[None]:
    """Fails a case that takes too long or too much memory, or changes a file that does not lie below `place`."""
    before = _neighbours(place)
    began = time.process_time()
    with _little_memory(), _not_for_ever(), _writing_below(place) as elsewhere:
        yield
    took = time.process_time() - began
    assert took < SECONDS, f"took {took:.1f} s"
    assert not elsewhere, f"wrote {elsewhere}"
    assert _neighbours(place) == before, f"changed what lies beside {place}"


def _neighbours(place: Path) -> dict[str, tuple[int, int]]:
    """What lies in the folder above: for what is not written by Python itself."""
    found = {}
    for path in place.parent.rglob("*"):
        if path != place and place not in path.parents:
            status = path.lstat()
            found[str(path)] = status.st_size, status.st_mtime_ns
    return found


@contextmanager
def _little_memory() -> Iterator[None]:
    """Allocations fail from `BYTES` on, on top of what this process has already."""
    limit = resource.getrlimit(resource.RLIMIT_DATA)
    has = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (has + BYTES, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limit)


@contextmanager
def _not_for_ever() -> Iterator[None]:
    """Interrupts Python after `PATIENCE`; what never comes back to Python ends the process, with a traceback."""

    def interrupt(*_: object) -> None:
        raise AssertionError(f"hangs for {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    faulthandler.dump_traceback_later(2 * PATIENCE, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_watched: Path | None = None
_elsewhere: list[str] = []
_CHANGES = {"os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_MOVES = {"os.rename", "os.link", "os.symlink"}  # from and to


@contextmanager
def _writing_below(place: Path) -> Iterator[list[str]]:
    """What Python changes that does not lie below `place`; the caches of compiled programs aside."""
    global _watched
    _install()
    _elsewhere.clear()
    _watched = place.resolve()
    try:
        yield _elsewhere
    finally:
        _watched = None


def _install() -> None:
    if not getattr(sys, "_fuzz_watches", False):
        sys.addaudithook(_watch)
        sys._fuzz_watches = True  # type: ignore[attr-defined]


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    paths: tuple[Any, ...] = ()
    if event == "open":
        paths = args[:1] if isinstance(args[2], int) and args[2] & _WRITES else ()
    elif event in _CHANGES:
        paths = args[:1]
    elif event in _MOVES:
        paths = args[1:2] if event == "os.symlink" else args[:2]
    for name in paths:
        if isinstance(name, str | bytes | os.PathLike):
            path = Path(os.path.realpath(os.fsdecode(name)))
            programs = "xla" in path.parts or "__pycache__" in path.parts or path == Path(os.devnull)
            if not programs and not path.is_relative_to(_watched):
                _elsewhere.append(f"{event} {path}")
