"""Which kernel computes attention: the one that XLA makes of the formula, or cuDNN's fused one."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from mtbert_jax.errors import InputError, first_line

Kernel = Literal["xla", "cudnn"]
LARGEST_HEAD = 128
"""Width of a head that cuDNN's kernel has gradients for on every GPU that it runs on."""


class Choice(NamedTuple):
    """A kernel, and why it.

    Attributes:
        kernel: The kernel.
        reason: One clause, for the person who trains.
    """

    kernel: Kernel
    reason: str


PLAIN = Choice("xla", "the formula as it stands")


def choose_kernel(
    asked: Literal["auto", "xla", "cudnn"], head_size: int, dropout: float, dtype: str, unfused: str = ""
) -> Choice:
    """The kernel for heads of a width, a dropout rate on attention, and a type of matrix products.

    `unfused` says why the encoder's own attention is none of cuDNN's, if so.

    Raises:
        InputError: cuDNN's was asked for and cannot be had.
    """
    if asked == "xla":
        return PLAIN
    obstacle = unfused or _obstacle(head_size, dropout, dtype)
    if obstacle is None:
        return Choice("cudnn", "it runs on this device")
    if asked == "cudnn":
        raise InputError(f'attention = "cudnn": {obstacle}; "auto" takes XLA\'s kernel then')
    return Choice("xla", f"cuDNN's cannot be had: {obstacle}")


def _obstacle(head_size: int, dropout: float, dtype: str) -> str | None:
    if jax.default_backend() != "gpu":
        return f"it needs a GPU, and this is a {jax.default_backend()}"
    if dtype != "bfloat16":
        return f"it needs bfloat16, and compute_dtype is {dtype}"
    if dropout:
        return f"it has no dropout on attention, and the encoder has {dropout:g} (encoder_dropout = 0.0 turns it off)"
    if head_size % 8 or head_size > LARGEST_HEAD:
        return f"a head's width must be a multiple of 8 and at most {LARGEST_HEAD}, and it is {head_size}"
    try:
        jax.block_until_ready(_probe(head_size))
    except Exception as error:  # noqa: BLE001 - whatever the driver, the library or the device refuses with
        return f"it fails on this device: {first_line(error)}"
    return None


def _probe(head_size: int) -> jax.Array:
    """A gradient through the kernel: what fails there fails before training."""
    x = jnp.ones((2, 16, 2, head_size), jnp.bfloat16)
    return jax.jit(jax.grad(lambda x: jnp.sum(fused(x, x, x, jnp.array([16, 3])).astype(jnp.float32))))(x)


def fused(query: jax.Array, key: jax.Array, value: jax.Array, lengths: jax.Array) -> jax.Array:
    """CuDNN's attention, ``[batch seq head width]``; `lengths`: keys that each row shows, from its first."""
    return jax.nn.dot_product_attention(query, key, value, key_value_seq_lengths=lengths, implementation="cudnn")
