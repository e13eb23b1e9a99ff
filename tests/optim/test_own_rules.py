"""Rules of one's own: Krum, a rule with a state, a rule that reads the losses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtbert_jax as mt
from mtbert_jax.errors import InputError
from mtbert_jax.optim import aggregator, mean_tasks, pcgrad, register_aggregator, sum_tasks
from mtbert_jax.optim.aggregators import gramian, pcgrad_weights, random_orders
from mtbert_jax.optim.chain import build_chain, chain_context, check_chain
from mtbert_jax.optim.registry import AGGREGATORS, unregister
from tests.plugins import registered

PARAMS = {"w": jnp.zeros(3)}
GRADS = {"w": jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])}
CONTEXT = chain_context(lambda step: 0.1, PARAMS, 2)


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path) -> Iterator[None]:
    with registered("krum.py", tmp_path), registered("evened.py", tmp_path):
        yield


def literal_krum(gradients: np.ndarray, faulty: int) -> int:
    """Blanchard et al. 2017, section 4: the gradient of the least sum of squared distances to its nearest."""
    distances = [np.sort([np.sum((one - other) ** 2) for other in gradients]) for one in gradients]
    return int(np.argmin([of[1 : len(gradients) - faulty - 1].sum() for of in distances]))


@pytest.mark.parametrize("seed", range(12))
def test_a_plugins_krum_is_the_papers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tasks = 4 + seed % 4
    gradients = rng.normal(size=(tasks, 6)) * 10.0 ** rng.uniform(-3, 3)
    gradients[seed % tasks] *= 100
    for faulty in (0, 1):
        weights = mt.aggregator_weights("krum", gradients @ gradients.T, faulty=faulty)
        assert weights.tolist() == np.eye(tasks)[literal_krum(gradients, faulty)].tolist()


def test_a_plugins_krum_does_without_a_task_that_is_left_out() -> None:
    rng = np.random.default_rng(0)
    for seed in range(10):
        gradients = rng.normal(size=(5, 6))
        gram = gradients @ gradients.T
        gram[seed % 5, :] = np.nan
        gram[:, seed % 5] = np.nan
        chosen = int(mt.aggregator_weights("krum", gram, faulty=1).argmax())
        assert chosen != seed % 5


def test_a_rule_is_traced_once_for_each_choice_of_its_options() -> None:
    """True equals 1.0, and is refused all the same."""
    traced: list[Any] = []

    @register_aggregator("noting")
    def noting(gramian, state, key, losses, slant=1.0):  # type: ignore[no-untyped-def]
        traced.append((slant, len(gramian)))
        if slant is True:
            raise InputError("slant is a number")
        return slant * jnp.ones(len(gramian)), state

    make = AGGREGATORS["noting"]
    try:
        for options in ({}, {}, {"slant": 2.0}, {"slant": 1.0}, {"slant": 2.0}, {"num_tasks": 3}):
            make(**options)
        assert traced == [(1.0, 2), (2.0, 2), (1.0, 2), (1.0, 3)]
        for _ in range(2):
            with pytest.raises(InputError, match="slant is a number"):
                make(slant=True)
    finally:
        unregister("noting")


def test_the_transformation_gives_what_the_weights_say() -> None:
    tx = build_chain(("cagrad(c=0.25)",), CONTEXT)
    check_chain(tx, GRADS, PARAMS)
    weights = mt.aggregator_weights("cagrad", gramian([GRADS["w"]]), c=0.25)
    np.testing.assert_allclose(tx.update(GRADS, tx.init(PARAMS), PARAMS)[0]["w"], weights @ GRADS["w"], rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("krum()", "krum refuses its arguments: faulty = 0: must be from 0 to T - 3, and there are 2 tasks"),
        ("cagrad(c=-0.5)", "cagrad refuses its arguments: c = -0.5: must be at least 0"),
        ("cagrad(d=0.5)", "cagrad refuses its arguments: got an unexpected keyword argument 'd'"),
        ("pcgrad(reduction='max')", "reduction = 'max': must be 'sum' or 'mean'"),
        ("cagrat()", r"unknown transformation 'cagrat'; did you mean 'cagrad'\? \(aggregators: aligned_mtl, cagrad, "),
    ],
)
def test_wrong_options_are_named_before_any_step(call: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_chain((call,), CONTEXT)


def test_a_rule_keeps_its_state_from_step_to_step() -> None:
    tx = optax.chain(build_chain(("evened(beta=0.75)",), CONTEXT), optax.scale(1.0))
    check_chain(tx, GRADS, PARAMS)
    state, expected = tx.init(PARAMS), np.ones(2)
    for step in range(4):
        grads = {"w": GRADS["w"] * jnp.array([[1.0 + step], [2.0]])}
        norms = np.linalg.norm(np.asarray(grads["w"], np.float64), axis=1)
        expected = 0.75 * expected + 0.25 * norms.mean() / norms
        updates, state = jax.jit(tx.update)(grads, state, PARAMS)
        np.testing.assert_allclose(updates["w"], expected @ grads["w"], rtol=1e-5)


def test_a_state_needs_the_number_of_tasks() -> None:
    make = AGGREGATORS["evened"]
    with pytest.raises(InputError, match="aggregator evened keeps a state from step to step: give num_tasks"):
        make(beta=0.5)
    assert make(beta=0.5, num_tasks=2).init(None).rule_state.tolist() == [1.0, 1.0]
    np.testing.assert_allclose(mt.aggregator_weights("evened", jnp.eye(3), beta=0.0), [1.0, 1.0, 1.0])
    weights = mt.aggregator_weights("evened", jnp.eye(2), state=jnp.array([3.0, 5.0]), beta=0.5)
    np.testing.assert_allclose(weights, [2.0, 3.0])


def by_loss(gram: jax.Array, state: Any, key: jax.Array, losses: jax.Array, power: float = 1.0) -> Any:
    return losses**power, state


def test_a_rule_gets_the_losses_and_zeros_where_there_are_none() -> None:
    tx = optax.chain(aggregator(by_loss), optax.scale(2.0))
    losses = jnp.array([0.5, 3.0])
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS, losses=losses)
    np.testing.assert_allclose(updates["w"], 2 * losses @ GRADS["w"])
    assert not tx.update(GRADS, tx.init(PARAMS), PARAMS)[0]["w"].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_task_that_is_left_out_counts_as_no_loss(bad: float) -> None:
    seen: list[Any] = []

    def rule(gram: jax.Array, state: Any, key: jax.Array, losses: jax.Array) -> Any:
        seen.append((gram.tolist(), losses.tolist()))
        return losses, state

    tx = aggregator(rule)
    grads = {"w": jnp.array([[1.0, 2.0], [bad, 0.0]])}
    updates, _ = tx.update(grads, tx.init(None), None, losses=jnp.array([3.0, 4.0]))
    assert seen == [([[5.0, 0.0], [0.0, 0.0]], [3.0, 0.0])]
    assert updates["w"].tolist() == [3.0, 6.0]


def test_weights_by_name_are_those_of_the_functions() -> None:
    gram = gramian([jax.random.normal(jax.random.key(0), (4, 3))])
    key = jax.random.key(9)
    expected = pcgrad_weights(gram, random_orders(key, 4, include_self=True))
    np.testing.assert_array_equal(mt.aggregator_weights("pcgrad", gram, key=key, include_self=True), expected)
    np.testing.assert_array_equal(mt.aggregator_weights("mean_tasks", gram), [0.25] * 4)
    with pytest.raises(InputError, match="unknown aggregator 'pcgard'; did you mean 'pcgrad'"):
        mt.aggregator_weights("pcgard", gram)


@pytest.mark.parametrize("gram", [np.ones((2, 3)), np.ones(2), np.ones((0, 0)), np.ones((2, 2, 2))])
def test_weights_are_of_a_square(gram: np.ndarray) -> None:
    with pytest.raises(InputError, match="a Gramian has a row and a column for each task, and this one has the shape"):
        mt.aggregator_weights("pcgrad", gram)


@pytest.mark.parametrize("scalar", [jnp.float32, np.float32, np.float64])
def test_an_option_may_be_a_scalar_of_an_array_library(scalar: Any) -> None:
    gram = jnp.array([[2.0, -1.0], [-1.0, 3.0]])
    expected = mt.aggregator_weights("cagrad", gram, c=0.25)
    np.testing.assert_array_equal(mt.aggregator_weights("cagrad", gram, c=scalar(0.25)), expected)


def test_weights_take_the_losses() -> None:
    mt.register_aggregator("by_loss")(by_loss)
    assert mt.aggregator_weights("by_loss", jnp.eye(2), losses=[2.0, 3.0], power=2.0).tolist() == [4.0, 9.0]


def test_the_factories_take_what_they_always_took() -> None:
    assert pcgrad("mean", True, 3).init(None) == pcgrad(reduction="mean", include_self=True, seed=3).init(None)
    for tx in (sum_tasks(), mean_tasks(), pcgrad()):
        assert isinstance(tx, optax.GradientTransformation)
        assert tx.init(None)._fields == ("key",)  # as checkpoints have it
