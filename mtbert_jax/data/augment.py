"""Training texts that are other ones in every batch: pairs that change places, words that are left out or exchanged.

Words are left out and exchanged as in EDA (Wei and Zou 2019, arXiv:1901.11196, section 2, random deletion and random
swap). Where this differs: docs/numerics.md, section 11.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from mtbert_jax.config import TaskConfig
from mtbert_jax.data.tokens import Tokens

WORDS = 1
"""Last of the numbers that seed the words of a row, beside the row's draw for the order of its texts."""


def changes_words(task: TaskConfig) -> bool:
    """Whether words of a task's training texts are left out or exchanged."""
    return task.word_deletion > 0 or task.word_swap > 0


def has_words(tokens: Tokens) -> bool:
    """Whether some text has two words or more, so that there is something to change."""
    words = np.zeros(0, np.int32) if tokens.words is None else tokens.words
    before, after = words[:-1], words[1:]
    return bool(np.any((before >= 0) & (after >= 0) & (before != after)))


@dataclass(frozen=True, eq=False)
class Augmentation:
    """Texts as they are, and how a batch changes them.

    Attributes:
        tokens: The texts. Where words are changed, each example is one input, and `words` is the word of each token, -1
            for special tokens.
        swapped: The same pairs the other way round, likewise; None where no pairs change places.
        swap_pairs: Share of the rows whose texts change places.
        word_deletion: Probability of each word to be left out.
        word_swap: Share of the words that are left which change places.
    """

    tokens: Tokens
    swapped: Tokens | None = None
    swap_pairs: float = 0.0
    word_deletion: float = 0.0
    word_swap: float = 0.0

    @property
    def longest(self) -> Int[np.ndarray, " example"]:
        """Most tokens that each example can have."""
        return self.tokens.lengths if self.swapped is None else np.maximum(self.tokens.lengths, self.swapped.lengths)

    def changed(self, rows: Int[np.ndarray, " row"], seed: Sequence[int]) -> Tokens:
        """Some rows as a batch has them.

        What is drawn depends on `seed` and the row alone, so that parts of a batch have it as the whole batch does.
        """
        turned = self._turned(rows, seed)
        ids, first = [], []
        for row, other in zip(rows, turned, strict=True):
            tokens = self.swapped if other and self.swapped is not None else self.tokens
            for place in tokens.inputs_of([row]):
                part, own_first = slice(tokens.starts[place], tokens.starts[place + 1]), int(tokens.first[place])
                own = tokens.ids[part]
                if self.word_deletion or self.word_swap:
                    rng = np.random.default_rng([*seed, int(row), WORDS])
                    order = self._order(tokens.words[part], own_first, rng)  # type: ignore[index]
                    own, own_first = own[order], int(np.count_nonzero(order < own_first))
                ids.append(own)
                first.append(own_first)
        starts = np.concatenate([[0], np.cumsum([len(own) for own in ids], dtype=np.int64)])
        joined, inputs = np.concatenate([np.zeros(0, np.int32), *ids]), self.tokens.inputs
        return Tokens(joined, starts, np.array(first, np.int32), inputs=inputs)

    def _turned(self, rows: Int[np.ndarray, " row"], seed: Sequence[int]) -> Bool[np.ndarray, " row"]:
        """Which rows have their texts the other way round."""
        if self.swapped is None:
            return np.zeros(len(rows), bool)
        drawn = [np.random.default_rng([*seed, int(row)]).random() for row in rows]
        return np.array(drawn) < self.swap_pairs

    def _order(
        self, words: Int[np.ndarray, " token"], first: int, rng: np.random.Generator
    ) -> Int[np.ndarray, " kept"]:
        """Places of an example's tokens in their new order, those that are left out missing; each text by itself."""
        both = self._order_of_text(words[:first], rng), first + self._order_of_text(words[first:], rng)
        return np.concatenate(both)

    def _order_of_text(self, words: Int[np.ndarray, " token"], rng: np.random.Generator) -> Int[np.ndarray, " kept"]:
        """The same of one text: special tokens stay before, between and behind the words that they were."""
        places = np.arange(len(words))
        of_words = words >= 0
        begins = np.flatnonzero(of_words & (words != np.concatenate([[-1], words])[:-1]))
        ends = 1 + np.flatnonzero(of_words & (words != np.concatenate([words, [-1]])[1:]))
        if not len(begins):
            return places
        kept = left_words(len(begins), self.word_deletion, rng)
        new = dict(zip(kept.tolist(), exchanged(kept, self.word_swap, rng).tolist(), strict=True))
        pieces, done = [], 0
        for number, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            pieces.append(places[done:begin])
            if number in new:
                pieces.append(places[begins[new[number]] : ends[new[number]]])
            done = int(end)
        return np.concatenate([*pieces, places[done:]])


def left_words(count: int, share: float, rng: np.random.Generator) -> Int[np.ndarray, " kept"]:
    """Which of `count` words stay if each is left out with probability `share`; a random one where none would."""
    kept = np.flatnonzero(rng.random(count) >= share)
    return kept if len(kept) else rng.integers(0, count, 1)


def exchanged(words: Int[np.ndarray, " word"], share: float, rng: np.random.Generator) -> Int[np.ndarray, " word"]:
    """Words in another order: pairs of places, drawn at random and all different, exchange their words.

    The mean number of words in such pairs is `share` of all, but for one word of an odd number that has no partner.
    """
    pairs = share * len(words) / 2
    count = min(int(pairs) + int(rng.random() < pairs % 1), len(words) // 2)
    if not count:
        return words
    one, other = rng.choice(len(words), (2, count), replace=False)
    taken = words.copy()
    taken[one], taken[other] = words[other], words[one]
    return taken
