"""GELU, whose derivative is written out."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from mtbert_jax.nn.activations import gelu

X = np.concatenate([np.linspace(-12, 12, 4001), [0.0, -40.0, 40.0]])


def test_it_is_x_times_the_normal_distribution() -> None:
    np.testing.assert_allclose(gelu(jnp.asarray(X, jnp.float32)), X * special.ndtr(X), rtol=2e-6, atol=1e-6)


def test_its_derivative_is_that_of_the_formula() -> None:
    slope = jax.vmap(jax.grad(gelu))(jnp.asarray(X, jnp.float32))
    np.testing.assert_allclose(slope, special.ndtr(X) + X * stats.norm.pdf(X), rtol=2e-6, atol=3e-7)


def test_a_gradient_of_gradients_is_one() -> None:
    """FreeLB and SMART do not ask for it; a user's regulariser may."""
    second = jax.vmap(jax.grad(jax.grad(gelu)))(jnp.asarray(X, jnp.float32))
    np.testing.assert_allclose(second, (2 - X * X) * stats.norm.pdf(X), rtol=0, atol=1e-6)


def test_what_is_no_number_stays_so() -> None:
    found, slope = jax.value_and_grad(gelu)(jnp.float32(np.nan))
    assert np.isnan(found)
    assert np.isnan(slope)
