"""The encoder and one head per task, as functions of one parameter tree."""

import zlib
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mtbert_jax.config import LoraConfig, Task
from mtbert_jax.encoders.family import Encoder, encoder, encoder_shapes, family_of
from mtbert_jax.errors import InputError
from mtbert_jax.nn.attention import Kernel
from mtbert_jax.nn.heads import Head, LanguageHead, VectorHead, num_features, pool
from mtbert_jax.nn.layers import EncoderConfig
from mtbert_jax.nn.lora import Lora
from mtbert_jax.programs import made_once
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.reads import head_reads
from mtbert_jax.types import Batch, EncoderOutput, FeatureBatch, Params

AnyHead = Head | LanguageHead | VectorHead


class TaskIndex(NamedTuple):
    """One task of the group `names`, at the `place` that is known on the device only."""

    names: tuple[str, ...]
    place: Int[Array, ""]


@dataclass(frozen=True)
class EncoderWithHeads:
    """One encoder, shared; a head for every task. Parameters: ``{"encoder": {...}, "heads": {"<task>": {...}}}``.

    Attributes:
        encoder: The module.
        heads: The tasks' heads.
        lora: Which of the encoder's kernels have a product of low rank beside them.
    """

    encoder: Encoder
    heads: dict[str, AnyHead]
    lora: Lora = field(default_factory=Lora)

    def __hash__(self) -> int:
        """Models of the same modules are the same."""
        return hash((self.encoder, self.lora, *self.heads.items()))

    @classmethod
    def build(
        cls,
        config: EncoderConfig,
        tasks: tuple[Task, ...],
        dtype: Any = jnp.float32,
        remat: bool = False,
        kernel: Kernel = "xla",
    ) -> "EncoderWithHeads":
        """The model that `tasks` describe; `Encoder` explains the rest."""
        heads: dict[str, AnyHead] = {}
        module = encoder(config, dtype, remat, kernel)
        for task in tasks:
            if head_reads(task) == "masked":
                table = _table_of_words(config)
                heads[task.name] = LanguageHead(
                    table, config.hidden_act, config.layer_norm_eps, config.initializer_range
                )
                continue
            if kind_of(task).reads == "texts":
                deviation = config.initializer_range
                heads[task.name] = VectorHead(config.hidden_size, task.temperature, deviation, head_reads(task))
                continue
            options = vars(task.head)
            width = options["hidden_size"] or config.hidden_size
            own = {**options, "hidden_size": width, "pooling": head_reads(task)}
            heads[task.name] = Head(kind_of(task).num_outputs(task), **own)
        return cls(module, heads)

    def with_lora(self, config: LoraConfig) -> "EncoderWithHeads":
        """The same with the products of low rank that a config asks for.

        Raises:
            InputError: The encoder has no such kernels.
        """
        own = self.encoder.config
        return replace(self, lora=Lora.of(config, family_of(own).lora, encoder_shapes(own)))

    def merged(self, params: Params) -> Params:
        """The parameters of the same model without LoRA that computes the same."""
        return {**params, "encoder": self.lora.merged(params["encoder"])}

    def frozen(self, freeze: tuple[str, ...]) -> tuple[str, ...]:
        """Paths of what does not train if `freeze` shall not: with LoRA the encoder's own parameters, too."""
        return (*freeze, *self.lora.fixed)

    def init_heads(self, key: PRNGKeyArray) -> Params:
        """Fresh parameters of every head; a head's depend on its name and `key`, not on the other tasks."""
        fresh = {}
        for name, head in self.heads.items():
            features = jnp.zeros((1, self.num_features(name)))
            words = [jnp.zeros(head.table)] if isinstance(head, LanguageHead) else []
            fresh[name] = head.init(jax.random.fold_in(key, zlib.crc32(name.encode())), features, *words)["params"]
        return fresh

    def num_features(self, task: str) -> int:
        """Width of what the head of `task` reads."""
        return num_features(self.heads[task].pooling, self.encoder.config.hidden_size)

    def groups(self) -> list[tuple[str, ...]]:
        """Names of the tasks whose heads read the same of the encoder: one program serves all of a group."""
        poolings = {head.pooling for head in self.heads.values()}
        return [tuple(n for n, head in self.heads.items() if head.pooling == pooling) for pooling in sorted(poolings)]

    def logits(
        self, params: Params, task: str | TaskIndex, batch: Batch | FeatureBatch, key: PRNGKeyArray | None = None
    ) -> Float[Array, "batch *place output"]:
        """Logits of `task`, float32; of each of the batch's positions, where the head reads tokens.

        Args:
            params: The whole tree; only the encoder and the task's head are read.
            task: Name of the task; or one of a group, chosen on the device: logits then have the width of the group's
                widest head, and zeros where the chosen one has none.
            batch: Token arrays, or a frozen encoder's features.
            key: Dropout is on, and drawn from it; without a key it is off.
        """
        if isinstance(batch, FeatureBatch):
            return self._head(params, task, batch.features, key)
        return self.logits_of_embeddings(params, task, self.embed(params, batch, key), batch, key)

    def embed(self, params: Params, batch: Batch, key: PRNGKeyArray | None = None) -> Float[Array, "row seq hidden"]:
        """The embeddings of a batch, a row for each input: what the encoder's first layer reads."""
        batch = batch.flat()
        return self.encoder.apply(  # type: ignore[return-value]
            {"params": self.lora.merged(params["encoder"])},
            batch.input_ids,
            batch.attention_mask,
            batch.token_type_ids,
            deterministic=key is None,
            rngs=_dropout_rngs(key)[0],
            method="embed",
        )

    def logits_of_embeddings(
        self,
        params: Params,
        task: str | TaskIndex,
        embeddings: Float[Array, "row seq hidden"],
        batch: Batch,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "batch *place output"]:
        """From the embeddings of a batch, perhaps perturbed, to logits; the same key gives the same dropout masks."""
        pooling = self.heads[task if isinstance(task, str) else task.names[0]].pooling
        return self._head(params, task, self._encode(params, pooling, embeddings, batch, key), key)

    def features(self, params: Params, pooling: str, batch: Batch) -> Float[Array, "batch *place feature"]:
        """What a head of that pooling reads, dropout off."""
        return self._encode(params, pooling, self.embed(params, batch), batch, None)

    def _encode(
        self,
        params: Params,
        pooling: str,
        embeddings: Float[Array, "row seq hidden"],
        batch: Batch,
        key: PRNGKeyArray | None,
    ) -> Float[Array, "batch *place feature"]:
        batch = batch.flat()
        output: EncoderOutput = self.encoder.apply(  # type: ignore[assignment]
            {"params": self.lora.merged(params["encoder"])},
            embeddings,
            batch.attention_mask,
            deterministic=key is None,
            cls_only=pooling in ("cls", "cls_each"),
            rngs=_dropout_rngs(key)[0],
            method="encode",
        )
        return pool(output, batch, pooling)

    def _head(
        self,
        params: Params,
        task: str | TaskIndex,
        features: Float[Array, "batch *place feature"],
        key: PRNGKeyArray | None,
    ) -> Float[Array, "batch *place output"]:
        if not isinstance(task, str):
            width = max(self.heads[name].num_outputs for name in task.names)
            heads = [partial(self._padded_head, name, width, key) for name in task.names]
            return jax.lax.switch(task.place, heads, params, features)
        head = self.heads[task]
        if isinstance(head, LanguageHead):
            words = params["encoder"]["embeddings"]["word"]["embedding"]
            return head.apply({"params": params["heads"][task]}, features, words)  # type: ignore[return-value]
        return head.apply(  # type: ignore[return-value]
            {"params": params["heads"][task]}, features, deterministic=key is None, rngs=_dropout_rngs(key)[1]
        )

    def _padded_head(
        self,
        name: str,
        width: int,
        key: PRNGKeyArray | None,
        params: Params,
        features: Float[Array, "batch *place feature"],
    ) -> Float[Array, "batch *place width"]:
        logits = self._head(params, name, features, key)
        return jnp.pad(logits, [*[(0, 0)] * (logits.ndim - 1), (0, width - logits.shape[-1])])


@made_once
def param_shapes(model: EncoderWithHeads) -> Params:
    """Shapes of a model's parameters, in a tree that callers share."""
    key = jax.random.key(0)
    encoder = jax.eval_shape(model.lora.added, encoder_shapes(model.encoder.config), key)
    return {"encoder": encoder, "heads": jax.eval_shape(model.init_heads, key)}


def _table_of_words(config: EncoderConfig) -> tuple[int, int]:
    """Rows and width of an encoder's table of word embeddings."""
    try:
        rows, width = encoder_shapes(config)["embeddings"]["word"]["embedding"].shape
    except KeyError:
        raise InputError(
            "kind = 'masked_lm' needs the encoder's table of words at embeddings/word/embedding, and it has none there"
        ) from None
    return rows, width


def _dropout_rngs(key: PRNGKeyArray | None) -> tuple[dict[str, PRNGKeyArray], dict[str, PRNGKeyArray]]:
    """Keys of the encoder's dropout and of the head's."""
    if key is None:
        return {}, {}
    encoder, head = jax.random.split(key)
    return {"dropout": encoder}, {"dropout": head}
