"""Regression: a real number."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.errors import InputError
from mtbert_jax.tasks.kind import Labels, Logits, TaskKind
from mtbert_jax.tasks.metrics import MAE, PEARSON, RMSE, SPEARMAN
from mtbert_jax.tasks.parsing import parse_number
from mtbert_jax.tasks.registry import register_kind


@register_kind("regression")
class Regression(TaskKind):
    """One output, squared error; a label is a number, perhaps within the task's `label_range`."""

    metrics = (PEARSON, SPEARMAN, MAE, RMSE)
    decision = "value"

    def check(self, task: TaskConfig) -> None:
        """Checks the range."""
        if task.num_classes or task.classes:
            raise InputError("num_classes and classes do not belong to kind = 'regression'")
        if task.label_range and (len(task.label_range) != 2 or not task.label_range[0] < task.label_range[1]):
            raise InputError("label_range: give the smallest and the largest label, such as [0.0, 5.0]")

    def expected(self, task: TaskConfig) -> str:
        """A number, or the range."""
        return "a finite number" if not task.label_range else "a number from {} to {}".format(*task.label_range)

    def parse(self, task: TaskConfig, text: str) -> float:
        """A number within the range."""
        value = parse_number(text)
        low, high = task.label_range or (-math.inf, math.inf)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    def read(self, task: TaskConfig, text: str) -> float:
        """Any number: predictions may leave the range of the labels."""
        return float(text)

    def loss(self, logits: Logits, labels: Labels) -> Float[Array, " batch"]:
        """Squared error."""
        # Without its axis: [batch 1] against [batch] would broadcast to [batch batch].
        return jnp.square(logits[:, 0] - labels)

    def predict(self, logits: Float[np.ndarray, "example output"]) -> Float[np.ndarray, " example"]:
        """The output itself."""
        return logits[:, 0].astype(np.float64)

    def divergence(self, one: Logits, other: Logits, detach: bool = False) -> Float[Array, " batch"]:
        """The squared difference."""
        return jnp.square(one[:, 0] - other[:, 0])
