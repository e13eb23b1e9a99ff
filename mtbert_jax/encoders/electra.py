"""ELECTRA's discriminator (Clark et al. 2020, arXiv:2003.10555), numerically Hugging Face's `ElectraModel`."""

from dataclasses import dataclass
from typing import ClassVar, cast

from mtbert_jax.encoders.bert import BertConfig, BertEncoder, BertFamily
from mtbert_jax.encoders.family import register_family


@dataclass(frozen=True)
class ElectraConfig(BertConfig):
    """`BertConfig` with a width of the embedding tables."""

    hidden_size: int = 256
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    embedding_size: int = 128


class ElectraEncoder(BertEncoder):
    """BERT's layers without a pooler; embeddings of another width than the states' are projected to it.

    >>> import jax, jax.numpy as jnp
    >>> config = ElectraConfig(9, 4, 1, 2, embedding_size=3)
    >>> encoder, ids = ElectraEncoder(config), jnp.array([[1, 2, 3]])
    >>> params = encoder.init(jax.random.key(0), ids)["params"]
    >>> params["embeddings"]["project"]["kernel"].shape
    (3, 4)
    """

    has_pooler = False

    @property
    def table_width(self) -> int | None:
        """The config's `embedding_size`, or None where it is the width of the states."""
        width = cast(ElectraConfig, self.config).embedding_size
        return None if width == self.config.hidden_size else width


@register_family("electra")
class ElectraFamily(BertFamily):
    """ELECTRA."""

    title = "ELECTRA"
    architecture = "ElectraModel"
    prefix = "electra."
    config = ElectraConfig
    encoder = ElectraEncoder
    tensors: ClassVar[dict[str, str]] = {**BertFamily.tensors, "embeddings/project": "embeddings_project"}
