"""LoRA (Hu et al. 2021, arXiv:2106.09685): kernels that stay as they are, each with a trained product of low rank.

In place of a kernel W the encoder has ``W + (alpha / rank) A B``, with A ``[input rank]`` and B ``[rank output]``: the
transposes of the paper's, whose layers compute W x (section 4.1). The sum is computed before the encoder runs, so that
no module knows of it. A and B are parameters beside the kernel, ``lora_a`` and ``lora_b``.
"""

import re
import zlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PRNGKeyArray

from mtbert_jax.config import LoraConfig
from mtbert_jax.config.schema import nearest
from mtbert_jax.errors import InputError
from mtbert_jax.types import Params

A, B, KERNEL = "lora_a", "lora_b", "kernel"


@dataclass(frozen=True)
class Lora:
    """Which kernels of an encoder have a product of low rank; by default none.

    Attributes:
        layers: Paths of their dense layers, such as ``encoder/layer_0/attention/query``.
        rank: Width of A, height of B.
        scale: Factor of the product, alpha / rank.
        fixed: Paths of the encoder's own parameters, which do not train.
    """

    layers: tuple[str, ...] = ()
    rank: int = 0
    scale: float = 0.0
    fixed: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: LoraConfig, usual: tuple[str, ...], encoder: Params) -> "Lora":
        """What a config asks for.

        Args:
            config: Rank, alpha and paths.
            usual: The paths, where the config has none.
            encoder: Parameters of the encoder, or their shapes.

        Raises:
            InputError: No dense kernel lies below a path, or the rank is above a side of a kernel.
        """
        if not config.rank:
            return cls()
        leaves = flatten_dict({"encoder": encoder}, sep="/")
        sides = {_layer(path): leaf.shape for path, leaf in leaves.items() if _is_dense(path, leaf)}
        chosen: set[str] = set()
        for pattern in config.paths or usual:
            found = [layer for layer in sides if _matches(pattern, layer)]
            if not found:
                known = list(dict.fromkeys(re.sub(r"layer_\d+", "*", layer) for layer in sides))
                raise InputError(
                    f"lora.paths: no dense kernel lies below {pattern!r}{nearest(pattern, [*known, *sides])} (kernels "
                    f"of this encoder: {', '.join(known)})"
                )
            chosen |= {*found}
        layers = tuple(layer for layer in sides if layer in chosen)
        narrow = min(layers, key=lambda layer: min(sides[layer]))
        if config.rank > min(sides[narrow]):
            rows, columns = sides[narrow]
            raise InputError(
                f"lora.rank = {config.rank}: the kernel of {narrow} has {rows} × {columns} numbers, and a rank of at "
                f"most {min(rows, columns)}"
            )
        return cls(layers, config.rank, config.alpha / config.rank, tuple(leaves))

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.layers)

    def added(self, encoder: Params, key: PRNGKeyArray) -> Params:
        """The parameters with fresh A and B; A depends on `key` and its path.

        B is zero, so that the encoder computes what it did. A is uniform in ±1/√input, as in the paper's code and in
        peft (Kaiming's initialiser with a = √5); the paper says Gaussian.
        """
        if not self.layers:
            return encoder
        leaves = flatten_dict({"encoder": encoder}, sep="/")
        for layer in self.layers:
            rows, columns = leaves[f"{layer}/{KERNEL}"].shape
            own, most = jax.random.fold_in(key, zlib.crc32(layer.encode())), rows**-0.5
            leaves[f"{layer}/{A}"] = jax.random.uniform(own, (rows, self.rank), minval=-most, maxval=most)
            leaves[f"{layer}/{B}"] = jnp.zeros((self.rank, columns))
        tree: Params = unflatten_dict(leaves, sep="/")["encoder"]
        return tree

    def merged(self, encoder: Params) -> Params:
        """The parameters of a plain encoder that computes the same: products added to the kernels, A and B gone."""
        if not self.layers:
            return encoder
        leaves = flatten_dict({"encoder": encoder}, sep="/")
        for layer in self.layers:
            a, b = leaves.pop(f"{layer}/{A}"), leaves.pop(f"{layer}/{B}")
            product = jnp.matmul(a, b, precision="highest")  # costs nothing, and GPUs would round it
            leaves[f"{layer}/{KERNEL}"] = leaves[f"{layer}/{KERNEL}"] + self.scale * product
        tree: Params = unflatten_dict(leaves, sep="/")["encoder"]
        return tree


def _is_dense(path: str, leaf: Any) -> bool:
    return path.endswith(f"/{KERNEL}") and len(leaf.shape) == 2


def _layer(path: str) -> str:
    return path.rpartition("/")[0]


def _matches(pattern: str, layer: str) -> bool:
    """Whether a layer's kernel is what `pattern` names or lies below it; a ``*`` is any text without a slash.

    >>> [_matches(pattern, "encoder/layer_10/output") for pattern in ("encoder", "encoder/*/output", "encoder/layer_1")]
    [True, True, False]
    """
    expression = re.escape(pattern.rstrip("/")).replace(r"\*", "[^/]*")
    return re.match(f"{expression}(/|$)", f"{layer}/{KERNEL}") is not None
