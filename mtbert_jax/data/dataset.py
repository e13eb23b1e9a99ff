"""One split of one task, ready for batches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from tokenizers import Tokenizer

from mtbert_jax.config import Config, Task
from mtbert_jax.config.schema import must_be_among
from mtbert_jax.data.augment import Augmentation, changes_words, has_words
from mtbert_jax.data.examples import digest
from mtbert_jax.data.masking import FIXED, Masking
from mtbert_jax.data.readers import SPLITS, Reading, Split, read_for_run
from mtbert_jax.data.tokens import Tokens, Words, tokenize_cached, tokenize_inputs, tokenize_texts
from mtbert_jax.encoders.tokenizer import mask_token
from mtbert_jax.errors import InputError
from mtbert_jax.files import real
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.arrays import stack_labels
from mtbert_jax.tasks.reads import inputs


class Dataset(NamedTuple):
    """Encoded examples of one split, in the file's order.

    Attributes:
        labels: Labels, ``[example *label]``; zeros, or no places, where there are none.
        labelled: Whether the examples have labels: all of them, or some in a test split.
        skipped: One message for every bad row that was left out.
        features: What a frozen encoder says of every example, ``[example hidden]``, where that has been kept.
        unlabelled: Number of rows without a label of the task, left out of a file of several tasks.
        scored: Places of the examples that have a label, where only some do.
        masking: Where tokens are hidden: the texts as they were, of which every batch of training hides others.
        augmentation: How training changes the texts, where it does.
        other_order: The same examples with their two texts the other way round, where both orders are scored.
        digest: That of a training or dev split (`mtbert_jax.data.examples.digest`).
    """

    ids: list[str]
    texts: list[tuple[str, ...]]
    tokens: Tokens
    labels: Float[np.ndarray, "example *label"]
    labelled: bool
    skipped: list[str]
    features: Float[np.ndarray, "example hidden"] | None = None
    unlabelled: int = 0
    scored: Int[np.ndarray, " scored"] | None = None
    masking: Masking | None = None
    augmentation: Augmentation | None = None
    other_order: "Dataset | None" = None
    digest: str = ""

    def left_out(self) -> str:
        """How many bad rows were left out, and what is wrong with the first; empty where none was."""
        return f"{len(self.skipped)} bad rows left out, the first: {self.skipped[0]}" if self.skipped else ""


def load_dataset(config: Config, task: Task, split: Split, tokenizer: Tokenizer, labels: bool = True) -> Dataset:
    """Reads and encodes one split of one task; arguments and errors as in `load_datasets`."""
    must_be_among("split", split, SPLITS)
    return load_datasets(config, [task], split, tokenizer, labels)[task.name]


def load_datasets(
    config: Config, tasks: Sequence[Task], split: Split, tokenizer: Tokenizer, labels: bool = True
) -> dict[str, Dataset]:
    """Reads and encodes one split of several tasks; errors are those of `read_split`.

    Texts of a file that several tasks read alike are encoded once, whichever of its rows have a label of which task.
    """
    read = {task.name: read_for_run(config, task, split, labels=labels) for task in tasks}
    alike: dict[tuple[Any, ...], list[Task]] = {}
    for task in tasks:
        file = real(Path(config.data_dir) / getattr(task, split))
        key = (file, task.text, task.max_length, kind_of(task).reads, inputs(task))
        alike.setdefault(key, []).append(task)
    tokens: dict[str, Tokens] = {}
    for group in alike.values():
        words: Words | None = "all" if split == "train" and any(map(changes_words, group)) else None
        texts = {task.name: [example.texts for example in read[task.name].examples] for task in group}
        first = texts[group[0].name]
        if all(own == first for own in texts.values()):
            tokens |= dict.fromkeys(texts, encode(config, group[0], tokenizer, first, words=words))
        else:
            places = {text: n for n, text in enumerate(dict.fromkeys(text for own in texts.values() for text in own))}
            every = encode(config, group[0], tokenizer, list(places), words=words)
            tokens |= {name: every.take([places[text] for text in own]) for name, own in texts.items()}
    found: dict[str, Dataset] = {}
    for task in tasks:
        own = tokens[task.name]
        plain = own._replace(words=None, num_words=None) if kind_of(task).reads == "vector" else own
        data = make_dataset(task, read[task.name], plain, tokenizer)
        if split != "test":
            data = data._replace(digest=digest(read[task.name].examples))
        if split == "train" and (task.swap_pairs or changes_words(task)):
            data = data._replace(augmentation=_augmentation(config, task, tokenizer, data.texts, own))
        if split != "train" and task.both_orders:
            data = data._replace(other_order=in_other_order(config, task, tokenizer, data))
        found[task.name] = data
    return found


def _augmentation(
    config: Config, task: Task, tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], tokens: Tokens
) -> Augmentation:
    """How training changes the texts of a task; `tokens` are theirs, with words where words are changed.

    Raises:
        InputError: Words are to be changed, and no text has two.
    """
    words: Words | None = "all" if changes_words(task) else None
    if words and not has_words(tokens):
        name = "word_deletion" if task.word_deletion else "word_swap"
        raise InputError(
            f"task {task.name}: {name} = {getattr(task, name):g}: the encoder's tokenizer finds no text of two words "
            f"in {task.train}; set it to 0"
        )
    turned = [text[::-1] for text in texts] if task.swap_pairs else None
    swapped = None if turned is None else encode(config, task, tokenizer, turned, words=words)
    return Augmentation(tokens, swapped, task.swap_pairs, task.word_deletion, task.word_swap)


def in_other_order(config: Config, task: Task, tokenizer: Tokenizer, data: Dataset) -> Dataset:
    """The same examples with their two texts the other way round, encoded, and cut off, as such pairs are."""
    texts = [text[::-1] for text in data.texts]
    return data._replace(texts=texts, tokens=encode(config, task, tokenizer, texts), features=None, other_order=None)


def encode(
    config: Config,
    task: Task,
    tokenizer: Tokenizer,
    texts: Sequence[tuple[str, ...]],
    limit: int = 0,
    words: Words | None = None,
) -> Tokens:
    """The texts as a task reads them, cut off after its limit of tokens, or after another one.

    What is told of words is what the task's kind needs, or `words`.
    """
    needed: dict[str, Words] = {"vector": "none", "texts": "none", "tokens": "first", "masked": "all"}
    own = words or needed[kind_of(task).reads]

    def tokenize(texts: Sequence[tuple[str, ...]]) -> Tokens:
        return tokenize_cached(tokenizer, texts, limit or task.max_length, config.cache_dir, own)

    return tokenize_inputs(texts, inputs(task), tokenize)


def dataset_of_texts(
    tokenizer: Tokenizer, texts: Sequence[tuple[str, ...]], limit: int, task: Task | None = None
) -> Dataset:
    """Texts of no file, without labels, as a task reads them, or the encoder alone, cut off after `limit` tokens."""
    words: Words = "first" if task is not None and kind_of(task).reads == "tokens" else "none"
    if task is not None:
        texts = [tuple(map(kind_of(task).text, text)) for text in texts]
    own = ((0,),) if task is None else inputs(task)

    def tokenize(texts: Sequence[tuple[str, ...]]) -> Tokens:
        return tokenize_texts(tokenizer, texts, limit, words)

    tokens = tokenize_inputs(texts, own, tokenize)
    places = [max([1, *tokens.num_words])] if tokens.num_words is not None else []
    data = Dataset([], list(texts), tokens, np.zeros((len(texts), *places), np.float32), False, [])
    if task is None or not task.both_orders:
        return data
    turned = [text[::-1] for text in texts]
    return data._replace(other_order=data._replace(texts=turned, tokens=tokenize_inputs(turned, own, tokenize)))


def make_dataset(task: Task, read: Reading, tokens: Tokens, tokenizer: Tokenizer) -> Dataset:
    """What a file gave, with its encoded texts."""
    examples = read.examples
    if kind_of(task).reads == "masked":
        masking = Masking.of(tokens, tokenizer, mask_token(tokenizer), task.whole_words)
        shown, labels = masking.masked(range(len(examples)), (FIXED,))
        ids, texts = [example.id for example in examples], [example.texts for example in examples]
        return Dataset(ids, texts, shown, labels, len(examples) > 0, read.skipped, masking=masking)
    auxiliary = kind_of(task).auxiliary  # then no label is missing
    known = np.flatnonzero([auxiliary or example.label is not None for example in examples])
    width = 0 if tokens.num_words is None else max(tokens.num_words, default=0)
    return Dataset(
        ids=[example.id for example in examples],
        texts=[example.texts for example in examples],
        tokens=tokens,
        labels=stack_labels(task, [example.label for example in examples], width).astype(np.float32),
        labelled=len(known) > 0,
        skipped=read.skipped,
        unlabelled=len(read.unlabelled),
        scored=known if 0 < len(known) < len(examples) else None,
    )
