"""The tensors of an encoder's directory, in one safetensors file or in several, by the family's names.

A file can hold more than the encoder, under a prefix of its own: ``bert.``, ``module.bert.``, ``0.auto_model.``. The
prefix is found by what the file holds.
"""

import json
from collections.abc import Collection, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from mtbert_jax.config.schema import describe
from mtbert_jax.encoders.family import Family
from mtbert_jax.errors import InputError
from mtbert_jax.files import HEAD, known_as, must_be_file, read_text
from mtbert_jax.limits import LARGEST_JSON, LARGEST_WEIGHTS_HEADER

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARDS = "model-*-of-*.safetensors"
"""Names of the files that an index is of, as a pattern."""
_OTHERS = ("pytorch_model*.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")
"""Weights in formats that are not read, as patterns."""


class Stored(NamedTuple):
    """Names of all tensors of a directory; none of their values.

    Attributes:
        path: The file that lists them: the only one, or the index of several.
        files: The file of each tensor, by its name there.
    """

    path: Path
    files: dict[str, Path]


def has_weights(directory: Path) -> bool:
    """Whether a directory holds weights in a format that is read."""
    return (directory / WEIGHTS).is_file() or (directory / INDEX).is_file()


def stored_tensors(directory: Path) -> Stored:
    """Finds the tensors of a directory.

    Raises:
        InputError: There are none, or a file is missing or broken.
    """
    path = directory / WEIGHTS
    must_be_file(path)
    if path.is_file():
        return Stored(path, dict.fromkeys(_names(path), path))
    index = directory / INDEX
    if not index.is_file():
        raise InputError(f"{directory} has {_instead(directory)}")
    files = _indexed(index)
    for shard in dict.fromkeys(files.values()):
        must_be_file(shard)
        if not shard.is_file():
            raise InputError(f"{index} lists the file {shard.name}, which is missing")
        there = {*_names(shard)}
        if lacking := next((name for name, file in files.items() if file == shard and name not in there), None):
            raise InputError(f"{index} says that {shard.name} holds the tensor {lacking}, which it does not")
    return Stored(index, files)


def _names(path: Path) -> list[str]:
    """Names of the tensors of one file, whose header is refused unread if it is longer than an encoder's can be."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
        length = int.from_bytes(head[:8], "little")
        if length > LARGEST_WEIGHTS_HEADER and (said := known_as(head)):
            raise InputError(f"{path}: {said}")
        if length > min(LARGEST_WEIGHTS_HEADER, path.stat().st_size):
            raise ValueError(f"its header claims {length} bytes")
        with safe_open(path, framework="numpy") as tensors:
            return list(tensors.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is broken or cut off: {error}") from None


def _indexed(index: Path) -> dict[str, Path]:
    """The file of each tensor that an index lists."""
    try:
        must_be_file(index)
        values = json.loads(read_text(index, LARGEST_JSON))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{index} is not JSON: {error}") from None
    files = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(files, dict) or not files:
        raise InputError(f"{index}: weight_map is {describe(files)}; it must name the file of each tensor")
    for name, file in files.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors") or "\0" in file:
            raise InputError(f"{index}: the file of {name} is {describe(file)}; it must be a *.safetensors beside it")
    return {name: index.parent / file for name, file in files.items()}


def _instead(directory: Path) -> str:
    """What a directory without safetensors holds in their place, as the end of a sentence."""
    convert = "load it with transformers and call save_pretrained(..., safe_serialization=True)"
    found = next((path.name for name in _OTHERS for path in sorted(directory.glob(name))), None)
    if found and found.startswith("pytorch"):
        return f"only {found}, a pickle, which could run code and is never opened; {convert}"
    if found:
        return f"only {found}, which is not read; {convert}"
    if others := sorted(path.name for path in directory.glob("*.safetensors")):
        hint = f"which must be called {WEIGHTS}"
        if shards := [name for name in others if fnmatch(name, SHARDS)]:
            others, hint = shards, f"one of several; their index, {INDEX}, is missing"
        if "adapter_model.safetensors" in others:
            hint = "an adapter alone; merge it into its base model"
        return f"no {WEIGHTS}, but {others[0]}, {hint}"
    fetched = directory.parent.name == "snapshots"
    hint = "; a pickle on the hub is never fetched: " + convert.replace("load it", "load the model") if fetched else ""
    run = directory.parent
    if (run / "config.toml").is_file():
        hint = f"; init_from = {str(run)!r} takes those of that run"
    return f"no {WEIGHTS}{hint}"


def encoder_tensors(stored: Stored, family: Family, layers: int, wanted: Iterable[str]) -> dict[str, str]:
    """The encoder's tensors by the family's names, with the names that they have in the files.

    Args:
        stored: All tensors.
        family: The encoder's family.
        layers: Number of the encoder's layers that have tensors of their own.
        wanted: The family's names of all tensors that must be there; not asked for before the last layer is found,
            since naming those of very many layers takes long.

    Returns:
        All tensors below the prefix that the encoder has in the files.

    Raises:
        InputError: The encoder is not there, not whole, or there several times.
    """
    names: dict[str, str] = {}
    for name in stored.files:
        if (other := names.setdefault(_modern(name), name)) != name:
            raise InputError(f"{stored.path}: {other} and {name} are two names of one tensor; take one of them out")
    prefix = _prefix(stored.path, names, family, layers, wanted)
    return {name.removeprefix(prefix): own for name, own in names.items() if name.startswith(prefix)}


def _modern(name: str) -> str:
    """A tensor's name without TensorFlow's names for LayerNorm."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _prefix(path: Path, names: Collection[str], family: Family, layers: int, wanted: Iterable[str]) -> str:
    """What precedes the family's names in a file."""
    tensors = sorted(family.tensors.values(), key=lambda theirs: "{}" not in theirs)  # those of layers first
    first, last = (f"{tensors[0].format(number)}.weight" for number in (0, layers - 1))
    found = _before(names, last)
    if not found:
        if shorter := _before(names, first):
            raise InputError(f"{path}: tensor {shorter[0]}{last} is missing")
        alike = [name for name in names if last.removesuffix(".weight") in name]  # .query.base_layer.weight, of PEFT
        there = next(iter(sorted(alike or names)), "none")
        raise InputError(f"{path}: holds no encoder of the family {family.name}: looked for {last}, found {there}")
    wanted = list(wanted)
    whole = [prefix for prefix in found if all(prefix + name in names for name in wanted)]
    for usual in ("", family.prefix):
        if usual in whole:
            return usual
    if len(whole) == 1:
        return whole[0]
    if whole:
        raise InputError(f"{path}: holds several encoders, under {', '.join(whole)}; one is needed")
    missing = next(name for name in wanted if found[0] + name not in names)
    elsewhere = _before(names, missing)
    hint = f"; the file has {elsewhere[0]}{missing}" if elsewhere else ""
    raise InputError(f"{path}: tensor {found[0]}{missing} is missing{hint}")


def _before(names: Collection[str], wanted: str) -> list[str]:
    """Everything that precedes a name in some of `names`, the shortest first."""
    found = (name.removesuffix(wanted) for name in names if name == wanted or name.endswith(f".{wanted}"))
    return sorted(found, key=len)
