"""Encoders in Hugging Face layout ↔ configs and parameters, by the family's table of names."""

import dataclasses
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from mtbert_jax import trees
from mtbert_jax.config.schema import describe
from mtbert_jax.encoders.config_json import CONFIG, config_json, load_encoder_config
from mtbert_jax.encoders.family import encoder_shapes, family_of
from mtbert_jax.encoders.sentence import MODULES, PROMPTS, transformer_folder
from mtbert_jax.encoders.tokenizer_rules import TokenizerRules
from mtbert_jax.encoders.tokenizer_settings import ADDED_TOKENS, SENTENCE, SETTINGS, SPECIAL_TOKENS, TOKENIZER
from mtbert_jax.encoders.weights import INDEX, SHARDS, WEIGHTS, Stored, encoder_tensors, has_weights, stored_tensors
from mtbert_jax.errors import InputError
from mtbert_jax.files import input_errors, is_folder
from mtbert_jax.nn.layers import EncoderConfig
from mtbert_jax.types import Params

logger = logging.getLogger(__name__)

FILES = (
    *(CONFIG, WEIGHTS, INDEX, SHARDS, TOKENIZER, SETTINGS, "vocab.txt"),
    *(ADDED_TOKENS, SPECIAL_TOKENS, SENTENCE, MODULES, PROMPTS),
)
"""All that is ever read from a hub, as patterns."""

_DTYPES = ("F32", "F16", "BF16", "F64")
_LEAVES = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}
_BUFFERS = ("position_ids", "token_type_ids", "inv_freq")
"""Ends of names of tensors that are no parameters: files of older versions of `transformers` hold them."""


def names(config: EncoderConfig) -> Iterator[tuple[str, str]]:
    """Every leaf of the encoder with its Hugging Face name: ``pooler/kernel``, ``pooler.dense.weight``."""
    tensors = family_of(config).tensors
    for path in _shapes(config):
        module, _, leaf = path.rpartition("/")
        number = re.match(r"layer_(\d+)/", module)
        theirs = tensors[re.sub(r"^layer_\d+/", "layer_{}/", module)]
        yield path, f"{theirs.format(number[1]) if number else theirs}.{_LEAVES[leaf]}"


def _shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every leaf by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(encoder_shapes(config))
    return {trees.path_of(path): leaf.shape for path, leaf in leaves}


def locate(encoder: str | Path, revision: str | None = None, weights: bool = True) -> Path:
    """The directory of an encoder: `encoder` itself, or the hub's copy of it in the hub's own cache.

    In a folder of sentence-transformers it is that of the transformer.

    Args:
        encoder: A directory, or a hub name.
        revision: Branch, tag or commit of a hub name.
        weights: Whether they are needed; if not, they are not fetched.

    Raises:
        InputError: It is no directory, and no name that the hub has; or a folder of something else than an encoder.
    """
    if not isinstance(encoder, str | os.PathLike):
        raise InputError(f"encoder = {describe(encoder)}: give a directory, or a hub name")
    if is_folder(encoder):
        with input_errors(f"cannot read the encoder {encoder}"):  # a folder that may not be entered
            _check_no_run(Path(encoder))
            return transformer_folder(Path(encoder))
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", str(encoder)):
        is_file = os.path.isfile(encoder)  # noqa: PTH113 - as in is_folder
        hint = f"; it is a file: name its folder, {str(Path(encoder).parent)!r}" if is_file else ""
        raise InputError(
            f"encoder = {str(encoder)!r} is neither a directory nor a hub name such as google-bert/bert-base-uncased"
            f"{hint}"
        )
    wanted = [name for name in FILES if weights or name not in (WEIGHTS, INDEX, SHARDS)]
    copy = _fetch(str(encoder), revision, wanted)
    directory = transformer_folder(copy)
    if directory != copy:
        _fetch(str(encoder), revision, [f"{directory.name}/{name}" for name in wanted])
    return directory


def _fetch(encoder: str, revision: str | None, wanted: list[str]) -> Path:
    """The hub's copy of some files."""
    try:
        return Path(huggingface_hub.snapshot_download(encoder, revision=revision, allow_patterns=wanted))
    except Exception as error:  # noqa: BLE001 - the hub's client raises errors of several libraries
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"encoder = {encoder!r} is no directory here, and the hub did not give it: {reason}") from None


def _check_no_run(directory: Path) -> None:
    """Refuses a folder of this library's own runs, whose encoder lies in a checkpoint."""
    found = (directory / "config.toml").is_file() or any(directory.glob("seed*/config.toml"))
    if found and not (directory / CONFIG).is_file():
        raise InputError(
            f"encoder = {str(directory)!r} is a run folder; init_from = {str(directory)!r} begins a run from its best "
            "checkpoint, encoder and heads; mtbert export writes its encoder in Hugging Face layout"
        )


def load_matching_config(directory: Path) -> Any:
    """The config of an encoder's directory, without a pooler where its weights have none.

    Masked-LM training leaves such weights. Where no weights lie, as in a run folder, ``config.json`` says it.

    Raises:
        InputError: ``config.json`` or the names of the tensors are not those of an encoder that is known here.
    """
    config = load_encoder_config(directory)
    if not has_weights(directory) or not hasattr(config, "has_pooler"):
        return config
    whole = dataclasses.replace(config, has_pooler=True)
    available = _tensors(directory, whole)[1]
    pooler = [theirs for ours, theirs in names(whole) if _of_pooler(ours)]
    return dataclasses.replace(whole, has_pooler=not pooler or any(name in available for name in pooler))


def _of_pooler(path: str) -> bool:
    return trees.is_below(path, "pooler")


def _tensors(directory: Path, config: EncoderConfig) -> tuple[Stored, dict[str, str]]:
    """All tensors of a directory, and the names that those of the encoder have there, by the family's names."""
    stored = stored_tensors(directory)
    needed = (theirs for ours, theirs in names(config) if not _of_pooler(ours))
    family = family_of(config)
    return stored, encoder_tensors(stored, family, family.num_layers(config), needed)


def load_pretrained(encoder: str | Path, revision: str | None = None) -> tuple[Any, Params]:
    """Reads an encoder.

    Args:
        encoder: A directory with ``config.json`` and ``model.safetensors``, or its shards, or a hub name.
        revision: Branch, tag or commit of a hub name.

    Returns:
        Its config, of the class that its family has, and float32 parameters for the module `encoder(config)`. Weights
        without a pooler, as masked-LM training leaves them, give a config whose `has_pooler` is false.

    Raises:
        InputError: A file is missing or broken, or the encoder is of no family that is known here.
    """
    directory = locate(encoder, revision)
    config = load_matching_config(directory)
    return config, _load_params(directory, config)


def _load_params(directory: Path, config: EncoderConfig) -> Params:
    stored, available = _tensors(directory, config)
    if unread := _unread(config, available):
        logger.warning(
            "warning: %s: %d tensors of the encoder are not read, such as %s: the encoder of config.json, of %d "
            "layers, does not have them",
            *(stored.path, len(unread), unread[0], config.num_hidden_layers),
        )
    params: Params = {}
    path, shapes = stored.path, _shapes(config)
    try:
        with ExitStack() as stack:
            opened = {file: stack.enter_context(safe_open(file, framework="flax")) for file in {*stored.files.values()}}
            for ours, theirs in names(config):
                if theirs not in available:
                    raise InputError(f"{path}: tensor {theirs} is missing")
                path = stored.files[available[theirs]]
                tensor = opened[path].get_slice(available[theirs])
                wanted = shapes[ours][::-1] if ours.endswith("kernel") else shapes[ours]
                found = tuple(tensor.get_shape())
                if found != wanted:  # before anything of that size is allocated
                    raise InputError(
                        f"{path}: tensor {theirs} has the wrong shape for config.json: {found}, not {wanted}"
                    )
                if tensor.get_dtype() not in _DTYPES:
                    raise InputError(
                        f"{path}: tensor {theirs} is of {tensor.get_dtype()}, none of {', '.join(_DTYPES)}"
                    )
                value = np.asarray(opened[path].get_tensor(available[theirs]), np.float32)
                _check_finite(path, available[theirs], value)
                _put(params, ours, jax.device_put(value.T if ours.endswith("kernel") else value))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is broken or cut off: {error}") from None
    return params


def _unread(config: EncoderConfig, available: dict[str, str]) -> list[str]:
    """Names of tensors that lie among the encoder's and are not its: those of further layers, or of adapters."""
    read, places = {theirs for _, theirs in names(config)}, family_of(config).tensors.values()
    parts = {theirs.partition(".")[0] for theirs in places}
    others = (theirs for theirs in available if theirs not in read and theirs.partition(".")[0] in parts)
    return sorted(available[theirs] for theirs in others if theirs.rpartition(".")[2] not in _BUFFERS)


def _check_finite(path: Path, tensor: str, value: np.ndarray) -> None:
    """Refuses NaN and infinities, which would leave every task out of every step, and no score defined."""
    wrong = value.size - int(np.isfinite(value).sum())
    if wrong:
        raise InputError(
            f"{path}: tensor {tensor} has {wrong} of {value.size} values that are not finite as float32 (NaN or "
            "infinity); the file is damaged, or was saved by a training that had diverged: take another"
        )


def _put(tree: Params, path: str, value: Any) -> None:
    *branches, leaf = path.split("/")
    for branch in branches:
        tree = tree.setdefault(branch, {})
    tree[leaf] = value


def save_pretrained(directory: str | Path, config: EncoderConfig, params: Params, tokenizer: Any = None) -> None:
    """Writes what `transformers.AutoModel` reads back, and with a tokenizer what `AutoTokenizer` reads back.

    Args:
        directory: Made if it is not there.
        config: The encoder's config.
        params: The encoder's parameters.
        tokenizer: A `tokenizers.Tokenizer`, or None.

    Raises:
        InputError: The parameters are not those of an encoder of this config, or the tokenizer is none, and nothing is
            written; or the directory cannot be made.
    """
    if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
        raise InputError(
            f"tokenizer is a {type(tokenizer).__name__}: give a tokenizers.Tokenizer, as load_tokenizer does"
        )
    leaves = {trees.path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    _check_fit(config, {path: jnp.shape(leaf) for path, leaf in leaves.items()})
    directory = Path(directory)
    save_description(directory, config, tokenizer)
    tensors = {}
    for ours, theirs in names(config):
        value = np.asarray(leaves[ours], np.float32)
        tensors[theirs] = np.ascontiguousarray(value.T if ours.endswith("kernel") else value)
    save_tensors(directory / WEIGHTS, tensors)


def _check_fit(config: EncoderConfig, given: dict[str, tuple[int, ...]]) -> None:
    """Refuses parameters, given by their shapes, that an encoder of this config does not have so."""
    wanted = _shapes(config)
    for path in sorted(wanted.keys() | given.keys()):
        if given.get(path) != wanted.get(path):
            has, asks = (str(shapes.get(path, "no such parameter")) for shapes in (given, wanted))
            raise InputError(f"params do not fit the config: {path} is {has} in params and {asks} by the config")


def save_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes a safetensors file for torch, which whoever can read the files beside it can read, too."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(mode)  # safetensors shuts everyone out but its owner


def save_description(directory: str | Path, config: EncoderConfig, tokenizer: Any = None) -> None:
    """All of `save_pretrained` but the weights: ``config.json`` and the tokenizer."""
    directory = Path(directory)
    with input_errors(f"cannot write {directory}"):
        directory.mkdir(parents=True, exist_ok=True)
    (directory / CONFIG).write_text(config_json(config), encoding="utf-8")
    if tokenizer is not None:
        family = family_of(config)
        types = ["token_type_ids"] if family.token_types(config) else []
        (directory / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
        # Not the family's own class, which may keep the vocabulary alone, and then write everything in lower case.
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": family.max_length(config),
            "model_input_names": ["input_ids", *types, "attention_mask"],
            **_special_tokens(tokenizer, family.tokenizer),
        }
        (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _special_tokens(tokenizer: Any, rules: TokenizerRules) -> dict[str, str]:
    """The special tokens under the names of ``tokenizer_config.json``; padding is masked, so any token will do."""
    known = {f"{name}_token": getattr(rules, name) for name in ("unk", "sep", "pad", "cls", "mask")}
    there = {name: token for name, token in known.items() if tokenizer.token_to_id(token) is not None}
    return {"pad_token": rules.unk, **there}
