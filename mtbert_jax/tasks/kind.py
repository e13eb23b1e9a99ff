"""What a task kind is: its labels, logits, loss, predictions, comparison and metrics.

A kind is one class in one file. Nothing outside of this folder asks which kind a task is of.
"""

import abc
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.errors import InputError
from mtbert_jax.tasks.losses import mean_loss, of_places
from mtbert_jax.tasks.metrics import Metric
from mtbert_jax.types import Example

Logits = Float[Array, "batch output"]
Labels = Float[Array, "batch *label"]
Reads = Literal["vector", "tokens", "masked", "texts"]
Decision = Literal["argmax", "sign", "value", "signs", "count", "tags"]
PER_PLACE = -1
"""In a label's shape: as many numbers as the example has places, such as words."""
IGNORED = -1
"""As a label or prediction of a place: there is nothing to say, or no such place."""
LOWEST = float(np.finfo(np.float32).min)
"""As all logits of a place: there is no such place."""


class TaskKind(abc.ABC):
    """Everything that tells one kind of task from another.

    Attributes:
        name: The kind's name in a config; `register_kind` sets it.
        metrics: All metrics of the kind; the first is the primary one, unless a task names another.
        one_class_each: Whether every example belongs to exactly one of the task's `classes`. Then classes can be
            counted, weighed and repeated, and a report shows a table of gold against predicted classes.
        decision: How a program without this library makes a label of logits, as exports say it: `argmax`, the class of
            the largest; `sign`, class 1 where the single logit is above 0; `value`, the logit itself; `signs`, every
            class whose logit is above 0; `count`, the class whose index is the number of logits above 0;
            `tags`, the class of the largest logit at each word's first token.
        of_batch: Whether the loss is of a batch, whose examples it compares with each other (`batch_loss`). Such a
            batch cannot be computed in parts (`micro_batches`), and reports show no loss of an example.
        auxiliary: Whether the task serves the encoder alone: no label is read from its files, nothing is predicted,
            and it has no part in averages, unless there are no other tasks.
        reads: What the head reads: `vector`, what the head's `pooling` makes of the tokens; `tokens`, the states of
            each word's first token; `masked`, those of hidden tokens, which are the labels, with logits of the
            vocabulary. The last two are rows of places. Arrays then have an axis of places: logits are
            ``[batch place output]``, labels ``[batch place]`` with `IGNORED` where there is nothing to say, and
            `loss`, `divergence` and `one_sided` return a value per place. What counts of an example is the mean over
            its labelled places. `texts`: a vector of each of two texts that are read apart, or of one text twice;
            logits are ``[batch 2 hidden]``, and `predict` gets what `kept` makes of them and returns what the metrics
            read.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    one_class_each: ClassVar[bool] = False
    decision: ClassVar[Decision]
    reads: ClassVar[Reads] = "vector"
    of_batch: ClassVar[bool] = False
    auxiliary: ClassVar[bool] = False

    def check(self, task: TaskConfig) -> None:
        """Checks the task's own fields.

        Raises:
            InputError: What is wrong with one of them, and what would be right.
        """
        if task.num_classes or task.classes:
            raise InputError(f"num_classes and classes do not belong to kind = {self.name!r}")
        if task.label_range:
            raise InputError(f"label_range does not belong to kind = {self.name!r}")

    def label_shape(self, task: TaskConfig) -> tuple[int, ...]:
        """Shape of one label; a single number if not overridden. ``(PER_PLACE,)`` is a row of any length."""
        return ()

    @property
    def has_places(self) -> bool:
        """Whether arrays have an axis of places: the head reads tokens."""
        return self.reads in ("tokens", "masked")

    def kept(self, logits: Logits, labels: Labels) -> Float[Array, "batch *place kept"]:
        """What an evaluation keeps of a batch's logits, and `predict` gets: the logits, if not overridden."""
        return logits

    def text(self, value: Any) -> str:
        """A text's field as the tokenizer gets it: the text itself, if not overridden.

        Raises:
            ValueError: The field is no text; with what is wrong with it, where its type is right.
        """
        if not isinstance(value, str):
            raise ValueError("")
        return value

    def reads_label(self, task: TaskConfig) -> bool:
        """Whether the label's column is read at all; of an auxiliary task it is not, if not overridden."""
        return not self.auxiliary

    def takes(self, task: TaskConfig, label: Any) -> bool:
        """Whether a row with that label is an example; others are left out and counted. All are, if not overridden."""
        return True

    def lacks(self, task: TaskConfig) -> str:
        """What rows have that are left out, in messages."""
        return "no label"

    def misfit(self, task: TaskConfig, example: Example) -> str:
        """What is wrong with a label beside its texts, such as another number of words; nothing if not overridden."""
        return ""

    def classes(self, task: TaskConfig) -> tuple[str, ...]:
        """Names of the task's classes, in the order of their indices; empty where labels are no classes.

        Those that the config names, if not overridden.
        """
        return task.classes

    def num_outputs(self, task: TaskConfig) -> int:
        """Width of the head's output layer; one logit for each class, or a single one, if not overridden."""
        return len(self.classes(task)) or 1

    @abc.abstractmethod
    def expected(self, task: TaskConfig) -> str:
        """What a label must be, as the end of a sentence: ``a whole number from 0 to 4``."""

    @abc.abstractmethod
    def parse(self, task: TaskConfig, text: str) -> Any:
        """The label that a data file's field holds: a number, or an array of `label_shape`.

        Raises:
            ValueError: The text is no label of the task.
        """

    def format(self, task: TaskConfig, prediction: Any) -> str:
        """A prediction as text, for a prediction file; `read` reads it back. That of `describe`, if not overridden."""
        return str(self.describe(task, prediction))

    def read(self, task: TaskConfig, text: str) -> Any:
        """The prediction that `format` made a text of.

        Raises:
            ValueError: The text is no prediction of the task.
        """
        return self.parse(task, text)

    def describe(self, task: TaskConfig, prediction: Any) -> Any:
        """A prediction for a person: the class by its name, a list of names, or the number."""
        return float(prediction)

    @abc.abstractmethod
    def loss(self, logits: Logits, labels: Labels) -> Float[Array, " batch"]:
        """Loss of every example."""

    def batch_loss(self, logits: Logits, labels: Labels, weights: Float[Array, " batch"]) -> Float[Array, ""]:
        """Loss of a batch: the weighted mean of `loss`, if not overridden; rows of weight 0 only fill the batch up.

        A kind that overrides it sets `of_batch`. The arrays are those of the whole batch, however many devices its rows
        are spread over.
        """
        losses = self.loss(logits, labels)
        return mean_loss(of_places(losses, labels >= 0) if self.has_places else losses, weights)

    @abc.abstractmethod
    def predict(self, logits: Float[np.ndarray, "example output"]) -> Float[np.ndarray, "example *label"]:
        """Logits → predictions, shaped like labels, float64."""

    def perfect(self, labels: Float[np.ndarray, "example *label"]) -> Float[np.ndarray, "example *label"]:
        """What `predict` returns where all is right: the labels, if not overridden."""
        return labels

    def probabilities(self, logits: Logits) -> Float[Array, "batch class"]:
        """Probabilities of the task's classes; no columns where labels are no classes."""
        return jnp.zeros((logits.shape[0], 0))

    @abc.abstractmethod
    def divergence(self, one: Logits, other: Logits, detach: bool = False) -> Float[Array, " batch"]:
        """ℓ_s of every example: how far two outputs are from each other, symmetrically (docs/numerics.md, section 2.1).

        Args:
            one: Logits of P.
            other: Logits of Q.
            detach: Differentiate KL(sg P ‖ Q) + KL(sg Q ‖ P), with sg a stop-gradient: the same value with about half
                the gradient. A squared difference is never detached.
        """

    def one_sided(self, perturbed: Logits, clean: Logits) -> Float[Array, " batch"]:
        """KL(clean ‖ perturbed) of every example; `divergence`, if not overridden."""
        return self.divergence(perturbed, clean)

    def errors(
        self, predictions: Float[np.ndarray, "example *label"], labels: Float[np.ndarray, "example *label"]
    ) -> Float[np.ndarray, " example"]:
        """How wrong each prediction is: 0 where it is right, and larger the further it is off."""
        return np.abs(predictions - labels).reshape(len(labels), -1).sum(axis=1)
