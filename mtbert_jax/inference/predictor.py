"""What predicts labels, for splits and for one's own texts, wherever its logits come from."""

import abc
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mtbert_jax.config import Task
from mtbert_jax.config.schema import nearest
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.data.examples import clean
from mtbert_jax.data.predictions import prediction_file, write_predictions
from mtbert_jax.data.readers import Split
from mtbert_jax.errors import InputError, plain
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.arrays import finite_rows, predictions
from mtbert_jax.training.evaluate import not_finite, scores_of

logger = logging.getLogger(__name__)
AT_ONCE = 4096
"""Texts that are tokenised together."""
LONGEST_SHOWN = 60
"""Characters of a text that a message quotes."""


class Prediction(NamedTuple):
    """What the model says of one example.

    Attributes:
        label: Class name or number, 0 or 1, a real number, a list of classes, or a tag for each word, by the kind of
            the task.
        probabilities: Probability of each class, by its name; empty where labels are no classes, or of words.
    """

    label: Any
    probabilities: dict[str, float]


class Predictor(abc.ABC):
    """Predictions, scores and files, made of logits that a subclass computes."""

    @property
    @abc.abstractmethod
    def tasks(self) -> dict[str, Task]:
        """The tasks by name."""

    @property
    @abc.abstractmethod
    def title(self) -> str:
        """Where the logits come from, in a few words, for the title of a table."""

    @abc.abstractmethod
    def datasets(self, split: Split, labels: bool = True) -> dict[str, Dataset]:
        """One split of every task that has a file for it; `labels` as in `read_split`."""

    @abc.abstractmethod
    def dataset(self, task: str, split: Split, labels: bool = True) -> Dataset:
        """One split of one task; `labels` and errors as in `read_split`."""

    @abc.abstractmethod
    def with_both_orders(self, tasks: Sequence[str]) -> "Predictor":
        """The same, which scores the pairs of these tasks in both orders, and those of no other task.

        Args:
            tasks: Names of tasks over pairs; they stand in place of the tasks whose `both_orders` the run has set.

        Raises:
            InputError: There is no such task, or it is not over pairs.
        """

    @abc.abstractmethod
    def logits(self, task: str, texts: Sequence[tuple[str, ...]]) -> Float[np.ndarray, "example output"]:
        """Logits of texts of one's own, in their order; of pairs in both orders, where the task is scored so."""

    @abc.abstractmethod
    def cut_off(self, task: str, texts: Sequence[tuple[str, ...]]) -> int:
        """How many texts of one's own have more tokens than the task reads of an example."""

    @abc.abstractmethod
    def split_logits(self, datasets: dict[str, Dataset]) -> dict[str, Float[np.ndarray, "example output"]]:
        """Logits of all examples of `datasets`, by task."""

    def task(self, name: str) -> Task:
        """The task of that name.

        Raises:
            InputError: The run has no such task.
        """
        tasks = self.tasks
        if name not in tasks:
            raise InputError(f"no task {name!r} in this run{nearest(name, tasks)} (tasks: {', '.join(tasks)})")
        return tasks[name]

    def predicting(self, name: str) -> Task:
        """The task of that name, with the texts that `predict` takes: two, of a task that compares texts.

        Raises:
            InputError: The run has no such task, or it predicts nothing.
        """
        task = self.task(name)
        if kind_of(task).reads == "texts":
            two = len(task.text) == 2
            return task if two else replace(task, text=(f"{task.text[0]}1", f"{task.text[0]}2"), min_label=None)
        if kind_of(task).auxiliary:
            raise InputError(f"task {name} is of kind = {task.kind!r}, which trains the encoder and predicts no labels")
        return task

    def predict(self, task: str, texts: Sequence[str | tuple[str, ...]]) -> list[Prediction]:
        """Labels and probabilities of one's own texts; cosines of pairs of texts, for a task that compares texts.

        Args:
            task: Name of a task of the run.
            texts: Strings, or pairs of strings for a task over pairs. Where words have labels, blanks part the words.

        Raises:
            InputError: There is no such task, or a text is not what it takes, or its logits are not finite.
        """
        return list(self.stream(task, texts))

    def stream(self, task: str, texts: Sequence[str | tuple[str, ...]], size: int = AT_ONCE) -> Iterator[Prediction]:
        """`predict`, one prediction after the other, in memory that does not grow with the number of texts.

        Args:
            task: As in `predict`.
            texts: As in `predict`. All of them are checked before the first prediction.
            size: Texts that are tokenised and computed together, the short ones apart from the long ones.

        Raises:
            InputError: As `predict`, for logits that are not finite when their turn comes.
        """
        spec = self.predicting(task)
        parts = text_parts(texts, len(spec.text), f"task {task}")
        return self._described(spec, parts, size)

    def _described(self, spec: Task, parts: list[tuple[str, ...]], size: int) -> Iterator[Prediction]:
        for start in range(0, len(parts), size):
            own = parts[start : start + size]
            logits = self.logits(spec.name, own)
            check_finite(logits, own, f"the output of task {spec.name}", start, len(parts))
            yield from self.describe(spec.name, logits)

    def soft_labels(
        self, task: str, texts: Sequence[str | tuple[str, ...]] | None = None, split: Split = "train"
    ) -> list[dict[str, Any]]:
        """Rows of a training file for `kind = "distribution"`: this model's probabilities as labels (distillation).

        A row has the task's columns: its id, its texts, and as label the probabilities of the classes, in order.

        Args:
            task: Name of a task of the run with one class for each example.
            texts: One's own texts, as `predict` takes them; those of `split` if left out.
            split: Whose texts are read, with or without labels.

        Raises:
            InputError: The task's probabilities are no distribution; or as `predict` and `read_task`.
        """
        spec, kind = self.predicting(task), kind_of(self.task(task))
        if kind.decision not in ("argmax", "sign"):
            raise InputError(
                f"task {task} is of kind = {spec.kind!r}, whose outputs are no distribution over classes; soft labels "
                "are for tasks with one class for each example"
            )
        if texts is None:
            data = self.dataset(task, split, labels=False)
            ids, parts, logits = data.ids, data.texts, self.split_logits({task: data})[task]
        else:
            parts = text_parts(texts, len(spec.text), f"task {task}")
            if not parts:
                return []
            ids, logits = [str(number) for number in range(len(parts))], self.logits(task, parts)
        check_finite(logits, parts, f"the output of task {task}")
        labels = np.asarray(kind.probabilities(jnp.asarray(logits)), np.float32)
        return [
            {**({spec.id: name} if spec.id else {}), **dict(zip(spec.text, own, strict=True)), spec.label: row}
            for name, own, row in zip(ids, parts, map(_shortest, labels), strict=True)
        ]

    def describe(self, task: str, logits: Float[np.ndarray, "example output"]) -> list[Prediction]:
        """Logits → labels and probabilities."""
        spec = self.tasks[task]
        kind = kind_of(spec)
        labels = (_written(kind.describe(spec, value)) for value in kind.predict(logits))
        names, shares = kind.classes(spec), np.asarray(kind.probabilities(jnp.asarray(logits)), np.float32)
        return [
            Prediction(label, dict(zip(names, _shortest(row), strict=True)) if len(row) else {})
            for label, row in zip(labels, shares, strict=True)
        ]

    def evaluate(
        self, split: Split, labels: bool = True
    ) -> tuple[dict[str, Any], dict[str, Dataset], dict[str, np.ndarray]]:
        """Scores, datasets and logits of one split of every task that has a file for it.

        Without `labels` there are no scores, and rows whose label cannot be used have logits, too. A warning names a
        task with logits that are not finite, whose scores are NaN; another one a task whose bad rows were left out.
        """
        datasets = self.datasets(split, labels)
        warn_of_rows_left_out(datasets)
        scores, logits = self.score(datasets)
        for line in not_finite(split, datasets, logits).values():
            logger.warning("%s; its scores are undefined", plain(line))
        return scores, datasets, logits

    def score(self, datasets: dict[str, Dataset]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Scores of datasets, empty where none has labels, and their logits."""
        logits = self.split_logits(datasets)
        return scores_of(self.tasks, datasets, logits), logits

    def write_predictions(
        self, folder: Path, split: Split, datasets: dict[str, Dataset], logits: dict[str, np.ndarray]
    ) -> list[Path]:
        """Writes one prediction file per task, but for tasks with logits that are not finite; returns their paths.

        A task that predicts nothing has none.
        """
        paths = []
        for name, values in logits.items():
            task = self.tasks[name]
            if kind_of(task).auxiliary:
                continue
            path, predicted = folder / prediction_file(task, split), predictions(task, values)
            if np.isfinite(predicted).all():
                write_predictions(path, task, datasets[name].ids, predicted)
                paths.append(path)
            else:
                path.unlink(missing_ok=True)
        return paths


def warn_of_rows_left_out(datasets: Mapping[str, Dataset]) -> None:
    """A warning for each task of which bad rows were left out, so that scores or predictions lack them."""
    for name, data in datasets.items():
        if left_out := data.left_out():
            logger.warning("task %s: %s", name, plain(left_out))


def _shortest(values: Float[np.ndarray, " class"]) -> list[float]:
    """Numbers that are written with the digits of a float32."""
    return [float(str(value)) for value in values]


def _written(label: Any) -> Any:
    """A label as a person reads it: a number with the digits of a float32."""
    return float(str(np.float32(label))) if isinstance(label, float) else label


def check_finite(
    values: Float[np.ndarray, "text ..."], parts: list[tuple[str, ...]], whose: str, before: int = 0, total: int = 0
) -> None:
    """Refuses what is not finite for some text: an argmax of NaN would be an ordinary label.

    `parts` are texts of `total`, after the first `before`; or all of them.
    """
    wrong = np.flatnonzero(~finite_rows(values))
    if len(wrong):
        text = " | ".join(parts[wrong[0]])
        shown = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
        seen = before + len(parts)
        of = len(parts) if not total else f"the first {seen}" if seen < total else seen
        more = f"; so for {len(wrong)} of {of} texts" if len(wrong) > 1 else ""
        raise InputError(
            f"text {before + wrong[0] + 1} ({shown!r}): {whose} has values that are not finite{more}; the training of "
            "this checkpoint had diverged"
        )


def text_parts(texts: Sequence[str | tuple[str, ...]], count: int, whose: str) -> list[tuple[str, ...]]:
    """Every text as a tuple of its parts, cleaned as those of data files are."""
    if isinstance(texts, str):
        raise InputError(f"{whose} takes a list of texts, not a single string")
    parts = []
    for number, text in enumerate(texts, start=1):
        part = text if isinstance(text, (tuple, list)) else (text,)
        if len(part) != count:
            raise InputError(
                f"text {number}: {whose} takes {'two texts' if count == 2 else 'one text'}, got {len(part)}"
            )
        if not all(isinstance(one, str) for one in part):
            raise InputError(f"text {number}: {whose} takes strings, got {part[0] if count == 1 else part!r}")
        parts.append(tuple(map(clean, part)))
    return parts
