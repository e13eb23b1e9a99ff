"""Folders of sentence-transformers: which part of them is the encoder, and what follows it there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtbert_jax.config.schema import describe
from mtbert_jax.errors import InputError
from mtbert_jax.files import must_be_file, read_text
from mtbert_jax.limits import LARGEST_JSON

MODULES, PROMPTS = "modules.json", "config_sentence_transformers.json"
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
    """A line about what follows a transformer in its folder of sentence-transformers, if it lies in one.

    Another line says which prompt sentence-transformers would put before every text.
    """
    for folder in (transformer, transformer.parent):
        modules = _modules(folder / MODULES)
        if not modules or folder / modules[0][1] != transformer:
            continue
        if len(modules) > 1:
            rest = ", ".join(name for name, _ in modules[1:])
            yield f"{folder} is a folder of sentence-transformers: its transformer is taken, and {rest} left out"
        if prompt := _default_prompt(folder / PROMPTS):
            yield (
                f"{folder / PROMPTS} has a default prompt, {prompt!r}, which is left out: texts are read as they "
                "stand in the data files"
            )
        return


def _default_prompt(path: Path) -> str:
    """The prompt that sentence-transformers puts before every text unless told otherwise; empty without one."""
    values = _json(path, {})
    if not isinstance(values, dict):
        raise InputError(f"{path} holds {describe(values)}; it must be a table")
    name, prompts = values.get("default_prompt_name"), values.get("prompts")
    prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    return prompt if isinstance(prompt, str) else ""


def _modules(path: Path) -> list[tuple[str, str]]:
    """Class and folder of every module; none where there is no such file."""
    values = _json(path, [])
    if not isinstance(values, list):
        raise InputError(f"{path} holds {describe(values)}; it must be a list of modules")
    return [_module(path, value) for value in values]


def _json(path: Path, missing: Any) -> Any:
    """What a file holds; `missing` where there is none."""
    try:
        must_be_file(path)
        return json.loads(read_text(path, LARGEST_JSON)) if path.is_file() else missing
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None


def _module(path: Path, value: Any) -> tuple[str, str]:
    kind, place = (value.get(key) for key in ("type", "path")) if isinstance(value, dict) else (None, None)
    beside = isinstance(place, str) and "\0" not in place and Path(place).name == place != ".."
    if not isinstance(kind, str) or not isinstance(place, str) or not beside:
        raise InputError(f"{path}: a module is {describe(value)}; it must have a type, and a folder beside this file")
    own = kind.startswith("sentence_transformers.")
    return kind.rpartition(".")[2] if own else kind, place
