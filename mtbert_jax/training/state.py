"""What training carries from step to step: all of it is in a checkpoint, none of it elsewhere."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from mtbert_jax import trees
from mtbert_jax.types import Params


class TrainState(NamedTuple):
    """The state of one run.

    Attributes:
        step: Optimizer steps done in all stages.
        params: ``{"encoder": {...}, "heads": {"<task>": {...}}}``.
        opt_state: State of the stage's chain, for the parameters that train.
        key: Key of the run's dropout; the key of a step is folded from it, so it never changes.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState
    key: PRNGKeyArray

    @classmethod
    def create(
        cls,
        params: Params,
        tx: optax.GradientTransformation,
        key: PRNGKeyArray,
        frozen: tuple[str, ...] = (),
        step: int = 0,
    ) -> "TrainState":
        """A state at `step`, with a fresh optimizer state for what is not `frozen`."""
        trainable = trees.split(params, frozen)[1]
        return cls(jnp.asarray(step, jnp.int32), params, jax.jit(tx.init)(trainable), key)
