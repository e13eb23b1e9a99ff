"""MPNet (Song et al. 2020, arXiv:2004.09297), numerically Hugging Face's `MPNetModel`."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mtbert_jax.encoders.bert import BertConfig, BertFamily
from mtbert_jax.encoders.family import register_family
from mtbert_jax.encoders.roberta import RobertaConfig, RobertaEncoder, RobertaFamily
from mtbert_jax.errors import InputError

BUCKETS = 32
"""Rows of the table of biases: `transformers` computes no other number, whatever ``config.json`` says."""
FARTHEST = 128
"""Distance, in tokens, from which on all share a bias."""
PAD = 1
"""Padding's id and position: `transformers` computes with no other one, either."""


@dataclass(frozen=True)
class MPNetConfig(RobertaConfig):
    """`RobertaConfig` without token types."""

    vocab_size: int = 30527
    type_vocab_size: int = 0


class MPNetEncoder(RobertaEncoder):
    """RoBERTa's positions and BERT's layers; a bias by the distance of two tokens is added to the scores of attention.

    The bias, ``relative_attention_bias``, is one for all layers and lies outside of them: layer-wise decay leaves its
    updates as they are.

    >>> import jax
    >>> config = MPNetConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=2)
    >>> encoder, ids = MPNetEncoder(config), jnp.array([[0, 5, 2]])
    >>> params = encoder.init(jax.random.key(0), ids)["params"]
    >>> params["relative_attention_bias"]["embedding"].shape
    (32, 2)
    """

    unfused = "it takes no bias on the scores of attention, and MPNet has one"

    def setup(self) -> None:
        """The parts of BERT, and the bias."""
        super().setup()
        init = nn.initializers.normal(self.config.initializer_range)
        self.relative_attention_bias = nn.Embed(BUCKETS, self.config.num_attention_heads, embedding_init=init)

    def attention_bias(self, length: int) -> Float[Array, "1 head seq seq"]:
        """The bias of each query (third axis) on each key (fourth axis)."""
        places = jnp.arange(length)  # the length may be a symbol, in an export
        distances = jnp.clip(places[:, None] - places, -FARTHEST, FARTHEST)
        rows = jnp.asarray(buckets(np.arange(-FARTHEST, FARTHEST + 1)))[distances + FARTHEST]
        biases = self.relative_attention_bias(rows)
        return jnp.transpose(biases, (2, 0, 1))[None]


def buckets(distances: Int[np.ndarray, "*axes"]) -> Int[np.ndarray, "*axes"]:
    """Rows of the table of biases.

    16 a side: a distance below 8 has a row of its own, farther ones share rows up to 128 on a logarithmic scale
    (``MPNetEncoder.relative_position_bucket``).

    Args:
        distances: Place of the query minus place of the key, in tokens.

    >>> buckets(np.array([0, 3, -3, 8, 127, -500])).tolist()
    [0, 3, 19, 8, 15, 31]
    """
    side, far = BUCKETS // 2, np.abs(distances)
    exact = side // 2
    # float32 as in `transformers`: the scale's steps lie on whole numbers, where rounding decides.
    scaled = np.log(np.maximum(far, 1).astype(np.float32) / exact) / np.log(np.float32(FARTHEST / exact))
    shared = np.minimum(exact + (scaled * exact).astype(int), side - 1)
    return np.where(far < exact, far, shared) + np.where(distances < 0, side, 0)


@register_family("mpnet")
class MPNetFamily(RobertaFamily):
    """MPNet."""

    title = "MPNet"
    architecture = "MPNetModel"
    prefix = "mpnet."
    config = MPNetConfig
    encoder = MPNetEncoder
    tokenizer = replace(RobertaFamily.tokenizer, model="WordPiece", unk="[UNK]")
    tensors: ClassVar[dict[str, str]] = {
        **{ours: theirs for ours, theirs in BertFamily.tensors.items() if ours != "embeddings/token_type"},
        "relative_attention_bias": "encoder.relative_attention_bias",
        "layer_{}/attention/query": "encoder.layer.{}.attention.attn.q",
        "layer_{}/attention/key": "encoder.layer.{}.attention.attn.k",
        "layer_{}/attention/value": "encoder.layer.{}.attention.attn.v",
        "layer_{}/attention/output": "encoder.layer.{}.attention.attn.o",
        "layer_{}/attention_norm": "encoder.layer.{}.attention.LayerNorm",
    }

    def check(self, config: BertConfig, values: dict[str, Any]) -> None:
        """Checks besides what `transformers` has fixed.

        Raises:
            InputError: Why not.
        """
        super().check(config, values)
        found = values.get("relative_attention_num_buckets", BUCKETS)
        if (found, config.pad_token_id) != (BUCKETS, PAD):
            raise InputError(f"only relative_attention_num_buckets = {BUCKETS} and pad_token_id = {PAD} are computed")
