"""Binary tasks: yes or no, by a single logit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.errors import InputError
from mtbert_jax.tasks.kind import Labels, Logits, TaskKind
from mtbert_jax.tasks.losses import kl, symmetric_kl
from mtbert_jax.tasks.metrics import ACCURACY, BINARY_F1
from mtbert_jax.tasks.parsing import parse_number
from mtbert_jax.tasks.registry import register_kind


@register_kind("binary")
class Binary(TaskKind):
    """One logit, sigmoid, binary cross entropy; a label is 0 or 1."""

    metrics = (ACCURACY, BINARY_F1)
    one_class_each = True
    decision = "sign"

    def check(self, task: TaskConfig) -> None:
        """Refuses named classes, with the kind that has them."""
        if task.classes:
            raise InputError(
                'classes: labels of kind = "binary" are 0 and 1; kind = "classification" has classes by name'
            )
        super().check(task)

    def num_outputs(self, task: TaskConfig) -> int:
        """One."""
        return 1

    def classes(self, task: TaskConfig) -> tuple[str, ...]:
        """0 and 1."""
        return ("0", "1")

    def expected(self, task: TaskConfig) -> str:
        """0 or 1."""
        return "a whole number from 0 to 1"

    def parse(self, task: TaskConfig, text: str) -> float:
        """0 or 1, also as 0.0 or 1.0."""
        value = parse_number(text)
        if value not in (0.0, 1.0):
            raise ValueError(text)
        return value

    def format(self, task: TaskConfig, prediction: float) -> str:
        """0.0 or 1.0, as the course has it."""
        return str(float(prediction))

    def describe(self, task: TaskConfig, prediction: float) -> int:
        """0 or 1."""
        return int(prediction)

    def loss(self, logits: Logits, labels: Labels) -> Float[Array, " batch"]:
        """Binary cross entropy."""
        # Without its axis: [batch 1] against [batch] would broadcast to [batch batch].
        return optax.sigmoid_binary_cross_entropy(logits[:, 0], labels)

    def predict(self, logits: Float[np.ndarray, "example output"]) -> Float[np.ndarray, " example"]:
        """1 where the logit is above 0; a logit of exactly 0 counts as 0."""
        return (logits[:, 0] > 0).astype(np.float64)

    def probabilities(self, logits: Logits) -> Float[Array, "batch class"]:
        """Probabilities of 0 and of 1."""
        share = jax.nn.sigmoid(logits)
        return jnp.concatenate([1 - share, share], axis=-1)

    def divergence(self, one: Logits, other: Logits, detach: bool = False) -> Float[Array, " batch"]:
        """KL(P ‖ Q) + KL(Q ‖ P) of the two classes that the logit stands for.

        >>> Binary().divergence(jnp.array([[0.0], [1.0]]), jnp.array([[0.0], [3.0]])).round(4).tolist()
        [0.0, 0.442...]
        """
        return symmetric_kl(_log_probabilities(one), _log_probabilities(other), detach)

    def one_sided(self, perturbed: Logits, clean: Logits) -> Float[Array, " batch"]:
        """KL(clean ‖ perturbed)."""
        return kl(_log_probabilities(clean), _log_probabilities(perturbed))


def _log_probabilities(logits: Logits) -> Float[Array, "batch class"]:
    return jax.nn.log_softmax(jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1), axis=-1)
