"""ModernBERT's encoder (Warner et al. 2024, arXiv:2412.13663, section 2.1), numerically that of Hugging Face.

What differs from BERT: LayerNorm stands before attention and feed-forward network, and after the last layer; the first
attention has none, since the embeddings have one. Positions are rotations of queries and keys (Su et al. 2021,
arXiv:2104.09864, section 3.2.2). The feed-forward network is GeGLU (Shazeer 2020, arXiv:2002.05202, equation 6). Some
layers attend to all tokens, the others to a window. There are no token types and no pooler, and usually no biases.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mtbert_jax.config.schema import describe
from mtbert_jax.encoders.family import Encoder, Family, register_family
from mtbert_jax.encoders.tokenizer_rules import TokenizerRules
from mtbert_jax.errors import InputError
from mtbert_jax.limits import LARGEST_SIZES
from mtbert_jax.nn.activations import ACTIVATIONS
from mtbert_jax.nn.dropout import Dropout
from mtbert_jax.nn.layers import Parts, layer_norm, stackable
from mtbert_jax.nn.products import attention_scores
from mtbert_jax.types import EncoderOutput

GLOBAL, LOCAL = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class ModernBertConfig:
    """Sizes and rates of an encoder. Most names are BERT's; ``config.json`` has some of them under others.

    Attributes:
        hidden_dropout_prob: Dropout rate of the embeddings.
        attention_probs_dropout_prob: Dropout rate of attention's probabilities, and of what attention returns.
        mlp_dropout: Dropout rate inside the feed-forward network.
        local_attention: Width of a local layer's window in tokens; half of it lies on either side of a token.
        layer_types: ``full_attention`` or ``sliding_attention`` for every layer, joined by ``|``; empty: every third
            layer from the first has full attention.
        global_rope_theta: Base of the rotations' wavelengths in layers with full attention.
        local_rope_theta: The same in the others.
        attention_bias: Whether attention's dense layers have biases.
        mlp_bias: Whether those of the feed-forward network have.
        norm_bias: Whether LayerNorm has.
    """

    family: ClassVar[str]
    type_vocab_size: ClassVar[int] = 0

    vocab_size: int = 50368
    hidden_size: int = 768
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    intermediate_size: int = 1152
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    mlp_dropout: float = 0.0
    max_position_embeddings: int = 8192
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    pad_token_id: int = 50283
    local_attention: int = 128
    layer_types: str = ""
    global_rope_theta: int = 160_000
    local_rope_theta: int = 10_000
    attention_bias: bool = False
    mlp_bias: bool = False
    norm_bias: bool = False

    @property
    def local(self) -> tuple[bool, ...]:
        """Whether each layer attends to a window alone."""
        types = self.layer_types.split("|") if self.layer_types else _every(3, self.num_hidden_layers)
        return tuple(kind == LOCAL for kind in types)


def _every(step: int, layers: int) -> list[str]:
    return [LOCAL if number % step else GLOBAL for number in range(layers)]


class Embeddings(Parts):
    """Word, LayerNorm, dropout."""

    config: ModernBertConfig

    @nn.compact
    def __call__(self, input_ids: Int[Array, "batch seq"], deterministic: bool) -> Float[Array, "batch seq hidden"]:
        """Token ids → what the first layer reads."""
        cfg = self.config
        init = nn.initializers.normal(cfg.initializer_range)
        x = nn.Embed(cfg.vocab_size, cfg.hidden_size, embedding_init=init, name="word")(input_ids)
        return self.dropout(self.layer_norm(x, "layer_norm", cfg.norm_bias), deterministic)


class Attention(Parts):
    """Multi-head attention over rotated queries and keys; scores and softmax in float32."""

    config: ModernBertConfig

    @nn.compact
    def __call__(
        self,
        states: Float[Array, "batch seq hidden"],
        visible: Bool[Array, "batch 1 #seq seq"],
        rotations: Float[Array, "2 seq half"],
        deterministic: bool,
    ) -> Float[Array, "batch seq hidden"]:
        """What each state gathers from those that are visible to it."""
        cfg = self.config
        width = cfg.hidden_size // cfg.num_attention_heads
        joint = self.dense(3 * cfg.hidden_size, "qkv", cfg.attention_bias)(states)
        joint = joint.reshape(*states.shape[:2], 3, cfg.num_attention_heads, width)
        query, key, value = (joint[:, :, part] for part in range(3))
        scores = attention_scores(rotate(query, rotations), rotate(key, rotations), self.dtype) / math.sqrt(width)
        context = self.attend(scores, visible, value, deterministic)
        return self.dense(cfg.hidden_size, "output", cfg.attention_bias)(context)


def rotation_tables(seq: int, width: int, theta: float) -> Float[Array, "2 seq half"]:
    """Cosines and sines of the angles ``position · theta^(-2i / width)``, for i below half of a head's width."""
    frequencies = np.float32(1) / np.float32(theta) ** (np.arange(0, width, 2, dtype=np.float32) / np.float32(width))
    angles = jnp.arange(seq, dtype=jnp.float32)[:, None] * frequencies
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)])


def rotate(
    x: Float[Array, "batch seq head width"], rotations: Float[Array, "2 seq half"]
) -> Float[Array, "batch seq head width"]:
    """Turns component i of each half together with that of the other half."""
    cos, sin = rotations[:, :, None, :]
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class Layer(Parts):
    """Attention, then GeGLU; each with LayerNorm before it, dropout, and residual (pre-norm).

    Attributes:
        normed: Whether attention has a LayerNorm; the first layer's has none.
    """

    config: ModernBertConfig
    normed: bool = True

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch seq hidden"],
        visible: Bool[Array, "batch 1 #seq seq"],
        rotations: Float[Array, "2 seq half"],
        deterministic: bool,
    ) -> Float[Array, "batch seq hidden"]:
        """The next layer's states."""
        cfg = self.config
        states = self.layer_norm(hidden, "attention_norm", cfg.norm_bias) if self.normed else hidden
        attended = Attention(cfg, self.dtype, name="attention")(states, visible, rotations, deterministic)
        hidden = hidden + Dropout(cfg.attention_probs_dropout_prob)(attended, deterministic)
        states = self.layer_norm(hidden, "output_norm", cfg.norm_bias)
        inner = self.dense(2 * cfg.intermediate_size, "intermediate", cfg.mlp_bias)(states)
        inner, gate = jnp.split(inner, 2, axis=-1)
        inner = Dropout(cfg.mlp_dropout)(ACTIVATIONS[cfg.hidden_act](inner) * gate, deterministic)
        return hidden + self.dense(cfg.hidden_size, "output", cfg.mlp_bias)(inner)


class ModernBertEncoder(Encoder):
    """The encoder.

    >>> import jax
    >>> config = ModernBertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=2, num_attention_heads=2)
    >>> ids = jnp.array([[1, 2, 3]])
    >>> encoder = ModernBertEncoder(config)
    >>> params = encoder.init(jax.random.key(0), ids)["params"]
    >>> sorted(params), encoder.apply({"params": params}, ids).hidden_states.shape
    (['embeddings', 'final_norm', 'layer_0', 'layer_1'], (1, 3, 4))
    """

    config: ModernBertConfig
    has_pooler = False
    unfused = "it has no windows here, and ModernBERT's local layers have"

    def setup(self) -> None:
        """Names the parts; parameters are ``embeddings``, ``layer_0`` … and ``final_norm``."""
        self.embeddings = Embeddings(self.config, self.dtype)
        layer = stackable(Layer, (4,), self.remat)  # `deterministic`
        self.layer = [layer(self.config, self.dtype, number > 0) for number in range(self.config.num_hidden_layers)]
        self.final_norm = layer_norm(self.config.layer_norm_eps, self.config.norm_bias)

    def embed(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "batch seq hidden"]:
        """The embeddings after LayerNorm and dropout."""
        del attention_mask, token_type_ids
        return self.embeddings(input_ids, deterministic)

    def encode(
        self,
        embeddings: Float[Array, "batch seq hidden"],
        attention_mask: Int[Array, "batch seq"],
        *,
        deterministic: bool = True,
        cls_only: bool = False,
    ) -> EncoderOutput:
        """Embeddings → states; masks and rotations are computed once for all layers."""
        del cls_only
        cfg, seq, hidden = self.config, embeddings.shape[1], embeddings.astype(jnp.float32)
        places = jnp.arange(seq)
        near = jnp.abs(places[:, None] - places) <= cfg.local_attention // 2
        token = attention_mask[:, None, None, :] > 0
        width = cfg.hidden_size // cfg.num_attention_heads
        everywhere = token, rotation_tables(seq, width, cfg.global_rope_theta)
        nearby = token & near, rotation_tables(seq, width, cfg.local_rope_theta)
        for layer, local in zip(self.layer, cfg.local, strict=True):
            hidden = layer(hidden, *(nearby if local else everywhere), deterministic)
        return EncoderOutput(self.final_norm(hidden), None)


@register_family("modernbert")
class ModernBertFamily(Family):
    """ModernBERT."""

    title = "ModernBERT"
    architecture = "ModernBertModel"
    prefix = "model."
    config = ModernBertConfig
    config_names: ClassVar[dict[str, str]] = {
        "hidden_act": "hidden_activation",
        "hidden_dropout_prob": "embedding_dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "layer_norm_eps": "norm_eps",
    }
    encoder = ModernBertEncoder
    tokenizer = TokenizerRules(model="BPE", token_types=False)
    lora = ("encoder/*/attention/qkv",)
    tensors: ClassVar[dict[str, str]] = {
        "embeddings/word": "embeddings.tok_embeddings",
        "embeddings/layer_norm": "embeddings.norm",
        "layer_{}/attention/qkv": "layers.{}.attn.Wqkv",
        "layer_{}/attention/output": "layers.{}.attn.Wo",
        "layer_{}/attention_norm": "layers.{}.attn_norm",
        "layer_{}/intermediate": "layers.{}.mlp.Wi",
        "layer_{}/output": "layers.{}.mlp.Wo",
        "layer_{}/output_norm": "layers.{}.mlp_norm",
        "final_norm": "final_norm",
    }

    def from_json(self, values: dict[str, Any]) -> dict[str, Any]:
        """Layer types as one string, and bases of rotations as fields.

        `transformers` 5 writes ``layer_types`` and ``rope_parameters``. Older versions have
        ``global_attn_every_n_layers``, ``global_rope_theta`` and ``local_rope_theta`` in their place.

        Raises:
            InputError: The settings are none that the encoder computes.
        """
        values = dict(values)
        types, step = values.get("layer_types"), values.get("global_attn_every_n_layers", 3)
        layers = values.get("num_hidden_layers", ModernBertConfig.num_hidden_layers)
        if types is None and type(layers) is int and 0 < layers <= LARGEST_SIZES["num_hidden_layers"]:
            if type(step) is not int or step < 1:
                raise InputError(f"global_attn_every_n_layers is {describe(step)}; it must be a whole number from 1")
            types = _every(step, layers)
        if types is not None:
            if not isinstance(types, list) or not all(kind in (GLOBAL, LOCAL) for kind in types):
                raise InputError(f"layer_types is {describe(types)}; it must be a list of {GLOBAL!r} and {LOCAL!r}")
            values["layer_types"] = "|".join(types)
        ropes = values.get("rope_parameters") or {}
        for name, kind in (("global_rope_theta", GLOBAL), ("local_rope_theta", LOCAL)):
            rope = (ropes.get(kind) or {}) if isinstance(ropes, dict) else ropes
            plain = isinstance(rope, dict) and rope.get("rope_type", "default") == "default"
            if not plain or values.get("rope_scaling"):
                raise InputError("only rotations of rope_type 'default', without scaling, can be read")
            theta = rope.get("rope_theta", values.get(name, getattr(ModernBertConfig, name)))
            if type(theta) not in (int, float) or theta % 1 != 0:
                raise InputError(f"{name} is {describe(theta)}; it must be a whole number")
            values[name] = int(theta)
        return values

    def to_json(self, config: ModernBertConfig) -> dict[str, Any]:
        """The older names of rotations, which every version of `transformers` reads, and both forms of layer types."""
        types = [LOCAL if local else GLOBAL for local in config.local]
        step = next((step for step in range(1, len(types) + 1) if types == _every(step, len(types))), None)
        older = {} if step is None else {"global_attn_every_n_layers": step}
        return {**dataclasses.asdict(config), "layer_types": types, **older}

    def check(self, config: ModernBertConfig, values: dict[str, Any]) -> None:
        """Checks besides that each layer has a type, and that a head can be halved.

        Raises:
            InputError: Why not.
        """
        super().check(config, values)
        if len(config.local) != config.num_hidden_layers:
            raise InputError(f"layer_types has {len(config.local)} entries for {config.num_hidden_layers} layers")
        width = config.hidden_size // config.num_attention_heads
        if width % 2:
            raise InputError(f"a head's width is {width}; rotations need an even one")

    def with_dropout(self, config: ModernBertConfig, rate: float) -> ModernBertConfig:
        """The config with one rate for all dropout."""
        return dataclasses.replace(super().with_dropout(config, rate), mlp_dropout=rate)
