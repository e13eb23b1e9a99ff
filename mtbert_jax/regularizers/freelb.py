"""FreeLB (Zhu et al. 2020, arXiv:1909.11764): train on the mean loss along an ascent in the embeddings."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mtbert_jax.errors import InputError
from mtbert_jax.limits import MOST_ASCENTS
from mtbert_jax.regularizers.base import Embeddings, Forward, Penalty, Regularizer, Scalar, register_regularizer
from mtbert_jax.types import FeatureBatch

LossOf = Callable[..., Scalar]
"""``(embeddings, *parameters) → mean loss``."""
Mask = Float[Array, "batch seq 1"]


@register_regularizer("freelb")
@dataclass(frozen=True)
class FreeLB(Regularizer):
    """Mean of the losses at x + δ₀, …, x + δ_{K-1}, in place of the loss at the embeddings x (algorithm 1).

    δ₀ is uniform in ±start_size / √n, n being the numbers of an example's real tokens. Then
    δ ← Π(δ + step_size · g / ‖g‖), with g the gradient of the loss by an example's δ, ‖·‖ the Frobenius norm over the
    example, and Π the projection onto the ball of radius `max_norm`. Padding has no noise. All passes share their
    dropout masks.

    One backward pass gives the gradients by δ and by the parameters, so that a step costs K passes forward and back,
    and the clean pass forward, whose loss is recorded.

    Attributes:
        step_size: α of the ascent, at least 0.
        start_size: Size of the first noise, at least 0.
        max_norm: ε, radius of the ball; 0 for none.
        steps: K, number of passes, at least 1.
    """

    step_size: float = 0.1
    start_size: float = 0.6
    max_norm: float = 0.0
    steps: int = 2

    titles: ClassVar[dict[str, str]] = {"freelb": "FreeLB: mean loss along the ascent"}
    needs_embeddings: ClassVar[bool] = True
    loss_share: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        """Refuses negative sizes, and an ascent without a pass."""
        for name in ("step_size", "start_size", "max_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be a number of at least 0, got {getattr(self, name)}")
        if not 1 <= self.steps <= MOST_ASCENTS:
            raise InputError(f"steps must be from 1 to {MOST_ASCENTS}, got {self.steps}")

    def penalty(self, forward: Forward, key: PRNGKeyArray) -> dict[str, Penalty]:
        """The mean loss."""
        if forward.embeddings is None or isinstance(forward.batch, FeatureBatch):
            raise InputError("kept features leave no embeddings to perturb")
        x = forward.embeddings.astype(jnp.float32)
        mask = forward.batch.attention_mask[:, :, None].astype(jnp.float32)
        # Parameters that the loss closes over become arguments, of which the loss below has a gradient, too.
        loss_of, parameters = jax.closure_convert(
            lambda embeddings: forward.mean_loss(forward.logits_of(embeddings, forward.key)), x
        )
        noise = first_noise(key, x, mask, self)
        return {"freelb": Penalty(self._mean_loss(loss_of, noise, mask, (x, parameters)), 1.0)}

    def _mean_loss(self, loss_of: LossOf, noise: Embeddings, mask: Mask, at: tuple[Embeddings, list[Any]]) -> Scalar:
        """Mean loss along the ascent from `noise`; its derivative by `at` is found on the way."""

        def loss(at: tuple[Embeddings, list[Any]], noise: Embeddings) -> Scalar:
            return loss_of(at[0] + noise, *at[1]) / self.steps

        def ascend(at: tuple[Embeddings, list[Any]]) -> tuple[Scalar, tuple[Embeddings, list[Any]]]:
            def one_pass(carry: tuple[Any, Embeddings], _: None) -> tuple[tuple[Any, Embeddings], None]:
                total, noise = carry
                value, (by_at, by_noise) = jax.value_and_grad(loss, (0, 1))(at, noise)
                return (jax.tree.map(jnp.add, total, (value, by_at)), ascended(noise, mask * by_noise, self)), None

            zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, at)
            return jax.lax.scan(one_pass, (zeros, noise), length=self.steps)[0][0]

        def scaled(gradient: tuple[Embeddings, list[Any]], by: Scalar) -> tuple[Any]:
            return (jax.tree.map(lambda leaf: (by * leaf).astype(leaf.dtype), gradient),)

        mean_loss = jax.custom_vjp(lambda at: ascend(at)[0])
        mean_loss.defvjp(ascend, scaled)
        return mean_loss(at)


def first_noise(key: PRNGKeyArray, x: Embeddings, mask: Mask, options: FreeLB) -> Embeddings:
    """δ₀; zero in padding."""
    numbers = jnp.maximum(jnp.sum(mask, axis=(1, 2), keepdims=True), 1.0) * x.shape[-1]
    noise = jax.random.uniform(key, x.shape, jnp.float32, -1.0, 1.0)
    return mask * options.start_size * noise / jnp.sqrt(numbers)


def ascended(noise: Embeddings, gradient: Embeddings, options: FreeLB) -> Embeddings:
    """The noise after one step of the ascent, in the ball."""
    noise = noise + options.step_size * gradient / _norms(gradient)
    if options.max_norm:
        noise = noise * jnp.minimum(1.0, options.max_norm / _norms(noise))
    return noise


def _norms(values: Embeddings) -> Float[Array, "batch 1 1"]:
    """Frobenius norm of every example; 1 where it is zero."""
    largest = jnp.max(jnp.abs(values), axis=(1, 2), keepdims=True)
    largest = jnp.where(largest > 0, largest, 1.0)  # scaled first: squares of small gradients are zero in float32
    norms = largest * jnp.sqrt(jnp.sum(jnp.square(values / largest), axis=(1, 2), keepdims=True))
    return jnp.where(norms > 0, norms, 1.0)
