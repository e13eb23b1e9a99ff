"""ALBERT (Lan et al. 2020, arXiv:1909.11942), numerically Hugging Face's `AlbertModel`."""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

from mtbert_jax.encoders.bert import BertConfig, BertEncoder, BertFamily
from mtbert_jax.encoders.family import register_family
from mtbert_jax.encoders.tokenizer_rules import TokenizerRules
from mtbert_jax.errors import InputError


@dataclass(frozen=True)
class AlbertConfig(BertConfig):
    """`BertConfig` with a width of the embedding tables."""

    vocab_size: int = 30000
    hidden_size: int = 4096
    num_attention_heads: int = 64
    intermediate_size: int = 16384
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    embedding_size: int = 128


class AlbertEncoder(BertEncoder):
    """One of BERT's layers at every depth, over embeddings that are projected to the width of its states.

    The parameters of the only layer lie below ``layer_0``: layer-wise decay tells one depth of layers, and the
    embeddings below it.

    >>> import jax, jax.numpy as jnp
    >>> config = AlbertConfig(9, 4, 3, 2, 8, embedding_size=3)
    >>> encoder, ids = AlbertEncoder(config), jnp.array([[1, 2, 3]])
    >>> sorted(encoder.init(jax.random.key(0), ids)["params"])
    ['embeddings', 'layer_0', 'pooler']
    """

    @property
    def table_width(self) -> int:
        """The config's `embedding_size`; a projection follows even where it is the width of the states."""
        return cast(AlbertConfig, self.config).embedding_size


@register_family("albert")
class AlbertFamily(BertFamily):
    """ALBERT."""

    title = "ALBERT"
    architecture = "AlbertModel"
    prefix = "albert."
    config = AlbertConfig
    encoder = AlbertEncoder
    tokenizer = TokenizerRules(model="Unigram", pad="<pad>", unk="<unk>")
    tensors: ClassVar[dict[str, str]] = {
        **{ours: theirs for ours, theirs in BertFamily.tensors.items() if ours.startswith("embeddings/")},
        "embeddings/project": "encoder.embedding_hidden_mapping_in",
        "layer_{}/attention/query": "encoder.albert_layer_groups.{}.albert_layers.0.attention.query",
        "layer_{}/attention/key": "encoder.albert_layer_groups.{}.albert_layers.0.attention.key",
        "layer_{}/attention/value": "encoder.albert_layer_groups.{}.albert_layers.0.attention.value",
        "layer_{}/attention/output": "encoder.albert_layer_groups.{}.albert_layers.0.attention.dense",
        "layer_{}/attention_norm": "encoder.albert_layer_groups.{}.albert_layers.0.attention.LayerNorm",
        "layer_{}/intermediate": "encoder.albert_layer_groups.{}.albert_layers.0.ffn",
        "layer_{}/output": "encoder.albert_layer_groups.{}.albert_layers.0.ffn_output",
        "layer_{}/output_norm": "encoder.albert_layer_groups.{}.albert_layers.0.full_layer_layer_norm",
        "pooler": "pooler",
    }

    def num_layers(self, config: AlbertConfig) -> int:
        """One: it is at every depth."""
        del config
        return 1

    def check(self, config: BertConfig, values: dict[str, Any]) -> None:
        """Checks besides that there is one layer.

        Raises:
            InputError: Why not.
        """
        super().check(config, values)
        groups = {name: values.get(name, 1) for name in ("num_hidden_groups", "inner_group_num")}
        if any(size != 1 for size in groups.values()):
            raise InputError(f"only one layer at every depth is computed, and {groups} asks for several")
