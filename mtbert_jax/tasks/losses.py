"""Losses of examples → the loss of a batch."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def mean_loss(losses: Float[Array, " batch"], weights: Float[Array, " batch"]) -> Float[Array, ""]:
    """Weighted mean over the examples of a batch; rows of weight 0 only fill it up.

    With a weight per class this is what PyTorch's ``cross_entropy(weight=..., reduction="mean")`` computes.
    """
    total = jnp.sum(weights)
    return jnp.sum(losses * weights) / jnp.where(total > 0, total, 1.0)
