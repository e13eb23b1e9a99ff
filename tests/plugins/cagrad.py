"""CAGrad (Liu et al. 2021, arXiv:2110.14048, algorithm 1): the worst task's gain, near the mean gradient g0."""

import jax
import jax.numpy as jnp

import mtbert_jax as mt


@mt.register_aggregator("cagrad")
def cagrad(gramian, state, key, losses, c=0.5, steps=1000):
    """``1/T + c ‖g0‖ / ‖g_w‖ w``, with w that minimises ``g_w · g0 + c ‖g0‖ ‖g_w‖`` over the simplex."""
    if not 0 <= c < 1:
        raise ValueError(f"c = {c}: must be at least 0 and below 1")
    tasks = len(gramian)
    gram = gramian / jnp.maximum(jnp.trace(gramian) / tasks, 1e-30)  # the weights do not depend on the scale
    radius = c * jnp.sqrt(gram.mean())

    def slope(w):
        return jax.grad(lambda w: w @ gram.mean(1) + radius * jnp.sqrt(w @ gram @ w + 1e-12))(w)

    descend = lambda _, x: x - slope(jax.nn.softmax(x))  # exponentiated gradients: they stay on the simplex
    w = jax.nn.softmax(jax.lax.fori_loop(0, steps, descend, jnp.zeros(tasks)))
    return 1 / tasks + radius * w / jnp.sqrt(w @ gram @ w + 1e-12), state
