"""The matrix products of an encoder, in float32 or bfloat16. Whatever the type, what they return is float32.

In bfloat16 the products of a CPU have forms and derivatives of their own. XLA's CPU backend reaches the processor's
bfloat16 units only by products of two bfloat16 matrices in row-major layout (the second one may be transposed) that
give float32; automatic differentiation makes others. Other platforms get the usual products, rounded to bfloat16.
Measured in `benchmarks/step.py`.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mtbert_jax.machine import bfloat16_units


def choose_dtype(asked: Literal["auto", "float32", "bfloat16"]) -> Literal["float32", "bfloat16"]:
    """The type of products: `auto` is bfloat16 where the device has units for it."""
    if asked != "auto":
        return asked
    return "bfloat16" if bfloat16_units() else "float32"


class Dense(nn.Module):
    """``x kernel + bias``, with flax's names and initialisers of both.

    Attributes:
        features: Width of what it returns.
        dtype: Type of the product's factors, float32 or bfloat16. The parameters and the sum are float32.
        kernel_init: Initialiser of the kernel; the bias begins at zero.
        use_bias: Whether there is a bias.
    """

    features: int
    dtype: Any = jnp.float32
    kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*axes feature"]) -> Float[Array, "*axes output"]:
        """One product over the last axis of `x`."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        y = project(x, kernel, self.dtype)
        return y + self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else y


def project(
    x: Float[Array, "*axes feature"], kernel: Float[Array, "feature output"], dtype: Any
) -> Float[Array, "*axes output"]:
    """``x kernel``."""
    if jnp.dtype(dtype) == jnp.float32:
        return jnp.dot(x, kernel)
    return _times(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], kernel.shape[1])


def attention_scores(
    query: Float[Array, "batch query head width"], key: Float[Array, "batch seq head width"], dtype: Any
) -> Float[Array, "batch head query seq"]:
    """The products of all queries and keys, not yet divided by anything."""
    if jnp.dtype(dtype) == jnp.float32:
        return jnp.einsum("bqhd,bkhd->bhqk", query, key)
    return _times(_heads_first(query), _heads_first(key), True)


def attention_context(
    probabilities: Float[Array, "batch head query seq"], value: Float[Array, "batch seq head width"], dtype: Any
) -> Float[Array, "batch query head width"]:
    """The sums of values that attention's probabilities weigh."""
    if jnp.dtype(dtype) == jnp.float32:
        return jnp.einsum("bhqk,bkhd->bqhd", probabilities, value)
    return jnp.swapaxes(_times(probabilities, _heads_first(value)), 1, 2)


def _heads_first(x: Array) -> Array:
    return jnp.swapaxes(x, 1, 2)


def _half(x: Array) -> Array:
    return x.astype(jnp.bfloat16)


def _by_platform(product: Callable[..., Array], *factors: Array) -> Array:
    """A product of bfloat16 factors as float32; only a CPU's is not rounded to bfloat16 on the way."""
    return jax.lax.platform_dependent(
        *factors,
        cpu=functools.partial(product, preferred_element_type=jnp.float32),
        default=lambda *factors: product(*factors).astype(jnp.float32),
    )


def _transpose(x: Array) -> Array:
    """The last two axes swapped: in memory on a CPU, by a copy that XLA cannot take back into the product."""

    def copied(x: Array) -> Array:
        swapped = jnp.swapaxes(x, -1, -2)
        return jax.lax.optimization_barrier(swapped.reshape(-1)).reshape(swapped.shape)

    return jax.lax.platform_dependent(x, cpu=copied, default=lambda x: jnp.swapaxes(x, -1, -2))


def _ab(a: Array, b: Array) -> Array:
    """``a b`` of the last two axes, bfloat16 to float32."""
    return _by_platform(jnp.matmul, a, b)


def _abt(a: Array, b: Array) -> Array:
    """``a bᵀ``: both are contracted over their last axis."""
    batch = tuple(range(a.ndim - 2))
    last = a.ndim - 1
    return _by_platform(
        functools.partial(jax.lax.dot_general, dimension_numbers=(((last,), (last,)), (batch, batch))), a, b
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _times(a: Array, b: Array, transposed: bool = False) -> Array:
    """``a b``, or ``a bᵀ``, of the last two axes of float32 arrays, whose products are in bfloat16."""
    return _times_forward(a, b, transposed)[0]


def _times_forward(a: Array, b: Array, transposed: bool) -> tuple[Array, tuple[Array, Array]]:
    halves = _half(a), _half(b)
    return (_abt if transposed else _ab)(*halves), halves


def _times_backward(transposed: bool, halves: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    (a, b), dy = halves, _half(dy)
    if transposed:
        return _ab(dy, b), _ab(_transpose(dy), a)
    return _abt(dy, b), _ab(_transpose(a), dy)


_times.defvjp(_times_forward, _times_backward)
