"""A rule with a state: weights that even the gradients' norms out, as moving averages over the steps."""

import jax.numpy as jnp

import mtbert_jax as mt


@mt.register_aggregator("evened", init=lambda num_tasks: jnp.ones(num_tasks))
def evened(gramian, state, key, losses, beta=0.5):
    """``w ← β w + (1 - β) mean(‖g‖) / ‖g‖``, from ones."""
    norms = jnp.sqrt(jnp.diagonal(gramian)) + 1e-12
    weights = beta * state + (1 - beta) * norms.mean() / norms
    return weights, weights
