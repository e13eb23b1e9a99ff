"""The lengths of batches: given ones, and those that fit the data best."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbert_jax.data.lengths import fit_ladder, ladder


@pytest.mark.parametrize(
    ("lengths", "max_length", "expected"),
    [((64, 16, 32, 512), 100, [16, 32, 64, 100]), ((16, 16), 16, [16]), ((512,), 3, [3]), ((8, 16), 20, [8, 16, 20])],
)
def test_the_ladder_ends_at_max_length(lengths: tuple[int, ...], max_length: int, expected: list[int]) -> None:
    assert ladder(lengths, max_length).tolist() == expected


@given(st.lists(st.integers(1, 64), min_size=1, max_size=40), st.integers(1, 5))
def test_no_other_lengths_pad_less(lengths: list[int], max_shapes: int) -> None:
    def padded(rungs: list[int]) -> int:
        return sum(min(rung for rung in rungs if rung >= length) for length in lengths)

    fitted = fit_ladder(np.bincount(lengths), max_shapes, 512).tolist()
    top = -(-max(lengths) // 8) * 8
    others = (
        [*chosen, top]
        for size in range(min(max_shapes, 4))
        for chosen in itertools.combinations(range(8, top, 8), size)
    )
    assert len(fitted) <= max_shapes and fitted == sorted(set(fitted)) and fitted[-1] == top
    assert padded(fitted) <= min(map(padded, others))


def test_the_last_length_is_the_limit_where_a_multiple_of_eight_would_exceed_it() -> None:
    assert fit_ladder(np.bincount([3, 29]), 4, 30).tolist() == [8, 30]
    assert fit_ladder(np.bincount([3]), 4, 5).tolist() == [5]


def test_shares_count_as_examples_do() -> None:
    counts = np.bincount([9, 9, 30, 31, 60], minlength=65)
    assert fit_ladder(counts, 2, 64).tolist() == fit_ladder(counts / 7, 2, 64).tolist()


def test_no_examples_need_one_length() -> None:
    assert fit_ladder(np.zeros(65), 4, 64).tolist() == [8]
