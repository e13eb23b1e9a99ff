"""The update of a step: from the gradients of its tasks to the next state, and what is told of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from mtbert_jax import trees
from mtbert_jax.optim.aggregators import Combined, cosines, finite_part, gramian, grouped_gramian, shares_of_update
from mtbert_jax.optim.headwise import headwise
from mtbert_jax.parallel import Layout
from mtbert_jax.programs import made_once
from mtbert_jax.regularizers import update_teacher
from mtbert_jax.training.objective import StageSpec, Terms
from mtbert_jax.training.state import TrainState
from mtbert_jax.types import Params

Tree = Any


class StepMetrics(NamedTuple):
    """What a step tells, still on the device.

    Attributes:
        losses: Mean loss of each task of the step.
        penalties: What the regularisers that are on gave, unweighted, by name and task.
        finite: Whether the task's loss and gradient were finite; if not, it had no part in the step.
        cosines: Cosine between each two tasks' gradients of the shared parameters, in the order of `losses`; None for a
            step of one task, or while the encoder is frozen.
        layers: The same of the embeddings, of each layer, and of what else the encoder has; empty where it is None.
        combined: What the aggregator made of the gradients, in the order of `losses`: each task's `weight`, the mean
            over groups of parameters if it looks at several, and its `share` of the update. Empty without one.
    """

    losses: dict[str, Float[Array, ""]]
    penalties: dict[str, dict[str, Float[Array, ""]]]
    finite: dict[str, Bool[Array, ""]]
    cosines: Float[Array, "task task"] | None
    layers: dict[str, Float[Array, "task task"]]
    combined: dict[str, Float[Array, " task"]]


@made_once
def update_program(
    tx: optax.GradientTransformation, stage: StageSpec, layout: Layout
) -> Callable[..., tuple[TrainState, StepMetrics]]:
    """The update of a stage, ``(params, state without them, gradients, terms) → (state, metrics)``."""
    update = Update(tx, stage, layout)

    def apply_gradients(
        params: Params, state: TrainState, grads: dict[str, Params], terms: dict[str, Terms]
    ) -> tuple[TrainState, StepMetrics]:
        return update.apply_gradients(state._replace(params=params), grads, terms)

    replicas = TrainState(step=None, params=0, opt_state=0, teacher=0, key=0)  # type: ignore[arg-type]
    program: Callable[..., tuple[TrainState, StepMetrics]] = jax.jit(
        layout.over_replicas(apply_gradients, (*replicas.parted(), 0, 0), (replicas, 0)),
        donate_argnums=_donated(),
    )
    return program


def _donated() -> tuple[int, ...]:
    """Which of the update's arguments give their memory to its results: on accelerators parameters and state.

    On CPUs XLA has no fusions of several outputs. What gives both a new parameter and a new moment is computed twice,
    from moments that it would copy first if they were to be overwritten.
    """
    return (0,) if jax.default_backend() == "cpu" else (0, 1)


@dataclass(frozen=True, eq=False)
class Update:
    """One update of a stage."""

    tx: optax.GradientTransformation
    stage: StageSpec
    layout: Layout

    def apply_gradients(
        self, state: TrainState, grads: dict[str, Params], terms: dict[str, Terms]
    ) -> tuple[TrainState, StepMetrics]:
        """One update from the gradients of the step's tasks.

        A task whose loss or gradient is not finite is left out and counted. A head without a (finite) gradient in this
        step stays as it is, and so does its optimizer state, counts included (`mtbert_jax.optim.headwise`). The rate is
        that of the stage's step for all parameters. The chain gets as extra arguments the tasks' mean `losses`, 0 for a
        task that is left out, which of them are `finite`, the stage's `step`, and `num_layers` of the encoder.
        """
        fixed, trainable = trees.split(state.params, self.stage.frozen)
        stacked = stack_gradients(trainable, grads)
        finite = _finite(stacked, {task: terms[task].loss for task in grads})
        stacked = _kept(stacked, finite)
        losses = jnp.stack([jnp.where(flag, terms[task].loss, 0.0) for task, flag in finite.items()])
        step = state.step - self.stage.start
        seen: list[Combined] = []
        about = {"losses": losses, "finite": finite, "step": step, "observe": seen.append}
        about["num_layers"] = trees.num_layers(state.params)  # of the encoder, whichever of them train
        updates, opt_state = headwise(self.tx).update(stacked, state.opt_state, trainable, **about)
        new_params = optax.apply_updates(trainable, updates)

        metrics = _metrics(terms, finite, stacked.get("encoder"), seen[0] if seen else None)
        present = {name: finite.get(name, False) for name in trainable.get("heads", {})}
        any_finite = jnp.any(jnp.stack(list(finite.values())))
        new_params = trees.select(any_finite, _keep_absent_heads(new_params, trainable, present), trainable)
        teacher = None
        if state.teacher is not None:
            teacher = update_teacher(self.stage.teacher, state.teacher, new_params, step, self.stage.num_steps)
        params, opt_state, teacher = self.layout.split((trees.merge(fixed, new_params), opt_state, teacher))
        return TrainState(state.step + 1, params, opt_state, teacher, state.key), metrics


def stack_gradients(trainable: Params, grads: dict[str, Params]) -> Params:
    """The tasks' gradients as one tree shaped like `trainable`.

    Leaves of the encoder carry a leading ``task`` axis where the step has several tasks. A head has its own task's
    gradient; zeros where the step has no batch of its task.
    """
    stacked: Params = {}
    if "encoder" in trainable:
        shared = [tree["encoder"] for tree in grads.values()]
        stacked["encoder"] = shared[0] if len(shared) == 1 else jax.tree.map(lambda *g: jnp.stack(g), *shared)
    if "heads" in trainable:
        own = {name: tree["heads"][name] for name, tree in grads.items() if name in tree.get("heads", {})}
        stacked["heads"] = {name: own.get(name, _zeros(head)) for name, head in trainable["heads"].items()}
    return stacked


def _metrics(
    terms: dict[str, Terms], finite: dict[str, Bool[Array, ""]], encoder: Params | None, combined: Combined | None
) -> StepMetrics:
    names = sorted({name for term in terms.values() for name in term.penalties})
    penalties = {
        name: {task: term.penalties[name] for task, term in terms.items() if name in term.penalties} for name in names
    }
    losses = {task: term.loss for task, term in terms.items()}
    if len(terms) == 1 or encoder is None:
        return StepMetrics(losses, penalties, finite, None, {}, {})
    # The aggregator computes the same inner products: inside one jit they are computed once.
    leaves = jax.tree.leaves(encoder)
    parts = [trees.part_of_encoder(f"encoder/{path}") for path in trees.paths(encoder)]
    names = list(dict.fromkeys(parts))
    grams, _ = finite_part(grouped_gramian(leaves, [names.index(part) for part in parts]), finite)
    layers = {name: cosines(gram) for name, gram in zip(names, grams, strict=True)}
    whole, _ = finite_part(gramian(leaves), finite)
    made = {} if combined is None else {"weight": combined.weights.mean(0), "share": shares_of_update(combined)}
    return StepMetrics(losses, penalties, finite, cosines(whole), layers, made)


def _finite(stacked: Params, losses: dict[str, Float[Array, ""]]) -> dict[str, Bool[Array, ""]]:
    """Whether loss and gradient of each task are finite; `stacked` holds the gradients, in the order of `losses`."""
    squares = {task: _squared_norm(stacked.get("heads", {}).get(task)) for task in losses}
    if "encoder" in stacked:
        leaves = jax.tree.leaves(stacked["encoder"])
        # Of several tasks as an aggregator has them, so that they are computed once.
        own = jnp.diagonal(gramian(leaves)) if len(losses) > 1 else [_squared_norm(leaves)]
        squares = {task: square + own[number] for number, (task, square) in enumerate(squares.items())}
    return {task: jnp.isfinite(losses[task]) & jnp.isfinite(square) for task, square in squares.items()}


def _squared_norm(tree: Tree) -> Float[Array, ""]:
    return sum(map(_sum_of_squares, jax.tree.leaves(tree)), start=jnp.zeros(()))


@jax.jit
def _sum_of_squares(leaf: Array) -> Float[Array, ""]:
    return jnp.sum(jnp.square(leaf))


def _kept(stacked: Params, finite: dict[str, Bool[Array, ""]]) -> Params:
    """Gradients with zeros for tasks that are left out, but several tasks' of the encoder as they are.

    An aggregator leaves them out (`mtbert_jax.optim.headwise`), and zeros in their place would be a copy of them all.
    """
    kept = dict(stacked)
    if len(finite) == 1 and "encoder" in stacked:
        (alone,) = finite.values()
        kept["encoder"] = trees.select(alone, stacked["encoder"], _zeros(stacked["encoder"]))
    if "heads" in stacked:
        heads = stacked["heads"].items()
        kept["heads"] = {name: trees.select(finite.get(name, True), head, _zeros(head)) for name, head in heads}
    return kept


def _zeros(tree: Tree) -> Tree:
    return jax.tree.map(jnp.zeros_like, tree)


def _keep_absent_heads(new: Params, old: Params, present: dict[str, Bool[Array, ""] | bool]) -> Params:
    """`new`, but the heads of absent tasks as they are in `old`."""
    heads = {name: trees.select(present[name], head, old["heads"][name]) for name, head in new.get("heads", {}).items()}
    return {**new, "heads": heads} if heads else new
