"""Several tasks' gradients → one: sum, mean, and PCGrad (Yu et al. 2020, arXiv:2001.06782, Algorithm 1).

An aggregator is an optax gradient transformation whose incoming updates carry a leading ``task`` axis. It works on
the Gramian ``gramian[i, j] = g_i · g_j`` alone: a *rule* turns the Gramian into one weight per task, and what leaves
is ``sum_j weights[j] * g_j``. A new method is one new rule.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

Tree = Any
Rule = Callable[[Float[Array, "task task"], PRNGKeyArray], Float[Array, " task"]]


class AggregatorState(NamedTuple):
    """State of an aggregator: the key from which the next step's random choices come."""

    key: PRNGKeyArray


def gramian(stacked: list[Float[Array, "task ..."]]) -> Float[Array, "task task"]:
    """Inner products between tasks, summed over all leaves, in float32.

    Each leaf is reduced row by row, then over rows: one float32 sum over 10⁸ products would be off by a percent.
    """
    tasks = stacked[0].shape[0]
    entries = sum(map(_products, stacked), start=jnp.zeros(tasks * (tasks + 1) // 2))
    places = {pair: n for n, pair in enumerate(itertools.combinations_with_replacement(range(tasks), 2))}
    return entries[jnp.array([[places[min(i, j), max(i, j)] for j in range(tasks)] for i in range(tasks)])]


@jax.jit  # traced once for all leaves of one shape, which a deep encoder has many of
def _products(leaf: Float[Array, "task ..."]) -> Float[Array, " pair"]:
    """Inner products of each task with itself and the later ones."""
    # Sliced before it is reshaped: so XLA sees the tasks' own arrays, and their stack is never made.
    width = leaf.shape[-1] if leaf.ndim > 1 else 1
    rows = [leaf[task].astype(jnp.float32).reshape(-1, width) for task in range(leaf.shape[0])]
    pairs = itertools.combinations_with_replacement(rows, 2)
    return jnp.stack([jnp.sum(jnp.sum(one * other, axis=-1)) for one, other in pairs])


def cosines(gram: Float[Array, "task task"]) -> Float[Array, "task task"]:
    """Cosine between each two tasks' gradients; 0 where one of them is zero."""
    norms = jnp.sqrt(jnp.diagonal(gram))
    scale = norms[:, None] * norms[None, :]
    return jnp.where(scale > 0, gram / jnp.where(scale > 0, scale, 1.0), 0.0)


def aggregator(rule: Rule, seed: int = 0) -> optax.GradientTransformation:
    """An aggregator that follows `rule`.

    Leaves that carry one axis more than their parameter are stacked over tasks: they are combined. Leaves shaped like
    their parameter belong to one task alone (a head's, or every leaf when a step has one task): they pass as they are.
    Without `params` every leaf is stacked.

    A task with a gradient that is not finite is left out of that step: it counts as a zero gradient.

    Args:
        rule: ``(gramian, key) → weights``, one weight per task.
        seed: Seed of the keys that the rule gets, a fresh one in every step.
    """

    def init(params: optax.Params) -> AggregatorState:
        del params
        return AggregatorState(jax.random.key(seed))

    def update(
        updates: optax.Updates, state: AggregatorState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AggregatorState]:
        leaves, treedef = jax.tree.flatten(updates)
        shared = stacked_leaves(updates, params)
        carry, key = jax.random.split(state.key)
        if any(shared):
            stacked = [leaf for leaf, is_stacked in zip(leaves, shared, strict=True) if is_stacked]
            gram = gramian(stacked)
            finite = jnp.isfinite(jnp.diagonal(gram))
            weights = rule(jnp.where(finite[:, None] & finite[None, :], gram, 0.0), key)
            combine = lambda leaf: _combine(leaf, weights, finite)  # noqa: E731
            leaves = [combine(leaf) if is_stacked else leaf for leaf, is_stacked in zip(leaves, shared, strict=True)]
        return jax.tree.unflatten(treedef, leaves), AggregatorState(carry)

    return optax.GradientTransformation(init, update)


def stacked_leaves(updates: Tree, params: Tree | None) -> list[bool]:
    """For each leaf of `updates`, whether it carries a leading task axis that its parameter has not."""
    leaves = jax.tree.leaves(updates)
    if params is None:
        return [True] * len(leaves)
    return [leaf.ndim == param.ndim + 1 for leaf, param in zip(leaves, jax.tree.leaves(params), strict=True)]


@jax.jit
def _combine(
    leaf: Float[Array, "task ..."], weights: Float[Array, " task"], finite: Bool[Array, " task"]
) -> Float[Array, "..."]:
    # Task by task: a sum of scaled slices fuses into one pass. `where`, since 0 * NaN is NaN.
    terms = (jnp.where(finite[t], weights[t] * leaf[t], 0.0) for t in range(leaf.shape[0]))
    return sum(terms, start=jnp.zeros((), leaf.dtype)).astype(leaf.dtype)
