"""Rare classes: their examples' weights in the loss, and how often they come in an epoch."""

from collections import Counter
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtbert_jax.config import TaskConfig
from mtbert_jax.data.balance import epoch_counts, epoch_rows, loss_weights
from mtbert_jax.tasks.losses import mean_loss

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(lambda labels: np.array(labels, np.float32))
BALANCE = st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0])
UNEVEN = np.array([0] * 80 + [1] * 10 + [4] * 3, np.float32)


def task(**changes: Any) -> TaskConfig:
    return TaskConfig("sst", "classification", num_classes=5, **changes)


def test_epoch_counts_lie_between_the_classes_sizes_and_the_largest() -> None:
    """80^(1-b) · 80^b, 10^(1-b) · 80^b, 3^(1-b) · 80^b."""
    assert epoch_counts(UNEVEN, 0.0).tolist() == [80, 10, 3]
    assert epoch_counts(UNEVEN, 0.5).tolist() == [80, 28, 15]
    assert epoch_counts(UNEVEN, 1.0).tolist() == [80, 80, 80]


@settings(deadline=None, max_examples=60)
@given(LABELS, BALANCE, st.integers(0, 9))
def test_every_class_comes_as_often_as_it_should_and_no_row_twice_more_than_another(
    labels: np.ndarray, balance: float, seed: int
) -> None:
    rows = epoch_rows(labels, balance, np.random.default_rng(seed))
    times = np.bincount(rows, minlength=len(labels))
    for value, count in zip(np.unique(labels), epoch_counts(labels, balance), strict=True):
        own = times[labels == value]
        assert own.sum() == count
        assert set(own) <= {count // len(own), count // len(own) + 1}


def test_the_rest_is_drawn_anew_and_reaches_every_row() -> None:
    """Of 10 rows for 28 places, each comes twice or three times: over 40 draws the third is shared out."""
    third = Counter()
    for seed in range(40):
        rows = epoch_rows(UNEVEN, 0.5, np.random.default_rng(seed))
        third.update(np.flatnonzero(np.bincount(rows)[80:90] == 3).tolist())
    assert sum(third.values()) == 40 * 8
    assert min(third.values()) > 20 and len(third) == 10


def test_without_balance_an_epoch_is_every_row_and_nothing_is_drawn() -> None:
    rng = np.random.default_rng(0)
    assert epoch_rows(UNEVEN, 0.0, rng).tolist() == list(range(93))
    assert rng.integers(2**60) == np.random.default_rng(0).integers(2**60)


def test_real_labels_need_no_classes() -> None:
    labels = np.array([0.5, 3.2, 0.5, 4.0], np.float32)
    assert epoch_rows(labels, 0.0, np.random.default_rng(0)).tolist() == [0, 1, 2, 3]
    assert int(epoch_counts(labels, 0.0).sum()) == 4
    assert loss_weights(TaskConfig(kind="regression"), labels).tolist() == [1.0] * 4


def test_examples_weigh_1_unless_asked_otherwise() -> None:
    weights = loss_weights(task(), UNEVEN)
    assert weights.dtype == np.float32
    assert weights.tolist() == [1.0] * 93


def test_class_weights_are_used_as_they_are() -> None:
    weights = loss_weights(task(class_weights=(0.5, 2.0, 3.0, 4.0, 0.125)), UNEVEN)
    assert weights.dtype == np.float32
    assert weights.tolist() == [0.5] * 80 + [2.0] * 10 + [0.125] * 3


def test_loss_balance_is_a_power_of_the_inverse_frequency() -> None:
    """(n / (k n_c))^b over the classes that occur, scaled to a mean of 1."""
    raw = np.array([93 / (3 * 80)] * 80 + [93 / (3 * 10)] * 10 + [93 / (3 * 3)] * 3) ** 0.5
    np.testing.assert_allclose(loss_weights(task(loss_balance=0.5), UNEVEN), raw / raw.mean(), rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(LABELS, BALANCE, BALANCE)
def test_the_mean_weight_of_an_epoch_is_1_and_balance_1_evens_out_the_classes(
    labels: np.ndarray, loss_balance: float, sampling_balance: float
) -> None:
    spec = task(loss_balance=loss_balance, sampling_balance=sampling_balance)
    rows = epoch_rows(labels, sampling_balance, np.random.default_rng(0))
    weights = loss_weights(spec, labels)
    assert weights.min() > 0
    assert weights[rows].mean() == pytest.approx(1.0, rel=1e-5)
    if loss_balance == 1.0:
        totals = [weights[rows][labels[rows] == value].sum() for value in np.unique(labels)]
        np.testing.assert_allclose(totals, totals[0], rtol=1e-4)


def test_the_weighted_mean_is_that_of_pytorchs_cross_entropy() -> None:
    """F.cross_entropy(logits, labels, weight=w, reduction="mean") is Σ w_c ℓ / Σ w_c, also where weights are small."""
    losses, labels = np.array([1.0, 2.0, 6.0], np.float32), np.array([0.0, 1.0, 1.0], np.float32)
    weights = loss_weights(TaskConfig(kind="binary", class_weights=(0.1, 0.02)), labels)
    expected = (0.1 * 1 + 0.02 * 2 + 0.02 * 6) / (0.1 + 0.02 + 0.02)
    assert float(mean_loss(jnp.asarray(losses), jnp.asarray(weights))) == pytest.approx(expected, rel=1e-6)
