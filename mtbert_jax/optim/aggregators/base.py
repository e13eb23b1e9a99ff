"""What an aggregator is: an optax gradient transformation that makes one gradient of several tasks'.

Its incoming updates carry a leading ``task`` axis. It works on the Gramian ``gramian[i, j] = g_i · g_j`` alone: a
*rule* turns the Gramian into one weight per task, and what leaves is ``sum_j weights[j] * g_j``. A new method is one
new rule.

A rule is ``(gramian, state, key, losses) → (weights, state)``, in arrays of float32: the Gramian ``[task task]``,
whatever the rule keeps from step to step (None for most), a fresh key in every step, the tasks' mean losses ``[task]``.
A task that is left out of a step has zeros in both.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from mtbert_jax.errors import InputError

Tree = Any
State = Any
Key = PRNGKeyArray
Gramian = Float[Array, "task task"]
Losses = Float[Array, " task"]
Weights = Float[Array, " task"]
Rule = Callable[..., tuple[Weights, State]]


class AggregatorState(NamedTuple):
    """State of an aggregator: the key from which the next step's random choices come."""

    key: Key


class StatefulAggregatorState(NamedTuple):
    """State of an aggregator whose rule keeps one; a class of its own, since checkpoints would hold a None, too."""

    key: Key
    rule_state: State


def gramian(stacked: list[Float[Array, "task ..."]]) -> Gramian:
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


def cosines(gram: Gramian) -> Float[Array, "task task"]:
    """Cosine between each two tasks' gradients; 0 where one of them is zero."""
    norms = jnp.sqrt(jnp.diagonal(gram))
    scale = norms[:, None] * norms[None, :]
    return jnp.where(scale > 0, gram / jnp.where(scale > 0, scale, 1.0), 0.0)


def aggregator(
    rule: Rule, seed: int = 0, init: Callable[[int], State] | None = None, num_tasks: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """An aggregator that follows `rule`.

    Leaves that carry one axis more than their parameter are stacked over tasks: they are combined. Leaves shaped like
    their parameter belong to one task alone (a head's, or every leaf when a step has one task): they pass as they are.
    Without `params` every leaf is stacked.

    A task with a gradient that is not finite is left out of that step: it counts as a zero gradient and a zero loss.

    The tasks' losses are an extra argument, ``tx.update(grads, state, params, losses=losses)``; without them the rule
    gets zeros.

    Args:
        rule: ``(gramian, state, key, losses) → (weights, state)``, one weight per task.
        seed: Seed of the keys that the rule gets, a fresh one in every step.
        init: ``num_tasks → state`` before the first step, arrays; None for a rule without a state.
        num_tasks: Number of tasks of a step.

    Raises:
        InputError: The rule keeps a state, and there is no number of tasks.
    """
    if init is not None and num_tasks is None:
        raise InputError(
            f"aggregator {_name(rule)} keeps a state from step to step: give num_tasks, the tasks of a step"
        )

    def state_of(key: Key, rule_state: State) -> AggregatorState | StatefulAggregatorState:
        return AggregatorState(key) if init is None else StatefulAggregatorState(key, rule_state)

    def init_fn(params: optax.Params) -> AggregatorState | StatefulAggregatorState:
        return state_of(jax.random.key(seed), first_state(init, num_tasks))

    def update_fn(
        updates: optax.Updates,
        state: AggregatorState | StatefulAggregatorState,
        params: optax.Params | None = None,
        *,
        losses: Losses | None = None,
        **_: Any,  # meant for other transformations of the chain
    ) -> tuple[optax.Updates, AggregatorState | StatefulAggregatorState]:
        leaves, treedef = jax.tree.flatten(updates)
        shared = stacked_leaves(updates, params)
        carry, key = jax.random.split(state.key)
        rule_state = state.rule_state if isinstance(state, StatefulAggregatorState) else None
        if any(shared):
            stacked = [leaf for leaf, is_stacked in zip(leaves, shared, strict=True) if is_stacked]
            gram, finite = finite_part(gramian(stacked))
            losses = jnp.zeros(len(gram)) if losses is None else losses
            losses = jnp.where(finite & jnp.isfinite(losses), losses, 0.0)
            weights, rule_state = follow(rule, gram, rule_state, key, losses)
            combine = lambda leaf: _combine(leaf, weights, finite)  # noqa: E731
            leaves = [combine(leaf) if is_stacked else leaf for leaf, is_stacked in zip(leaves, shared, strict=True)]
        return jax.tree.unflatten(treedef, leaves), state_of(carry, rule_state)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def first_state(init: Callable[[int], State] | None, num_tasks: int | None) -> State:
    """The state of a rule before its first step; None for a rule without one."""
    return None if init is None else jax.tree.map(jnp.asarray, init(num_tasks))  # type: ignore[arg-type]


def finite_part(gram: Gramian) -> tuple[Gramian, Bool[Array, " task"]]:
    """The Gramian with zeros in place of tasks whose gradient is not finite, and which tasks' are."""
    finite = jnp.isfinite(jnp.diagonal(gram))
    return jnp.where(finite[:, None] & finite[None, :], gram, 0.0), finite


def follow(rule: Rule, gram: Gramian, state: State, key: Key, losses: Losses) -> tuple[Weights, State]:
    """What a rule gives: one weight per task, and a state that keeps its shape and type, or else an `InputError`."""
    result = rule(gram, state, key, losses)
    if not isinstance(result, tuple) or len(result) != 2:
        raise InputError(f"aggregator {_name(rule)}: its rule must return a pair, (weights, state)")
    weights, new_state = jnp.asarray(result[0]), result[1]
    if weights.shape != gram.shape[:1]:
        raise InputError(
            f"aggregator {_name(rule)}: its rule gave an array of shape {weights.shape} for {len(gram)} tasks; it must "
            "give one weight per task"
        )
    if jax.tree.map(_type, new_state) != jax.tree.map(_type, state):
        raise InputError(f"aggregator {_name(rule)}: its rule changes the shape or type of its state")
    return weights, new_state


def _type(leaf: Any) -> tuple[Any, ...]:
    return jnp.shape(leaf), jnp.result_type(leaf)


def _name(rule: Rule) -> str:
    return getattr(rule, "__name__", "rule")


def stacked_leaves(updates: Tree, params: Tree | None) -> list[bool]:
    """For each leaf of `updates`, whether it carries a leading task axis that its parameter has not."""
    leaves = jax.tree.leaves(updates)
    if params is None:
        return [True] * len(leaves)
    return [leaf.ndim == param.ndim + 1 for leaf, param in zip(leaves, jax.tree.leaves(params), strict=True)]


@jax.jit
def _combine(leaf: Float[Array, "task ..."], weights: Weights, finite: Bool[Array, " task"]) -> Float[Array, "..."]:
    # Task by task: a sum of scaled slices fuses into one pass. `where`, since 0 * NaN is NaN.
    terms = (jnp.where(finite[t], weights[t] * leaf[t], 0.0) for t in range(leaf.shape[0]))
    return sum(terms, start=jnp.zeros((), leaf.dtype)).astype(leaf.dtype)
