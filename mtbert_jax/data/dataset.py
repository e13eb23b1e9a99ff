"""One split of one task, ready for batches."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from tokenizers import Tokenizer

from mtbert_jax.config import Config, Task
from mtbert_jax.data.readers import Split, read_split
from mtbert_jax.data.tokens import Tokens, tokenize_cached
from mtbert_jax.tasks import kind_of


class Dataset(NamedTuple):
    """Encoded examples of one split.

    Attributes:
        ids: Identifiers, in the file's order.
        texts: The texts, in the file's order.
        tokens: The same, encoded.
        labels: Labels, ``[example *label]``; zeros where there are none.
        labelled: Whether every example has a label.
        skipped: One message for every bad row that was left out.
        features: What a frozen encoder says of every example, ``[example hidden]``, where that has been kept.
    """

    ids: list[str]
    texts: list[tuple[str, ...]]
    tokens: Tokens
    labels: Float[np.ndarray, "example *label"]
    labelled: bool
    skipped: list[str]
    features: Float[np.ndarray, "example hidden"] | None = None


def load_dataset(config: Config, task: Task, split: Split, tokenizer: Tokenizer, labels: bool = True) -> Dataset:
    """Reads and encodes one split; `labels` as in `read_split`.

    Raises:
        InputError: The file is missing or has a bad row (see `read_split`).
    """
    examples, skipped, *_ = read_split(task, split, config.data_dir, config.bad_rows, labels)
    texts = [example.texts for example in examples]
    tokens = tokenize_cached(tokenizer, texts, task.max_length, config.cache_dir)
    labelled = all(example.label is not None for example in examples)
    blank = np.zeros(kind_of(task).label_shape(task), np.float32)
    values = np.array([blank if example.label is None else example.label for example in examples], np.float32)
    return Dataset([example.id for example in examples], texts, tokens, values, labelled, skipped)
