"""Optimizer state of heads that are not in every step: each head has the state that it would have alone.

Adam's moments lie below the paths of the parameters, but its count lies above them and would run on while a head waits:
the head's first steps would be up to five learning rates (docs/numerics.md, section 7). So every head has a copy of
what lies above, its *clocks*. The transformation runs once with the encoder's clocks and once with those of each head
of the step, and from each run is taken what belongs to its owner; XLA removes the rest.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import DictKey
from jaxtyping import Array, Bool

from mtbert_jax import trees
from mtbert_jax.optim.aggregators import Aggregator, AggregatorState, StatefulAggregatorState, stacked_leaves

Tree = Any
Finite = dict[str, Bool[Array, ""]] | None
CLOCK, SHARED, SCHEDULE = "clock", "shared", "schedule"
INJECTED = (optax.InjectHyperparamsState, optax.InjectStatefulHyperparamsState)


class HeadwiseState(NamedTuple):
    """State of a transformation that has clocks.

    Attributes:
        state: The transformation's own; the clocks in it are the encoder's.
        clocks: Each head's copy of the clocks, in the order of the leaves.
    """

    state: optax.OptState
    clocks: dict[str, tuple[Array, ...]]


class Headwise(optax.GradientTransformationExtraArgs):
    """A transformation that keeps the heads apart already."""


def headwise(tx: optax.GradientTransformation) -> Headwise:
    """`tx`, with the state of each head as it would be alone.

    A head that is not in a step, or whose task is left out for a gradient that is not finite, has a zero gradient and
    keeps its state, counts included, as `torch.optim` does where ``grad`` is None. Its update means nothing and must
    not be applied. The encoder's state stays as it is where no task of the step is finite.

    What is no parameter's and no step of a schedule is a clock: counts, but also estimates over all parameters, such as
    Prodigy's. Steps of schedules are shared and count every step. Keys and states of aggregators are shared, too.

    The extra argument ``finite`` says of each task of the step whether it takes part; without it all heads do. It and
    all others are handed on; ``observe`` is called with what the encoder's run shows. Where gradients are stacked over
    tasks, those of a task that takes no part are zeros to `tx`; an aggregator leaves them out by itself.
    """
    if isinstance(tx, Headwise):
        return tx
    leaves_out = isinstance(tx, Aggregator)
    tx = tx.gradient_transformation() if isinstance(tx, optax.MultiSteps) else tx
    inner = optax.with_extra_args_support(tx)

    def init(params: optax.Params) -> optax.OptState:
        state = inner.init(params)
        clocks = _clocks(jax.tree.leaves(state), _owners(state))
        heads = [head for head, own in _heads(params).items() if jax.tree.leaves(own)]  # masked ones have no leaves
        if clocks and heads:
            return HeadwiseState(state, dict.fromkeys(heads, clocks))
        return HeadwiseState(state, {}) if isinstance(state, HeadwiseState) else state

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        finite: Finite = None,
        observe: Callable[[Any], None] = lambda _: None,
        **others: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        present = _present(updates, finite)
        updates = updates if leaves_out or not finite else _without_left_out(updates, params, finite)
        others["finite"] = finite
        anyone = True if finite is None else jnp.any(jnp.stack(list(finite.values())))
        shared, clocks = state if isinstance(state, HeadwiseState) else (state, {})
        owners = _owners(shared)
        old, treedef = jax.tree.flatten(shared)

        def run(clocks: tuple[Array, ...]) -> tuple[optax.Updates, list[Array], list[Any]]:
            own, seen = iter(clocks), list[Any]()
            leaves = [next(own) if owner == CLOCK else leaf for owner, leaf in zip(owners, old, strict=True)]
            inside = jax.tree.unflatten(treedef, leaves)
            made, new = inner.update(updates, inside, params, observe=seen.append, **others)
            return made, jax.tree.leaves(new), seen  # what is seen inside leaves as an output

        run = jax.jit(run) if clocks else run  # traced once for all heads
        made, new, seen = run(_clocks(old, owners))
        for one in seen:
            observe(one)
        runs = {head: run(own)[:2] for head, own in clocks.items() if present[head] is not False}
        made = _with_heads(made, {head: _heads(own)[head] for head, (own, _) in runs.items() if head in _heads(own)})

        chosen = {SCHEDULE: True} | {f"heads/{head}": flag for head, flag in present.items()}
        source = {f"heads/{head}": leaves for head, (_, leaves) in runs.items()}
        after = [
            trees.select(chosen.get(owner, anyone), source.get(owner, new)[n], old[n]) for n, owner in enumerate(owners)
        ]
        if not isinstance(state, HeadwiseState):
            return made, jax.tree.unflatten(treedef, after)
        own_clocks = {
            head: trees.select(present[head], _clocks(runs[head][1], owners), own) if head in runs else own
            for head, own in clocks.items()
        }
        return made, HeadwiseState(jax.tree.unflatten(treedef, after), own_clocks)

    return Headwise(init, update)


def chain(*links: optax.GradientTransformation) -> Headwise:
    """The same as `optax.chain`, each link by itself headwise.

    So a link that looks at all parameters at once, such as a global norm, sees them put together again, and of the
    heads only those of the step: what momentum would have done to the others is taken away before it.
    """
    apart = [headwise(link) for link in links]

    def update(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        *,
        finite: Finite = None,
        **others: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        after: list[optax.OptState] = []
        for link, own in zip(apart, state, strict=True):
            if after:
                updates = _of_present(updates, finite, after[-1])
            updates, new = link.update(updates, own, params, finite=finite, **others)
            after.append(new)
        return updates, tuple(after)

    return Headwise(lambda params: tuple(link.init(params) for link in apart), update)


def _without_left_out(
    updates: optax.Updates, params: optax.Params | None, finite: dict[str, Bool[Array, ""]]
) -> optax.Updates:
    """Gradients with zeros, where they are stacked over tasks, for those that take no part."""
    flags = jnp.stack(list(finite.values()))
    leaves, treedef = jax.tree.flatten(updates)
    kept = [
        jnp.where(flags.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, 0) if stacked else leaf
        for leaf, stacked in zip(leaves, stacked_leaves(updates, params), strict=True)
    ]
    return jax.tree.unflatten(treedef, kept)


def _present(updates: optax.Updates, finite: Finite) -> dict[str, Bool[Array, ""] | bool]:
    """Of each head, whether it is in the step; decided while tracing where the step has no batch of its task."""
    return {head: True if finite is None else finite.get(head, False) for head in _heads(updates)}


def _of_present(updates: optax.Updates, finite: Finite, state: optax.OptState) -> optax.Updates:
    """What a link gave, less the heads that are not in the step; `state` is the link's."""
    # Without a state zero gradients stay zero, and XLA may round otherwise where one more choice stands between.
    remember = any(owner.startswith("heads/") for owner in _owners(state))
    absent = {head: flag for head, flag in _present(updates, finite).items() if remember or flag is False}
    zeros = jax.tree.map(jnp.zeros_like, _heads(updates))
    kept = {head: trees.select(flag, updates["heads"][head], zeros[head]) for head, flag in absent.items()}
    return _with_heads(updates, kept)


def _heads(tree: Tree) -> dict[str, Tree]:
    return tree.get("heads", {}) if isinstance(tree, dict) else {}


def _with_heads(tree: Tree, heads: dict[str, Tree]) -> Tree:
    return {**tree, "heads": {**tree["heads"], **heads}} if heads else tree


def _clocks(leaves: list[Array], owners: list[str]) -> tuple[Array, ...]:
    return tuple(leaf for leaf, owner in zip(leaves, owners, strict=True) if owner == CLOCK)


def _owners(state: optax.OptState) -> list[str]:
    """For each leaf of a state whose it is: ``heads/<head>``, `SHARED`, `SCHEDULE`, or `CLOCK`: a copy for each."""
    return jax.tree.leaves(jax.tree_util.tree_map_with_path(_owner, state, is_leaf=_stands_apart))


def _stands_apart(node: Any) -> bool:
    apart = (HeadwiseState, AggregatorState, StatefulAggregatorState, *INJECTED)
    return isinstance(node, apart) or _is_schedule_step(node)


def _is_schedule_step(node: Any) -> bool:
    """A state of one whole number and nothing beside it counts no statistics, so it is the step of a schedule."""
    alone = isinstance(node, tuple) and len(getattr(node, "_fields", ())) == 1 and hasattr(node[0], "dtype")
    return alone and is_count(node[0])


def is_count(leaf: Any) -> bool:
    """Whether a leaf of a state is one whole number."""
    return leaf.shape == () and jnp.issubdtype(leaf.dtype, jnp.integer)


def _owner(path: tuple[Any, ...], node: Any) -> Tree:
    if isinstance(node, HeadwiseState):
        own = [SHARED if owner == CLOCK else owner for owner in _owners(node.state)]
        return own, {head: [f"heads/{head}"] * len(clocks) for head, clocks in node.clocks.items()}
    if isinstance(node, INJECTED):
        beside = jax.tree.map(lambda _: SCHEDULE, node._replace(inner_state=None))
        return beside._replace(inner_state=_owners(node.inner_state))
    if _stands_apart(node):
        return jax.tree.map(lambda _: SCHEDULE if _is_schedule_step(node) else SHARED, node)
    for above, below in itertools.pairwise(path):
        if isinstance(above, DictKey) and isinstance(below, DictKey):  # labels of `optax.partition` have none below
            if above.key == "heads":
                return f"heads/{below.key}"
            if above.key == "encoder":
                return SHARED
    return CLOCK
