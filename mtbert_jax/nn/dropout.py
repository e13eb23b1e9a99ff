"""Dropout whose random bits come from a hash of each element's place: several times cheaper than a cipher's.

`jax.random` promises bits good enough for anything; a dropout mask needs much less. An element's bits are a function
of its place and of the key alone, so masks do not depend on the device or on how an array is spread over several.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt32

GOLDEN = 0x9E3779B9
"""2³² over the golden ratio: neighbouring columns land far apart."""


class Dropout(nn.Module):
    """Sets elements to zero with probability `rate` and scales the others by 1 / (1 - rate).

    Attributes:
        rate: Probability of a zero, at least 0 and below 1.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "*axes"], deterministic: bool) -> Float[Array, "*axes"]:
        """`x` itself where `deterministic` or at rate 0; otherwise the key is the module's `dropout` stream."""
        if deterministic or self.rate == 0:
            return x
        keep = keep_mask(self.make_rng("dropout"), self.rate, x.shape)
        return jnp.where(keep, x / (1.0 - self.rate), jnp.zeros((), x.dtype))


def keep_mask(key: PRNGKeyArray, rate: float, shape: tuple[int, ...]) -> Bool[Array, "*shape"]:
    """True with probability ``1 - rate``, to within 2⁻³²."""
    return hash_bits(key, shape) >= jnp.uint32(round(rate * 2**32))


def hash_bits(key: PRNGKeyArray, shape: tuple[int, ...]) -> UInt32[Array, "*shape"]:
    """32 bits for every element: a hash of its column and of its row's seed, the latter a hash of row and key."""
    first, second = jax.random.key_data(key).astype(jnp.uint32)[..., :2]
    rows = jnp.zeros(shape[:-1], jnp.uint32)
    for axis, size in enumerate(shape[:-1]):
        rows = rows * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, shape[:-1], axis)
    seeds = mix(mix(rows ^ first) ^ second)
    columns = jax.lax.iota(jnp.uint32, shape[-1]) * jnp.uint32(GOLDEN)
    return mix(seeds[..., None] + columns)


def mix(x: UInt32[Array, "*axes"]) -> UInt32[Array, "*axes"]:
    """A bijection of 32-bit words in which every input bit flips every output bit about half the time.

    The constants are those of Chris Wellons' search for multiply-xorshift hashes with little bias (`lowbias32`, 2018).
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
