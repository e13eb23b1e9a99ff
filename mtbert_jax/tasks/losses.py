"""Losses of examples → the loss of a batch; divergences of distributions; means over places."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def mean_loss(losses: Float[Array, " batch"], weights: Float[Array, " batch"]) -> Float[Array, ""]:
    """Weighted mean over the examples of a batch; rows of weight 0 only fill it up.

    With a weight per class this is what PyTorch's ``cross_entropy(weight=..., reduction="mean")`` computes.
    """
    total = jnp.sum(weights)
    return jnp.sum(losses * weights) / jnp.where(total > 0, total, 1.0)


def of_places(
    values: Float[Array, "batch place"], labelled: Bool[Array, "batch place"] | Bool[np.ndarray, "batch place"]
) -> Float[Array, " batch"]:
    """Mean of every example's values over its labelled places; 0 where it has none."""
    return jnp.sum(jnp.where(labelled, values, 0), axis=1) / jnp.maximum(jnp.sum(labelled, axis=1), 1)


def symmetric_kl(log_p: Float[Array, "batch class"], log_q: Float[Array, "batch class"], detach: bool) -> Array:
    """KL(P ‖ Q) + KL(Q ‖ P) of every example, from log-probabilities."""
    # Both divergences in one sum, whose terms are all ≥ 0. With the first factor held constant its gradient is
    # - Σ q d log p - Σ p d log q, since Σ p d log p = 0: that of the detached form.
    difference = jnp.exp(log_p) - jnp.exp(log_q)
    difference = jax.lax.stop_gradient(difference) if detach else difference
    return jnp.sum(difference * (log_p - log_q), axis=-1)


def kl(log_p: Float[Array, "batch class"], log_q: Float[Array, "batch class"]) -> Float[Array, " batch"]:
    """KL(P ‖ Q) of every example, from log-probabilities."""
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
