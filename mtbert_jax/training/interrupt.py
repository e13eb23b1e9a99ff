"""SIGTERM, Ctrl-C and a terminal that is closed: finish the step, save, then go."""

import signal
import threading
from types import FrameType


class Interrupted(Exception):  # noqa: N818 - it is no error
    """The run was asked to stop, and has saved itself.

    Attributes:
        status: The exit status that this asks for: 0 after SIGTERM or SIGHUP, 130 after Ctrl-C.
    """

    def __init__(self, status: int) -> None:
        super().__init__("interrupted")
        self.status = status


SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
"""Those that ask a run to stop; Windows has no SIGHUP, which comes when a terminal is closed."""


class Interruption:
    """Catches these signals inside a ``with``; a second Ctrl-C stops at once, and what ``nohup`` ignores stays so.

    `status` is None until a signal comes, then the exit status that it asks for.
    """

    status: int | None = None

    def __enter__(self) -> "Interruption":
        # Python lets only the main thread set handlers; elsewhere a run goes on uninterruptible.
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            heeded = [s for s in SIGNALS if s.name != "SIGHUP" or signal.getsignal(s) != signal.SIG_IGN]
            self._before = {s: signal.signal(s, self._note) for s in heeded}
        return self

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.status == 130 and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.status = 130 if number == signal.SIGINT else 0

    def __exit__(self, *_: object) -> None:
        if self._main:
            for number, handler in self._before.items():
                signal.signal(number, handler)
