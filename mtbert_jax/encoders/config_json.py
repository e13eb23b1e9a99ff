"""An encoder's ``config.json`` ↔ its family and the config dataclass of that family."""

import dataclasses
import json
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtbert_jax.config.schema import describe, difference, nearest
from mtbert_jax.encoders.family import FAMILIES, Family, family_of
from mtbert_jax.errors import InputError
from mtbert_jax.files import must_be_file, read_text
from mtbert_jax.limits import LARGEST_JSON, LARGEST_SIZE, LARGEST_SIZES
from mtbert_jax.nn.layers import EncoderConfig

CONFIG = "config.json"
_FROM_ZERO = ("pad_token_id", "type_vocab_size")
"""Whole numbers that may be 0."""


def read_family(directory: str | Path) -> tuple[Family, dict[str, Any]]:
    """The family of an encoder's directory, and all that its ``config.json`` holds.

    Raises:
        InputError: It is missing or no JSON, or names no family that is registered.
    """
    path = Path(directory) / CONFIG
    must_be_file(path)
    try:
        values = json.loads(read_text(path, LARGEST_JSON))
    except OSError as error:
        hint = _instead(Path(directory))
        raise InputError(f"{directory} is no encoder directory: cannot read {CONFIG}: {error.strerror}{hint}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    found = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(found, str) or found not in FAMILIES:
        hint = nearest(found, FAMILIES) if isinstance(found, str) else ""
        unsaid = "if it is one of them, write so there; " if isinstance(values, dict) and found is None else ""
        known = f"known: {', '.join(FAMILIES)}{hint}; {unsaid}--plugins FILE can add one"
        raise InputError(f"{path}: model_type is {describe(found)}; {known}")
    return FAMILIES[found], values


def _instead(directory: Path) -> str:
    """What a directory without ``config.json`` holds in its place, as the end of a sentence."""
    if (directory / "bert_config.json").is_file():
        return "; it holds a checkpoint of TensorFlow, bert_config.json: convert it with transformers"
    if (directory / "adapter_config.json").is_file():
        return "; it holds an adapter alone: merge it into its base model"
    below = sorted(path.parent.name for path in directory.glob(f"*/{CONFIG}"))
    return f"; its folder{'s' if len(below) > 1 else ''} {', '.join(below[:5])} can be taken" if below else ""


def load_encoder_config(directory: str | Path) -> Any:
    """Reads ``config.json``; keys that concern no encoder are passed over.

    Returns:
        The config dataclass of the encoder's family.

    Raises:
        InputError: It is missing or no JSON, or not of an encoder that this library computes.
    """
    family, values = read_family(directory)
    path, kinds = Path(directory) / CONFIG, typing.get_type_hints(family.config)
    with _told_with(path):
        values = family.from_json(values)
    given = {}
    for field in dataclasses.fields(family.config):
        key = family.config_names.get(field.name, field.name)
        if values.get(key) is not None:
            _check_field(f"{path}: {key}", field.name, values[key], kinds[field.name])
            given[field.name] = values[key]
    config = family.config(**given)
    with _told_with(path):
        family.check(config, values)
    return config


@contextmanager
def _told_with(path: Path) -> Iterator[None]:
    """Puts the file's name before the message of an error."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _check_field(where: str, name: str, value: Any, kind: Any) -> None:
    least, largest = int(name not in _FROM_ZERO), LARGEST_SIZES.get(name, LARGEST_SIZE)
    fits, right = {
        int: (lambda: type(value) is int and least <= value <= largest, f"a whole number from {least} to {largest}"),
        float: (lambda: type(value) in (int, float) and 0 <= value < 1, "a number from 0 to below 1"),
        str: (lambda: type(value) is str, "a string"),
        bool: (lambda: type(value) is bool, "true or false"),
    }[kind]
    if not fits():
        raise InputError(f"{where} is {describe(value)}; it must be {right}")


def config_json(config: EncoderConfig) -> str:
    """The text of ``config.json``, as `transformers` reads it."""
    family = family_of(config)
    fields = family.to_json(config)
    if fields.get("has_pooler"):
        del fields["has_pooler"]  # as in most; transformers has no such key
    named = {family.config_names.get(name, name): value for name, value in fields.items()}
    described = {"architectures": [family.architecture], "model_type": family.name, **named}
    return json.dumps(described, indent=2) + "\n"


def size_changes(old: EncoderConfig, new: EncoderConfig) -> list[str]:
    """What makes one encoder's parameters those of another one, a line per field: everything but rates of dropout."""
    before, after = (
        {"model_type": family_of(one).name, **vars(family_of(one).with_dropout(one, 0.0))} for one in (old, new)
    )
    return difference(before, after)
