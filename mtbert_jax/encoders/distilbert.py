"""DistilBERT (Sanh et al. 2019, arXiv:1910.01108), numerically Hugging Face's `DistilBertModel`."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mtbert_jax.encoders.bert import BertConfig, BertEncoder, BertFamily
from mtbert_jax.encoders.family import register_family
from mtbert_jax.errors import InputError


@dataclass(frozen=True)
class DistilBertConfig(BertConfig):
    """`BertConfig` without token types; ``config.json`` has other names for some fields."""

    num_hidden_layers: int = 6
    type_vocab_size: int = 0


class DistilBertEncoder(BertEncoder):
    """BERT's layers without token types and without a pooler.

    >>> import jax, jax.numpy as jnp
    >>> config = DistilBertConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=2)
    >>> encoder, ids = DistilBertEncoder(config), jnp.array([[1, 2, 3]])
    >>> output = encoder.apply(encoder.init(jax.random.key(0), ids), ids)
    >>> output.hidden_states.shape, output.pooled
    ((1, 3, 4), None)
    """

    has_pooler = False


EPSILON = 1e-12
"""In LayerNorm: `transformers` computes with no other one, whatever ``config.json`` says."""


@register_family("distilbert")
class DistilBertFamily(BertFamily):
    """DistilBERT."""

    title = "DistilBERT"
    architecture = "DistilBertModel"
    prefix = "distilbert."
    config = DistilBertConfig
    encoder = DistilBertEncoder
    config_names: ClassVar[dict[str, str]] = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }
    tensors: ClassVar[dict[str, str]] = {
        "embeddings/word": "embeddings.word_embeddings",
        "embeddings/position": "embeddings.position_embeddings",
        "embeddings/layer_norm": "embeddings.LayerNorm",
        "layer_{}/attention/query": "transformer.layer.{}.attention.q_lin",
        "layer_{}/attention/key": "transformer.layer.{}.attention.k_lin",
        "layer_{}/attention/value": "transformer.layer.{}.attention.v_lin",
        "layer_{}/attention/output": "transformer.layer.{}.attention.out_lin",
        "layer_{}/attention_norm": "transformer.layer.{}.sa_layer_norm",
        "layer_{}/intermediate": "transformer.layer.{}.ffn.lin1",
        "layer_{}/output": "transformer.layer.{}.ffn.lin2",
        "layer_{}/output_norm": "transformer.layer.{}.output_layer_norm",
    }

    def from_json(self, values: dict[str, Any]) -> dict[str, Any]:
        """What ``config.json`` holds: of sizes under BERT's names, too, these count, as in `transformers`."""
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads")
        usual = {self.config_names[name]: values[name] for name in names if name in values}
        return {**super().from_json(values), **usual}

    def check(self, config: BertConfig, values: dict[str, Any]) -> None:
        """Checks besides what `transformers` has fixed.

        Raises:
            InputError: Why not.
        """
        super().check(config, values)
        if config.layer_norm_eps != EPSILON:
            raise InputError(f"only layer_norm_eps = {EPSILON} is computed")
