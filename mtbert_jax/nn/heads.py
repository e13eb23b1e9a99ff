"""The head of one task: pooling, then a feed-forward network with ReLU and dropout (the paper's section 3)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtbert_jax.errors import InputError
from mtbert_jax.nn.activations import ACTIVATIONS
from mtbert_jax.nn.dropout import Dropout
from mtbert_jax.nn.layers import layer_norm
from mtbert_jax.types import Batch, EncoderOutput

NO_POOLER = (
    'pooling = "cls" reads the output of a pooler, and this encoder has none; pooling = "mean" reads all of its tokens'
)
SMALLEST_SQUARE = 1e-24
"""Squared length below which a vector counts as zeros, which have no direction."""


class Head(nn.Module):
    """What pooling made of the encoder's output → logits.

    Attributes:
        num_outputs: Width of the output layer: one logit per class, or 1.
        hidden_layers: How often (dense, ReLU, dropout) precede the output layer.
        hidden_size: Width of those layers.
        dropout: Rate after each of them.
        pooling: What the head reads (see `pool`), a pooling or `tokens`: of the head, though its caller does it, since
            a frozen encoder's pooled output can be kept.
    """

    num_outputs: int
    hidden_size: int
    hidden_layers: int = 1
    dropout: float = 0.2
    pooling: str = "cls"

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch *place feature"], deterministic: bool = True
    ) -> Float[Array, "batch *place output"]:
        """Logits, float32, ``[batch output]``, or of each place."""
        x = features
        for number in range(self.hidden_layers):
            x = nn.relu(nn.Dense(self.hidden_size, name=f"hidden_{number}")(x))
            x = Dropout(self.dropout)(x, deterministic)
        return nn.Dense(self.num_outputs, name="output")(x)


class LanguageHead(nn.Module):
    """States of hidden tokens → logits of the vocabulary: dense, activation, LayerNorm, then the table of words.

    The output layer has a bias of its own; its matrix is the encoder's table of word embeddings, transposed, as in
    `BertForMaskedLM`.

    Attributes:
        table: Rows and width of the table.
        activation: Name of the activation, the encoder's.
        epsilon: Of LayerNorm.
        initializer_range: Standard deviation of initial weights.
        pooling: What the head reads, see `pool`.
    """

    table: tuple[int, int]
    activation: str
    epsilon: float
    initializer_range: float
    pooling: str = "masked"

    @property
    def num_outputs(self) -> int:
        """Size of the vocabulary."""
        return self.table[0]

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch place feature"],
        words: Float[Array, "vocabulary width"],
    ) -> Float[Array, "batch place vocabulary"]:
        """Logits, float32."""
        init = nn.initializers.normal(self.initializer_range)
        x = nn.Dense(self.table[1], kernel_init=init, name="dense")(features)
        x = layer_norm(self.epsilon, name="layer_norm")(ACTIVATIONS[self.activation](x))
        return x @ words.astype(jnp.float32).T + self.param("bias", nn.initializers.zeros, (self.table[0],))


class VectorHead(nn.Module):
    """Vectors of texts → vectors of length 1 / √τ, whose inner products are cosines over a temperature τ.

    In training through a dense layer and tanh, which evaluation leaves out (Gao et al. 2021, section 6.3).

    Attributes:
        num_outputs: Width of the vectors.
        temperature: τ.
        initializer_range: Standard deviation of initial weights.
        pooling: What the head reads, see `pool`.
    """

    num_outputs: int
    temperature: float
    initializer_range: float
    pooling: str

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch 2 hidden"], deterministic: bool = True
    ) -> Float[Array, "batch 2 hidden"]:
        """The vectors, float32; `deterministic` is of evaluation."""
        x = features
        if self.is_initializing() or not deterministic:
            init = nn.initializers.normal(self.initializer_range)
            x = jnp.tanh(nn.Dense(self.num_outputs, kernel_init=init, name="dense")(x))
        squares = jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), SMALLEST_SQUARE)
        return x * jax.lax.rsqrt(squares * self.temperature)


def num_features(pooling: str, hidden_size: int) -> int:
    """Width of what `pool` returns."""
    joined = 4 * hidden_size
    return {"pair": joined, "towers": joined + 1, "both": 2 * joined + 1}.get(pooling, hidden_size)


def pool(output: EncoderOutput, batch: Batch, pooling: str) -> Float[Array, "batch *place feature"]:
    """What a head reads, float32, of what the encoder said of a batch: one vector per example, or some of its tokens.

    `cls`: the pooler's output. `mean`: the mean of all token states. `pair`: from the means u and v of the two texts'
    states, ``[u, v, |u - v|, u v]``, as InferSent joins them (Conneau et al. 2017, section 3.1); here the texts have
    attended to each other. `towers`: the same of the means of two texts that the encoder read apart, and their cosine
    (as Sentence-BERT joins them, Reimers and Gurevych 2019, section 3). `both`: `pair` of the two texts read together,
    then `towers`. `cls_each`, `mean_each`: `cls` or `mean` of each of two inputs, ``[batch 2 hidden]``. Padding has no
    part in these. `tokens`, `masked`: the states at the batch's positions, those of the first token where a position is
    -1; of all tokens where the batch has no positions.

    Args:
        output: What the encoder said of each row of `batch`.
        batch: Token arrays with a row for each input (`Batch.flat`): for `towers`, `cls_each` and `mean_each` the first
            and the second text of every example, for `both` the two together and each alone.
        pooling: What the head reads.

    Raises:
        InputError: The pooling is `cls`, and the encoder has no pooler.
    """
    if pooling.endswith("_each"):
        each = pool(output, batch, pooling.removesuffix("_each"))
        return each.reshape(-1, 2, each.shape[-1])
    if pooling == "cls":
        if output.pooled is None:
            raise InputError(NO_POOLER)
        return output.pooled
    states, mask, second = output.hidden_states.astype(jnp.float32), batch.attention_mask, batch.token_type_ids
    if pooling in ("tokens", "masked"):
        places = batch.positions
        return states if places is None else jnp.take_along_axis(states, jnp.maximum(places, 0)[:, :, None], axis=1)
    if pooling == "mean":
        return _mean(states, mask)
    u = _mean(states, mask * (1 - second))
    if pooling == "towers":
        return _towers(u.reshape(-1, 2, u.shape[-1]))
    v = _mean(states, mask * second)
    if pooling == "pair":
        return _joined(u, v)
    u, v = (means.reshape(-1, 3, means.shape[-1]) for means in (u, v))
    return jnp.concatenate([_joined(u[:, 0], v[:, 0]), _towers(u[:, 1:])], axis=-1)


def _joined(u: Float[Array, "batch hidden"], v: Float[Array, "batch hidden"]) -> Float[Array, "batch feature"]:
    return jnp.concatenate([u, v, jnp.abs(u - v), u * v], axis=-1)


def _towers(means: Float[Array, "batch 2 hidden"]) -> Float[Array, "batch feature"]:
    """Both means, their distance, product and cosine; a cosine with zeros is 0."""
    u, v = means[:, 0], means[:, 1]
    squares = jnp.maximum(jnp.sum(jnp.square(means), axis=-1, keepdims=True), SMALLEST_SQUARE)
    cosine = jnp.sum(u * v, axis=-1, keepdims=True) * jnp.prod(jax.lax.rsqrt(squares), axis=1)
    return jnp.concatenate([_joined(u, v), cosine], axis=-1)


def _mean(states: Float[Array, "batch seq hidden"], keep: Int[Array, "batch seq"]) -> Float[Array, "batch hidden"]:
    """The mean of the states to keep; zeros where there is none."""
    weights = keep[:, :, None].astype(jnp.float32)
    return jnp.sum(states * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1.0)
