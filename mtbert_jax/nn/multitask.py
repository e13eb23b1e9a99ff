"""The encoder and one head per task, as functions of one parameter tree."""

import zlib
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mtbert_jax.config import HeadConfig, TaskConfig
from mtbert_jax.nn.bert import BertConfig, BertEncoder
from mtbert_jax.nn.heads import Head
from mtbert_jax.types import Batch, EncoderOutput, Params


@dataclass(frozen=True)
class MultitaskBert:
    """One encoder, shared; a head for every task.

    Parameters are ``{"encoder": {...}, "heads": {"<task>": {...}}}``.

    Attributes:
        encoder: The shared encoder.
        heads: One head for each task, by name.
    """

    encoder: BertEncoder
    heads: dict[str, Head]

    @classmethod
    def build(cls, config: BertConfig, tasks: tuple[TaskConfig, ...], dtype: Any = jnp.float32) -> "MultitaskBert":
        """The model that `tasks` describe."""
        heads = {task.name: Head(task.num_outputs, **vars(task.head or HeadConfig())) for task in tasks}
        return cls(BertEncoder(config, dtype), heads)

    def init_heads(self, key: PRNGKeyArray) -> Params:
        """Fresh parameters of every head; a head's depend on its name and `key`, not on the other tasks."""
        hidden = self.encoder.config.hidden_size
        output = EncoderOutput(jnp.zeros((1, 1, hidden)), jnp.zeros((1, hidden)))
        mask = jnp.ones((1, 1), jnp.int32)
        return {
            name: head.init(jax.random.fold_in(key, zlib.crc32(name.encode())), output, mask)["params"]
            for name, head in self.heads.items()
        }

    def logits(
        self, params: Params, task: str, batch: Batch, key: PRNGKeyArray | None = None
    ) -> Float[Array, "batch output"]:
        """Logits of `task`, float32.

        Args:
            params: The whole tree; only the encoder and the task's head are read.
            task: Name of the task.
            batch: Token arrays.
            key: Dropout is on, and drawn from it; without a key it is off.
        """
        head = self.heads[task]
        encoder_rngs, head_rngs = ({}, {}) if key is None else _dropout_rngs(key)
        output = self.encoder.apply(
            {"params": params["encoder"]},
            batch.input_ids,
            batch.attention_mask,
            batch.token_type_ids,
            deterministic=key is None,
            cls_only=head.pooling == "cls",
            rngs=encoder_rngs,
        )
        return head.apply(  # type: ignore[return-value]
            {"params": params["heads"][task]}, output, batch.attention_mask, deterministic=key is None, rngs=head_rngs
        )


def _dropout_rngs(key: PRNGKeyArray) -> tuple[dict[str, PRNGKeyArray], dict[str, PRNGKeyArray]]:
    encoder, head = jax.random.split(key)
    return {"dropout": encoder}, {"dropout": head}
