"""What the command needs before anything else: its standard streams, and Ctrl-C while it starts and while it ends.

Imports take seconds, and no ``try`` of this library's is around them: whatever starts the command imports the package
first. So the package imports this file before all others, and Ctrl-C is one line and status 130, in place of a
traceback out of somebody's import, until `main` can catch what it raises, and once `main` is done.
A program that imports the library keeps its own Ctrl-C and its own streams.
"""

import codecs
import io
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
    try:
        os.write(2, b"mtbert: interrupted\n")
    finally:
        os._exit(130)


def started() -> None:
    """From here on Ctrl-C raises `KeyboardInterrupt` again."""
    if signal.getsignal(signal.SIGINT) is leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def done() -> None:
    """From here on Ctrl-C ends the process at once: what libraries do at their end is no matter for a traceback."""
    if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)


class Unheard(io.TextIOWrapper):
    """Standard error of which is dropped what nobody takes: a run outlives the terminal or pipe that it talks to."""

    def write(self, text: str) -> int:
        """As every stream, but without its `OSError`."""
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        """As every stream, but without its `OSError`."""
        try:
            super().flush()
        except OSError:
            return


def open_streams() -> None:
    """Standard streams that were closed lead nowhere, and standard error is `Unheard`.

    Python has None for those, and the next file to be opened would get the number of one: what a library in C writes to
    standard error would then stand in that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123
    given = sys.__stderr__  # which keeps open what both write to
    if isinstance(given, io.TextIOWrapper):
        sys.stderr = Unheard(given.buffer, given.encoding, given.errors, line_buffering=True)


def escape_what_cannot_be_printed() -> None:
    """Characters that the encoding of standard output lacks are printed as JSON escapes them.

    So JSON Lines stay JSON Lines, in an ASCII locale and of texts with half of a surrogate pair.
    """
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        codecs.register_error("json", _as_json)
        reconfigure(errors="json")


def _as_json(error: UnicodeError) -> tuple[str, int]:
    import json  # here, since this file is imported before all others

    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


if is_command():
    open_streams()
if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell may have it ignored
    signal.signal(signal.SIGINT, leave)
