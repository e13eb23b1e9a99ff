"""What training carries from step to step: all of it is in a checkpoint, none of it elsewhere."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from mtbert_jax import trees
from mtbert_jax.optim.headwise import headwise
from mtbert_jax.types import Params


class TrainState(NamedTuple):
    """The state of one run.

    Attributes:
        step: Optimizer steps done in all stages.
        params: ``{"encoder": {...}, "heads": {"<task>": {...}}}``.
        opt_state: State of the stage's chain, for the parameters that train; each head's with counts of its own.
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
        opt_state = jax.tree.map(partial(_with_own_key, key), jax.jit(headwise(tx).init)(trainable))
        return cls(jnp.asarray(step, jnp.int32), params, opt_state, teacher, key)

    def parted(self) -> tuple[Params, "TrainState"]:
        """The parameters, and the state without them."""
        return self.params, self._replace(params=None)  # type: ignore[arg-type]

    def teacher_params(self) -> Params:
        """The whole tree as the teacher has it; the parameters themselves where there is no teacher."""
        return self.params if self.teacher is None else trees.merge(self.params, self.teacher)


def _with_own_key(key: PRNGKeyArray, leaf: Array) -> Array:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.fold_in(leaf, jax.random.bits(key)) if is_key else leaf
