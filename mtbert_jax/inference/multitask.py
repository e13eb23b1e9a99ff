"""The model of a run's checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, get_args

import jax
import numpy as np
from jaxtyping import Float

from mtbert_jax.checks import check_config
from mtbert_jax.config import Config, Task
from mtbert_jax.config.schema import convert, nearest
from mtbert_jax.data.dataset import Dataset, dataset_of_texts, load_dataset
from mtbert_jax.data.readers import Split
from mtbert_jax.errors import InputError
from mtbert_jax.inference.predictor import AT_ONCE, Predictor, check_finite, text_parts
from mtbert_jax.parallel import ALONE, Layout
from mtbert_jax.tasks.methods import check_methods_again
from mtbert_jax.training.evaluate import (
    EvalStep,
    all_logits,
    make_eval_step,
    make_pooling_step,
    over_split,
    split_logits,
)
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.origin import restore_params
from mtbert_jax.training.setup import Setup
from mtbert_jax.types import Params

Embedding = Literal["mean", "cls"]
"""How `MultitaskModel.encode` makes one vector of a text."""


@dataclass(frozen=True, eq=False)
class MultitaskModel(Predictor):
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
        for task in config.tasks:
            check_methods_again(task)
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
        for name in convert(tuple[str, ...], tasks, "tasks"):
            self.task(name)
        config = self.setup.config
        told = tuple(replace(task, both_orders=task.name in tasks) for task in config.tasks)
        config = replace(config, tasks=told)
        check_config(config)
        return replace(self, setup=self.setup.with_config(config))

    def __repr__(self) -> str:
        millions = sum(leaf.size for leaf in jax.tree.leaves(self.params)) / 1e6
        return f"MultitaskModel(tasks {', '.join(self.setup.tasks)}; {millions:.1f}M parameters; step {self.step})"

    @property
    def tasks(self) -> dict[str, Task]:
        """The run's tasks by name."""
        return self.setup.tasks

    @property
    def title(self) -> str:
        """The step of the checkpoint, in words."""
        return f"step {self.step}"

    def datasets(self, split: Split, labels: bool = True) -> dict[str, Dataset]:
        """One split of every task that has a file for it; `labels` as in `read_split`."""
        return self.setup.datasets(split, labels)

    def dataset(self, task: str, split: Split, labels: bool = True) -> Dataset:
        """One split of one task; `labels` and errors as in `read_split`."""
        return load_dataset(self.setup.config, self.task(task), split, self.setup.tokenizer, labels)

    def logits(self, task: str, texts: Sequence[tuple[str, ...]]) -> Float[np.ndarray, "example output"]:
        """Logits of texts of one's own, in their order; of pairs in both orders, where the task is scored so."""
        setup, spec = self.setup, self.predicting(task)
        dataset = dataset_of_texts(setup.tokenizer, texts, spec.max_length, spec)
        return split_logits(setup, self._eval_step, self.params, task, dataset, setup.fixed_lengths(task))

    def cut_off(self, task: str, texts: Sequence[tuple[str, ...]]) -> int:
        """How many texts of one's own have more tokens than the task's `max_length`."""
        spec = replace(self.predicting(task), both_orders=False)  # the other order has as many tokens
        limit, cut = spec.max_length, 0
        for start in range(0, len(texts), AT_ONCE):
            own = dataset_of_texts(self.setup.tokenizer, texts[start : start + AT_ONCE], limit + 1, spec)
            cut += int(np.sum(own.tokens.lengths > limit))
        return cut

    def split_logits(self, datasets: dict[str, Dataset]) -> dict[str, Float[np.ndarray, "example output"]]:
        """Logits of all examples of `datasets`, by task."""
        return all_logits(self.setup, self._eval_step, self.params, datasets)

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
            hint = f"; {pooling} is of two texts" if of_two else nearest(pooling, get_args(Embedding))
            raise InputError(f"encode: pooling = {pooling!r} is none of {', '.join(get_args(Embedding))}{hint}")
        parts = text_parts(texts, 1, "encode")
        lengths, width = self.setup.fixed_lengths(), self.setup.encoder_config.hidden_size
        compute = partial(self._pooling_step, self.params, pooling)
        vectors = over_split(
            self.setup, compute, dataset_of_texts(self.setup.tokenizer, parts, int(lengths[-1])), lengths, width
        )
        check_finite(vectors, parts, "its embedding")
        return vectors
