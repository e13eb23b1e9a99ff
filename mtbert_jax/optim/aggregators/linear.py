"""Sum and mean of the tasks' gradients."""

import jax.numpy as jnp
import optax

from mtbert_jax.optim.aggregators.base import aggregator


def sum_tasks() -> optax.GradientTransformation:
    """The sum of the tasks' gradients: what training on the summed losses does."""
    return aggregator(lambda gram, key: jnp.ones(gram.shape[0]))


def mean_tasks() -> optax.GradientTransformation:
    """The mean of the tasks' gradients."""
    return aggregator(lambda gram, key: jnp.full(gram.shape[0], 1.0 / gram.shape[0]))
