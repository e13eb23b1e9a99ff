"""Files that are named by files: they lie where they belong, they are files, and they are read up to a limit."""

import os
from pathlib import Path

from mtbert_jax.types import InputError

MEBIBYTE = 2**20
LARGEST_TOML = 4 * MEBIBYTE
LARGEST_JSON = 32 * MEBIBYTE
"""The largest vocabularies of BERTs take a third of it."""


def below(folder: str | Path, name: str | Path, remedy: str = "") -> Path:
    """``folder / name``, which must lie in the folder, wherever ``..`` and links lead.

    Args:
        folder: The folder; it may be a link itself, and lie anywhere.
        name: A path relative to it.
        remedy: What to do instead, for the message.

    Raises:
        InputError: It lies elsewhere, or cannot be the name of a file.
    """
    path = Path(folder) / name
    try:
        real, root = os.path.realpath(path), os.path.realpath(folder)
    except ValueError as error:  # a NUL
        raise InputError(f"{path} is no path: {error}") from None
    if not Path(real).is_relative_to(root):
        raise InputError(f"{path} leads out of {folder}, to {real}{remedy and '; '}{remedy}")
    return path


def must_be_file(path: Path) -> None:
    """Refuses what lies there and is no file: a pipe would be waited for, a device might never end.

    Raises:
        InputError: Something else than a file lies there, or the path cannot be one.
    """
    try:
        wrong = path.exists() and not path.is_file()
    except OSError as error:  # a name that is too long, links in a circle
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    if wrong:
        raise InputError(f"{path} is no file")


def read_text(path: Path, largest: int) -> str:
    """The text of a file that is not larger than it can sensibly be.

    Raises:
        InputError: It is too large.
        OSError: It cannot be read.
        UnicodeDecodeError: It is not UTF-8.
    """
    with path.open("rb") as file:
        data = file.read(largest + 1)
    if len(data) > largest:
        raise InputError(f"{path} is larger than {largest // MEBIBYTE} MiB")
    return data.decode("utf-8")
