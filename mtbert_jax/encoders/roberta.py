"""RoBERTa (Liu et al. 2019, arXiv:1907.11692), XLM-RoBERTa and CamemBERT: BERT with other positions and tokenizers.

Numerically Hugging Face's `RobertaModel` (``modeling_roberta.py``), whose relatives have the same layers.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtbert_jax.encoders.bert import BertConfig, BertEncoder, BertFamily
from mtbert_jax.encoders.family import register_family
from mtbert_jax.encoders.tokenizer_rules import TokenizerRules


@dataclass(frozen=True)
class RobertaConfig(BertConfig):
    """`BertConfig` with RoBERTa's padding; the defaults are those of `transformers`, not of its published weights."""

    vocab_size: int = 50265
    pad_token_id: int = 1


class RobertaEncoder(BertEncoder):
    """BERT's layers; the first token has position pad + 1, padding has position pad, and every token type is 0.

    >>> import jax
    >>> config = RobertaConfig(vocab_size=9, hidden_size=4, num_hidden_layers=1, num_attention_heads=2)
    >>> encoder, ids = RobertaEncoder(config), jnp.array([[0, 5, 2]])
    >>> params = encoder.init(jax.random.key(0), ids)
    >>> encoder.apply(params, ids).hidden_states.shape
    (1, 3, 4)
    """

    def embed(
        self,
        input_ids: Int[Array, "batch seq"],
        attention_mask: Int[Array, "batch seq"],
        token_type_ids: Int[Array, "batch seq"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "batch seq hidden"]:
        """The embeddings after LayerNorm and dropout; padding counts as the family's own, whatever its ids here."""
        pad = self.config.pad_token_id
        ids = jnp.where(attention_mask > 0, input_ids, pad)
        positions = jnp.cumsum(attention_mask, axis=1) * attention_mask + pad
        return self.embeddings(ids, positions, jnp.zeros_like(token_type_ids), deterministic)


@register_family("roberta")
class RobertaFamily(BertFamily):
    """RoBERTa; relatives with its positions are subclasses."""

    title = "RoBERTa"
    architecture = "RobertaModel"
    prefix = "roberta."
    config = RobertaConfig
    encoder = RobertaEncoder
    tokenizer = TokenizerRules(
        model="BPE",
        single="<s> a </s>",
        pair="<s> a </s> </s> b </s>",
        cls="<s>",
        sep="</s>",
        pad="<pad>",
        mask="<mask>",
        unk="<unk>",
        token_types=False,
    )

    def max_length(self, config: Any) -> int:
        """Tokens of the longest input: positions up to that of padding are not for tokens."""
        return config.max_position_embeddings - config.pad_token_id - 1


@dataclass(frozen=True)
class XlmRobertaConfig(RobertaConfig):
    """`RobertaConfig` of XLM-RoBERTa."""

    vocab_size: int = 30522


@register_family("xlm-roberta")
class XlmRobertaFamily(RobertaFamily):
    """XLM-RoBERTa (Conneau et al. 2020, arXiv:1911.02116): RoBERTa in 100 languages, over sentencepiece."""

    title = "XLM-RoBERTa"
    architecture = "XLMRobertaModel"
    config = XlmRobertaConfig
    tokenizer = replace(RobertaFamily.tokenizer, model="Unigram")


@dataclass(frozen=True)
class CamembertConfig(XlmRobertaConfig):
    """`RobertaConfig` of CamemBERT."""


@register_family("camembert")
class CamembertFamily(XlmRobertaFamily):
    """CamemBERT (Martin et al. 2020, arXiv:1911.03894): RoBERTa in French, over sentencepiece."""

    title = "CamemBERT"
    architecture = "CamembertModel"
    config = CamembertConfig
