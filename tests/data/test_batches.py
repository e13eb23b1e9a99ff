"""Batches as a function of (seed, step)."""

import dataclasses
import zlib
from collections import Counter

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtbert_jax.config import Order
from mtbert_jax.data.augment import Augmentation
from mtbert_jax.data.batches import TaskBatches, TrainBatches, evaluation_batches, make_batch
from mtbert_jax.data.lengths import ladder
from mtbert_jax.data.tokens import Tokens

ORDERS: list[Order] = ["sequential", "round_robin", "proportional", "annealed", "temperature"]
LENGTHS = ladder((4, 8), 16)


def make_tokens(lengths: list[int]) -> Tokens:
    """Row r's ids are r·100 + 1, r·100 + 2, …; its second part begins in the middle."""
    ids = [np.arange(1, length + 1) + 100 * row for row, length in enumerate(lengths)]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Tokens(np.concatenate(ids).astype(np.int32), starts, np.array([(n + 1) // 2 for n in lengths], np.int32))


def stream(lengths: list[int], batch_size: int = 4, name: str = "sst", seed: tuple[int, ...] = (0,)) -> TaskBatches:
    labels = np.arange(len(lengths), dtype=np.float32)
    return TaskBatches(name, make_tokens(lengths), labels, batch_size, LENGTHS, seed)


def random_lengths(size: int) -> list[int]:
    return np.random.default_rng(size).integers(2, 17, size).tolist()


def train(
    order: Order,
    sizes: tuple[int, ...] = (10, 25, 5),
    epochs: float | None = 2.0,
    steps: int | None = None,
    seed: int = 0,
    batch_size: int = 4,
) -> TrainBatches:
    tasks = {f"task{size}": stream(random_lengths(size), batch_size, f"task{size}", (seed,)) for size in sizes}
    return TrainBatches(tasks, order, epochs, steps, (seed,))


def shares(batches: TrainBatches, first: int, last: int) -> list[float]:
    drawn = Counter(batches.names(step)[0] for step in range(first, last))
    return [drawn[name] / (last - first) for name in batches.tasks]


def epoch_rows(task: TaskBatches, epoch: int) -> list[list[int]]:
    return [task.rows(index)[0].tolist() for index in range(epoch * task.per_epoch, (epoch + 1) * task.per_epoch)]


def test_a_batch_holds_ids_mask_types_labels_and_weights() -> None:
    batch = make_batch(make_tokens([3, 5]), np.array([7.0, 9.0], np.float32), np.array([1, 0]), 6, 2)
    assert batch.input_ids.tolist() == [[101, 102, 103, 104, 105, 0], [1, 2, 3, 0, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]]
    assert batch.token_type_ids.tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 1, 0, 0, 0]]
    assert batch.labels.tolist() == [9.0, 7.0]
    assert batch.weights.tolist() == [1.0, 1.0]
    assert [array.dtype for array in jax.tree.leaves(batch)] == [np.int32, np.int32, np.int32, np.float32, np.float32]


def test_a_row_without_a_labelled_word_weighs_nothing() -> None:
    """An empty text, of special tokens alone, has no loss, and would halve the mean of two."""
    tokens = make_tokens([4, 2])._replace(words=np.array([-1, 0, 1, -1, -1, -1]), num_words=np.array([2, 0]))
    labels, weights = np.array([[3.0, 1], [-1, -1]], np.float32), np.array([0.5, 2], np.float32)
    batch = make_batch(tokens, labels, np.array([1, 0]), 4, 3, weights)
    assert batch.weights.tolist() == [0.0, 0.5, 0.0]


def test_what_fills_a_batch_up_has_weight_0_and_attends_to_itself() -> None:
    batch = make_batch(make_tokens([3]), np.array([7.0], np.float32), np.array([0]), 4, 3)
    assert batch.weights.tolist() == [1.0, 0.0, 0.0]
    assert batch.labels.tolist() == [7.0, 0.0, 0.0]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    assert not batch.input_ids[1:].any()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(2, 16), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 3))
def test_every_row_comes_once_in_every_epoch(lengths: list[int], batch_size: int, epoch: int) -> None:
    batches = epoch_rows(stream(lengths, batch_size), epoch)
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch_size)
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(2, 16), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 20))
def test_a_batch_has_the_shortest_length_of_the_ladder_that_holds_it(lengths: list[int], size: int, index: int) -> None:
    task = stream(lengths, size)
    rows, length = task.rows(index)
    assert length == min(rung for rung in LENGTHS if rung >= max(lengths[row] for row in rows))
    batch = task[index]
    assert batch.input_ids.shape == (size, length)
    assert batch.attention_mask[: len(rows)].sum(1).tolist() == [lengths[row] for row in rows]
    assert batch.weights.sum() == len(rows)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(2, 16), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 3))
def test_without_balance_an_epoch_is_planned_as_ever(lengths: list[int], size: int, epoch: int) -> None:
    """The plan written out: a resumed run must see the same batches, whatever the version."""
    task = stream(lengths, size, seed=(5, 1))
    rng = np.random.default_rng([5, 1, zlib.crc32(b"sst"), epoch])
    shuffled = rng.permutation(len(lengths))
    by_length = shuffled[np.argsort(np.searchsorted(LENGTHS, np.array(lengths)[shuffled]), kind="stable")]
    count = -(-len(lengths) // size)
    sizes = np.full(count, size)
    common = np.random.default_rng([1, zlib.crc32(b"sst"), epoch])
    sizes[common.integers(count)] -= count * size - len(lengths)
    batches = np.split(by_length, np.cumsum(sizes)[:-1])
    assert epoch_rows(task, epoch) == [batches[place].tolist() for place in common.permutation(count)]


def test_the_order_of_lengths_is_the_same_for_every_seed() -> None:
    """So replicas of several seeds step together in programs of one length."""
    lengths = random_lengths(30)
    ours, other = (stream(lengths, seed=(seed, 1)) for seed in (0, 9))
    places = range(3 * ours.per_epoch)
    assert [ours.rows(place)[1] for place in places] == [other.rows(place)[1] for place in places]
    assert epoch_rows(ours, 0) != epoch_rows(other, 0)


def test_batches_hold_rows_of_like_length() -> None:
    """Sorted into three lengths, at most two of ten batches of an epoch can hold rows of two lengths."""
    lengths = np.random.default_rng(0).permutation([3] * 13 + [7] * 13 + [15] * 14).tolist()
    mixed = [len({lengths[row] for row in rows}) > 1 for rows in epoch_rows(stream(lengths), 0)]
    assert sum(mixed) <= 2


def test_a_batch_is_the_same_from_a_fresh_stream_whatever_was_asked_before() -> None:
    lengths = random_lengths(11)
    used = stream(lengths)
    for index in (0, 7, 3, 8, 1):
        for ours, fresh in zip(used[index], stream(lengths)[index], strict=True):
            assert np.array_equal(ours, fresh)


@pytest.mark.parametrize("changes", [{"seed": (1,)}, {"seed": (0, 1)}, {"name": "para"}])
def test_another_seed_or_task_sees_another_order(changes: dict) -> None:
    lengths = random_lengths(30)
    assert epoch_rows(stream(lengths), 0) != epoch_rows(stream(lengths, **changes), 0)


def test_epochs_differ() -> None:
    task = stream(random_lengths(30))
    assert epoch_rows(task, 0) != epoch_rows(task, 1)


def test_short_and_long_batches_come_in_no_order() -> None:
    task = stream(random_lengths(30))
    padded = [task.rows(index)[1] for index in range(task.per_epoch)]
    assert padded not in (sorted(padded), sorted(padded, reverse=True))


def test_the_batch_that_is_not_full_holds_short_rows_and_long_ones_in_turn() -> None:
    task = stream(random_lengths(30))
    padded = [length for rows, length in map(task.rows, range(12 * task.per_epoch)) if len(rows) < 4]
    assert len(padded) == 12
    assert set(padded) == {4, 8, 16}


def test_round_robin_has_one_batch_of_every_task_in_every_step() -> None:
    """docs/numerics.md, section 1.1."""
    batches = train("round_robin")
    assert batches.names(3) == ("task10", "task25", "task5")
    assert batches.indices(3) == {"task10": 3, "task25": 3, "task5": 3}
    assert list(batches[3]) == ["task10", "task25", "task5"]


def test_sequential_has_all_batches_of_a_task_and_then_the_next_tasks() -> None:
    """docs/numerics.md, section 1.1: the baseline's order."""
    batches = train("sequential")
    epoch = ["task10"] * 3 + ["task25"] * 7 + ["task5"] * 2
    assert [batches.names(step)[0] for step in range(batches.num_steps)] == epoch * 2
    indices = [next(iter(batches.indices(step).values())) for step in (0, 2, 3, 12, 15)]
    assert indices == [0, 2, 0, 3, 7]


def test_sequential_sees_every_row_once_an_epoch() -> None:
    batches = train("sequential")
    seen = Counter()
    for step in range(batches.steps_per_epoch):
        ((name, index),) = batches.indices(step).items()
        seen.update((name, row) for row in batches.tasks[name].rows(index)[0].tolist())
    assert len(seen) == 10 + 25 + 5
    assert set(seen.values()) == {1}


@pytest.mark.parametrize("order", ORDERS)
def test_every_task_passes_through_its_own_stream_without_a_gap(order: Order) -> None:
    batches = train(order, epochs=3.0)
    seen: dict[str, list[int]] = {name: [] for name in batches.tasks}
    for step in range(batches.num_steps):
        for name, index in batches.indices(step).items():
            seen[name].append(index)
    assert all(indices == list(range(len(indices))) for indices in seen.values())
    assert sum(map(len, seen.values())) >= 36


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("steps", [1, 3, 4, 11, 24])
def test_the_tasks_that_train_are_those_of_some_step(order: Order, steps: int) -> None:
    batches = train(order, epochs=None, steps=steps)
    assert batches.trained == {name for step in range(steps) for name in batches.names(step)}


@pytest.mark.parametrize("order", ORDERS)
def test_a_step_is_the_same_from_a_fresh_object(order: Order) -> None:
    used = train(order)
    assert all(used[step] for step in range(used.num_steps))
    for step in (used.num_steps - 1, 0, 4):
        fresh = train(order)[step]
        assert list(fresh) == list(used[step])
        for name, batch in fresh.items():
            assert all(np.array_equal(a, b) for a, b in zip(batch, used[step][name], strict=True))


def test_proportional_draws_tasks_by_their_number_of_rows() -> None:
    batches = train("proportional", (50, 150, 300), epochs=None, steps=2000)
    np.testing.assert_allclose(shares(batches, 0, 2000), [0.1, 0.3, 0.6], atol=0.04)


def test_annealed_begins_proportional_and_evens_out() -> None:
    """The exponent falls from 1 to 0.2 over the epochs (Stickland and Murray 2019, section 4.1)."""
    batches, epoch = train("annealed", (100, 1600), epochs=9.0, batch_size=1), 1700
    assert batches.steps_per_epoch == epoch
    for number, power in ((0, 1.0), (4, 0.6), (8, 0.2)):
        expected = [100**power / (100**power + 1600**power), 1600**power / (100**power + 1600**power)]
        np.testing.assert_allclose(shares(batches, number * epoch, (number + 1) * epoch), expected, atol=0.04)


@pytest.mark.parametrize(
    ("exponent", "cap", "expected"),
    [
        (1.0, 0, [0.1, 0.3, 0.6]),
        (0.0, 0, [1 / 3] * 3),
        (0.5, 0, [0.1925, 0.3333, 0.4714]),
        (1.0, 150, [1 / 7, 3 / 7, 3 / 7]),
    ],
)
def test_temperature_draws_by_a_power_of_the_capped_size(exponent: float, cap: int, expected: list[float]) -> None:
    batches = train("temperature", (50, 150, 300), epochs=None, steps=3000)
    batches = dataclasses.replace(batches, exponent=exponent, cap=cap)
    np.testing.assert_allclose(shares(batches, 0, 3000), expected, atol=0.03)


@pytest.mark.parametrize("order", ["proportional", "annealed", "temperature"])
def test_the_drawn_order_differs_between_seeds_and_epochs(order: Order) -> None:
    batches = train(order, (40, 39), epochs=2.0)
    names = [batches.names(step) for step in range(40)]
    other = train(order, (40, 39), epochs=2.0, seed=1)
    assert names != [other.names(step) for step in range(40)]
    assert names[:20] != names[20:]


@pytest.mark.parametrize(
    ("order", "steps_per_epoch"), [("round_robin", 4), ("sequential", 12), ("proportional", 12), ("annealed", 12)]
)
def test_an_epoch_sees_as_many_examples_as_all_tasks_hold(order: Order, steps_per_epoch: int) -> None:
    """Of 10 + 25 + 5 rows: 40 / (3 · 4), or 3 + 7 + 2 batches."""
    assert train(order).steps_per_epoch == steps_per_epoch


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"), [(2.0, None, 24), (0.5, None, 6), (0.001, None, 1), (2.0, 5, 5), (None, 30, 30)]
)
def test_a_stage_is_so_many_epochs_or_steps_long(epochs: float | None, steps: int | None, expected: int) -> None:
    batches = train("proportional", epochs=epochs, steps=steps)
    assert batches.num_steps == expected
    assert len(batches._drawn[0]) == expected


def test_a_share_of_pairs_is_swapped_by_batch_and_row() -> None:
    """Swapped rows have the other tokens, all else is as without; parts of a batch have what the whole one has."""
    plain = stream(random_lengths(40), 8)
    other = plain.tokens._replace(ids=plain.tokens.ids + 50, first=plain.tokens.first - 1)
    some = dataclasses.replace(plain, augmentation=Augmentation(plain.tokens, other, 0.5))
    turned = []
    for index in range(10):
        batch, own = some[index], plain[index]
        rows, _ = plain.rows(index)
        swapped = batch.input_ids[:, 0] != own.input_ids[:, 0]
        for place, row in enumerate(rows):
            tokens = other if swapped[place] else plain.tokens
            ids = tokens.ids[tokens.starts[row] : tokens.starts[row + 1]]
            assert batch.input_ids[place, : len(ids)].tolist() == ids.tolist()
            assert batch.token_type_ids[place].sum() == len(ids) - tokens.first[row]
        assert np.array_equal(batch.labels, own.labels)
        assert np.array_equal(batch.attention_mask, own.attention_mask)
        parts = [some.part(index, slice(start, start + 4)) for start in (0, 4)]
        whole = np.concatenate([part.input_ids for part in parts])
        assert np.array_equal(whole, batch.input_ids)
        turned += swapped[: len(rows)].tolist()
    assert 0.3 < np.mean(turned) < 0.7
    always, never = (
        dataclasses.replace(plain, augmentation=Augmentation(plain.tokens, other, share))[0].input_ids
        for share in (1.0, 0.0)
    )
    assert np.array_equal(never, plain[0].input_ids)
    assert not np.array_equal(always, never)


def test_tasks_can_have_batches_of_different_sizes() -> None:
    tasks = {"a": stream(random_lengths(10), 4, "a"), "b": stream(random_lengths(25), 12, "b")}
    batches = TrainBatches(tasks, "round_robin", 1.0, None, (0,))
    assert batches.steps_per_epoch == 3
    assert [len(batch.labels) for batch in batches[0].values()] == [4, 12]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(2, 16), min_size=1, max_size=30), st.integers(1, 9))
def test_evaluation_sees_every_row_once_with_its_own_label(lengths: list[int], batch_size: int) -> None:
    labels = np.arange(len(lengths), dtype=np.float32) * 10
    seen = []
    for rows, batch in evaluation_batches(make_tokens(lengths), labels, batch_size, LENGTHS):
        assert batch.labels[: len(rows)].tolist() == [10.0 * row for row in rows]
        assert batch.input_ids[: len(rows), 0].tolist() == [100 * row + 1 for row in rows]
        assert batch.weights.tolist() == [1.0] * len(rows) + [0.0] * (batch_size - len(rows))
        assert batch.input_ids.shape[1] in LENGTHS
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(lengths)))
    assert [lengths[row] for row in seen] == sorted(lengths)
