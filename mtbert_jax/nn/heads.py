"""The head of one task: pooling, then a feed-forward network with ReLU and dropout (the paper's section 3)."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtbert_jax.nn.dropout import Dropout
from mtbert_jax.types import EncoderOutput


class Head(nn.Module):
    """What pooling made of the encoder's output → logits.

    Attributes:
        num_outputs: Width of the output layer: one logit per class, or 1.
        hidden_layers: How often (dense, ReLU, dropout) precede the output layer.
        hidden_size: Width of those layers; 0 takes the encoder's.
        dropout: Rate after each of them.
        pooling: What the head reads (see `pool`): of the head, though its caller does it, since a frozen encoder's
            pooled output can be kept.
    """

    num_outputs: int
    hidden_layers: int = 1
    hidden_size: int = 0
    dropout: float = 0.2
    pooling: Literal["cls", "mean"] = "cls"

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch hidden"], deterministic: bool = True
    ) -> Float[Array, "batch output"]:
        """Logits, float32, ``[batch output]``."""
        x = features
        width = self.hidden_size or x.shape[-1]
        for number in range(self.hidden_layers):
            x = nn.relu(nn.Dense(width, name=f"hidden_{number}")(x))
            x = Dropout(self.dropout)(x, deterministic)
        return nn.Dense(self.num_outputs, name="output")(x)


def pool(
    output: EncoderOutput, attention_mask: Int[Array, "batch seq"], pooling: Literal["cls", "mean"]
) -> Float[Array, "batch hidden"]:
    """One float32 vector per example: the pooler's output, or the mean of all token states.

    Padding has no part in the mean.
    """
    if pooling == "cls":
        return output.pooled
    mask = attention_mask[:, :, None].astype(jnp.float32)
    total = jnp.sum(output.hidden_states.astype(jnp.float32) * mask, axis=1)
    return total / jnp.maximum(jnp.sum(mask, axis=1), 1.0)
