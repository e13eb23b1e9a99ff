"""Losses per example, and what a logit means, by the kind of a task."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mtbert_jax.config import Kind


def task_loss(
    kind: Kind, logits: Float[Array, "batch output"], labels: Float[Array, " batch"]
) -> Float[Array, " batch"]:
    """Loss of every example.

    Args:
        kind: `classification`: cross entropy; `binary`: binary cross entropy; `regression`: squared error.
        logits: ``[batch class]`` for classification, ``[batch 1]`` otherwise.
        labels: Class indices, 0 / 1, or real numbers.
    """
    if kind == "classification":
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels.astype(jnp.int32))
    # One logit per example: drop its axis, or [batch 1] against [batch] would broadcast to [batch batch].
    logits = logits[:, 0]
    if kind == "binary":
        return optax.sigmoid_binary_cross_entropy(logits, labels)
    return jnp.square(logits - labels)


def mean_loss(losses: Float[Array, " batch"], weights: Float[Array, " batch"]) -> Float[Array, ""]:
    """Weighted mean over the examples of a batch; rows of weight 0 only fill it up.

    With a weight per class this is what PyTorch's ``cross_entropy(weight=..., reduction="mean")`` computes.
    """
    total = jnp.sum(weights)
    return jnp.sum(losses * weights) / jnp.where(total > 0, total, 1.0)


def probabilities(kind: Kind, logits: Float[Array, "batch output"]) -> Float[Array, "batch output"]:
    """Softmax, sigmoid, or, for regression, the value itself."""
    if kind == "classification":
        return jax.nn.softmax(logits, axis=-1)
    return jax.nn.sigmoid(logits) if kind == "binary" else logits
