"""Config files: read with all that they include, and written."""

from os import PathLike
from pathlib import Path
from typing import Any

from mtbert_jax.config.fields import Config
from mtbert_jax.config.includes import lay_over, read_all
from mtbert_jax.config.schema import describe, from_dict, to_toml
from mtbert_jax.errors import InputError
from mtbert_jax.files import write_whole


def load_config(path: str | Path, root: Path | None = None) -> Config:
    """Reads a TOML file.

    ``include = "other.toml"``, or a list of such paths relative to this file, lays this file over others: its own keys
    win, then those of the later includes. Tables such as ``[head]`` merge key by key and ``[[tasks]]`` by name; every
    other list is replaced as a whole.

    Args:
        path: The file.
        root: Folder that no include leads out of; the one above the file's own if left out.

    Raises:
        InputError: `path` is no path; or a file is missing or no TOML, files include each other, or a key is unknown
            or ill-typed.
    """
    if not isinstance(path, str | PathLike):
        raise InputError(f"load_config(): expected the path of a TOML file, got {describe(path)}")
    values: dict[str, Any] = {}
    for file, own in read_all(Path(path), root):
        from_dict(Config, own, str(file))  # what is wrong in a file is named there
        values = lay_over(values, own, by_name=("tasks",))
    return from_dict(Config, values, str(path))


def save_config(config: Config, path: Path) -> None:
    """Writes `config` as TOML that `load_config` reads back."""
    write_whole(path, to_toml(config))
