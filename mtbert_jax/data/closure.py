"""Transitive closure of pairs: what labelled pairs say of pairs that nobody has labelled.

If a and b mean the same, and b and c do, so do a and c: texts that positive pairs connect are a *group*, and all pairs
within one are positive. If a and d differ, so does every text of a's group from every text of d's.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mtbert_jax.types import Example

Pair = tuple[str, str]


class Closure(NamedTuple):
    """New pairs, and what they follow from.

    Attributes:
        positives: New pairs of texts that mean the same.
        negatives: New pairs of texts that do not.
        groups: Groups of three texts or more, which new positive pairs come from.
        largest: Texts in the largest group.
        left_out: New pairs that the cap left out.
        contradictions: Places of negative examples whose texts lie in one group; nothing follows from them.
    """

    positives: list[Pair]
    negatives: list[Pair]
    groups: int
    largest: int
    left_out: int
    contradictions: list[int]


def close(examples: Sequence[Example], cap: int = 0, seed: int = 0) -> Closure:
    """What follows from examples with two texts and labels 0 or 1.

    Texts that differ in case or blanks only are the same text, written as it came first.

    Args:
        examples: Pairs; those without a label or with an empty text, which says nothing of others, are passed over.
        cap: Most new pairs from one group, or from one pair of groups, drawn by `seed`; 0 for no limit. One group of
            many texts would otherwise give most of the new pairs.
        seed: Seed of the draws.
    """
    written: dict[str, str] = {}
    pairs = [
        (place, _named(example.texts[0], written), _named(example.texts[1], written), example.label == 1)
        for place, example in enumerate(examples)
        if example.label is not None and all(text.strip() for text in example.texts)
    ]
    group_of = _groups(written, [(one, other) for _, one, other, same in pairs if same])
    members: dict[str, list[str]] = defaultdict(list)
    for text in written:
        members[group_of[text]].append(text)
    known = {frozenset((one, other)) for _, one, other, _ in pairs}
    apart: dict[Pair, None] = {}
    contradictions = []
    for place, one, other, same in pairs:
        first, second = group_of[one], group_of[other]
        if not same and first == second:
            contradictions.append(place)
        elif not same and (second, first) not in apart:
            apart[first, second] = None

    rng = np.random.default_rng(seed)
    within = (itertools.combinations(group, 2) for group in members.values())
    between = (itertools.product(members[first], members[second]) for first, second in apart)
    made, left_out = [], 0
    for candidates in (within, between):
        found: list[Pair] = []
        for group in candidates:
            new = [pair for pair in group if frozenset(pair) not in known]
            kept = sorted(rng.permutation(len(new))[:cap]) if cap else range(len(new))
            found += [(written[new[place][0]], written[new[place][1]]) for place in kept]
            left_out += len(new) - len(kept)
        made.append(found)
    sizes = [len(group) for group in members.values()]
    positives, negatives = made
    return Closure(
        positives, negatives, sum(size > 2 for size in sizes), max(sizes, default=0), left_out, contradictions
    )


def _named(text: str, written: dict[str, str]) -> str:
    """The text that stands for all that differ from it in case or blanks only."""
    name = " ".join(text.lower().split())
    written.setdefault(name, text)
    return name


def _groups(texts: dict[str, str], edges: Sequence[Pair]) -> dict[str, str]:
    """For each text, one that stands for all that edges connect it with."""
    parents = {text: text for text in texts}

    def path(text: str) -> Iterator[str]:
        while parents[text] != text:
            yield text
            text = parents[text]
        yield text

    def root(text: str) -> str:
        *passed, found = path(text)
        for one in passed:
            parents[one] = found
        return found

    for one, other in edges:
        parents[root(one)] = root(other)
    return {text: root(text) for text in texts}
