"""Contrastive learning: the encodings of two like texts are nearer to each other than to all others of the batch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.errors import InputError
from mtbert_jax.tasks.kind import Labels, TaskKind
from mtbert_jax.tasks.losses import mean_loss
from mtbert_jax.tasks.metrics import ALIGNMENT, CONTRASTIVE_LOSS, UNIFORMITY, unit
from mtbert_jax.tasks.parsing import parse_number
from mtbert_jax.tasks.registry import register_kind

Vectors = Float[Array, "batch 2 hidden"]
"""Of each example the vectors of two texts, of length 1 / √τ: their inner products are cosines over the temperature τ.
Widths differ in training and evaluation, and zeros may follow: neither changes an inner product."""


@register_kind("contrastive")
class Contrastive(TaskKind):
    """Cross entropy over cos(u_i, v_j) / τ among the batch, with u_i and v_i a positive pair (SimCSE, equation 1).

    Gao et al. 2021, arXiv:2104.08821. Of two text columns u and v are the two texts, of one the same text under two
    dropout masks; the second texts of the other rows are the negatives. What comes out of the head is of length
    1 / √τ, so that this class does not need τ: docs/numerics.md, section 13.
    """

    metrics = (CONTRASTIVE_LOSS, ALIGNMENT, UNIFORMITY)
    decision = "value"
    reads = "texts"
    of_batch = True
    auxiliary = True

    def check(self, task: TaskConfig) -> None:
        """Checks what the head reads, and that nothing is said of classes."""
        super().check(task)
        head = task.head
        if head is not None and head.pooling not in ("cls", "mean"):
            raise InputError(
                f"kind = 'contrastive' takes one vector of each text: head.pooling = {head.pooling!r} must be 'cls' or "
                "'mean'"
            )
        if task.min_label is not None and len(task.text) != 2:
            raise InputError("min_label tells which rows are positive pairs, and this task reads one text")

    def reads_label(self, task: TaskConfig) -> bool:
        """Whether some rows may be no positive pairs."""
        return task.min_label is not None

    def takes(self, task: TaskConfig, label: Any) -> bool:
        """Whether the row is a positive pair."""
        return bool(label[0][0] >= task.min_label)

    def lacks(self, task: TaskConfig) -> str:
        """Too small a label."""
        return f"a label below min_label = {task.min_label:g}"

    def label_shape(self, task: TaskConfig) -> tuple[int, ...]:
        """A number for each text, which the loss does not read; the axes are those of a prediction, two vectors."""
        return (2, 1)

    def num_outputs(self, task: TaskConfig) -> int:
        """0: as many as the vectors have."""
        return 0

    def expected(self, task: TaskConfig) -> str:
        """A number."""
        return "a number"

    def parse(self, task: TaskConfig, text: str) -> list[list[float]]:
        """A number."""
        return [[parse_number(text)]] * 2

    def describe(self, task: TaskConfig, prediction: Any) -> float:
        """The cosine of the two texts."""
        u, v = unit(np.asarray(prediction))
        return float(u @ v)

    def kept(self, logits: Vectors, labels: Labels) -> Float[Array, "batch kept"]:
        """Both vectors in one row."""
        return logits.reshape(len(logits), -1)

    def predict(self, logits: Float[np.ndarray, "example kept"]) -> Float[np.ndarray, "example 2 hidden"]:
        """The vectors, of which the metrics are made."""
        return logits.astype(np.float64).reshape(len(logits), 2, -1)

    def loss(self, logits: Vectors, labels: Labels) -> Float[Array, " batch"]:
        """Loss of every example among all of them."""
        return _losses(logits, jnp.ones(len(logits)))

    def batch_loss(self, logits: Vectors, labels: Labels, weights: Float[Array, " batch"]) -> Float[Array, ""]:
        """Mean loss of a batch; rows of weight 0 are no negatives."""
        return mean_loss(_losses(logits, weights), weights)

    def divergence(self, one: Vectors, other: Vectors, detach: bool = False) -> Float[Array, " batch"]:
        """Squared distance of the vectors, made unit vectors, summed over the two texts."""
        return jnp.sum(jnp.square(_unit(one) - _unit(other)), axis=(1, 2))


def _losses(vectors: Vectors, weights: Float[Array, " batch"]) -> Float[Array, " batch"]:
    similarities = jnp.where(weights > 0, vectors[:, 0] @ vectors[:, 1].T, -jnp.inf)
    # A row that only fills the batch up has itself left, so that its loss, which nothing weighs, is finite.
    own = jnp.sum(vectors[:, 0] * vectors[:, 1], axis=-1)
    similarities = jnp.where(jnp.eye(len(vectors), dtype=bool), own[:, None], similarities)
    return jax.nn.logsumexp(similarities, axis=1) - own


def _unit(vectors: Vectors) -> Vectors:
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squares, jnp.finfo(jnp.float32).tiny))
