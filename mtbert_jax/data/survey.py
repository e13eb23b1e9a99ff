"""What data files hold, before anything is trained on them: rows, labels, lengths, and texts that come twice.

Nothing here quotes a text: rows are named by their lines.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from mtbert_jax.config import Config, Task
from mtbert_jax.data.dataset import Dataset, encode, make_dataset
from mtbert_jax.data.raw_rows import SKIP, Fault
from mtbert_jax.data.readers import SPLITS, Reading, Split, read_for_run
from mtbert_jax.data.unknown import unknown_share
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.arrays import stack_labels
from mtbert_jax.tasks.kind import PER_PLACE
from mtbert_jax.tasks.reads import inputs
from mtbert_jax.types import Example

FIRST = 5
"""How many lines are named of rows that have something in common."""
SCORES = (0, 5, 25, 50, 75, 95, 100)
"""Percentiles of regression labels that are told."""
PERCENTILES = (50, 90, 95, 99, 100)
"""Percentiles of lengths that are told."""
UNCUT = 2**31 - 1


class BadRows(NamedTuple):
    """Bad rows with one thing wrong: the reason, their number, lines of the first few, and a way out."""

    reason: str
    rows: int
    lines: list[int]
    advice: str = SKIP


class Lines(NamedTuple):
    """Number of rows that have something in common, and lines of the first few."""

    rows: int
    lines: list[int]


class Repeats(NamedTuple):
    """Rows whose texts, but for capitals and blanks, stand in an earlier row, or in another split.

    Attributes:
        rows: How many.
        other_label: How many of them have another label than that row.
        lines: Of the first few: their line, and the other row's.
    """

    rows: int
    other_label: int
    lines: list[tuple[int, int]]


@dataclass(frozen=True)
class SplitSurvey:
    """One split of one task.

    Attributes:
        rows: Rows that can be used.
        bad: Rows that cannot, by what is wrong with them.
        labelled: Rows with a label.
        classes: Labelled rows, or words, of each class; empty where labels are no classes.
        places: Labelled words, where each word has a label; else 0.
        scores: Percentiles of the labels, where they are numbers.
        tokens: Percentiles of the lengths in tokens, special ones included, as if nothing were cut off; of a row whose
            texts are read apart, those of the longer one.
        cut: Rows that are cut off, after `limit` tokens.
        unknown: Share of the tokens that stand for words that the vocabulary lacks.
        duplicates: Rows whose texts stand in an earlier row of the split.
        unlabelled: Rows without a label: predicted and not scored in a test split, else left out of a file of several
            tasks; or with one that the task does not take.
        several: Rows that take several lines of the file.
        empty: Rows with a text that is empty or blank.
        columns: The columns, or the fields of the first row that can be read.
    """

    task: str
    split: Split
    file: str
    rows: int
    bad: list[BadRows]
    labelled: int
    classes: dict[str, int]
    places: int
    scores: dict[int, float]
    tokens: dict[int, int]
    limit: int
    cut: int
    unknown: float
    duplicates: Repeats
    unlabelled: Lines
    several: Lines
    empty: Lines
    columns: list[str]


class Overlap(NamedTuple):
    """Rows of one split of a task whose texts, in either order, stand `within` another split, too."""

    task: str
    split: Split
    within: Split
    repeats: Repeats


class Surveyed(NamedTuple):
    """All splits of all tasks, in order; how much of each stands in earlier ones; and training splits, encoded."""

    splits: list[SplitSurvey]
    overlaps: list[Overlap]
    train: dict[str, Dataset]


def survey(config: Config, tokenizer: Tokenizer) -> Surveyed:
    """Reads and encodes every file of every task; bad rows are counted, whatever `bad_rows` says.

    Raises:
        InputError: A file is missing, lacks a column, or has no row at all.
    """
    splits, overlaps, train = [], [], {}
    for task in config.resolved_tasks():
        read: dict[Split, Reading] = {}
        for split in (split for split in SPLITS if getattr(task, split)):
            read[split] = read_for_run(config, task, split, "count")
            facts, data = _survey_split(config, task, split, read[split], tokenizer)
            splits.append(facts)
            if split == "train":
                train[task.name] = data
        overlaps += [
            Overlap(task.name, later, earlier, repeats(read[later], in_either_order(first_rows(read[earlier]))))
            for earlier, later in combinations(read, 2)
        ]
    return Surveyed(splits, overlaps, train)


def _survey_split(
    config: Config, task: Task, split: Split, read: Reading, tokenizer: Tokenizer
) -> tuple[SplitSurvey, Dataset]:
    texts, limit = [example.texts for example in read.examples], task.max_length
    whole = encode(config, task, tokenizer, texts, UNCUT)
    cut = int(np.sum(whole.lengths > limit))
    tokens = encode(config, task, tokenizer, texts) if cut else whole
    known = stack_labels(task, [example.label for example in read.examples if example.label is not None]).astype(
        np.float32
    )
    kind, lines = kind_of(task), list(zip(read.examples, read.lines, strict=True))
    blank = [line for example, line in lines if example.label is None and kind.reads_label(task)]
    unlabelled = blank or read.unlabelled
    empty = [line for example, line in lines if not all(map(str.strip, example.texts))]
    shape = kind.label_shape(task)
    facts = SplitSurvey(
        task=task.name,
        split=split,
        file=getattr(task, split),
        rows=len(texts),
        bad=by_reason(read.bad),
        labelled=len(known),
        classes=_classes(kind.classes(task), known, shape) if len(known) else {},
        places=int(np.sum(known >= 0)) if shape == (PER_PLACE,) else 0,
        scores=_percentiles(known, SCORES) if len(known) and not (kind.one_class_each or shape) else {},
        tokens={at: int(n) for at, n in _percentiles(whole.lengths, PERCENTILES, "higher").items()} if texts else {},
        limit=limit,
        cut=cut,
        unknown=unknown_share(tokenizer, whole, inputs(task)),
        duplicates=repeats(read),
        unlabelled=Lines(len(unlabelled), unlabelled[:FIRST]),
        several=Lines(len(read.several), read.several[:FIRST]),
        empty=Lines(len(empty), empty[:FIRST]),
        columns=read.columns,
    )
    return facts, make_dataset(task, read, tokens, tokenizer)


def by_reason(bad: Sequence[tuple[int, Fault]]) -> list[BadRows]:
    """Bad rows by what is wrong with them, the most frequent first.

    >>> broken, empty = Fault("is not JSON", "is not JSON: '{'"), Fault("is empty", "is empty")
    >>> by_reason([(3, broken), (5, empty), (9, broken)])[0]
    BadRows(reason='is not JSON', rows=2, lines=[3, 9], advice='bad_rows = "skip" would leave such rows out')
    """
    lines = defaultdict(list)
    for line, fault in bad:
        lines[fault.reason, fault.advice].append(line)
    ordered = sorted(lines.items(), key=lambda item: -len(item[1]))
    return [BadRows(reason, len(own), own[:FIRST], advice) for (reason, advice), own in ordered]


def _classes(names: Sequence[str], labels: np.ndarray, shape: tuple[int, ...]) -> dict[str, int]:
    """Rows of each class, by labels that are one class each, or 0 or 1 for each; of probabilities, their sums."""
    if shape == (len(names),):
        return dict(zip(names, np.rint(labels.sum(axis=0, dtype=np.float64)).astype(int).tolist(), strict=True))
    counts = Counter(labels.astype(int).ravel().tolist())
    return {name: counts[place] for place, name in enumerate(names)}


def _percentiles(values: np.ndarray, which: tuple[int, ...], method: str = "linear") -> dict[int, float]:
    found = np.percentile(values.astype(np.float64), which, method=method)  # type: ignore[call-overload]
    return dict(zip(which, found.tolist(), strict=True))


Row = tuple[int, Any]
"""A line, and the label that stands there."""


def first_rows(read: Reading) -> dict[tuple[str, ...], Row]:
    """Where each text, or pair of texts, stands first."""
    found: dict[tuple[str, ...], Row] = {}
    for example, line in zip(read.examples, read.lines, strict=True):
        found.setdefault(_key(example), (line, example.label))
    return found


def in_either_order(rows: Mapping[tuple[str, ...], Row]) -> dict[tuple[str, ...], Row]:
    """The same, with every pair turned round besides: a dev pair that training has seen so is not new to it."""
    return {**{texts[::-1]: row for texts, row in rows.items()}, **rows}


def repeats(read: Reading, elsewhere: Mapping[tuple[str, ...], Row] | None = None) -> Repeats:
    """Rows whose texts stand elsewhere: in another split, or else in an earlier row of the same one."""
    count, other = 0, 0
    lines: list[tuple[int, int]] = []
    own = first_rows(read) if elsewhere is None else elsewhere
    for example, line in zip(read.examples, read.lines, strict=True):
        there = own.get(_key(example))
        if there is None or (elsewhere is None and there[0] == line):
            continue
        count += 1
        other += example.label is not None and there[1] is not None and not np.array_equal(example.label, there[1])
        if len(lines) < FIRST:
            lines.append((line, there[0]))
    return Repeats(count, other, lines)


def _key(example: Example) -> tuple[str, ...]:
    return tuple(" ".join(text.casefold().split()) for text in example.texts)
