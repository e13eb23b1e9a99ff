"""Ranking: a score for each example, of which the order alone counts."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.tasks.kind import Labels, Logits, TaskKind
from mtbert_jax.tasks.metrics import PEARSON, SPEARMAN
from mtbert_jax.tasks.parsing import parse_number
from mtbert_jax.tasks.registry import register_kind

SCALE = 20.0
"""λ of CoSENT: the inverse of a temperature of .05."""


@register_kind("ranking")
class Ranking(TaskKind):
    """One output, the score s; CoSENT's loss of a batch; a label is a number of any scale.

    log(1 + Σ exp(20 (s_i - s_j))) over the pairs of the batch with label_i < label_j (Su 2022, "CoSENT", as
    sentence-transformers' ``CoSENTLoss`` has it). There s is a cosine; here it is the head's output, whatever the head
    reads, since only differences of scores enter, and the output layer learns their scale: docs/numerics.md,
    section 9.
    """

    metrics = (SPEARMAN, PEARSON)
    decision = "value"
    of_batch = True

    def expected(self, task: TaskConfig) -> str:
        """A number."""
        return "a number"

    def parse(self, task: TaskConfig, text: str) -> float:
        """A number."""
        return parse_number(text)

    def read(self, task: TaskConfig, text: str) -> float:
        """A score, as `format` writes it."""
        return float(text)

    def loss(self, logits: Logits, labels: Labels) -> Float[Array, " batch"]:
        """Loss of the pairs that an example is one side of."""
        terms = _terms(logits, labels, jnp.ones(logits.shape[0]))
        return jax.nn.logsumexp(jnp.concatenate([jnp.zeros((len(terms), 1)), terms, terms.T], axis=1), axis=1)

    def batch_loss(self, logits: Logits, labels: Labels, weights: Float[Array, " batch"]) -> Float[Array, ""]:
        """CoSENT's loss of the pairs of a batch; 0 where no two labels differ. Rows of weight 0 are in no pair."""
        terms = _terms(logits, labels, weights)
        return jax.nn.logsumexp(jnp.concatenate([jnp.zeros(1), terms.ravel()]))

    def predict(self, logits: Float[np.ndarray, "example output"]) -> Float[np.ndarray, " example"]:
        """The score."""
        return logits[:, 0].astype(np.float64)

    def divergence(self, one: Logits, other: Logits, detach: bool = False) -> Float[Array, " batch"]:
        """The squared difference of the scores."""
        return jnp.square(one[:, 0] - other[:, 0])

    def errors(
        self, predictions: Float[np.ndarray, " example"], labels: Float[np.ndarray, " example"]
    ) -> Float[np.ndarray, " example"]:
        """How many places an example stands too high or too low, ties sharing their mean place."""
        from scipy import stats  # here, since it takes longer to import than the rest of this package

        return np.abs(stats.rankdata(predictions) - stats.rankdata(labels))


def _terms(logits: Logits, labels: Labels, weights: Float[Array, " batch"]) -> Float[Array, "batch batch"]:
    """20 (s_i - s_j) for pairs with label_i < label_j; minus infinity for all others."""
    scores, real = logits[:, 0], weights > 0
    counts = (labels[:, None] < labels[None, :]) & real[:, None] & real[None, :]
    return jnp.where(counts, SCALE * (scores[:, None] - scores[None, :]), -jnp.inf)
