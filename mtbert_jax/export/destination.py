"""The folder of an export: written whole or not at all, and never over anything but an earlier export."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors import SafetensorError

from mtbert_jax.errors import InputError, first_line
from mtbert_jax.files import input_errors

ABOUT = "tasks.json"
"""Says what an export holds, and that it is one."""


def check_destination(out: Path, overwrite: bool) -> None:
    """Refuses a folder that is not free, but for an earlier export that may go."""
    with input_errors(f"cannot read --out {out}"):
        if out.exists() and not out.is_dir():
            raise InputError(f"--out {out} is a file; name a folder")
        found = {path.name for path in out.iterdir()} if out.exists() else set()
    if not found:
        return
    about = read_about(out)
    if about is None:
        raise InputError(f"{out} holds something that is no export; name another folder with --out")
    if not overwrite:
        raise InputError(f"{out} holds an export already (step {about['step']}); --overwrite replaces it")
    others = sorted(found - {*about["files"]})
    if others:
        raise InputError(f"--overwrite would delete {out / others[0]}, which no export wrote; move it elsewhere first")


def read_about(folder: Path) -> dict[str, Any] | None:
    """What an export says of itself; None where there is none."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        sound = about["written_by"].startswith("mtbert_jax ") and all(type(name) is str for name in about["files"])
        return about if sound and "step" in about else None
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None


@contextmanager
def whole_folder(out: Path, about: dict[str, Any]) -> Iterator[Path]:
    """A new folder to fill, which then gets `about` and takes the place of `out`, or leaves all as it was."""
    place = Path(os.path.realpath(out))  # a link to a folder stays a link
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # Beside it, since only within one file system a folder can be renamed.
        with TemporaryDirectory(prefix=".export-", dir=place.parent) as scratch:
            new, old = Path(scratch) / "new", Path(scratch) / "old"
            new.mkdir()
            yield new
            files = sorted({ABOUT, *(path.name for path in new.iterdir())})
            text = json.dumps({**about, "files": files}, indent=2, ensure_ascii=False) + "\n"
            (new / ABOUT).write_text(text, encoding="utf-8", errors="replace")
            if place.exists():
                place.rename(old)
            try:
                new.rename(place)
            except BaseException:
                if old.exists():
                    old.rename(place)
                raise
    except (OSError, SafetensorError) as error:
        with input_errors(f"cannot write the export {out}"):
            if isinstance(error, OSError):
                raise
            full = os.strerror(errno.ENOSPC) in str(error)
            raise OSError(errno.ENOSPC if full else errno.EINVAL, first_line(error)) from None
