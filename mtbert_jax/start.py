"""Ctrl-C while the command starts: one line and status 130, in place of a traceback out of somebody's import.

Imports take seconds, and no ``try`` of this library's is around them: whatever starts the command imports the package
first. So the package imports this file before all others, and `main` takes over once it can catch what Ctrl-C raises.
A program that imports the library keeps its own Ctrl-C.
"""

import os
import signal
import sys
from types import FrameType


def is_command() -> bool:
    """Whether this is ``mtbert`` or ``python -m mtbert_jax``, rather than a program that imports the library."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""  # noqa: PTH119 - pathlib is an import, too
    return name in ("mtbert", "mtbert.exe") or (name == "-m" and _after_m() == "mtbert_jax")


def _after_m() -> str:
    """The module that Python was told to run; while that is imported, its name stands nowhere else."""
    return next((after for flag, after in zip(sys.orig_argv, sys.orig_argv[1:], strict=False) if flag == "-m"), "")


def leave(_: int, __: FrameType | None) -> None:
    """Ends the process at once: an exception would run through imports, some of which make others of it."""
    os.write(2, b"mtbert: interrupted\n")
    os._exit(130)


def started() -> None:
    """From here on Ctrl-C raises `KeyboardInterrupt` again."""
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell may have it ignored
    signal.signal(signal.SIGINT, leave)
