"""BERT's encoder (Devlin et al. 2019, arXiv:1810.04805, section 3), numerically that of Hugging Face's `BertModel`."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtbert_jax.nn.attention import Kernel
from mtbert_jax.nn.layers import Layer, Parts
from mtbert_jax.types import EncoderOutput


@dataclass(frozen=True)
class BertConfig:
    """Sizes and rates of an encoder, under the names of Hugging Face's ``config.json``."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0


class Embeddings(Parts):
    """Word + position + token type, LayerNorm, dropout."""

    @nn.compact
    def __call__(
        self, input_ids: Int[Array, "batch seq"], token_type_ids: Int[Array, "batch seq"], deterministic: bool
    ) -> Float[Array, "batch seq hidden"]:
        """Token ids → what the first layer reads."""
        cfg = self.config

        def table(rows: int, name: str) -> nn.Embed:
            init = nn.initializers.normal(cfg.initializer_range)
            return nn.Embed(rows, cfg.hidden_size, embedding_init=init, name=name)

        words = table(cfg.vocab_size, "word")(input_ids)
        positions = table(cfg.max_position_embeddings, "position")(jnp.arange(input_ids.shape[1]))
        token_types = table(cfg.type_vocab_size, "token_type")(token_type_ids)
        return self.dropout(self.layer_norm(words + positions + token_types, "layer_norm"), deterministic)


class BertEncoder(nn.Module):
    """The encoder, in two halves, so that a caller can enter after the embeddings.

    Attributes:
        config: Sizes and rates.
        dtype: Type of the matrix products. Parameters and reductions are float32 whatever it is.
        remat: Keep a layer's input alone for its gradient, and compute the layer again then.
        kernel: Of the attention.

    >>> import jax
    >>> config = BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=2)
    >>> ids = jnp.array([[1, 2, 3]])
    >>> encoder = BertEncoder(config)
    >>> params = encoder.init(jax.random.key(0), ids)["params"]
    >>> encoder.apply({"params": params}, ids).pooled.shape
    (1, 4)
    """

    config: BertConfig
    dtype: Any = jnp.float32
    remat: bool = False
    kernel: Kernel = "xla"

    def setup(self) -> None:
        """Names the parts; parameters are ``embeddings``, ``layer_0`` … and ``pooler``."""
        self.embeddings = Embeddings(self.config, self.dtype)
        layer = nn.remat(Layer, static_argnums=(3, 4)) if self.remat else Layer  # `deterministic` and `cls_only`
        self.layer = [layer(self.config, self.dtype, self.kernel) for _ in range(self.config.num_hidden_layers)]
        init = nn.initializers.normal(self.config.initializer_range)
        # The pooler is one small product a row: float32 costs nothing, and rounding here would hide SMART's noise.
        self.pooler = nn.Dense(self.config.hidden_size, dtype=jnp.float32, kernel_init=init)

    def __call__(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"] | None = None,
        token_type_ids: Int[Array, "batch seq"] | None = None,
        *,
        deterministic: bool = True,
        cls_only: bool = False,
    ) -> EncoderOutput:
        """Token ids → states. Without a mask every token counts; without token types all are 0."""
        mask = jnp.ones_like(input_ids) if attention_mask is None else attention_mask
        embeddings = self.embed(input_ids, token_type_ids, deterministic=deterministic)
        return self.encode(embeddings, mask, deterministic=deterministic, cls_only=cls_only)

    def embed(
        self,
        input_ids: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "batch seq hidden"]:
        """The embeddings after LayerNorm and dropout: what the first layer reads."""
        types = jnp.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        return self.embeddings(input_ids, types, deterministic)

    def encode(
        self,
        embeddings: Float[Array, "batch seq hidden"],
        attention_mask: Int[Array, "batch seq"],
        *,
        deterministic: bool = True,
        cls_only: bool = False,
    ) -> EncoderOutput:
        """Embeddings → states.

        With `cls_only` the last layer computes ``[CLS]`` alone: the same `pooled`, for fewer operations.
        """
        hidden = embeddings.astype(jnp.float32)
        for number, layer in enumerate(self.layer, start=1):
            last = number == len(self.layer)
            hidden = layer(hidden, attention_mask, deterministic, cls_only and last)
        pooled = jnp.tanh(self.pooler(hidden[:, 0]))
        return EncoderOutput(hidden, pooled)
