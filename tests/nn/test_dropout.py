"""Dropout's bits: as good as a mask needs, and a function of place and key alone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mtbert_jax.nn.dropout import Dropout, hash_bits, keep_mask

SHAPE = (8, 6, 32, 64)
STORED = [[1681833769, 4014351436, 2726816768], [911671261, 3756008032, 3399710145]]


def bits(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.asarray(jax.jit(hash_bits, static_argnums=1)(jax.random.key(seed), shape))


@pytest.mark.parametrize("seed", range(5))
def test_bits_are_uniform(seed: int) -> None:
    values = bits(seed).ravel()
    counts = np.bincount(values >> 24, minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-4
    assert stats.chisquare(np.bincount(values & 255, minlength=256)).pvalue > 1e-4


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5])
def test_the_share_of_zeros_is_the_rate(seed: int, rate: float) -> None:
    mask = np.asarray(keep_mask(jax.random.key(seed), rate, SHAPE))
    deviation = np.sqrt(rate * (1 - rate) / mask.size)
    assert abs((1 - mask.mean()) - rate) < 4 * deviation
    for axis in range(mask.ndim):  # no column, row, head or example is favoured
        shares = 1 - mask.mean(axis=tuple(a for a in range(mask.ndim) if a != axis))
        assert np.abs(shares - rate).max() < 5 * np.sqrt(rate * (1 - rate) / (mask.size / mask.shape[axis]))


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """In standard deviations of what chance gives."""
    a, b = (values.ravel().astype(np.float64) - values.mean() for values in (one, other))
    return float(abs((a * b).sum()) / np.sqrt((a * a).sum() * (b * b).sum()) * np.sqrt(a.size))


def test_masks_of_neighbouring_steps_tasks_and_layers_are_independent() -> None:
    """As the training step folds its keys: by step, by task; flax folds by layer."""
    key = jax.random.key(0)
    keys = [jax.random.fold_in(jax.random.fold_in(key, step), task) for step in range(4) for task in range(3)]
    masks = [np.asarray(keep_mask(k, 0.3, SHAPE)) for k in keys]
    assert max(correlation(a, b) for a, b in itertools.combinations(masks, 2)) < 4.5


@pytest.mark.parametrize("lag", [1, 2, 7, 64])
def test_neighbouring_elements_are_independent(lag: int) -> None:
    values = bits(3)
    assert correlation(values[..., :-1], values[..., 1:]) < 4.5
    flat = values.reshape(-1, SHAPE[-1])
    assert correlation(flat[:-lag], flat[lag:]) < 4.5
    assert correlation(values[:-1], values[1:]) < 4.5


def test_no_two_rows_are_the_same() -> None:
    rows = bits(1, (4096, 16))
    assert len(np.unique(rows, axis=0)) == 4096


def test_bits_repeat_for_a_key_and_differ_between_keys() -> None:
    np.testing.assert_array_equal(bits(1), bits(1))
    assert (bits(1) != bits(2)).mean() > 0.99


def test_stored_bits() -> None:
    """A change of the hash would change every run."""
    key = jax.random.wrap_key_data(jnp.array([1, 2], jnp.uint32))
    assert hash_bits(key, (2, 3)).tolist() == STORED


@pytest.mark.parametrize("shape", [(5,), (3, 5), (1, 1)])
def test_any_number_of_axes(shape: tuple[int, ...]) -> None:
    assert bits(0, shape).shape == shape


def test_kept_elements_are_scaled_so_that_the_mean_stays() -> None:
    x = jnp.ones((64, 256))
    out = Dropout(0.25).apply({}, x, False, rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(out)) == {0.0, np.float32(1 / 0.75)}
    assert float(out.mean()) == pytest.approx(1.0, abs=0.02)


def test_dropout_that_is_off_is_the_identity() -> None:
    x = jnp.arange(6.0).reshape(2, 3)
    assert Dropout(0.5).apply({}, x, True) is x
    assert Dropout(0.0).apply({}, x, False) is x
