"""Inner products of the tasks' gradients, and what they tell: cosines, which tasks take part, the scale."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mtbert_jax.errors import InputError

Gramian = Float[Array, "task task"]
Grams = Float[Array, "*group task task"]


def gramian(stacked: Sequence[Float[Array, "task ..."]]) -> Gramian:
    """Inner products between tasks, summed over all leaves, in float32.

    Each leaf is reduced row by row, then over rows: one float32 sum over 10⁸ products would be off by a percent.
    """
    return grouped_gramian(stacked, [0] * len(stacked))[0]


def grouped_gramian(
    stacked: Sequence[Float[Array, "task ..."]], groups: Sequence[int]
) -> Float[Array, "group task task"]:
    """The same of each group of leaves; `groups` has the group of every leaf. Each leaf's is computed once."""
    tasks = stacked[0].shape[0]
    entries = [jnp.zeros(tasks * (tasks + 1) // 2) for _ in range(max(groups) + 1)]
    for leaf, group in zip(stacked, groups, strict=True):
        entries[group] = entries[group] + _products(leaf)
    places = {pair: n for n, pair in enumerate(itertools.combinations_with_replacement(range(tasks), 2))}
    order = np.array([[places[min(i, j), max(i, j)] for j in range(tasks)] for i in range(tasks)])
    return jnp.stack([own[order] for own in entries])


@jax.jit  # traced once for all leaves of one shape, which a deep encoder has many of
def _products(leaf: Float[Array, "task ..."]) -> Float[Array, " pair"]:
    """Inner products of each task with itself and the later ones."""
    # Sliced before it is reshaped: so XLA sees the tasks' own arrays, and their stack is never made.
    width = leaf.shape[-1] if leaf.ndim > 1 else 1
    if not leaf.size:
        return jnp.zeros(len(leaf) * (len(leaf) + 1) // 2)
    rows = [leaf[task].astype(jnp.float32).reshape(-1, width) for task in range(leaf.shape[0])]
    products = [one * other for one, other in itertools.combinations_with_replacement(rows, 2)]
    if leaf.ndim == 2:  # a vector, of which an encoder has many: their products in one array compile sooner
        return jnp.sum(jnp.concatenate(products), axis=-1)
    return jnp.sum(jnp.stack(_sums_of_rows(products)), axis=-1)


def _sums_of_rows(products: list[Float[Array, "row width"]]) -> Sequence[Float[Array, " row"]]:
    """The sums of several arrays' rows in one reduction, which reads what they are computed from once."""
    add = lambda totals, values: tuple(map(jnp.add, totals, values))  # noqa: E731
    sums: Sequence[Array] = jax.lax.reduce(products, [jnp.zeros(())] * len(products), add, (1,))
    return sums


def as_gramian(values: Any) -> Gramian:
    """What a caller gives as a Gramian, in floating point; `InputError` if it has another shape."""
    try:
        gram = jnp.asarray(values)
    except (TypeError, ValueError):
        raise InputError(f"a Gramian is an array of numbers, and this is a {type(values).__name__}") from None
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not gram.size:
        raise InputError(f"a Gramian has a row and a column for each task, and this one has the shape {gram.shape}")
    return gram.astype(jnp.promote_types(gram.dtype, jnp.float32))  # of whole numbers weights would be rounded


def norms(gram: Gramian) -> Float[Array, " task"]:
    """The gradients' norms."""
    return jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0.0))


def cosines(gram: Gramian) -> Float[Array, "task task"]:
    """Cosine between each two tasks' gradients; 0 where one of them is zero."""
    size = norms(gram)
    scale = size[:, None] * size[None, :]
    return jnp.where(scale > 0, gram / jnp.where(scale > 0, scale, 1.0), 0.0)


def finite_part(
    grams: Grams,
    present: Mapping[str, Bool[Array, ""] | bool] | None = None,
    losses: Float[Array, " task"] | None = None,
) -> tuple[Grams, Bool[Array, " task"]]:
    """Gramians with zeros in place of tasks that are left out, and which tasks are not.

    Left out are those whose gradient or loss is not finite, and those that `present`, in the order of the tasks, says
    False of.
    """
    squares = jnp.diagonal(grams, axis1=-2, axis2=-1)
    finite = jnp.isfinite(squares.sum(tuple(range(squares.ndim - 1))))
    if present:
        finite &= jnp.stack([jnp.asarray(flag) for flag in present.values()])
    if losses is not None:
        finite &= jnp.isfinite(losses)
    return jnp.where(finite[:, None] & finite[None, :], grams, 0.0), finite


def taking_part(gram: Gramian) -> Bool[Array, " task"]:
    """Which tasks have a gradient. One that is left out of a step has none: no rule may let it count."""
    return jnp.diagonal(gram) > 0


def shares(gram: Gramian) -> Float[Array, " task"]:
    """1 / T for each of the T tasks that take part, 0 for the others."""
    present = taking_part(gram)
    return present / jnp.maximum(present.sum(), 1)


def inverse(values: Float[Array, " task"]) -> Float[Array, " task"]:
    """1 / value, 0 where the value is 0."""
    return jnp.where(values > 0, 1.0 / jnp.where(values > 0, values, 1.0), 0.0)


def reciprocal(size: Float[Array, " task"]) -> Float[Array, " task"]:
    """1 / norm, times the least norm above 0, so that numbers stay at 1 and below; 0 where the norm is 0."""
    return jnp.min(jnp.where(size > 0, size, jnp.inf)) * inverse(size)


def softmax(values: Float[Array, " task"], among: Bool[Array, " task"]) -> Float[Array, " task"]:
    """Softmax among some of the tasks; 0 for the others, and for all where there are none."""
    return jnp.nan_to_num(jax.nn.softmax(jnp.where(among, values, -jnp.inf)))


def scaled(gram: Gramian) -> tuple[Gramian, Float[Array, ""]]:
    """The Gramian over its trace, and the trace; a Gramian of zeros stays as it is."""
    trace = jnp.trace(gram)
    return gram * inverse(trace), trace
