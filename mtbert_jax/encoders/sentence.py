"""Folders of sentence-transformers: which part of them is the encoder, and what follows it there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtbert_jax.config.schema import describe
from mtbert_jax.errors import InputError
from mtbert_jax.files import must_be_file, read_text
from mtbert_jax.limits import LARGEST_JSON

MODULES = "modules.json"
PASSED_OVER = ("Pooling", "Normalize", "Dropout")
"""Modules behind the transformer that make one vector of a text, for which heads have poolings of their own."""


def transformer_folder(directory: Path) -> Path:
    """The folder of the transformer inside a folder of sentence-transformers; any other folder itself.

    Raises:
        InputError: ``modules.json`` is not what sentence-transformers writes, or there are modules that compute more.
    """
    modules = _modules(directory / MODULES)
    if not modules:
        return directory
    (first, place), *rest = modules
    if first != "Transformer":
        raise InputError(f"{directory / MODULES}: the first module is {first!r}, not a Transformer")
    if wrong := [name for name, _ in rest if name not in PASSED_OVER]:
        hint = f"; encoder = {str(directory / place)!r} takes the transformer alone" if place else ""
        hint = hint or f"; a copy of the folder without {MODULES} is taken as the transformer alone"
        raise InputError(f"{directory}: the module {wrong[0]!r} behind the transformer cannot be taken over{hint}")
    return directory / place


def left_out(transformer: Path) -> Iterator[str]:
    """A line about what follows a transformer in its folder of sentence-transformers, if it lies in one."""
    for folder in (transformer, transformer.parent):
        modules = _modules(folder / MODULES)
        if modules and len(modules) > 1 and folder / modules[0][1] == transformer:
            rest = ", ".join(name for name, _ in modules[1:])
            yield f"{folder} is a folder of sentence-transformers: its transformer is taken, and {rest} left out"
            return


def _modules(path: Path) -> list[tuple[str, str]]:
    """Class and folder of every module; none where there is no such file."""
    try:
        must_be_file(path)
        values = json.loads(read_text(path, LARGEST_JSON)) if path.is_file() else []
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, list):
        raise InputError(f"{path} holds {describe(values)}; it must be a list of modules")
    return [_module(path, value) for value in values]


def _module(path: Path, value: Any) -> tuple[str, str]:
    kind, place = (value.get(key) for key in ("type", "path")) if isinstance(value, dict) else (None, None)
    beside = isinstance(place, str) and "\0" not in place and Path(place).name == place != ".."
    if not isinstance(kind, str) or not isinstance(place, str) or not beside:
        raise InputError(f"{path}: a module is {describe(value)}; it must have a type, and a folder beside this file")
    own = kind.startswith("sentence_transformers.")
    return kind.rpartition(".")[2] if own else kind, place
