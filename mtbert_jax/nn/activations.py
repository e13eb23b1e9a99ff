"""Activations by the names that `config.json` has."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array


def _normal(x: Array) -> Array:
    """The distribution function of the standard normal."""
    return 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """GELU in its exact form, x Φ(x) (Hendrycks and Gimpel 2016, equation 1), as PyTorch computes it.

    `jax.nn.gelu` takes erfc in place of erf, and keeps for the gradient what is cheaper to compute again; both are
    slower on a CPU. There is no forward mode of differentiation.
    """
    return x * _normal(x)


def _gelu_forward(x: Array) -> tuple[Array, Array]:
    return gelu(x), x


def _gelu_backward(x: Array, dy: Array) -> tuple[Array]:
    density = jnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return (dy * (_normal(x) + x * density),)


gelu.defvjp(_gelu_forward, _gelu_backward)

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}
ACTIVATIONS |= {"gelu_python": gelu, "swish": ACTIVATIONS["silu"]}
_TANH = ("gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate")
ACTIVATIONS |= dict.fromkeys(_TANH, ACTIVATIONS["gelu_new"])
"""Activations by the names of `transformers`, which has several for one function."""
