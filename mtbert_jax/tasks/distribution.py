"""Classification with a distribution over the classes as label: what a larger model predicts, or annotators' votes."""

from typing import Any

import numpy as np
import optax
from jaxtyping import Array, Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.tasks.classification import Classification
from mtbert_jax.tasks.kind import Labels, Logits
from mtbert_jax.tasks.metrics import CROSS_ENTROPY, OF_LARGEST_ACCURACY, OF_LARGEST_F1
from mtbert_jax.tasks.parsing import parse_list, parse_number
from mtbert_jax.tasks.registry import register_kind

BETWEEN = "|"
"""Parts the probabilities of an example in a table's cell."""
TOLERANCE = 1e-3
"""How far the sum of a label's probabilities may be from 1; they are divided by it."""


@register_kind("distribution")
class Distribution(Classification):
    """One logit per class, softmax, cross entropy against a label that is a distribution over the classes.

    A label may also be a class alone, as in dev files: all of the probability is then on it. Accuracy and F1 compare
    the classes of the largest probability.
    """

    metrics = (OF_LARGEST_ACCURACY, OF_LARGEST_F1, CROSS_ENTROPY)
    one_class_each = False

    def label_shape(self, task: TaskConfig) -> tuple[int, ...]:
        """A probability for each class."""
        return (self.num_outputs(task),)

    def expected(self, task: TaskConfig) -> str:
        """Probabilities, or a class."""
        count = self.num_outputs(task)
        return f"{count} probabilities that add up to 1 ± {TOLERANCE:g}, such as .2|.8, nor {super().expected(task)}"

    def parse(self, task: TaskConfig, text: str) -> Float[np.ndarray, " class"]:
        """``0.1|0.2|0.7``, a JSON list, or a class → the probability of each class."""
        count = self.num_outputs(task)
        if BETWEEN in text and text not in task.classes:
            shares = [parse_number(part.strip()) for part in text.split(BETWEEN)]
        elif text.startswith("[") and text not in task.classes:
            shares = [parse_number(str(part)) for part in parse_list(text)]
        else:
            return np.eye(count)[int(super().parse(task, text))]
        total = sum(shares)
        if len(shares) != count or min(shares) < 0 or not abs(total - 1) <= TOLERANCE:
            raise ValueError(text)
        return np.array(shares) / total

    def describe(self, task: TaskConfig, prediction: Any) -> str | int:
        """The class of the largest probability."""
        return super().describe(task, float(np.argmax(prediction)))

    def format(self, task: TaskConfig, prediction: Any) -> str:
        """The probabilities with | between them, to all digits of a float32."""
        return BETWEEN.join(str(np.float32(share)) for share in prediction)

    def loss(self, logits: Logits, labels: Labels) -> Float[Array, " batch"]:
        """Cross entropy against the distribution: -Σ y log p (Hinton et al. 2015, arXiv:1503.02531, at T = 1)."""
        return optax.softmax_cross_entropy(logits, labels)

    def predict(self, logits: Float[np.ndarray, "example output"]) -> Float[np.ndarray, "example class"]:
        """Softmax."""
        with np.errstate(invalid="ignore"):  # of logits that are not finite
            raised = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
            return (raised / raised.sum(-1, keepdims=True)).astype(np.float32).astype(np.float64)

    def errors(
        self, predictions: Float[np.ndarray, "example class"], labels: Float[np.ndarray, "example class"]
    ) -> Float[np.ndarray, " example"]:
        """Distance of the distributions, Σ |p - y| / 2, where the most probable classes differ; else 0."""
        wrong = np.argmax(predictions, -1) != np.argmax(labels, -1)
        return wrong * np.abs(predictions - labels).sum(-1) / 2
