"""What an aggregator is: an optax gradient transformation that makes one gradient of several tasks'.

Its incoming updates carry a leading ``task`` axis. It works on the Gramian ``gramian[i, j] = g_i · g_j`` alone: a
*rule* turns the Gramian into one weight per task, and what leaves is ``sum_j weights[j] * g_j``. A new method is one
new rule.

A rule is ``(gramian, state, key, losses) → (weights, state)``, in arrays of float32: the Gramian ``[task task]``,
whatever the rule keeps from step to step (None for most), a fresh key in every step, the tasks' mean losses ``[task]``.
A task that is left out of a step has zeros in both.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from mtbert_jax import trees
from mtbert_jax.errors import InputError
from mtbert_jax.optim.aggregators.given import (
    Losses,
    is_whole,
    losses_of,
    must_be_state,
    must_fit,
    note_combined,
    num_tasks_of,
)
from mtbert_jax.optim.aggregators.gramian import Gramian, finite_part, grouped_gramian, inverse
from mtbert_jax.optim.aggregators.grouping import ENCODER, GROUPINGS, groups_of

Tree = Any
State = Any
Key = PRNGKeyArray
Weights = Float[Array, " task"]
Rule = Callable[..., tuple[Weights, State]]


class AggregatorState(NamedTuple):
    """State of an aggregator: the key from which the next step's random choices come."""

    key: Key


class StatefulAggregatorState(NamedTuple):
    """State of an aggregator whose rule keeps one; a class of its own, since checkpoints would hold a None, too."""

    key: Key
    rule_state: State


class Combined(NamedTuple):
    """What an aggregator made of a step's gradients, for those who look at it.

    Attributes:
        grams: The Gramian of every group of parameters, zeros for tasks that are left out.
        weights: The weights of every group.
    """

    grams: Float[Array, "group task task"]
    weights: Float[Array, "group task"]


def shares_of_update(combined: Combined) -> Float[Array, " task"]:
    """Each task's share of the update u = Σ w_j g_j: w_i g_i · u / ‖u‖². They add up to 1; zeros where u is zero."""
    parts = combined.weights * jnp.einsum("gij,gj->gi", combined.grams, combined.weights, precision="highest")
    total = parts.sum()
    return parts.sum(0) * inverse(total)


class Method(NamedTuple):
    """All that makes an aggregator; see `aggregator` for what each is."""

    rule: Rule
    seed: int
    init: Callable[[int], State] | None
    num_tasks: int | None
    by: str
    heads: bool

    @property
    def name(self) -> str:
        """What messages call it."""
        return getattr(self.rule, "__name__", "rule")


class Aggregator(optax.GradientTransformationExtraArgs):
    """A gradient transformation that knows its `Method`, so that another can be made of it."""

    method: Method


def aggregator(
    rule: Rule,
    seed: int = 0,
    init: Callable[[int], State] | None = None,
    num_tasks: int | None = None,
    by: str = ENCODER,
    heads: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """An aggregator that follows `rule`.

    Leaves that carry one axis more than their parameter are stacked over tasks: they are combined. Leaves shaped like
    their parameter belong to one task alone (a head's, or every leaf when a step has one task): they pass as they are,
    unless `heads` is set. Without `params` every leaf is stacked.

    A task with a gradient or a loss that is not finite is left out of that step: it counts as a zero gradient and a
    zero loss. So is one of which the extra argument `finite` says so; it has an entry for each task, in their order.

    The tasks' losses are an extra argument, ``tx.update(grads, state, params, losses=losses)``; without them the rule
    gets zeros, and one with `heads` refuses to run. The extra argument `observe` is called with a `Combined`. The extra
    argument `combined_by` holds of each gradient of a step, by its path, which aggregator has combined it: one that
    would have no effect behind another refuses to run.

    Args:
        rule: ``(gramian, state, key, losses) → (weights, state)``, one weight per task.
        seed: Seed of the keys that the rule gets, a fresh one in every step.
        init: ``num_tasks → state`` before the first step, arrays; None for a rule without a state.
        num_tasks: Number of tasks of a step; where it is given, a step of several tasks must have so many.
        by: What the rule looks at: the whole ``"encoder"`` at once; or each ``"layer"`` or each ``"matrix"`` by itself,
            with a Gramian, weights, a key and a state of its own.
        heads: Whether the rule weighs losses, so that a task's weight is its head's factor, too: of the leaves below
            ``heads/<task>``. Tasks are in the order of the extra argument ``finite``, or else of the heads' names.

    Raises:
        InputError: The rule keeps a state, and there is no number of tasks; or `by` is none of the three, or not the
            encoder for a rule that weighs losses; or `seed` or `num_tasks` is no whole number, or too small.
    """
    method = Method(rule, seed, init, num_tasks, by, heads)
    if not isinstance(seed, jax.core.Tracer) and not is_whole(seed, 0):
        raise InputError(f"aggregator {method.name}: seed = {seed!r}: must be a whole number from 0 to 2**32 - 1")
    if num_tasks is not None and not is_whole(num_tasks, 1):
        raise InputError(f"aggregator {method.name}: num_tasks = {num_tasks!r}: must be a whole number of at least 1")
    if init is not None and num_tasks is None:
        raise InputError(
            f"aggregator {method.name} keeps a state from step to step: give num_tasks, the tasks of a step"
        )
    if by not in GROUPINGS:
        raise InputError(f"by = {by!r}: must be one of {', '.join(map(repr, GROUPINGS))}")
    if heads and by != ENCODER:
        raise InputError(f"by = {by!r}: aggregator {method.name} weighs losses, which have no parts")

    def state_of(key: Key, rule_state: State) -> AggregatorState | StatefulAggregatorState:
        return AggregatorState(key) if init is None else StatefulAggregatorState(key, rule_state)

    def init_fn(params: optax.Params) -> AggregatorState | StatefulAggregatorState:
        first = first_state(init, num_tasks)
        if init is not None and by != ENCODER:
            shared = [path for path in trees.paths(params) if not trees.is_below(path, "heads")]
            number = max(groups_of(shared, by), default=0) + 1
            first = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (number, *leaf.shape)), first)
        return state_of(jax.random.key(seed), first)

    def update_fn(
        updates: optax.Updates,
        state: AggregatorState | StatefulAggregatorState,
        params: optax.Params | None = None,
        *,
        losses: Losses | None = None,
        finite: dict[str, Any] | None = None,
        observe: Callable[[Combined], None] | None = None,
        **others: Any,  # meant for other transformations of the chain
    ) -> tuple[optax.Updates, AggregatorState | StatefulAggregatorState]:
        must_be_state(method.name, state, AggregatorState if init is None else StatefulAggregatorState)
        must_fit(method.name, updates, params)
        paths, (leaves, treedef) = trees.paths(updates), jax.tree.flatten(updates)
        places = [number for number, is_stacked in enumerate(stacked_leaves(updates, params)) if is_stacked]
        carry, key = jax.random.split(state.key)
        rule_state = state.rule_state if isinstance(state, StatefulAggregatorState) else None
        if "combined_by" in others:
            note_combined(method.name, [paths[place] for place in places], paths, others["combined_by"])
        if places:
            stacked = [leaves[place] for place in places]
            number = num_tasks_of(method.name, num_tasks, stacked, finite)
            needs = "it needs update(..., losses=losses)" if heads else ""
            losses = losses_of(method.name, losses, number, needs)
            groups = groups_of([paths[place] for place in places], by)
            grams, whole = finite_part(grouped_gramian(stacked, groups), finite, losses)
            weights, rule_state = _follow_groups(method, grams, rule_state, key, jnp.where(whole, losses, 0.0))
            if observe is not None:
                observe(Combined(grams, weights))
            for place, group in zip(places, groups, strict=True):
                leaves[place] = _combine(leaves[place], weights[group], whole)
            if heads:
                factors = _factors(method, updates, finite, weights[0])
                for place in set(range(len(leaves))) - set(places):
                    leaves[place] = _scaled(paths[place], leaves[place], factors)
        return jax.tree.unflatten(treedef, leaves), state_of(carry, rule_state)

    made = Aggregator(init_fn, update_fn)
    made.method = method
    return made


def first_state(init: Callable[[int], State] | None, num_tasks: int | None) -> State:
    """The state of a rule before its first step; None for a rule without one."""
    return None if init is None else _single(jax.tree.map(jnp.asarray, init(num_tasks)))  # type: ignore[arg-type]


def follow(rule: Rule, gram: Gramian, state: State, key: Key, losses: Losses) -> tuple[Weights, State]:
    """What a rule gives: one weight per task, and a state that keeps its shape and type, or else an `InputError`."""
    with jax.default_matmul_precision("highest"):  # products of this size cost nothing, and GPUs would round them
        result = rule(_single(gram), state, key, _single(losses))
    if not isinstance(result, tuple) or len(result) != 2:
        raise InputError(f"aggregator {_name(rule)}: its rule must return a pair, (weights, state)")
    weights, new_state = _single((jnp.asarray(result[0]), result[1]))
    if weights.shape != gram.shape[:1]:
        raise InputError(
            f"aggregator {_name(rule)}: its rule gave an array of shape {weights.shape} for {len(gram)} tasks; it must "
            "give one weight per task"
        )
    if jnp.iscomplexobj(weights):
        raise InputError(f"aggregator {_name(rule)}: its rule gave complex weights, and must give real ones")
    if jax.tree.map(_type, new_state) != jax.tree.map(_type, state):
        raise InputError(f"aggregator {_name(rule)}: its rule changes the shape or type of its state")
    return weights, new_state


def _follow_groups(
    method: Method, grams: Float[Array, "group task task"], state: State, key: Key, losses: Losses
) -> tuple[Float[Array, "group task"], State]:
    """What the rule gives for each group; the only one's state and key are the aggregator's own."""
    if method.by == ENCODER:
        weights, state = follow(method.rule, grams[0], state, key, losses)
        return weights[None], state
    each = lambda gram, state, key: follow(method.rule, gram, state, key, losses)  # noqa: E731
    result: tuple[Float[Array, "group task"], State] = jax.vmap(each)(grams, state, jax.random.split(key, len(grams)))
    return result


def _factors(
    method: Method, updates: optax.Updates, finite: dict[str, Any] | None, weights: Weights
) -> dict[str, Float[Array, ""]]:
    """Each task's weight by the path of its head."""
    heads = sorted(updates["heads"]) if isinstance(updates, dict) and "heads" in updates else []
    names = list(finite) if finite else heads
    if heads and len(names) != len(weights):
        raise InputError(
            f"aggregator {method.name}: {len(weights)} tasks and {len(heads)} heads; say whose head is whose by "
            'update(..., finite={"<task>": True, ...}), the tasks in their order'
        )
    return {f"heads/{name}": weights[number] for number, name in enumerate(names)} if heads else {}


def _scaled(path: str, leaf: Array, factors: dict[str, Float[Array, ""]]) -> Array:
    factor = next((factor for head, factor in factors.items() if trees.is_below(path, head)), None)
    # `where`, since a task that is left out has weight 0, and 0 * NaN is NaN.
    return leaf if factor is None else jnp.where(factor == 0, 0.0, factor * leaf).astype(leaf.dtype)


def _single(tree: Tree) -> Tree:
    """Numbers of float64, which there are under ``jax_enable_x64`` alone, as float32; all else as it is."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float32) if jnp.result_type(leaf) == jnp.float64 else leaf, tree
    )


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
