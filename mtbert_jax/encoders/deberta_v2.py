"""The encoder of DeBERTa's second and third version, numerically that of Hugging Face's `DebertaV2Model`.

He et al. 2021 (arXiv:2006.03654, section 3.1) and 2023 (arXiv:2111.09543). What differs from BERT: attention is
disentangled. To the product of two tokens it adds that of a token's query with the key of the other's relative position
(c2p), and that of a token's key with the query of its relative position (p2c). Far positions share logarithmic buckets.
One table of relative positions serves all layers; a table of absolute ones is optional, as token types are. There is no
pooler. The first layer can have a convolution beside it.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mtbert_jax.config.schema import describe
from mtbert_jax.encoders.family import Encoder, Family, register_family
from mtbert_jax.encoders.tokenizer_rules import TokenizerRules
from mtbert_jax.errors import InputError
from mtbert_jax.nn import layers
from mtbert_jax.nn.activations import ACTIVATIONS
from mtbert_jax.nn.dropout import Dropout
from mtbert_jax.nn.layers import Parts, layer_norm, stackable
from mtbert_jax.nn.products import attention_scores
from mtbert_jax.types import EncoderOutput

Relative = tuple[Float[Array, "position hidden"], Int[Array, "2 offset"]]
"""The table of relative positions, and its rows for c2p and for p2c by the offset of two tokens."""


@dataclass(frozen=True)
class DebertaV2Config:
    """Sizes and rates of an encoder, under the names of Hugging Face's ``config.json``.

    Attributes:
        relative_attention: Whether attention has relative positions.
        pos_att_type: What they enter: ``c2p``, ``p2c``, or both joined by ``|``.
        max_relative_positions: Largest distance that is told apart; 0 is `max_position_embeddings`.
        position_buckets: Number of buckets of one direction; 0 gives each distance a row of its own.
        share_att_key: Whether relative positions go through the dense layers of queries and keys, or have their own.
        norm_rel_ebd: ``layer_norm`` or ``none``, of the table of relative positions.
        position_biased_input: Whether the embeddings have absolute positions.
        conv_kernel_size: Width of the convolution beside the first layer in tokens; 0 is no convolution.
        conv_act: Activation behind the convolution.
    """

    family: ClassVar[str]

    vocab_size: int = 128100
    hidden_size: int = 1536
    num_hidden_layers: int = 24
    num_attention_heads: int = 24
    intermediate_size: int = 6144
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-7
    pad_token_id: int = 0
    relative_attention: bool = False
    pos_att_type: str = ""
    max_relative_positions: int = 0
    position_buckets: int = 0
    share_att_key: bool = False
    norm_rel_ebd: str = "none"
    position_biased_input: bool = True
    conv_kernel_size: int = 0
    conv_act: str = "tanh"

    @property
    def kinds(self) -> list[str]:
        """What relative positions enter: ``c2p``, ``p2c``."""
        return [kind for kind in ("c2p", "p2c") if kind in self.pos_att_type.split("|")]

    @property
    def farthest(self) -> int:
        """Largest distance that is told apart."""
        return self.max_relative_positions or self.max_position_embeddings

    @property
    def span(self) -> int:
        """Rows of the table of relative positions for one direction."""
        return self.position_buckets or self.farthest


def position_rows(config: DebertaV2Config) -> Int[np.ndarray, " offset"]:
    """Row of the table of relative positions for each offset of two tokens, from ``-max_position_embeddings`` on.

    Offsets up to half of the buckets have a row each, farther ones a logarithmic bucket
    (`make_log_bucket_position` of `transformers`; arXiv:2006.03654 has none).
    """
    offsets = np.arange(-config.max_position_embeddings, config.max_position_embeddings + 1)
    rows = offsets
    if config.position_buckets:
        middle = config.position_buckets // 2
        distances = np.maximum(np.abs(offsets), middle)
        # float32, as there: a bucket's end is where a logarithm is whole, and rounding decides it.
        scale = np.log(np.float32((config.farthest - 1) / middle))
        buckets = np.ceil(np.log((distances / middle).astype(np.float32)) / scale * np.float32(middle - 1)) + middle
        rows = np.where(distances <= middle, offsets, np.sign(offsets) * buckets)
    return np.clip(rows + config.span, 0, 2 * config.span - 1).astype(np.int32)


class Embeddings(nn.Module):
    """Words, absolute positions and token types where there are such tables, LayerNorm, dropout; relative positions.

    Attributes:
        config: Sizes and rates.
    """

    config: DebertaV2Config

    def setup(self) -> None:
        """Names the tables."""
        cfg = self.config

        def table(rows: int) -> nn.Embed:
            return nn.Embed(rows, cfg.hidden_size, embedding_init=nn.initializers.normal(cfg.initializer_range))

        self.word = table(cfg.vocab_size)
        self.position = table(cfg.max_position_embeddings) if cfg.position_biased_input else None
        self.token_type = table(cfg.type_vocab_size) if cfg.type_vocab_size else None
        self.layer_norm = layer_norm(cfg.layer_norm_eps)
        self.relative = table(2 * cfg.span) if cfg.relative_attention else None
        norms = cfg.relative_attention and "layer_norm" in cfg.norm_rel_ebd.split("|")
        self.relative_norm = layer_norm(cfg.layer_norm_eps) if norms else None
        self.dropout = Dropout(cfg.hidden_dropout_prob)

    def __call__(
        self, input_ids: Int[Array, "batch seq"], token_type_ids: Int[Array, "batch seq"], deterministic: bool
    ) -> Float[Array, "batch seq hidden"]:
        """Token ids → what the first layer reads."""
        x = self.word(input_ids)
        if self.position is not None:
            x = x + self.position(jnp.arange(input_ids.shape[1]))
        if self.token_type is not None:
            several = self.config.type_vocab_size > 1
            x = x + self.token_type(token_type_ids if several else jnp.zeros_like(token_type_ids))
        return self.dropout(self.layer_norm(x), deterministic)

    def relative_positions(self, seq: int) -> Relative | None:
        """What all layers read of relative positions; None where attention has none.

        Row m of c2p is that of a query m - (seq - 1) tokens before its key; of p2c, that much behind it.
        """
        if self.relative is None:
            return None
        table = self.relative.embedding
        table = table if self.relative_norm is None else self.relative_norm(table)
        offsets = jnp.arange(2 * seq) - (seq - 1)
        rows = jnp.asarray(position_rows(self.config))
        return table, rows[self.config.max_position_embeddings + jnp.stack([-offsets, offsets])]


class Attention(Parts):
    """Multi-head disentangled attention; scores and softmax in float32."""

    config: DebertaV2Config

    @nn.compact
    def __call__(
        self,
        states: Float[Array, "batch seq hidden"],
        mask: Int[Array, "batch seq"],
        relative: Relative | None,
        deterministic: bool,
    ) -> Float[Array, "batch seq hidden"]:
        """What each state gathers from those that `mask` shows."""
        cfg = self.config
        heads = (cfg.num_attention_heads, cfg.hidden_size // cfg.num_attention_heads)
        of_query, of_key, of_value = (self.dense(cfg.hidden_size, name) for name in ("query", "key", "value"))
        query, key, value = (dense(states).reshape(*states.shape[:2], *heads) for dense in (of_query, of_key, of_value))
        scores = attention_scores(query, key, self.dtype)
        if relative is not None:
            table, rows = self.dropout(relative[0], deterministic), relative[1]
            if "c2p" in cfg.kinds:
                dense = of_key if cfg.share_att_key else self.dense(cfg.hidden_size, "position_key")
                scores += self.positional(query, dense(table).reshape(-1, *heads)[rows[0]])
            if "p2c" in cfg.kinds:
                dense = of_query if cfg.share_att_key else self.dense(cfg.hidden_size, "position_query")
                scores += self.positional(key, dense(table).reshape(-1, *heads)[rows[1]]).swapaxes(2, 3)
        scores = scores / math.sqrt(heads[1] * (1 + len(cfg.kinds)))
        context = self.attend(scores, mask[:, None, None, :] > 0, value, deterministic)
        return self.dense(cfg.hidden_size, "output")(context)

    def positional(
        self, tokens: Float[Array, "batch seq head width"], offsets: Float[Array, "offset head width"]
    ) -> Float[Array, "batch head seq other"]:
        """The products of token i with the offset from i to j, for all i and j.

        All products with all ``2 seq`` offsets are computed, and row i is moved by i: two reshapes do that (Dai et al.
        2019, arXiv:1901.02860, appendix B) where a gather would take a scatter for its gradient.
        """
        batch, seq, heads, width = tokens.shape
        products = attention_scores(tokens.reshape(1, batch * seq, heads, width), offsets[None], self.dtype)
        shorter = products.reshape(heads, batch, 2 * seq, seq)[:, :, :-1]  # all but the last `seq` of the products
        return shorter.reshape(heads, batch, seq, 2 * seq - 1)[..., seq - 1 :].swapaxes(0, 1)


class Layer(layers.Layer):
    """BERT's layer with disentangled attention.

    Attributes:
        convolves: Whether a convolution of what the layer reads is added to what it returns, with LayerNorm.
    """

    config: DebertaV2Config
    convolves: bool = False

    @nn.compact
    def __call__(  # type: ignore[override]
        self,
        hidden: Float[Array, "batch seq hidden"],
        mask: Int[Array, "batch seq"],
        relative: Relative | None,
        deterministic: bool,
    ) -> Float[Array, "batch seq hidden"]:
        """The next layer's states."""
        cfg = self.config
        attention = Attention(cfg, self.dtype, name="attention")
        states = self.finish(hidden, attention(hidden, mask, relative, deterministic), deterministic)
        if not self.convolves:
            return states
        init = nn.initializers.normal(cfg.initializer_range)
        conv = nn.Conv(cfg.hidden_size, (cfg.conv_kernel_size,), dtype=self.dtype, kernel_init=init, name="conv")
        near = self.dropout(conv(hidden * mask[..., None]).astype(jnp.float32), deterministic)
        return self.layer_norm(states + ACTIVATIONS[cfg.conv_act](near), "conv_norm")


class DebertaV2Encoder(Encoder):
    """The encoder.

    >>> import jax
    >>> sizes = {"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> config = DebertaV2Config(**sizes, relative_attention=True, pos_att_type="c2p|p2c")
    >>> ids = jnp.array([[1, 2, 3]])
    >>> encoder = DebertaV2Encoder(config)
    >>> params = encoder.init(jax.random.key(0), ids)["params"]
    >>> sorted(params), encoder.apply({"params": params}, ids).hidden_states.shape
    (['embeddings', 'layer_0'], (1, 3, 4))
    """

    config: DebertaV2Config
    has_pooler = False
    unfused = "it has no products with relative positions, and DeBERTa's attention has"

    def setup(self) -> None:
        """Names the parts; parameters are ``embeddings``, which has the relative positions too, and ``layer_0`` …."""
        cfg = self.config
        self.embeddings = Embeddings(cfg)
        layer = stackable(Layer, (4,), self.remat)  # `deterministic`
        convolves = [cfg.conv_kernel_size > 0, *[False] * (cfg.num_hidden_layers - 1)]
        self.layer = [layer(cfg, self.dtype, convolves=first) for first in convolves]

    def embed(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "batch seq hidden"]:
        """The embeddings after LayerNorm and dropout."""
        del attention_mask
        return self.embeddings(input_ids, token_type_ids, deterministic)

    def encode(
        self,
        embeddings: Float[Array, "batch seq hidden"],
        attention_mask: Int[Array, "batch seq"],
        *,
        deterministic: bool = True,
        cls_only: bool = False,
    ) -> EncoderOutput:
        """Embeddings → states."""
        del cls_only
        hidden = embeddings.astype(jnp.float32)
        relative = self.embeddings.relative_positions(hidden.shape[1])
        for layer in self.layer:
            hidden = layer(hidden, attention_mask, relative, deterministic)
        return EncoderOutput(hidden, None)


@register_family("deberta-v2")
class DebertaV2Family(Family):
    """DeBERTa's second and third version."""

    title = "DeBERTa-v2"
    architecture = "DebertaV2Model"
    prefix = "deberta."
    config = DebertaV2Config
    encoder = DebertaV2Encoder
    tokenizer = TokenizerRules(model="Unigram")
    tensors: ClassVar[dict[str, str]] = {
        "embeddings/word": "embeddings.word_embeddings",
        "embeddings/position": "embeddings.position_embeddings",
        "embeddings/token_type": "embeddings.token_type_embeddings",
        "embeddings/layer_norm": "embeddings.LayerNorm",
        "embeddings/relative": "encoder.rel_embeddings",
        "embeddings/relative_norm": "encoder.LayerNorm",
        "layer_{}/attention/query": "encoder.layer.{}.attention.self.query_proj",
        "layer_{}/attention/key": "encoder.layer.{}.attention.self.key_proj",
        "layer_{}/attention/value": "encoder.layer.{}.attention.self.value_proj",
        "layer_{}/attention/position_key": "encoder.layer.{}.attention.self.pos_key_proj",
        "layer_{}/attention/position_query": "encoder.layer.{}.attention.self.pos_query_proj",
        "layer_{}/attention/output": "encoder.layer.{}.attention.output.dense",
        "layer_{}/attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
        "layer_{}/intermediate": "encoder.layer.{}.intermediate.dense",
        "layer_{}/output": "encoder.layer.{}.output.dense",
        "layer_{}/output_norm": "encoder.layer.{}.output.LayerNorm",
        "layer_{}/conv": "encoder.conv.conv",
        "layer_{}/conv_norm": "encoder.conv.LayerNorm",
    }

    def from_json(self, values: dict[str, Any]) -> dict[str, Any]:
        """Kinds of relative attention as one string; numbers below 1, which turn something off, are left out.

        Raises:
            InputError: The kinds are none that the encoder computes.
        """
        switches = ("max_relative_positions", "position_buckets", "conv_kernel_size")
        values = {k: v for k, v in values.items() if k not in switches or type(v) is not int or v > 0}
        kinds = values.get("pos_att_type") or []
        kinds = kinds.lower().replace(" ", "").split("|") if isinstance(kinds, str) else kinds
        if not isinstance(kinds, list) or not all(kind in ("c2p", "p2c") for kind in kinds):
            raise InputError(f"pos_att_type is {describe(kinds)}; only c2p and p2c can be taken")
        return {**values, "pos_att_type": "|".join(kinds)}

    def check(self, config: DebertaV2Config, values: dict[str, Any]) -> None:
        """Checks besides what is computed in one form only.

        Raises:
            InputError: It is asked for in another form.
        """
        super().check(config, values)
        width = config.hidden_size // config.num_attention_heads
        fixed = {"embedding_size": config.hidden_size, "attention_head_size": width, "conv_groups": 1}
        for name, only in fixed.items():
            if values.get(name, only) != only:
                raise InputError(f"{name} is {describe(values[name])}; only {only} can be taken here")
        if config.conv_kernel_size and not config.conv_kernel_size % 2:
            raise InputError(f"conv_kernel_size is {config.conv_kernel_size}; it must be odd")
        if config.conv_act not in ACTIVATIONS:
            raise InputError(f"conv_act is {describe(config.conv_act)}, none of {', '.join(ACTIVATIONS)}")
        if config.position_buckets and not 0 < config.position_buckets // 2 < config.farthest - 1:
            raise InputError(
                f"position_buckets is {config.position_buckets}; it must be above 1, and half of it below the largest "
                f"distance, {config.farthest - 1}"
            )
