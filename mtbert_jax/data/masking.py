"""Tokens that are hidden, for masked language modelling (Devlin et al. 2019, section 3.1 and appendix A.1).

Where this differs from other code: docs/numerics.md, section 9.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from tokenizers import Tokenizer

from mtbert_jax.data.tokens import Tokens
from mtbert_jax.errors import InputError

SHARE = 0.15
"""Share of an example's tokens, special ones aside, that are hidden: one at least."""
MASKED, RANDOM = 0.8, 0.1
"""Shares of the hidden tokens that become the mask token, and any token; the others stay as they are."""
FIXED = 0
"""Seed of the masks of dev and test splits."""


@dataclass(frozen=True, eq=False)
class Masking:
    """Texts without masks, and how tokens of theirs are hidden.

    Attributes:
        tokens: The texts; `words` is the word of each token, -1 for special tokens.
        mask: Id of the mask token.
        vocabulary: Number of tokens, of which random ones are drawn.
        whole_words: Whether all tokens of a word are hidden, or none.
    """

    tokens: Tokens
    mask: int
    vocabulary: int
    whole_words: bool

    @classmethod
    def of(cls, tokens: Tokens, tokenizer: Tokenizer, mask: str, whole_words: bool) -> "Masking":
        """Masking of texts as a tokenizer encodes them.

        Raises:
            InputError: The tokenizer has no mask token.
        """
        number = tokenizer.token_to_id(mask)
        if number is None:
            raise InputError(f"kind = 'masked_lm' needs a mask token, and the encoder's tokenizer has no {mask}")
        return cls(tokens, number, tokenizer.get_vocab_size(), whole_words)

    def masked(
        self, rows: Int[np.ndarray, " row"] | Sequence[int], seed: Sequence[int]
    ) -> tuple[Tokens, Float[np.ndarray, "row place"]]:
        """Some rows with hidden tokens, whose places count as words, and the tokens that were there, -1 beyond them.

        The masks of a row depend on `seed` and the row alone.
        """
        tokens = self.tokens
        parts = [slice(tokens.starts[row], tokens.starts[row + 1]) for row in rows]
        ids, places, labels = [], [], []
        for row, part in zip(rows, parts, strict=True):
            own, rng = tokens.ids[part].copy(), np.random.default_rng([*seed, int(row)])
            hidden = choose(tokens.words[part], self.whole_words, rng)  # type: ignore[index]
            labels.append(own[hidden])
            draws, other = rng.random(len(hidden)), rng.integers(0, self.vocabulary, len(hidden))
            kept = np.where(draws < MASKED + RANDOM, other, own[hidden])
            own[hidden] = np.where(draws < MASKED, self.mask, kept)
            where = np.full(len(own), -1, np.int32)
            where[hidden] = np.arange(len(hidden))
            ids.append(own)
            places.append(where)
        counts = np.array([len(own) for own in labels], np.int32)
        stacked = np.full((len(labels), max([1, *counts])), -1, np.float32)
        for line, own in zip(stacked, labels, strict=True):
            line[: len(own)] = own
        joined = (np.concatenate([np.zeros(0, np.int32), *lists]) for lists in (ids, places))
        starts = np.concatenate([[0], np.cumsum([part.stop - part.start for part in parts], dtype=np.int64)])
        all_ids, all_places = joined
        return Tokens(all_ids, starts, tokens.first[np.asarray(rows, int)], all_places, counts, SHARE), stacked


def choose(words: Int[np.ndarray, " token"], whole_words: bool, rng: np.random.Generator) -> Int[np.ndarray, " hidden"]:
    """Which tokens of an example are hidden, in ascending order: `SHARE` of those that belong to a word, rounded.

    Of whole words as many are taken, in a random order, as fit into that number; where not even one does, the first
    tokens of one word.
    """
    able = np.flatnonzero(words >= 0)
    if not len(able):
        return able
    count = max(1, round(SHARE * len(able)))
    if not whole_words:
        return np.sort(rng.choice(able, count, replace=False))
    chosen: list[np.ndarray] = []
    left = count
    order = rng.permutation(np.unique(words[able]))
    for word in order:
        own = np.flatnonzero(words == word)
        if len(own) <= left:
            chosen.append(own)
            left -= len(own)
        if not left:
            break
    return np.sort(np.concatenate(chosen)) if chosen else np.flatnonzero(words == order[0])[:count]


def most_places(length: int, share: float) -> int:
    """Places of an example that is padded to `length` tokens, as many as can be hidden there.

    >>> most_places(128, SHARE), most_places(4, SHARE), most_places(10, 1.0)
    (20, 1, 10)
    """
    return max(1, math.ceil(share * length))
