"""Encoders in Hugging Face layout ↔ parameters of `BertEncoder`, by one table of names."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mtbert_jax import trees
from mtbert_jax.config.schema import describe
from mtbert_jax.encoders.bert import BertConfig, BertEncoder
from mtbert_jax.errors import InputError
from mtbert_jax.files import is_folder, must_be_file, read_text
from mtbert_jax.limits import LARGEST_JSON, LARGEST_SIZE, LARGEST_SIZES, LARGEST_WEIGHTS_HEADER
from mtbert_jax.nn.layers import ACTIVATIONS
from mtbert_jax.types import Params

WEIGHTS = "model.safetensors"
FILES = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "vocab.txt")
"""All that is ever read from a hub."""

_TABLE = {
    "embeddings/word/embedding": "embeddings.word_embeddings.weight",
    "embeddings/position/embedding": "embeddings.position_embeddings.weight",
    "embeddings/token_type/embedding": "embeddings.token_type_embeddings.weight",
    "embeddings/layer_norm": "embeddings.LayerNorm",
    "layer_{}/attention/query": "encoder.layer.{}.attention.self.query",
    "layer_{}/attention/key": "encoder.layer.{}.attention.self.key",
    "layer_{}/attention/value": "encoder.layer.{}.attention.self.value",
    "layer_{}/attention/output": "encoder.layer.{}.attention.output.dense",
    "layer_{}/attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "layer_{}/intermediate": "encoder.layer.{}.intermediate.dense",
    "layer_{}/output": "encoder.layer.{}.output.dense",
    "layer_{}/output_norm": "encoder.layer.{}.output.LayerNorm",
    "pooler": "pooler.dense",
}
_DTYPES = ("F32", "F16", "BF16", "F64")
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


def names(config: BertConfig) -> Iterator[tuple[str, str]]:
    """Every leaf of the encoder with its Hugging Face name: ``pooler/kernel``, ``pooler.dense.weight``."""
    for path in _shapes(config):
        number = re.match(r"layer_(\d+)/", path)
        generic = re.sub(r"^layer_\d+/", "layer_{}/", path)
        module, _, leaf = generic.rpartition("/")
        theirs = _TABLE.get(generic) or f"{_TABLE[module]}.{_LEAVES[leaf]}"
        yield path, theirs.format(number[1]) if number else theirs


def _shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every leaf, without computing any."""
    ids = jnp.zeros((1, 1), jnp.int32)
    tree = jax.eval_shape(BertEncoder(config).init, jax.random.key(0), ids)["params"]
    return {trees.path_of(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def locate(encoder: str | Path, revision: str | None = None, weights: bool = True) -> Path:
    """The directory of an encoder: `encoder` itself, or the hub's copy of it in the hub's own cache.

    Args:
        encoder: A directory, or a hub name.
        revision: Branch, tag or commit of a hub name.
        weights: Whether they are needed; if not, they are not fetched.

    Raises:
        InputError: It is no directory, and no name that the hub has.
    """
    if is_folder(encoder):
        return Path(encoder)
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", str(encoder)):
        raise InputError(
            f"encoder = {str(encoder)!r} is neither a directory nor a hub name such as google-bert/bert-base-uncased"
        )
    try:
        wanted = [name for name in FILES if weights or name != WEIGHTS]
        return Path(snapshot_download(str(encoder), revision=revision, allow_patterns=wanted))
    except Exception as error:  # noqa: BLE001 - the hub's client raises errors of several libraries
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"encoder = {str(encoder)!r} is no directory here, and the hub did not give it: {reason}"
        ) from None


def load_pretrained(encoder: str | Path, revision: str | None = None) -> tuple[BertConfig, Params]:
    """Reads an encoder.

    Args:
        encoder: A directory with ``config.json`` and ``model.safetensors``, or a hub name.
        revision: Branch, tag or commit of a hub name.

    Returns:
        Its config, and float32 parameters for `BertEncoder`.

    Raises:
        InputError: A file is missing or broken, or this is no BERT.
    """
    directory = locate(encoder, revision)
    config = load_bert_config(directory)
    return config, _load_params(directory, config)


def load_bert_config(directory: str | Path) -> BertConfig:
    """Reads ``config.json``; keys that concern no encoder are passed over.

    Raises:
        InputError: It is missing or no JSON, or not of a BERT that this encoder computes.
    """
    path = Path(directory) / "config.json"
    must_be_file(path)
    try:
        values = json.loads(read_text(path, LARGEST_JSON))
    except OSError as error:
        raise InputError(f"{directory} is no encoder directory: cannot read config.json: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict) or values.get("model_type") != "bert":
        found = values.get("model_type") if isinstance(values, dict) else None
        raise InputError(f"{path}: model_type is {describe(found)}; only 'bert' can be read")
    if values.get("position_embedding_type", "absolute") != "absolute" or values.get("is_decoder"):
        raise InputError(f"{path}: only an encoder with absolute positions can be read")
    known = {f.name: f.type for f in dataclasses.fields(BertConfig)}
    given = {name: value for name, value in values.items() if name in known and value is not None}
    for name, value in given.items():
        _check_field(path, name, value, known[name])
    config = BertConfig(**given)
    if config.hidden_act not in ACTIVATIONS:
        raise InputError(f"{path}: hidden_act is {describe(config.hidden_act)}, none of {', '.join(ACTIVATIONS)}")
    if config.hidden_size % config.num_attention_heads:
        raise InputError(
            f"{path}: hidden_size {config.hidden_size} is no multiple of {config.num_attention_heads} heads"
        )
    return config


def _check_field(path: Path, name: str, value: Any, kind: Any) -> None:
    largest = LARGEST_SIZES.get(name, LARGEST_SIZE)
    fits = {
        int: lambda: type(value) is int and (0 if name == "pad_token_id" else 1) <= value <= largest,
        float: lambda: type(value) in (int, float) and 0 <= value < 1,
        str: lambda: type(value) is str,
    }[kind]
    if not fits():
        right = {
            int: f"a whole number from 1 to {largest}",
            float: "a number from 0 to below 1",
            str: "a string",
        }[kind]
        raise InputError(f"{path}: {name} is {describe(value)}; it must be {right}")


def _load_params(directory: Path, config: BertConfig) -> Params:
    path = directory / "model.safetensors"
    if not path.is_file():
        if (directory / "pytorch_model.bin").is_file():
            raise InputError(
                f"{directory} has only pytorch_model.bin, a pickle, which could run code and is never opened; "
                "load it with transformers and call save_pretrained(..., safe_serialization=True)"
            )
        raise InputError(f"{directory} has no model.safetensors")
    params: Params = {}
    try:
        _check_header(path)
        with safe_open(path, framework="flax") as file:
            available = {_modern(name): name for name in file.keys()}  # noqa: SIM118 - no iterator there
            last = f"encoder.layer.{config.num_hidden_layers - 1}.attention.self.query.weight"
            if last not in available:  # before shapes of very many layers are traced
                raise InputError(f"{path}: tensor {last} is missing")
            shapes = _shapes(config)
            for ours, theirs in names(config):
                if theirs not in available:
                    raise InputError(f"{path}: tensor {theirs} is missing")
                tensor = file.get_slice(available[theirs])
                wanted = shapes[ours][::-1] if ours.endswith("kernel") else shapes[ours]
                if tuple(tensor.get_shape()) != wanted:  # before anything of that size is allocated
                    raise InputError(f"{path}: tensor {theirs} has the wrong shape for config.json")
                if tensor.get_dtype() not in _DTYPES:
                    raise InputError(
                        f"{path}: tensor {theirs} is of {tensor.get_dtype()}, none of {', '.join(_DTYPES)}"
                    )
                value = np.asarray(file.get_tensor(available[theirs]), np.float32)
                _put(params, ours, jnp.asarray(value.T if ours.endswith("kernel") else value))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is broken or cut off: {error}") from None
    return params


def _check_header(path: Path) -> None:
    """Refuses a header that claims to be longer than one of a BERT can be, before it is read."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > min(LARGEST_WEIGHTS_HEADER, path.stat().st_size):
        raise ValueError(f"its header claims {length} bytes")


def _modern(name: str) -> str:
    """A tensor's name without the prefix of a whole model, and without TensorFlow's names for LayerNorm."""
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _put(tree: Params, path: str, value: Any) -> None:
    *branches, leaf = path.split("/")
    for branch in branches:
        tree = tree.setdefault(branch, {})
    tree[leaf] = value


def save_pretrained(directory: str | Path, config: BertConfig, params: Params, tokenizer: Any = None) -> None:
    """Writes what `transformers.AutoModel` reads back, and with a tokenizer what `AutoTokenizer` reads back.

    Args:
        directory: Made if it is not there.
        config: The encoder's config.
        params: The encoder's parameters.
        tokenizer: A `tokenizers.Tokenizer`, or None.
    """
    directory = Path(directory)
    save_description(directory, config, tokenizer)
    leaves = {trees.path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    tensors = {}
    for ours, theirs in names(config):
        value = np.asarray(leaves[ours], np.float32)
        tensors[theirs] = np.ascontiguousarray(value.T if ours.endswith("kernel") else value)
    save_tensors(directory / "model.safetensors", tensors)


def save_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Writes a safetensors file for torch, which whoever can read the files beside it can read, too."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(mode)  # safetensors shuts everyone out but its owner


def save_description(directory: str | Path, config: BertConfig, tokenizer: Any = None) -> None:
    """All of `save_pretrained` but the weights: ``config.json`` and the tokenizer."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    described = {"architectures": ["BertModel"], "model_type": "bert", **dataclasses.asdict(config)}
    (directory / "config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    if tokenizer is not None:
        (directory / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
        # Not BertTokenizer: that one keeps the vocabulary alone, and then writes everything in lower case.
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": config.max_position_embeddings,
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            **_special_tokens(tokenizer),
        }
        (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _special_tokens(tokenizer: Any) -> dict[str, str]:
    """The special tokens under the names of ``tokenizer_config.json``; padding is masked, so any token will do."""
    known = {name: f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
    there = {f"{name}_token": token for name, token in known.items() if tokenizer.token_to_id(token) is not None}
    return {"pad_token": known["unk"], **there}
