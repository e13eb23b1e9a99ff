"""A trained model on splits, and on one's own text."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mtbert_jax.checks import check_config
from mtbert_jax.config import Config, Task
from mtbert_jax.config.schema import nearest
from mtbert_jax.data.dataset import Dataset, dataset_of_texts, load_dataset
from mtbert_jax.data.examples import clean
from mtbert_jax.data.predictions import prediction_file, write_predictions
from mtbert_jax.data.readers import Split
from mtbert_jax.errors import InputError, plain
from mtbert_jax.parallel import ALONE, Layout
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.arrays import finite_rows, predictions
from mtbert_jax.training.evaluate import (
    EvalStep,
    evaluate_all,
    make_eval_step,
    make_pooling_step,
    not_finite,
    over_split,
    split_logits,
)
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.origin import restore_params
from mtbert_jax.training.setup import Setup
from mtbert_jax.types import Params

logger = logging.getLogger(__name__)
LONGEST_SHOWN = 60
"""Characters of a text that a message quotes."""
Embedding = Literal["mean", "cls"]
"""How `MultitaskModel.encode` makes one vector of a text."""


class Prediction(NamedTuple):
    """What the model says of one example.

    Attributes:
        label: Class name or number, 0 or 1, a real number, a list of classes, or a tag for each word, by the kind of
            the task.
        probabilities: Probability of each class, by its name; empty where labels are no classes, or of words.
    """

    label: Any
    probabilities: dict[str, float]


@dataclass(frozen=True, eq=False)
class MultitaskModel:
    """Encoder, heads and tokenizer of a run, ready to predict.

    Attributes:
        setup: The run's config and what belongs to it.
        params: All parameters.
        step: The step they are from.
    """

    setup: Setup
    params: Params
    step: int

    @cached_property
    def _eval_step(self) -> EvalStep:
        return make_eval_step(self.setup.model, self.setup.layout, self.setup.kinds)

    @cached_property
    def _pooling_step(self) -> EvalStep:
        return make_pooling_step(self.setup.model, self.setup.layout)

    @classmethod
    def from_checkpoint(
        cls,
        run: str | Path,
        which: str = "best",
        data_dir: str | None = None,
        config: Config | None = None,
        layout: Layout = ALONE,
    ) -> "MultitaskModel":
        """Loads the best or the latest checkpoint of a run folder; nothing else is needed.

        Args:
            run: The run folder.
            which: `best`, by the config's `checkpoint_metric`, or `latest`.
            data_dir: Folder of the data files, in place of the config's.
            config: The run's config, in place of the folder's.
            layout: Where its arrays are to lie, whatever they lay on in training.

        Raises:
            InputError: This is no run folder, or it holds no checkpoint that can be read.
        """
        folder = RunFolder(Path(run))
        config = config or folder.load_config()
        here = replace(config, data_dir=data_dir or config.data_dir, attention="auto")  # whatever this machine has
        setup = Setup.load(here, folder.encoder, layout)
        step, params = restore_params(folder, config, setup, which)
        return cls(setup.without_lora(), params, step)

    def with_both_orders(self, tasks: Sequence[str]) -> "MultitaskModel":
        """The same model, which scores the pairs of these tasks in both orders, and those of no other task.

        Args:
            tasks: Names of tasks over pairs; they stand in place of the tasks whose `both_orders` the run has set.

        Raises:
            InputError: The run has no such task, or it is not over pairs.
        """
        for name in tasks:
            self.task(name)
        config = self.setup.config
        told = tuple(replace(task, both_orders=task.name in tasks) for task in config.tasks)
        config = replace(config, tasks=told)
        check_config(config)
        return replace(self, setup=self.setup.with_config(config))

    def __repr__(self) -> str:
        millions = sum(leaf.size for leaf in jax.tree.leaves(self.params)) / 1e6
        return f"MultitaskModel(tasks {', '.join(self.setup.tasks)}; {millions:.1f}M parameters; step {self.step})"

    def task(self, name: str) -> Task:
        """The task of that name.

        Raises:
            InputError: The run has no such task.
        """
        tasks = self.setup.tasks
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

    def stream(self, task: str, texts: Sequence[str | tuple[str, ...]], size: int = 4096) -> Iterator[Prediction]:
        """`predict`, one prediction after the other, in memory that does not grow with the number of texts.

        Args:
            task: As in `predict`.
            texts: As in `predict`. All of them are checked before the first prediction.
            size: Texts that are tokenised and computed together, the short ones apart from the long ones.

        Raises:
            InputError: As `predict`, for logits that are not finite when their turn comes.
        """
        spec = self.predicting(task)
        parts = _parts(texts, len(spec.text), f"task {task}")
        return self._described(spec, parts, size)

    def _described(self, spec: Task, parts: list[tuple[str, ...]], size: int) -> Iterator[Prediction]:
        for start in range(0, len(parts), size):
            own = parts[start : start + size]
            logits = self.logits(spec.name, dataset_of_texts(self.setup.tokenizer, own, spec.max_length, spec))
            _check_finite(logits, own, f"the output of task {spec.name}", start, len(parts))
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
            data = load_dataset(self.setup.config, spec, split, self.setup.tokenizer, labels=False)
        else:
            parts = _parts(texts, len(spec.text), f"task {task}")
            data = dataset_of_texts(self.setup.tokenizer, parts, spec.max_length, spec)._replace(
                ids=[str(number) for number in range(len(parts))]
            )
        if not data.texts:
            return []
        logits = self.logits(task, data)
        _check_finite(logits, data.texts, f"the output of task {task}")
        labels = np.asarray(kind.probabilities(jnp.asarray(logits)), np.float32)
        return [
            {**({spec.id: name} if spec.id else {}), **dict(zip(spec.text, own, strict=True)), spec.label: row}
            for name, own, row in zip(data.ids, data.texts, map(_shortest, labels), strict=True)
        ]

    def encode(self, texts: Sequence[str], pooling: Embedding = "mean") -> Float[np.ndarray, "text hidden"]:
        """Embeddings of single texts by the shared encoder, float32, in their order; no head has a part in them.

        Args:
            texts: Strings, cut off after the run's `max_length` tokens.
            pooling: `mean`, the mean of all token states, or `cls`, the output of the encoder's pooler.

        Raises:
            InputError: There is no such pooling, or the encoder has no pooler for it, or one of the texts is none, or
                its embedding is not finite.
        """
        if pooling not in get_args(Embedding):
            of_two = pooling in ("pair", "towers", "both")
            hint = f"; {pooling} is of two texts" if of_two else nearest(str(pooling), get_args(Embedding))
            raise InputError(f"encode: pooling = {pooling!r} is none of {', '.join(get_args(Embedding))}{hint}")
        parts = _parts(texts, 1, "encode")
        lengths, width = self.setup.fixed_lengths(), self.setup.encoder_config.hidden_size
        compute = partial(self._pooling_step, self.params, pooling)
        vectors = over_split(
            self.setup, compute, dataset_of_texts(self.setup.tokenizer, parts, int(lengths[-1])), lengths, width
        )
        _check_finite(vectors, parts, "its embedding")
        return vectors

    def logits(self, task: str, dataset: Dataset) -> Float[np.ndarray, "example output"]:
        """Logits of texts of one's own, in their order; of pairs in both orders, where the task is scored so."""
        return split_logits(self.setup, self._eval_step, self.params, task, dataset, self.setup.fixed_lengths(task))

    def describe(self, task: str, logits: Float[np.ndarray, "example output"]) -> list[Prediction]:
        """Logits → labels and probabilities."""
        spec = self.setup.tasks[task]
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
        task with logits that are not finite; its scores are NaN.
        """
        datasets = self.setup.datasets(split, labels)
        scores, logits = self.score(datasets)
        for line in not_finite(split, datasets, logits).values():
            logger.warning("%s; its scores are undefined", plain(line))
        return scores, datasets, logits

    def score(self, datasets: dict[str, Dataset]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Scores of datasets, empty where none has labels, and their logits."""
        return evaluate_all(self.setup, self._eval_step, self.params, datasets)

    def write_predictions(
        self, folder: Path, split: Split, datasets: dict[str, Dataset], logits: dict[str, np.ndarray]
    ) -> list[Path]:
        """Writes one prediction file per task, but for tasks with logits that are not finite; returns their paths.

        A task that predicts nothing has none.
        """
        paths = []
        for name, values in logits.items():
            task = self.setup.tasks[name]
            if kind_of(task).auxiliary:
                continue
            path, predicted = folder / prediction_file(task, split), predictions(task, values)
            if np.isfinite(predicted).all():
                write_predictions(path, task, datasets[name].ids, predicted)
                paths.append(path)
            else:
                path.unlink(missing_ok=True)
        return paths


def _shortest(values: Float[np.ndarray, " class"]) -> list[float]:
    """Numbers that are written with the digits of a float32."""
    return [float(str(value)) for value in values]


def _written(label: Any) -> Any:
    """A label as a person reads it: a number with the digits of a float32."""
    return float(str(np.float32(label))) if isinstance(label, float) else label


def _check_finite(
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


def _parts(texts: Sequence[str | tuple[str, ...]], count: int, whose: str) -> list[tuple[str, ...]]:
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
