"""The few lengths that batches are padded to: each costs a compilation, and each that is missing costs padding."""

import numpy as np
from jaxtyping import Float, Int

STANDARD = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Lengths for texts that are not known beforehand."""
MULTIPLE = 8
"""Fitted lengths are multiples of this, which matrix units and vector registers like."""

Ladder = Int[np.ndarray, " rung"]


def ladder(lengths: tuple[int, ...], max_length: int) -> Ladder:
    """The given lengths below `max_length`, and `max_length`.

    >>> ladder((64, 16, 32, 512), 100).tolist()
    [16, 32, 64, 100]
    """
    return np.array([*sorted({length for length in lengths if length < max_length}), max_length])


def fit_ladder(counts: Float[np.ndarray, " length"], max_shapes: int, max_length: int) -> Ladder:
    """The lengths with the fewest padded tokens: multiples of 8, the last as long as the longest example needs.

    Found by dynamic programming over ``[rungs, last rung]``; the cost of an example is the length that it is padded to.
    `counts` are of examples with 0, 1, 2 … tokens, or their shares; none has more than `max_length`.

    >>> fit_ladder(np.bincount([5, 6, 7, 7, 20, 21, 60]), 3, 64).tolist()
    [8, 24, 64]
    """
    longest = int(np.max(np.flatnonzero(counts), initial=1))
    rungs = np.arange(MULTIPLE, longest + MULTIPLE, MULTIPLE)
    below = np.concatenate([[0], np.cumsum(counts)[np.minimum(rungs, longest)]])
    # cost[last] with the rungs so far, and for each number of rungs the rung before the last one.
    cost = np.where(np.arange(len(rungs) + 1) == 0, 0.0, np.inf)
    before = []
    for _ in range(min(max_shapes, len(rungs))):
        padded = np.concatenate([[0], rungs]) * (below[None, :] - below[:, None]) + cost[:, None]
        padded[np.tril_indices(len(padded), -1)] = np.inf  # the diagonal: one rung less than allowed
        before.append(np.argmin(padded, axis=0))
        cost = np.min(padded, axis=0)
    chosen, last = [], len(rungs)
    for previous in reversed(before):
        if previous[last] < last:
            chosen.append(min(int(rungs[last - 1]), max_length))
        last = int(previous[last])
    return np.array(chosen[::-1])
