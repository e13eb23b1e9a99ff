"""One optimizer step: the gradients of each task, one update from them, and its application.

A step is two kinds of jitted function: a gradient per task and batch length, and one update. That compiles n lengths n
times a task, where a single jitted step would compile every combination of the tasks' lengths.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mtbert_jax import trees
from mtbert_jax.config import TaskConfig
from mtbert_jax.nn.multitask import MultitaskBert, One
from mtbert_jax.optim.aggregation import cosines, gramian
from mtbert_jax.smart import update_teacher
from mtbert_jax.training.objective import NO_REGULARIZERS, Regularizers, Terms, groups, task_objective
from mtbert_jax.training.state import TrainState
from mtbert_jax.types import Batch, FeatureBatch, Params

Tree = Any


class StepMetrics(NamedTuple):
    """What a step tells, still on the device.

    Attributes:
        losses: Mean loss of each task of the step.
        penalties: SMART's terms that are on, unweighted, by name and task: `smoothness` (R_s), `proximal` (D_Breg).
        finite: Whether the task's loss and gradient were finite; if not, it had no part in the step.
        cosines: Cosine between each two tasks' gradients of the shared parameters, in the order of `losses`;
            None for a step of one task, or while the encoder is frozen.
    """

    losses: dict[str, Float[Array, ""]]
    penalties: dict[str, dict[str, Float[Array, ""]]]
    finite: dict[str, Bool[Array, ""]]
    cosines: Float[Array, "task task"] | None


@dataclass(frozen=True)
class TrainStep:
    """``state, metrics = train_step(state, batches)``; `state` is donated and must not be used again.

    Attributes:
        gradients: For each task, ``(params, teacher, batch, key, step) → (gradients, terms)``, jitted once for all
            tasks of a group.
        programs: Everything that is jitted.
        update: ``(state, gradients, terms) → (state, metrics)``, jitted, with the state donated.
    """

    gradients: Mapping[str, Callable[..., tuple[Params, Terms]]]
    programs: Sequence[Callable[..., Any]]
    update: Callable[..., tuple[TrainState, StepMetrics]]

    def __call__(
        self, state: TrainState, batches: Mapping[str, Batch | FeatureBatch]
    ) -> tuple[TrainState, StepMetrics]:
        """One step over one batch of each of the step's tasks."""
        results = {
            task: self.gradients[task](state.params, state.teacher, batch, state.key, state.step)
            for task, batch in batches.items()
        }
        grads = {task: grads for task, (grads, _) in results.items()}
        return self.update(state, grads, {task: terms for task, (_, terms) in results.items()})

    @property
    def compiled_shapes(self) -> int:
        """How many programs have been compiled so far."""
        return sum(fn._cache_size() for fn in self.programs)  # type: ignore[attr-defined]


def make_train_step(
    model: MultitaskBert,
    tasks: dict[str, TaskConfig],
    tx: optax.GradientTransformation,
    frozen: tuple[str, ...] = (),
    regularizers: Regularizers = NO_REGULARIZERS,
) -> TrainStep:
    """The step of one stage.

    Args:
        model: Encoder and heads.
        tasks: All tasks of the run, by name.
        tx: The chain; with several tasks in a step it must hold an aggregator.
        frozen: Paths of parameters that do not train; no gradient of theirs is computed.
        regularizers: What the stage adds to the losses.
    """
    gradients: dict[str, Callable[..., tuple[Params, Terms]]] = {}
    programs: list[Callable[..., Any]] = []
    for group in groups(model, tasks, regularizers.smart):
        program = jax.jit(partial(task_gradient, model, group, frozen, regularizers))
        programs.append(program)
        gradients |= {task.name: partial(_own_gradient, program, task.name, n) for n, task in enumerate(group)}
    update = jax.jit(partial(apply_gradients, tx, frozen, regularizers), donate_argnums=0)
    return TrainStep(gradients, (*programs, update), update)


def _own_gradient(
    program: Callable[..., tuple[Params, Terms]], task: str, index: int, *arguments: Any
) -> tuple[Params, Terms]:
    """The gradient of one task of a group; the other heads' are zeros, and dropped."""
    grads, terms = program(np.int32(index), *arguments)
    own = {name: head for name, head in grads.get("heads", {}).items() if name == task}
    return {**grads, "heads": own}, terms


def task_gradient(
    model: MultitaskBert,
    tasks: Sequence[TaskConfig],
    frozen: tuple[str, ...],
    regularizers: Regularizers,
    index: Int[Array, ""],
    params: Params,
    teacher: Params | None,
    batch: Batch | FeatureBatch,
    key: PRNGKeyArray,
    step: Int[Array, ""],
) -> tuple[Params, Terms]:
    """Gradient of a task's objective by the encoder and its group's heads, less what is frozen; and its terms."""
    concerned = {"encoder": params["encoder"], "heads": {task.name: params["heads"][task.name] for task in tasks}}
    fixed, trainable = trees.split(concerned, frozen)
    names = jnp.array([zlib.crc32(task.name.encode()) for task in tasks], jnp.uint32)
    key = jax.random.fold_in(jax.random.fold_in(key, step), names[index])
    whole_teacher = None if teacher is None else trees.merge(params, teacher)

    def objective(trainable: Params) -> tuple[Float[Array, ""], Terms]:
        merged = trees.merge(fixed, trainable)
        return task_objective(model, tasks, regularizers, merged, whole_teacher, batch, index, key, step)

    return jax.grad(objective, has_aux=True)(trainable)


def apply_gradients(
    tx: optax.GradientTransformation,
    frozen: tuple[str, ...],
    regularizers: Regularizers,
    state: TrainState,
    grads: dict[str, Params],
    terms: dict[str, Terms],
) -> tuple[TrainState, StepMetrics]:
    """One update from the gradients of the step's tasks.

    A task whose loss or gradient is not finite is left out and counted. A head without a (finite) gradient in this step
    stays as it is, and so do its optimizer statistics, as with an optimizer that skips parameters without a gradient.
    """
    fixed, trainable = trees.split(state.params, frozen)
    finite = {task: jnp.isfinite(terms[task].loss) & _all_finite(grads[task]) for task in grads}
    grads = {task: trees.select(finite[task], tree, _zeros(tree)) for task, tree in grads.items()}
    stacked = stack_gradients(trainable, grads)
    metrics = _metrics(terms, finite, _task_cosines(stacked, len(grads)))

    updates, opt_state = tx.update(stacked, state.opt_state, trainable)
    new_params = optax.apply_updates(trainable, updates)

    present = {name: finite.get(name, False) for name in trainable.get("heads", {})}
    any_finite = jnp.any(jnp.stack(list(finite.values())))
    new_params = trees.select(any_finite, _keep_absent_heads(new_params, trainable, present), trainable)
    opt_state = trees.select(any_finite, _keep_absent_heads(opt_state, state.opt_state, present), state.opt_state)
    teacher = None
    if state.teacher is not None:
        step = state.step - regularizers.start
        teacher = update_teacher(regularizers.proximal, state.teacher, new_params, step, regularizers.num_steps)
    params = trees.merge(fixed, new_params)
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
    terms: dict[str, Terms], finite: dict[str, Bool[Array, ""]], cosines: Float[Array, "task task"] | None
) -> StepMetrics:
    names = sorted({name for term in terms.values() for name in term.penalties})
    penalties = {
        name: {task: term.penalties[name] for task, term in terms.items() if name in term.penalties} for name in names
    }
    return StepMetrics({task: term.loss for task, term in terms.items()}, penalties, finite, cosines)


def _task_cosines(stacked: Params, num_tasks: int) -> Float[Array, "task task"] | None:
    # The aggregator computes the same Gramian: inside one jit it is computed once.
    return cosines(gramian(jax.tree.leaves(stacked["encoder"]))) if num_tasks > 1 and "encoder" in stacked else None


def _all_finite(tree: Tree) -> Bool[Array, ""]:
    return jnp.isfinite(sum(map(_squared_norm, jax.tree.leaves(tree)), start=jnp.zeros(())))


@jax.jit
def _squared_norm(leaf: Array) -> Float[Array, ""]:
    return jnp.sum(jnp.square(leaf))


def _zeros(tree: Tree) -> Tree:
    return jax.tree.map(jnp.zeros_like, tree)


def _keep_absent_heads(new: Tree, old: Tree, present: dict[str, Bool[Array, ""] | bool]) -> Tree:
    """`new`, but `old` in every leaf that belongs to the head of an absent task, in parameters and statistics alike."""

    def choose(path: tuple[Any, ...], new_leaf: Array, old_leaf: Array) -> Array:
        place = f"/{trees.path_of(path)}/"
        owner = next((name for name in present if f"/heads/{name}/" in place), None)
        return new_leaf if owner is None else trees.select(present[owner], new_leaf, old_leaf)

    return jax.tree_util.tree_map_with_path(choose, new, old)


def make_eval_step(
    model: MultitaskBert,
) -> Callable[[Params, str, Batch | FeatureBatch], Float[Array, "batch width"]]:
    """``(params, task, batch) → logits``, jitted once for all tasks of a group, dropout off.

    The logits have the width of the group's widest head; what a narrower one lacks is zeros.
    """
    program = jax.jit(
        lambda names, place, params, batch: model.logits(params, One(names, place), batch), static_argnums=0
    )
    places = {name: (names, np.int32(place)) for names in model.groups() for place, name in enumerate(names)}
    return lambda params, task, batch: program(*places[task], params, batch)


def make_feature_step(model: MultitaskBert) -> Callable[[Params, str, Any], Float[Array, "batch hidden"]]:
    """``(params, task, batch) → what the task's head reads``, jitted once for all tasks of a group, dropout off."""
    program = jax.jit(lambda task, params, batch: model.features(params, task, batch), static_argnums=0)
    first = {name: names[0] for names in model.groups() for name in names}
    return lambda params, task, batch: program(first[task], params, batch)
