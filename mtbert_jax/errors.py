"""What a user got wrong, and what stopped a run: errors whose message is one printable line."""

from types import TracebackType

LONGEST_MESSAGE = 1000
"""Characters; what is longer quotes somebody's file at length, and is cut in the middle."""


def plain(text: str) -> str:
    r"""One printable line: all else is escaped, so that nothing a message quotes can move a cursor or turn text round.

    >>> plain("no column '\x1b[2J\u202e'\nat all")
    "no column '\\x1b[2J\\u202e'\\nat all"
    """
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[: LONGEST_MESSAGE // 2]} ... {text[-(LONGEST_MESSAGE // 2) :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class _PlainError(Exception):
    """An error whose message is made plain, whatever it quotes."""

    def __init__(self, message: str) -> None:
        super().__init__(plain(message))


class InputError(_PlainError):
    """Something the user gave is wrong.

    The message is one line that names the file, line or field and says what would be right. The command
    line prints it without a traceback and exits with status 2.
    """


class TrainingError(_PlainError):
    """Training, or another command, cannot go on, for reasons that show on the way only, such as a full disk.

    The message is one line. The command line prints it without a traceback and exits with status 1.
    """


PLAIN = (InputError, TrainingError)


class failures_of:  # noqa: N801 - it stands in a ``with``, as functions of contextlib do
    """Inside a ``with``, whatever somebody's own code raises becomes an `InputError` that names it.

    A class, since the rows of a file go through it one by one, and a generator takes three times as long.

    Args:
        what: What is called, such as ``kind 'binary': parse``.
        passed: Errors that come out as they are, beside those whose message is one line already.
    """

    __slots__ = ("passed", "what")

    def __init__(self, what: str, *passed: type[Exception]) -> None:
        self.what, self.passed = what, passed

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        # To leave the program is not its affair, either; Ctrl-C is the user's.
        if isinstance(error, (Exception, SystemExit)) and not isinstance(error, (*self.passed, *PLAIN)):
            raise InputError(f"{self.what}: {type(error).__name__}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    r"""What an error says, in one line; its kind where it says nothing.

    >>> first_line(ValueError("sizes differ:\n  2 and 3\nelsewhere"))
    'sizes differ: 2 and 3'
    """
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return " ".join(map(str.strip, lines[:2])) if lines[0].endswith(":") else lines[0]
