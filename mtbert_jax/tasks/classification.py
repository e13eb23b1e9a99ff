"""Classification: one of several classes."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.errors import InputError
from mtbert_jax.limits import MOST_CLASSES
from mtbert_jax.tasks.kind import Decision, Labels, Logits, TaskKind
from mtbert_jax.tasks.losses import kl, symmetric_kl
from mtbert_jax.tasks.metrics import ACCURACY, MACRO_F1, Metric
from mtbert_jax.tasks.parsing import check_classes, parse_number
from mtbert_jax.tasks.registry import register_kind


@register_kind("classification")
class Classification(TaskKind):
    """One logit per class, softmax, cross entropy; a label is a class index."""

    metrics: ClassVar[tuple[Metric, ...]] = (ACCURACY, MACRO_F1)
    one_class_each = True
    decision: ClassVar[Decision] = "argmax"

    def check(self, task: TaskConfig) -> None:
        """Checks number and names of the classes."""
        if task.label_range:
            raise InputError(f"label_range does not belong to kind = {self.name!r}")
        if task.classes and task.num_classes not in (0, len(task.classes)):
            raise InputError(
                f"num_classes = {task.num_classes} but {len(task.classes)} classes are named; leave num_classes out"
            )
        count = self.num_outputs(task)
        if count < 2:
            raise InputError(f"{self.name} needs num_classes of 2 or more, or the names of the classes")
        if count > MOST_CLASSES:
            raise InputError(f"{count} classes: there may be {MOST_CLASSES} at most")
        check_classes(task.classes)

    def num_outputs(self, task: TaskConfig) -> int:
        """The number of classes."""
        return len(task.classes) or task.num_classes

    def classes(self, task: TaskConfig) -> tuple[str, ...]:
        """The named classes, or the numbers from 0."""
        return task.classes or tuple(map(str, range(task.num_classes)))

    def expected(self, task: TaskConfig) -> str:
        """The classes, or the range of their numbers."""
        return (
            f"one of {', '.join(task.classes)}" if task.classes else f"a whole number from 0 to {task.num_classes - 1}"
        )

    def parse(self, task: TaskConfig, text: str) -> Any:
        """A class name or number → its index."""
        if task.classes:
            return float(task.classes.index(text))
        value = parse_number(text)
        if not (value.is_integer() and 0 <= value < task.num_classes):
            raise ValueError(text)
        return value

    def describe(self, task: TaskConfig, prediction: Any) -> Any:
        """The class's name, or its number where classes have no names."""
        return task.classes[int(prediction)] if task.classes else int(prediction)

    def loss(self, logits: Logits, labels: Labels) -> Float[Array, " batch"]:
        """Cross entropy."""
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels.astype(jnp.int32))

    def predict(self, logits: Float[np.ndarray, "example output"]) -> Float[np.ndarray, " example"]:
        """The class of the largest logit."""
        return np.argmax(logits, axis=-1).astype(np.float64)

    def probabilities(self, logits: Logits) -> Float[Array, "batch class"]:
        """Softmax."""
        return jax.nn.softmax(logits, axis=-1)

    def divergence(self, one: Logits, other: Logits, detach: bool = False) -> Float[Array, " batch"]:
        """KL(P ‖ Q) + KL(Q ‖ P)."""
        return symmetric_kl(jax.nn.log_softmax(one, axis=-1), jax.nn.log_softmax(other, axis=-1), detach)

    def one_sided(self, perturbed: Logits, clean: Logits) -> Float[Array, " batch"]:
        """KL(clean ‖ perturbed)."""
        return kl(jax.nn.log_softmax(clean, axis=-1), jax.nn.log_softmax(perturbed, axis=-1))

    def errors(
        self, predictions: Float[np.ndarray, " example"], labels: Float[np.ndarray, " example"]
    ) -> Float[np.ndarray, " example"]:
        """1 for a wrong class, 0 for the right one."""
        return (predictions != labels).astype(np.float64)
