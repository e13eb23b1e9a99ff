"""Parameter trees by path: naming leaves, splitting off what is frozen, choosing between old and new, fingerprints."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Bool, UInt32

Tree = Any
LAYER = re.compile(r"encoder/layer_(\d+)/")
"""The beginning of a path below one of the encoder's layers."""


def path_of(path: tuple[Any, ...]) -> str:
    """A leaf's place as one string, such as ``encoder/layer_0/attention/query/kernel``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaves(tree: Tree) -> list[tuple[str, Any]]:
    """All leaves with their places, in the order of `jax.tree.leaves`."""
    return [(path_of(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def paths(tree: Tree) -> list[str]:
    """The places of all leaves."""
    return [path for path, _ in leaves(tree)]


def is_below(path: str, prefix: str) -> bool:
    """Whether `path` is `prefix` or lies below it.

    >>> is_below("encoder/layer_1/bias", "encoder/layer_1"), is_below("encoder/layer_10/bias", "encoder/layer_1")
    (True, False)
    """
    return path == prefix or path.startswith(prefix + "/")


def part_of_encoder(path: str) -> str:
    """``"layer_<n>"``, ``"embeddings"``, or ``"rest"``: pooler, last norm, and what else is in none of them.

    >>> [part_of_encoder(f"encoder/{path}") for path in ("layer_3/bias", "embeddings/word/embedding", "pooler/bias")]
    ['layer_3', 'embeddings', 'rest']
    """
    if match := LAYER.match(path):
        return f"layer_{match[1]}"
    return "embeddings" if is_below(path, "encoder/embeddings") else "rest"


def num_layers(tree: Tree) -> int:
    """One more than the largest number of a layer of the encoder; 0 where there is none, or one at every depth."""
    return 1 + max((int(match[1]) for path in paths(tree) if (match := LAYER.match(path))), default=-1)


def mask(tree: Tree, keep: Callable[[str], bool]) -> Tree:
    """A tree of bools shaped like `tree`: what `keep` says of each leaf's path."""
    return jax.tree_util.tree_map_with_path(lambda path, _: keep(path_of(path)), tree)


def split(tree: Tree, prefixes: Iterable[str]) -> tuple[Tree, Tree]:
    """Nested dict → (what lies below one of `prefixes`, the rest); empty branches are left out."""
    prefixes = tuple(prefixes)
    below: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for path, leaf in flatten_dict(tree, sep="/").items():
        inside = any(is_below(path, prefix) for prefix in prefixes)
        (below if inside else rest)[path] = leaf
    return unflatten_dict(below, sep="/"), unflatten_dict(rest, sep="/")


def merge(first: Tree, second: Tree) -> Tree:
    """The nested dict that `split` took apart."""
    return unflatten_dict({**flatten_dict(first, sep="/"), **flatten_dict(second, sep="/")}, sep="/")


def select(choose_new: Bool[Array, ""] | bool, new: Tree, old: Tree) -> Tree:
    """`new` where `choose_new` holds, else `old`: decided while tracing for a Python bool, on the device otherwise."""
    if isinstance(choose_new, bool):
        return new if choose_new else old
    return jax.tree.map(lambda a, b: jnp.where(choose_new, a, b), new, old)


def count(tree: Tree) -> int:
    """Number of scalars in the tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def fingerprint(tree: Tree) -> int:
    """A number below 2**32 that tells a tree from the same one with a damaged leaf, wherever its arrays lie.

    Any change to a single word of a single leaf changes it for certain, anything else but for one time in 2**32.

    >>> fingerprint({"a": jnp.arange(3.0)}) == fingerprint({"a": jnp.array([0.0, 2.0, 1.0])})
    False
    """
    # One program after the other: too many that meet other processes must not be under way (Layout.keep_pace).
    sums = [int(jax.device_get(_word_sum(leaf))) for leaf in jax.tree.leaves(tree)]
    return sum((2 * number + 1) * own for number, own in enumerate(sums)) % 2**32


@jax.jit
def _word_sum(leaf: Array) -> UInt32[Array, ""]:
    """The sum of a leaf's words, each times an odd number of its own, modulo 2**32."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype == bool:
        leaf = leaf.astype(jnp.uint8)
    words = jax.lax.bitcast_convert_type(leaf, f"uint{8 * min(leaf.dtype.itemsize, 4)}").astype(jnp.uint32)
    strides = np.cumprod((1, *words.shape[:0:-1]))[::-1]
    places = (
        np.uint32(stride) * jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        for axis, stride in zip(range(words.ndim), strides, strict=False)
    )
    return jnp.sum(words * (2 * sum(places, jnp.uint32(0)) + 1), dtype=jnp.uint32)
