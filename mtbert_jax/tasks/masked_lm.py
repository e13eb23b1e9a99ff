"""Masked language modelling: hidden tokens of a text from the others (Devlin et al. 2019, section 3.1)."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.errors import InputError
from mtbert_jax.tasks.classification import Classification
from mtbert_jax.tasks.kind import IGNORED, LOWEST, PER_PLACE, Labels, Logits
from mtbert_jax.tasks.metrics import MASKED_LOSS, PERPLEXITY
from mtbert_jax.tasks.registry import register_kind


@register_kind("masked_lm")
class MaskedLM(Classification):
    """One logit for each token of the vocabulary at each hidden place, softmax, cross entropy.

    Labels are the tokens that were hidden: no column of a file is read for them. The output layer is the table of the
    encoder's word embeddings. The task serves the encoder alone, and predicts nothing.
    """

    metrics = (MASKED_LOSS, PERPLEXITY)
    one_class_each = False
    reads = "masked"
    auxiliary = True

    def check(self, task: TaskConfig) -> None:
        """Checks that nothing is said of classes."""
        if task.num_classes or task.classes or task.label_range:
            raise InputError("num_classes, classes and label_range do not belong to kind = 'masked_lm'")

    def label_shape(self, task: TaskConfig) -> tuple[int, ...]:
        """As many tokens as are hidden."""
        return (PER_PLACE,)

    def classes(self, task: TaskConfig) -> tuple[str, ...]:
        """None that have names here."""
        return ()

    def num_outputs(self, task: TaskConfig) -> int:
        """0: as many as the encoder's vocabulary has."""
        return 0

    def expected(self, task: TaskConfig) -> str:
        """Nothing."""
        return "nothing: labels are made of the texts"

    def parse(self, task: TaskConfig, text: str) -> Any:
        """No text is a label."""
        raise ValueError(text)

    def kept(self, logits: Logits, labels: Labels) -> Float[Array, "batch place 1"]:
        """The loss at each hidden place: logits of a whole vocabulary are more than memory holds."""
        return jnp.maximum(self.loss(logits, labels), 0)[..., None]

    def predict(self, logits: Float[np.ndarray, "example place 1"]) -> Float[np.ndarray, "example place"]:
        """The loss at each hidden place, of which the metrics are made; `IGNORED` where nothing is hidden."""
        losses = logits[..., 0].astype(np.float64)
        return np.where(losses == LOWEST, float(IGNORED), losses)

    def perfect(self, labels: Float[np.ndarray, "example place"]) -> Float[np.ndarray, "example place"]:
        """A loss of 0 at each hidden place; a label is the number of a token."""
        return np.minimum(labels, 0)

    def probabilities(self, logits: Logits) -> Float[Array, "batch 0"]:
        """None."""
        return logits[:, 0, :0]

    def loss(self, logits: Logits, labels: Labels) -> Float[Array, "batch place"]:
        """Cross entropy at every place."""
        return super().loss(logits, jnp.maximum(labels, 0))

    def divergence(self, one: Logits, other: Logits, detach: bool = False) -> Float[Array, "batch place"]:
        """KL(P ‖ Q) + KL(Q ‖ P) at every place, over the vocabulary."""
        return super().divergence(one, other, detach)

    def errors(
        self, predictions: Float[np.ndarray, "example place"], labels: Float[np.ndarray, "example place"]
    ) -> Float[np.ndarray, " example"]:
        """Mean loss of an example's hidden places."""
        there = labels >= 0
        return np.sum(predictions, axis=-1, where=there) / np.maximum(np.sum(there, axis=-1), 1)
