"""BERT's encoder (Devlin et al. 2019, arXiv:1810.04805, section 3), numerically that of Hugging Face's `BertModel`."""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtbert_jax.encoders.family import Encoder, Family, family_of, register_family
from mtbert_jax.encoders.tokenizer_rules import TokenizerRules
from mtbert_jax.errors import InputError
from mtbert_jax.nn.layers import Embeddings, Layer, stackable
from mtbert_jax.types import EncoderOutput


@dataclass(frozen=True)
class BertConfig:
    """Sizes and rates of an encoder, under the names of Hugging Face's ``config.json``.

    Attributes:
        has_pooler: Whether there is a pooler: masked-LM training leaves none. `transformers` has no such field.
    """

    family: ClassVar[str]

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
    has_pooler: bool = True


class BertEncoder(Encoder):
    """The encoder; relatives override `embed`, `table_width` or `attention_bias`.

    >>> import jax
    >>> config = BertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=2)
    >>> ids = jnp.array([[1, 2, 3]])
    >>> encoder = BertEncoder(config)
    >>> params = encoder.init(jax.random.key(0), ids)["params"]
    >>> encoder.apply({"params": params}, ids).pooled.shape
    (1, 4)
    """

    def setup(self) -> None:
        """Names the parts; parameters are ``embeddings``, ``layer_0`` … and, if there is one, ``pooler``."""
        self.embeddings = Embeddings(self.config, self.dtype, self.table_width)
        layer = stackable(Layer, (3, 4), self.remat)  # `deterministic` and `cls_only`
        self.layer = [
            layer(self.config, self.dtype, self.kernel) for _ in range(family_of(self.config).num_layers(self.config))
        ]
        if self.pools:
            init = nn.initializers.normal(self.config.initializer_range)
            # One small product a row: float32 costs nothing, and rounding here would hide SMART's noise.
            self.pooler = nn.Dense(self.config.hidden_size, dtype=jnp.float32, kernel_init=init)

    @property
    def table_width(self) -> int | None:
        """Width of the embedding tables where a projection to that of the states follows; None where none does."""
        return None

    def attention_bias(self, length: int) -> Float[Array, "1 head seq seq"] | None:
        """What every layer adds to the scores of its attention, if anything, over texts of `length` tokens."""
        del length
        return None

    def embed(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "batch seq hidden"]:
        """The embeddings after LayerNorm and dropout; nothing reads those of padding, so they may be of any token."""
        del attention_mask
        types = token_type_ids if self.config.type_vocab_size > 1 else jnp.zeros_like(token_type_ids)
        return self.embeddings(input_ids, jnp.arange(input_ids.shape[1]), types, deterministic)

    def encode(
        self,
        embeddings: Float[Array, "batch seq hidden"],
        attention_mask: Int[Array, "batch seq"],
        *,
        deterministic: bool = True,
        cls_only: bool = False,
    ) -> EncoderOutput:
        """Embeddings → states, and with a pooler its output on the first of them."""
        hidden, depth = embeddings.astype(jnp.float32), self.config.num_hidden_layers
        bias = self.attention_bias(hidden.shape[1])
        for number in range(depth):
            layer = self.layer[number % len(self.layer)]  # an only one is at every depth
            hidden = layer(hidden, attention_mask, deterministic, cls_only and number == depth - 1, bias)
        return EncoderOutput(hidden, jnp.tanh(self.pooler(hidden[:, 0])) if self.pools else None)


@register_family("bert")
class BertFamily(Family):
    """BERT; relatives that differ in few points are subclasses."""

    title = "BERT"
    architecture = "BertModel"
    prefix = "bert."
    config = BertConfig
    encoder = BertEncoder
    tokenizer = TokenizerRules()
    tensors: ClassVar[dict[str, str]] = {
        "embeddings/word": "embeddings.word_embeddings",
        "embeddings/position": "embeddings.position_embeddings",
        "embeddings/token_type": "embeddings.token_type_embeddings",
        "embeddings/layer_norm": "embeddings.LayerNorm",
        "layer_{}/attention/query": "encoder.layer.{}.attention.self.query",
        "layer_{}/attention/key": "encoder.layer.{}.attention.self.key",
        "layer_{}/attention/value": "encoder.layer.{}.attention.self.value",
        "layer_{}/attention/output": "encoder.layer.{}.attention.output.dense",
        "layer_{}/attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
        "layer_{}/intermediate": "encoder.layer.{}.intermediate.dense",
        "layer_{}/output": "encoder.layer.{}.output.dense",
        "layer_{}/output_norm": "encoder.layer.{}.output.LayerNorm",
        "pooler": "pooler.dense",
    }

    def from_json(self, values: dict[str, Any]) -> dict[str, Any]:
        """What ``config.json`` holds, without token types where the family has none, as `transformers` reads it."""
        has_types = "embeddings/token_type" in self.tensors
        return {name: value for name, value in values.items() if has_types or name != "type_vocab_size"}

    def check(self, config: BertConfig, values: dict[str, Any]) -> None:
        """Checks besides that positions are absolute, and that there are token types where the family has them.

        Raises:
            InputError: Why not.
        """
        super().check(config, values)
        if not config.type_vocab_size and "embeddings/token_type" in self.tensors:
            raise InputError("type_vocab_size is 0; it must be a whole number from 1 on")
        if values.get("position_embedding_type", "absolute") != "absolute":
            raise InputError("only an encoder with absolute positions can be read")
