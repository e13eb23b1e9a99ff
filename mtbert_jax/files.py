"""Files: checked paths, whole writes, locks, the user's cache folder. ``must_…`` raises `InputError`."""

import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

from mtbert_jax.errors import InputError, TrainingError
from mtbert_jax.limits import LARGEST_JSON, MEBIBYTE

FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EIO") if hasattr(errno, name))
"""What a full or failing disk says, which is nobody's input."""


@contextmanager
def input_errors(what: str) -> Iterator[None]:
    """An `OSError` inside becomes an `InputError`: what could not be done, and the system's reason.

    A full disk makes a `TrainingError` of it.
    """
    try:
        yield
    except OSError as error:
        raise (TrainingError if error.errno in FULL else InputError)(f"{what}: {error.strerror or error}") from None


def real(path: Path) -> Path:
    """Where a path leads, ``..`` and links followed; `InputError` where it cannot be the path of a file."""
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:  # a NUL
        raise InputError(f"{path} is no path: {error}") from None


def is_folder(path: str | Path) -> bool:
    """Whether a folder lies there; no is the answer for what cannot be a path, too."""
    return os.path.isdir(Path(path))  # noqa: PTH112 - Path's own raises where a name is too long


def must_lie_in(folder: Path, path: Path, remedy: str = "") -> None:
    """Refuses a path that leads out of its folder by ``..`` or a link; `remedy` ends the message.

    The folder, with which the path begins, may lie anywhere, and be a link itself.
    """
    place = real(path)
    if not place.is_relative_to(real(folder)):
        raise InputError(f"{path} leads out of {folder}, to {place}{remedy and '; '}{remedy}")


def must_not_begin_at_home(where: str, path: str | Path) -> None:
    """Refuses ``~``, which only shells read, and not in ``--out=~/runs``; `where` names the path."""
    if Path(path).parts[:1] == ("~",):
        raise InputError(f"{where}: ~ does not stand for the home folder here; write the whole path")


def must_be_file(path: Path, whose: str = "") -> None:
    """Refuses what is there and no file that can be read: a pipe would be waited for, a device might never end.

    A link to nowhere is there, too: whoever put it there meant the file to be read.
    """
    with input_errors(f"cannot read {path}"):  # a name that is too long, links in a circle
        there = path.exists()
        wrong = "is no file" if there and not path.is_file() else ""
        if not there and path.is_symlink():
            wrong = f"is a link to {path.readlink()}, where no file lies"
    if wrong:
        raise InputError(f"{path}{whose and ', '}{whose}{whose and ','} {wrong}")
    if there and not os.access(path, os.R_OK):
        raise InputError(f"cannot read {path}: {os.strerror(errno.EACCES)}")


def must_hold_files(folder: Path, arrays: str = "") -> None:
    """Refuses a folder with anything below it but files and folders, or with a file that is larger than makes sense.

    Whoever opens all that lies there would follow links out of it, wait for pipes, and read without an end. The folder
    may be a link itself, or missing; files in folders named `arrays` may be as large as they like.
    """
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place) / name
            try:
                status = path.lstat()
            except OSError:  # deleted meanwhile
                continue
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                raise InputError(f"{path} is neither a file nor a folder; nothing else may lie in {folder}")
            if stat.S_ISREG(status.st_mode) and status.st_size > LARGEST_JSON and path.parent.name != arrays:
                raise InputError(f"{path} is larger than {LARGEST_JSON // MEBIBYTE} MiB")


_NO_TEXT = {
    b"\xff\xfe": "is not UTF-8 text (byte 0): it begins as UTF-16 does; save it as UTF-8",
    b"\xfe\xff": "is not UTF-8 text (byte 0): it begins as UTF-16 does; save it as UTF-8",
    b"\x1f\x8b": "is compressed by gzip; unpack it first",
    b"BZh91AY&SY": "is compressed by bzip2; unpack it first",
    b"\xfd7zXZ": "is compressed by xz; unpack it first",
    b"(\xb5/\xfd": "is compressed by Zstandard; unpack it first",
    b"PK\x03\x04": "is a ZIP archive or an Excel file; unpack it, or save the table as CSV",
    b"\xd0\xcf\x11\xe0": "is an Excel file; save the table as CSV",
    b"PAR1\x15": "is a Parquet file; save it as CSV or JSON Lines",
    b"ARROW1\0\0": "is an Arrow file; save it as CSV or JSON Lines",
    b"<!DOCTYPE html": "is a page of HTML, as a failed download leaves",
    b"<!doctype html": "is a page of HTML, as a failed download leaves",
    b"version https://git-lfs": "is Git LFS's pointer to a file that was not fetched; run git lfs pull",
}
"""First bytes of files that are no UTF-8 text, or stand for another file: what is said of them."""
HEAD = 4096
"""Bytes that tell whether a file is text."""


def known_as(head: bytes) -> str:
    """What to say of a file whose first bytes are known to be no text, or nothing."""
    return next((said for begins, said in _NO_TEXT.items() if head.startswith(begins)), "")


def must_be_text(name: str | Path, head: bytes) -> None:
    r"""Refuses a file by its first bytes where these are known to be no text, or have a NUL in the first line.

    >>> must_be_text("a.csv.gz", b"\x1f\x8b\x08")
    Traceback (most recent call last):
    mtbert_jax.errors.InputError: a.csv.gz: is compressed by gzip; unpack it first
    """
    if said := known_as(head):
        raise InputError(f"{name}: {said}")
    if b"\0" in head[:HEAD].partition(b"\n")[0]:
        raise InputError(
            f"{name}: has NUL bytes in its first line, as binary files and UTF-16 have; save it as UTF-8 text"
        )


def read_text(path: Path, largest: int) -> str:
    """The UTF-8 text of a file, without the byte order mark that Windows' editors put before it.

    Raises:
        InputError: It has more than `largest` bytes, or is no such text.
    """
    with path.open("rb") as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise InputError(f"{path} is larger than {largest // MEBIBYTE} MiB")
    must_be_text(path, data)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise not_utf8(path, data) from None


def not_utf8(name: str | Path, data: bytes) -> InputError:
    """The error for bytes that are no UTF-8 text; names the first that cannot be read, counted from 0, and its line."""
    place = 0
    for errors in ("surrogatepass", "strict"):  # of bytes that are lone surrogates only, the first of those
        try:
            data.decode(errors=errors)
        except UnicodeDecodeError as error:
            place = error.start
            break
    ends = data.count(b"\n", 0, place) + data.count(b"\r", 0, place) - data.count(b"\r\n", 0, place)
    return InputError(f"{name}:{ends + 1}: is not UTF-8 text (byte {place})")


def must_be_writable(path: Path, folder: bool = False) -> None:
    """Refuses a path that cannot be written, before there is anything to write; a `folder` may have to be made."""
    try:
        place = path if folder else path.parent
        while folder and not place.exists():
            place = place.parent
        faults = (
            (not place.exists(), f"there is no folder {place}"),
            (not place.is_dir(), f"{place} is no folder"),
            (not os.access(place, os.W_OK), f"{place} may not be written to"),
            (not folder and path.is_dir(), "it is a folder"),
        )
        wrong = next((fault for found, fault in faults if found), "")
        if not wrong and not folder and (path.is_file() or not path.exists()):  # a terminal or a pipe is not opened
            new = not path.exists()
            path.open("ab").close()
            if new:
                path.unlink()
    except (OSError, ValueError) as error:  # a name that is too long, a NUL
        wrong = getattr(error, "strerror", None) or str(error)
    if wrong:
        raise InputError(f"cannot write {path}: {wrong}")


def must_spare(flag: str, path: Path, read: Iterable[tuple[Path, str]]) -> None:
    """Refuses to write to a file that is read, too, or to one that is there in a folder of which all may be read.

    What is read comes with words for it, and `flag` names `path`.
    """
    place = real(path)
    for other, what in read:
        if place == real(other) or (place.exists() and place.is_relative_to(real(other))):
            told = "is" if place == real(other) else "lies in"
            raise InputError(f"{flag} {path} {told} {what}; name another file")


def user_cache(kind: str) -> Path:
    """``mtbert_jax/<kind>`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtbert_jax" / kind


def lock_file(file: IO[Any]) -> bool:
    """Locks an open file for this process and those that inherit it; whether nobody else has it.

    The lock goes when the last of them has closed the file or ended. Where files cannot be locked nobody has them.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def try_to_write(folder: Path) -> None:
    """Makes a file in a folder, and missing folders above it, or raises `OSError`; takes all of it away again."""
    made: list[Path] = []
    try:
        for path in reversed([path for path in (folder, *folder.parents) if not os.path.lexists(path)]):
            path.mkdir(exist_ok=True)
            made.append(path)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
            file.flush()
    finally:
        for path in reversed(made):
            with suppress(OSError):  # somebody else has put something there meanwhile
                path.rmdir()


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as JSON Lines: one object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


DEVICES = {"/dev", "/proc"}
"""Folders of names that are no files of the user's."""


@contextmanager
def written_whole(path: Path) -> Iterator[TextIO]:
    """A text file to write, which is there whole at the end, or as it was before, even if the process dies meanwhile.

    A link stays one, and a file keeps its mode. What is no ordinary file, such as a pipe, is written as it comes; so is
    what has a name among devices, such as ``/dev/stdout``. An `OSError` names the file, which a full disk does not.
    """
    target = Path(os.path.realpath(path))
    if DEVICES & {*map(str, path.absolute().parents)} or (target.exists() and not target.is_file()):
        with path.open("w", encoding="utf-8", errors="replace") as file:
            yield file
        return
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("w", encoding="utf-8", errors="replace", newline="") as file:
            yield file
        if target.exists():
            shutil.copymode(target, part)
        part.replace(target)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


def write_whole(path: Path, text: str) -> None:
    """Writes a text file that is there whole or as it was before, even if the process dies meanwhile."""
    with written_whole(path) as file:
        file.write(text)
