"""Batches of examples that weigh differently, or come more than once in an epoch."""

import dataclasses
from collections import Counter

import jax
import numpy as np
import pytest

from mtbert_jax.config import Order
from mtbert_jax.data.balance import epoch_counts
from mtbert_jax.data.batches import TaskBatches, TrainBatches, evaluation_batches
from tests.data.test_batches import LENGTHS, epoch_rows, random_lengths, shares, stream


def uneven(sampling_balance: float, sizes: tuple[int, ...] = (30, 9, 4), batch_size: int = 4) -> TaskBatches:
    """A stream of so many rows of class 0, 1, 2, shuffled; every label weighs as much as its class is rare."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.float32)
    task = stream(random_lengths(len(labels)), batch_size)
    weights = (1 / np.array(sizes, np.float32))[labels.astype(int)]
    return dataclasses.replace(task, labels=labels, weights=weights, sampling_balance=sampling_balance)


def test_examples_carry_their_weights_and_what_fills_up_has_none() -> None:
    task = uneven(0.0)
    for index in range(task.per_epoch):
        rows, batch = task.rows(index)[0], task[index]
        assert task.weights is not None
        assert batch.weights.tolist() == [*task.weights[rows].tolist(), *[0.0] * (4 - len(rows))]
        assert batch.weights.dtype == np.float32


def test_weights_of_1_are_what_comes_without_any() -> None:
    plain = stream(random_lengths(30))
    ones = dataclasses.replace(plain, weights=np.ones(30, np.float32))
    for index in range(plain.per_epoch):
        assert all(
            a.tobytes() == b.tobytes() for a, b in zip(*map(jax.tree.leaves, (plain[index], ones[index])), strict=True)
        )


def test_kept_features_carry_the_same_weights_as_tokens() -> None:
    task = uneven(0.5)
    features = np.arange(43, dtype=np.float32)[:, None]
    kept = TrainBatches({"sst": task}, "sequential", 1.0, None, (0,)).with_features({"sst": features}).tasks["sst"]
    assert kept.per_epoch == task.per_epoch
    for index in range(task.per_epoch):
        rows = task.rows(index)[0]
        assert kept[index].features[: len(rows), 0].tolist() == rows.tolist()
        assert kept[index].weights.tolist() == task[index].weights.tolist()
        assert kept[index].labels.tolist() == task[index].labels.tolist()


@pytest.mark.parametrize("balance", [0.3, 1.0])
def test_an_epoch_repeats_rows_of_rare_classes(balance: float) -> None:
    task = uneven(balance)
    counts = epoch_counts(task.labels, balance)
    assert task.num_examples == counts.sum()
    assert task.per_epoch == -(-counts.sum() // 4)
    for epoch in (0, 1):
        batches = epoch_rows(task, epoch)
        assert sorted(map(len, batches))[1:] == [4] * (task.per_epoch - 1)
        rows = [row for batch in batches for row in batch]
        assert np.bincount(task.labels[rows].astype(int)).tolist() == counts.tolist()
        assert set(rows) == set(range(43))


def test_an_up_sampled_batch_is_the_same_from_a_fresh_stream() -> None:
    used = uneven(0.5)
    for index in (0, 40, 3):
        for ours, fresh in zip(used[index], uneven(0.5)[index], strict=True):
            assert np.array_equal(ours, fresh)
    repeats = [Counter(row for rows in epoch_rows(used, epoch) for row in rows) for epoch in (0, 1)]
    assert repeats[0] != repeats[1]


@pytest.mark.parametrize(("order", "steps"), [("round_robin", 18), ("sequential", 36), ("proportional", 36)])
def test_an_up_sampled_epoch_counts_as_long_as_it_is(order: Order, steps: int) -> None:
    """30 · 3 rows in 23 batches, with 50 more in 13: (90 + 50) / 8 steps of both, or 23 + 13 steps of one."""
    tasks = {"rare": uneven(1.0), "other": dataclasses.replace(stream(random_lengths(50)), name="other")}
    assert TrainBatches(tasks, order, 1.0, None, (0,)).steps_per_epoch == steps


def test_an_up_sampled_task_is_drawn_as_often_as_its_epoch_is_long() -> None:
    """30 · 3 examples beside 30: three quarters, where the 43 rows alone would have 59 %."""
    tasks = {"rare": uneven(1.0), "other": dataclasses.replace(stream(random_lengths(30)), name="other")}
    batches = TrainBatches(tasks, "proportional", None, 2000, (0,))
    np.testing.assert_allclose(shares(batches, 0, 2000), [0.75, 0.25], atol=0.04)


def test_evaluation_weighs_every_example_the_same_and_repeats_none() -> None:
    task = uneven(1.0)
    tokens = evaluation_batches(task.tokens, task.labels, 8, LENGTHS)
    features = evaluation_batches(task.tokens, task.labels, 8, LENGTHS, np.zeros((43, 2), np.float32))
    for batches in (tokens, features):
        weights = np.concatenate([batch.weights for _, batch in batches])
        assert sorted(weights.tolist()) == [0.0] * 5 + [1.0] * 43
