"""What training carries from step to step: all of it is in a checkpoint, none of it elsewhere."""

import functools
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from mtbert_jax import trees
from mtbert_jax.parallel import Layout
from mtbert_jax.types import Params


class TrainState(NamedTuple):
    """The state of one run.

    Attributes:
        step: Optimizer steps done in all stages.
        params: ``{"encoder": {...}, "heads": {"<task>": {...}}}``.
        opt_state: State of the stage's chain, for the parameters that train.
        teacher: Parameters of the proximal term's teacher, less what is frozen; None for a stage without one.
        key: Key of the run's dropout; the key of a step is folded from it, so it never changes.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState
    teacher: Params | None
    key: PRNGKeyArray

    @classmethod
    def create(
        cls,
        params: Params,
        tx: optax.GradientTransformation,
        key: PRNGKeyArray,
        frozen: tuple[str, ...] = (),
        step: int = 0,
        with_teacher: bool = False,
    ) -> "TrainState":
        """A state at `step`, with a fresh optimizer state for what is not `frozen`; the teacher starts as its copy.

        Random keys of the optimizer's, such as PCGrad's, become those of this run.
        """
        trainable = trees.split(params, frozen)[1]
        teacher = jax.tree.map(jnp.copy, trainable) if with_teacher else None  # a copy: states are donated
        opt_state = jax.tree.map(partial(_with_own_key, key), jax.jit(tx.init)(trainable))
        return cls(jnp.asarray(step, jnp.int32), params, opt_state, teacher, key)

    @classmethod
    def together(cls, states: Sequence["TrainState"], layout: Layout) -> "TrainState":
        """The states of several replicas as one, with a leading `replica` axis on all but the step; laid out."""
        if not layout.wide:
            return layout.place(states[0])

        def stack(*states: TrainState) -> TrainState:
            return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)._replace(step=states[0].step)

        return layout.computed(stack, *states)

    def of(self, replica: int, layout: Layout) -> "TrainState":
        """The state of one replica; `layout` is the wide one, or that of a run alone."""
        return _taking(layout)(self, replica) if layout.wide else self

    def teacher_params(self) -> Params:
        """The whole tree as the teacher has it; the parameters themselves where there is no teacher."""
        return self.params if self.teacher is None else trees.merge(self.params, self.teacher)


@functools.cache
def _taking(layout: Layout) -> Callable[[TrainState, int], TrainState]:
    """``(wide state, replica) → its state``, jitted once."""

    def take(state: TrainState, replica: Int[Array, ""]) -> TrainState:
        rest = state._replace(step=None)  # type: ignore[arg-type]
        return layout.split(jax.tree.map(lambda leaf: leaf[replica], rest)._replace(step=state.step))

    return jax.jit(take)


def _with_own_key(key: PRNGKeyArray, leaf: Array) -> Array:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.fold_in(leaf, jax.random.bits(key)) if is_key else leaf
