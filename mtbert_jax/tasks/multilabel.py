"""Multi-label classification: any number of classes for each example."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.errors import InputError
from mtbert_jax.tasks.kind import Labels, Logits, TaskKind
from mtbert_jax.tasks.losses import kl, symmetric_kl
from mtbert_jax.tasks.metrics import LABEL_MACRO_F1, MICRO_F1
from mtbert_jax.tasks.parsing import check_classes, parse_list
from mtbert_jax.tasks.registry import register_kind

BETWEEN = "|"
"""Parts the classes of an example in a table's cell."""


@register_kind("multilabel")
class MultiLabel(TaskKind):
    """One logit per class, sigmoid, mean binary cross entropy; a label is 0 or 1 for each class.

    A class is predicted where its probability is above .5. The threshold is no field: another one is chosen on dev
    data, and is the bias of the output layer by another name.
    """

    metrics = (MICRO_F1, LABEL_MACRO_F1)
    decision = "signs"

    def check(self, task: TaskConfig) -> None:
        """Checks the names of the classes."""
        if task.label_range or task.num_classes:
            raise InputError("label_range and num_classes do not belong to kind = 'multilabel'")
        if not task.classes:
            raise InputError("multilabel needs the names of the classes")
        check_classes(task.classes)
        for name in task.classes:
            if BETWEEN in name or name.startswith("["):
                raise InputError(f"classes: {name!r} can be no name in such a list as a|b (no |, no [ in front)")

    def label_shape(self, task: TaskConfig) -> tuple[int, ...]:
        """A number for each class."""
        return (len(task.classes),)

    def expected(self, task: TaskConfig) -> str:
        """The classes, and how several are written."""
        return f"some of {', '.join(task.classes)}, with {BETWEEN} between them"

    def parse(self, task: TaskConfig, text: str) -> Float[np.ndarray, " class"]:
        """``a|b``, or a JSON list of names → 1 for each class that is named; an empty text names none."""
        names = parse_list(text) if text.startswith("[") else [name.strip() for name in text.split(BETWEEN) if text]
        if not all(name in task.classes for name in names):
            raise ValueError(text)
        return np.array([name in names for name in task.classes], np.float32)

    def describe(self, task: TaskConfig, prediction: Any) -> list[str]:
        """The names of the predicted classes."""
        return [name for name, on in zip(task.classes, prediction, strict=True) if on]

    def format(self, task: TaskConfig, prediction: Any) -> str:
        """The names with | between them."""
        return BETWEEN.join(self.describe(task, prediction))

    def loss(self, logits: Logits, labels: Labels) -> Float[Array, " batch"]:
        """Binary cross entropy, the mean over the classes."""
        return optax.sigmoid_binary_cross_entropy(logits, labels).mean(-1)

    def predict(self, logits: Float[np.ndarray, "example output"]) -> Float[np.ndarray, "example class"]:
        """1 where the logit is above 0."""
        return (logits > 0).astype(np.float64)

    def probabilities(self, logits: Logits) -> Float[Array, "batch class"]:
        """A sigmoid for each class; they need not add up to 1."""
        return jax.nn.sigmoid(logits)

    def divergence(self, one: Logits, other: Logits, detach: bool = False) -> Float[Array, " batch"]:
        """KL(P ‖ Q) + KL(Q ‖ P), the sum over the classes, each of which is there or not."""
        return symmetric_kl(_log_probabilities(one), _log_probabilities(other), detach).sum(-1)

    def one_sided(self, perturbed: Logits, clean: Logits) -> Float[Array, " batch"]:
        """KL(clean ‖ perturbed), the sum over the classes."""
        return kl(_log_probabilities(clean), _log_probabilities(perturbed)).sum(-1)


def _log_probabilities(logits: Logits) -> Float[Array, "batch class 2"]:
    return jnp.stack([jax.nn.log_sigmoid(-logits), jax.nn.log_sigmoid(logits)], axis=-1)
