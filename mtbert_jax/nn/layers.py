"""The layers that BERT and its post-norm relatives share."""

import math
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mtbert_jax.nn.activations import ACTIVATIONS
from mtbert_jax.nn.attention import Kernel, fused
from mtbert_jax.nn.dropout import Dropout
from mtbert_jax.nn.products import Dense, attention_context, attention_scores
from mtbert_jax.programs import made_once


class EncoderConfig(Protocol):
    """Sizes and rates that every encoder's config has, whatever its family; `BertConfig` is one."""

    def __hash__(self) -> int:
        """Configs are frozen: two of the same values are the same."""

    @property
    def vocab_size(self) -> int:
        """Rows of the table of words."""

    @property
    def hidden_size(self) -> int:
        """Width of the states."""

    @property
    def num_hidden_layers(self) -> int:
        """Number of layers."""

    @property
    def num_attention_heads(self) -> int:
        """Number of heads of a layer's attention."""

    @property
    def intermediate_size(self) -> int:
        """Width inside a layer's feed-forward network."""

    @property
    def hidden_act(self) -> str:
        """Activation inside the feed-forward network, one of `ACTIVATIONS`."""

    @property
    def hidden_dropout_prob(self) -> float:
        """Dropout rate of states."""

    @property
    def attention_probs_dropout_prob(self) -> float:
        """Dropout rate of attention's probabilities."""

    @property
    def max_position_embeddings(self) -> int:
        """Rows of the table of positions."""

    @property
    def type_vocab_size(self) -> int:
        """Rows of the table of token types; 0 where there is no such table."""

    @property
    def initializer_range(self) -> float:
        """Standard deviation of initial weights."""

    @property
    def layer_norm_eps(self) -> float:
        """Epsilon of LayerNorm."""

    @property
    def pad_token_id(self) -> int:
        """Token id of padding."""


@made_once
def stackable(layer: type[nn.Module], static: tuple[int, ...], remat: bool) -> type[nn.Module]:
    """The class of a layer as encoders stack it: JAX traces it once for all depths at which shapes are the same.

    Args:
        layer: The class.
        static: Arguments of its call that are no arrays, counted from `self` as 0.
        remat: Keep the layer's input alone for its gradient, and compute the layer again then.
    """
    made = nn.remat(layer, static_argnums=static) if remat else layer
    return nn.jit(made, static_argnums=static)


def layer_norm(epsilon: float, use_bias: bool = True, name: str | None = None) -> nn.LayerNorm:
    """LayerNorm in float32."""
    # Statistics in float32 and in two passes: BERT's epsilon of 1e-12 leaves no room for the fast variance. What comes
    # out stays float32: between the matrix products nothing is rounded, so that SMART's noise is not lost.
    return nn.LayerNorm(epsilon, dtype=jnp.float32, use_bias=use_bias, use_fast_variance=False, name=name)


class Parts(nn.Module):
    """The few layers that every block is made of, with the config's initialiser, types and rates.

    Attributes:
        config: Sizes and rates.
        dtype: Type of the matrix products.
    """

    config: EncoderConfig
    dtype: Any = jnp.float32

    def dense(self, features: int, name: str, use_bias: bool = True) -> Dense:
        """A dense layer with the config's initialiser; called inside a compact method."""
        return Dense(features, self.dtype, nn.initializers.normal(self.config.initializer_range), use_bias, name=name)

    def layer_norm(
        self, x: Float[Array, "*axes hidden"], name: str, use_bias: bool = True
    ) -> Float[Array, "*axes hidden"]:
        """LayerNorm in float32."""
        return layer_norm(self.config.layer_norm_eps, use_bias, name)(x)

    def dropout(self, x: Array, deterministic: bool) -> Array:
        """Dropout at the rate of hidden states."""
        return Dropout(self.config.hidden_dropout_prob)(x, deterministic)

    def attend(
        self,
        scores: Float[Array, "batch head query seq"],
        visible: Bool[Array, "batch 1 #query seq"],
        value: Float[Array, "batch seq head width"],
        deterministic: bool,
    ) -> Float[Array, "batch query hidden"]:
        """The sums of values, weighed by the softmax of those scores that are visible; the softmax is in float32."""
        scores = jnp.where(visible, scores, jnp.finfo(jnp.float32).min)
        rate = self.config.attention_probs_dropout_prob
        probabilities = Dropout(rate)(jax.nn.softmax(scores, axis=-1), deterministic)
        context = attention_context(probabilities, value, self.dtype)
        return context.reshape(*context.shape[:2], self.config.hidden_size)


class Embeddings(Parts):
    """Word + position + token type (where there are token types), LayerNorm, dropout, perhaps a projection.

    Attributes:
        table_width: Width of the tables where a projection to that of the states follows; None where none does.
    """

    table_width: int | None = None

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch seq"],
        positions: Int[Array, "*batch seq"],
        token_type_ids: Int[Array, "batch seq"],
        deterministic: bool,
    ) -> Float[Array, "batch seq hidden"]:
        """Token ids → what the first layer reads.

        Args:
            input_ids: Rows of the table of words.
            positions: Rows of the table of positions, one for each token or the same for every row of the batch.
            token_type_ids: Rows of the table of token types; not read where there is none.
            deterministic: Whether dropout is off.
        """
        cfg = self.config

        def table(rows: int, name: str) -> nn.Embed:
            init = nn.initializers.normal(cfg.initializer_range)
            return nn.Embed(rows, self.table_width or cfg.hidden_size, embedding_init=init, name=name)

        x = table(cfg.vocab_size, "word")(input_ids) + table(cfg.max_position_embeddings, "position")(positions)
        if cfg.type_vocab_size:
            x = x + table(cfg.type_vocab_size, "token_type")(token_type_ids)
        x = self.dropout(self.layer_norm(x, "layer_norm"), deterministic)
        return x if self.table_width is None else self.dense(cfg.hidden_size, "project")(x)


class SelfAttention(Parts):
    """Multi-head scaled dot-product attention; scores and softmax in float32.

    Attributes:
        kernel: What computes it; a single query, as of the first token alone, and a bias are always XLA's.
    """

    kernel: Kernel = "xla"

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "batch query hidden"],
        states: Float[Array, "batch seq hidden"],
        mask: Int[Array, "batch seq"],
        deterministic: bool,
        bias: Float[Array, "1 head query seq"] | None = None,
    ) -> Float[Array, "batch query hidden"]:
        """What each of `queries` gathers from those of `states` that `mask` shows; `bias` is added to the scores."""
        cfg = self.config
        heads = (cfg.num_attention_heads, cfg.hidden_size // cfg.num_attention_heads)
        query = self.dense(cfg.hidden_size, "query")(queries).reshape(*queries.shape[:2], *heads)
        key = self.dense(cfg.hidden_size, "key")(states).reshape(*states.shape[:2], *heads)
        value = self.dense(cfg.hidden_size, "value")(states).reshape(*states.shape[:2], *heads)
        if self.kernel == "cudnn" and queries.shape[1] > 1 and bias is None:
            query, key, value = (x.astype(self.dtype) for x in (query, key, value))
            context = fused(query, key, value, jnp.sum(mask, axis=1)).reshape(queries.shape)
            return self.dense(cfg.hidden_size, "output")(context)
        scores = attention_scores(query, key, self.dtype) / math.sqrt(heads[1])
        scores = scores if bias is None else scores + bias
        context = self.attend(scores, mask[:, None, None, :] > 0, value, deterministic)
        return self.dense(cfg.hidden_size, "output")(context)


class Layer(Parts):
    """Attention, then a feed-forward network; each with dropout, residual and LayerNorm (post-norm).

    Attributes:
        kernel: Of the attention.
    """

    kernel: Kernel = "xla"

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch seq hidden"],
        mask: Int[Array, "batch seq"],
        deterministic: bool,
        cls_only: bool = False,
        bias: Float[Array, "1 head seq seq"] | None = None,
    ) -> Float[Array, "batch query hidden"]:
        """The next layer's states; with `cls_only` those of the first token alone. `bias` is one on attention."""
        queries = hidden[:, :1] if cls_only else hidden
        bias = bias[:, :, :1] if cls_only and bias is not None else bias
        attention = SelfAttention(self.config, self.dtype, self.kernel, name="attention")
        return self.finish(queries, attention(queries, hidden, mask, deterministic, bias), deterministic)

    def finish(
        self,
        queries: Float[Array, "batch query hidden"],
        attended: Float[Array, "batch query hidden"],
        deterministic: bool,
    ) -> Float[Array, "batch query hidden"]:
        """All that follows the attention; called inside a compact method."""
        queries = self.layer_norm(queries + self.dropout(attended, deterministic), "attention_norm")
        inner = self.dense(self.config.intermediate_size, "intermediate")(queries)
        inner = ACTIVATIONS[self.config.hidden_act](inner)
        outer = self.dense(self.config.hidden_size, "output")(inner)
        return self.layer_norm(queries + self.dropout(outer, deterministic), "output_norm")
