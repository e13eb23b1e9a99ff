"""Losses against literal NumPy formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax.tasks import KINDS
from mtbert_jax.tasks.losses import mean_loss

RNG = np.random.default_rng(0)


def test_classification_is_cross_entropy() -> None:
    logits = RNG.normal(size=(6, 5)) * 4
    labels = np.array([0, 1, 2, 3, 4, 2])
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), labels]
    losses = KINDS["classification"].loss(jnp.asarray(logits, jnp.float32), jnp.asarray(labels, jnp.float32))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_binary_is_binary_cross_entropy() -> None:
    logits = RNG.normal(size=(6, 1)) * 4
    labels = np.array([0, 1, 0, 1, 1, 0])
    sigmoid = 1 / (1 + np.exp(-logits[:, 0]))
    expected = -(labels * np.log(sigmoid) + (1 - labels) * np.log(1 - sigmoid))
    losses = KINDS["binary"].loss(jnp.asarray(logits, jnp.float32), jnp.asarray(labels, jnp.float32))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_regression_is_squared_error_on_the_labels_own_scale() -> None:
    """docs/numerics.md, section 2.1: [1, 2, 4] against itself is 0, not mt-dnn's 3.11 of a broadcast to 3×3."""
    labels = jnp.array([1.0, 2.0, 4.0])
    assert KINDS["regression"].loss(labels[:, None], labels).tolist() == [0.0, 0.0, 0.0]
    assert KINDS["regression"].loss(labels[:, None], jnp.array([3.0, 2.5, 0.0])).tolist() == [4.0, 0.25, 16.0]


@pytest.mark.parametrize(("kind", "outputs"), [("classification", 5), ("binary", 1), ("regression", 1)])
def test_there_is_one_loss_per_example(kind: str, outputs: int) -> None:
    assert KINDS[kind].loss(jnp.ones((3, outputs)), jnp.array([0.0, 1.0, 1.0])).shape == (3,)


@pytest.mark.parametrize(
    ("kind", "logits", "label", "loss"),
    [
        ("classification", [200.0, -200.0], 1.0, 400.0),
        ("classification", [200.0, -200.0], 0.0, 0.0),
        ("binary", [500.0], 0.0, 500.0),
        ("binary", [-500.0], 0.0, 0.0),
    ],
)
def test_extreme_logits_have_finite_losses_and_gradients(
    kind: str, logits: list[float], label: float, loss: float
) -> None:
    def one(logits: jax.Array) -> jax.Array:
        return KINDS[kind].loss(logits, jnp.array([label]))[0]

    value, grads = jax.value_and_grad(one)(jnp.array([logits]))
    assert float(value) == loss
    assert np.isfinite(grads).all()


def test_mean_loss_is_the_mean_of_the_examples_alone() -> None:
    losses, weights = jnp.array([1.0, 2.0, 6.0, 100.0]), jnp.array([1.0, 1.0, 1.0, 0.0])
    assert float(mean_loss(losses, weights)) == 3.0


@pytest.mark.parametrize("scale", [1e-6, 0.01, 1.0, 300.0])
def test_mean_loss_divides_by_the_sum_of_the_weights_whatever_their_size(scale: float) -> None:
    losses, weights = jnp.array([1.0, 4.0, 100.0]), scale * jnp.array([2.0, 1.0, 0.0])
    assert float(mean_loss(losses, weights)) == pytest.approx(2.0, rel=1e-6)


def test_mean_loss_without_examples_is_0() -> None:
    assert float(mean_loss(jnp.array([5.0, 5.0]), jnp.zeros(2))) == 0.0


def test_fillers_get_no_gradient() -> None:
    def loss(logits: jax.Array) -> jax.Array:
        return mean_loss(KINDS["regression"].loss(logits, jnp.zeros(3)), jnp.array([1.0, 0.0, 1.0]))

    assert jax.grad(loss)(jnp.array([[1.0], [2.0], [3.0]]))[:, 0].tolist() == [1.0, 0.0, 3.0]


def test_probabilities_of_classes_are_a_softmax() -> None:
    """docs/numerics.md, section 1.1: softmax in evaluation."""
    logits = RNG.normal(size=(4, 3))
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(KINDS["classification"].probabilities(jnp.asarray(logits)), expected, rtol=1e-5)


def test_probabilities_of_a_binary_task_are_a_sigmoid() -> None:
    """docs/numerics.md, section 1.1: sigmoid in evaluation."""
    share = 1 / (1 + np.exp(-2.0))
    expected = [[0.5, 0.5], [1 - share, share]]
    np.testing.assert_allclose(KINDS["binary"].probabilities(jnp.array([[0.0], [2.0]])), expected, rtol=1e-6)


def test_a_regression_has_no_probabilities() -> None:
    assert KINDS["regression"].probabilities(jnp.array([[7.5], [-1.0]])).shape == (2, 0)
