"""Each aggregator on the Gramian against goldens and against its formula, in float64 and by other means."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize, nnls

import mtbert_jax as mt
from mtbert_jax.errors import InputError
from mtbert_jax.optim.aggregators import random_orders
from tests.cases import slow_but_for
from tests.optim.rules import GOLDEN, first, step, update, weights


def jacobian_of(seed: int) -> np.ndarray:
    """T = 2 … 6 gradients of any scale: in conflict, nearly parallel, or of very different norms among them."""
    rng = np.random.default_rng(seed)
    tasks = 2 + seed % 5
    jacobian = rng.normal(size=(tasks, 8)) * 10.0 ** rng.uniform(-5, 5)
    if seed % 4 == 1:
        jacobian *= 10.0 ** rng.uniform(-1.5, 1.5, size=(tasks, 1))
    if seed % 4 == 2:
        jacobian[1] = 0.1 * jacobian[1] - rng.uniform(0.3, 3) * jacobian[0]
    if seed % 4 == 3:
        jacobian += 3 * jacobian[0]
    return jacobian


SEEDS = range(40)


def normalized(jacobian: np.ndarray) -> np.ndarray:
    return jacobian / np.sqrt(np.sum(jacobian**2))


GOLDENS = {  # of TorchJD's tests; docs/numerics.md, section 8.2
    "mgda": [0.6, 0.4],
    "upgrad": [1.1109, 0.7894],
    "dualproj": [0.6109, 0.5],
    "cagrad": [0.7041, 0.5],
    "fairgrad": [0.5915, 0.4071],
    "aligned_mtl": [0.5591, 0.4083],
    "imtl_g": [0.5923, 0.4077],
    "gradvac": [2.2222, 1.5789],
    "pcgrad": [2.2222, 1.5789],
}


@pytest.mark.parametrize("name", GOLDENS)
def test_golden_weights(name: str) -> None:
    np.testing.assert_allclose(weights(name, GOLDEN), GOLDENS[name], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "expected"), [("config", [0.1588, 2.0706, 2.0706]), ("nash_mtl", [0.0542, 0.7061, 0.7061])]
)
def test_golden_updates(name: str, expected: list[float]) -> None:
    np.testing.assert_allclose(update(name, GOLDEN), expected, atol=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_mgda_fulfils_its_optimality_conditions(seed: int) -> None:
    """Of the shortest vector g of the hull, g · g_i ≥ g · g for all i, up to 1e-5 of the trace."""
    jacobian = normalized(jacobian_of(seed))
    found = weights("mgda", jacobian)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1, abs=1e-5)
    shortest = found @ jacobian
    assert (jacobian @ shortest).min() >= shortest @ shortest - 1e-5


@pytest.mark.parametrize("seed", SEEDS)
def test_upgrad_and_dualproj_are_projections(seed: int) -> None:
    """``argmin {‖Jᵀ v‖² + 1e-4 ‖v‖² : v ≥ u}`` as nonnegative least squares of v - u."""
    jacobian = normalized(jacobian_of(seed))
    tasks = len(jacobian)
    matrix = np.concatenate([jacobian.T, 1e-2 * np.eye(tasks)])
    project = lambda u: u + nnls(matrix, -matrix @ u)[0]  # noqa: E731
    each = [project(u) for u in np.eye(tasks) / tasks]
    for name, expected in (("upgrad", np.sum(each, 0)), ("dualproj", project(np.full(tasks, 1 / tasks)))):
        np.testing.assert_allclose(weights(name, jacobian), expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("seed", slow_but_for(SEEDS[:6], SEEDS))
def test_cagrads_weights_minimise_its_dual(seed: int) -> None:
    """Algorithm 1's objective over the simplex is never above SLSQP's, and the weights are those of its update."""
    jacobian, c = normalized(jacobian_of(seed)), (0.2, 0.5, 1.0)[seed % 3]
    tasks, mean = len(jacobian), jacobian.mean(0)
    radius = c * np.linalg.norm(mean)

    def dual(w: np.ndarray) -> Any:
        return w @ jacobian @ mean + radius * np.linalg.norm(w @ jacobian)

    simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
    starts = [np.full(tasks, 1 / tasks), *(0.9 * np.eye(tasks) + 0.1 / tasks)]
    options = {"ftol": 1e-14, "maxiter": 500}
    least = min(minimize(dual, w, bounds=[(0, 1)] * tasks, constraints=simplex, options=options).fun for w in starts)
    added = weights("cagrad", jacobian, c=c) - 1 / tasks
    assert added.min() >= -1e-6
    w = added / added.sum()
    assert dual(w) <= least + 1e-5
    assert np.linalg.norm(added @ jacobian) == pytest.approx(radius, rel=1e-3)
    rescaled = weights("cagrad", jacobian, c=c, rescale=True)
    np.testing.assert_allclose(rescaled * (1 + c**2), added + 1 / tasks, rtol=1e-4)


def test_cagrad_without_a_radius_is_the_mean_and_stands_still_where_gradients_cancel_out() -> None:
    np.testing.assert_allclose(weights("cagrad", GOLDEN, c=0.0), [0.5, 0.5])
    around = np.array([[1.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]])
    assert not weights("cagrad", around, c=2.0).any()
    assert weights("cagrad", around[:2], c=2.0).all()


@pytest.mark.parametrize("alpha", slow_but_for((0.5, 2.0), (0.5, 1.0, 2.0, 5.0)))
def test_fairgrads_equations_hold(alpha: float) -> None:
    for seed in SEEDS:
        jacobian = jacobian_of(seed)
        found = weights("fairgrad", jacobian, alpha=alpha)
        gains, wanted = jacobian @ (found @ jacobian), found ** (-1 / alpha)
        assert found.min() > 0
        # Float32's rounding of the Gramian, and the ridge, are of the size of w_i ‖g_i‖².
        allowed = 2e-6 * np.abs(jacobian @ jacobian.T) @ found
        assert (np.abs(gains - wanted) <= 1e-5 * wanted + allowed).all(), seed


def test_fairgrads_residual_is_below_a_millionth_for_gradients_of_norm_one() -> None:
    for seed in range(0, 40, 4):
        jacobian = normalized(np.random.default_rng(seed).normal(size=(2 + seed % 5, 40)))
        gram = np.asarray(jnp.asarray(jacobian, jnp.float32), np.float64)
        gram = gram @ gram.T
        found = weights("fairgrad", jacobian)
        assert np.abs(gram @ found - 1 / found).max() <= 1e-5 * (1 / found).max()


def test_fairgrad_of_no_fairness_is_the_mean() -> None:
    np.testing.assert_allclose(weights("fairgrad", GOLDEN, alpha=0.0), [0.5, 0.5])


@pytest.mark.parametrize("seed", slow_but_for(range(4), range(10)))
def test_nash_mtl_is_fairgrad_of_limited_norm(seed: int) -> None:
    jacobian = jacobian_of(seed)
    fair = update("fairgrad", jacobian)
    assert np.linalg.norm(fair) == pytest.approx(np.sqrt(len(jacobian)), rel=1e-2)  # Σ w_i (G w)_i = T
    np.testing.assert_allclose(update("nash_mtl", jacobian, max_norm=0.0), fair, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(update("nash_mtl", jacobian, max_norm=10.0), fair, rtol=1e-4, atol=1e-6)
    for norm in (0.5, 1.0):
        found = update("nash_mtl", jacobian, max_norm=norm)
        np.testing.assert_allclose(found, norm * fair / np.linalg.norm(fair), rtol=1e-2, atol=1e-3 * norm)


@pytest.mark.parametrize("seed", SEEDS)
def test_imtl_g_has_equal_projections_and_config_equal_cosines(seed: int) -> None:
    jacobian = jacobian_of(seed)
    norms = np.linalg.norm(jacobian, axis=1)
    found = weights("imtl_g", jacobian)
    assert found.sum() == pytest.approx(1, abs=1e-3)
    projections = jacobian @ (found @ jacobian) / norms
    np.testing.assert_allclose(projections, projections.mean(), atol=1e-3 * np.abs(found) @ norms)
    direction = update("config", jacobian)
    length = np.linalg.norm(direction)
    cosines = jacobian @ direction / norms / length
    np.testing.assert_allclose(cosines, cosines.mean(), atol=1e-3)
    assert cosines.mean() > 0
    assert length == pytest.approx((jacobian @ direction).sum() / length, rel=1e-2)


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_aligned_mtl_has_principal_components_of_one_length(scale: str) -> None:
    """From the singular values of J: √σ U Vᵀ, and of it the mean over the tasks."""
    for seed in SEEDS:
        jacobian = np.random.default_rng(seed).normal(size=(2 + seed % 5, 12))
        left, singular, right = np.linalg.svd(jacobian, full_matrices=False)
        ascending = np.sort(singular**2)
        chosen = {"min": ascending[0], "median": ascending[(len(ascending) - 1) // 2], "rmse": ascending.mean()}[scale]
        expected = np.sqrt(chosen) * (left @ right).mean(0)
        np.testing.assert_allclose(update("aligned_mtl", jacobian, scale=scale), expected, rtol=1e-3, atol=1e-4)


def test_aligned_mtl_leaves_out_what_float32_cannot_tell_from_nothing() -> None:
    parallel = np.array([[1.0, 1.0], [2.0, 2.0]])
    np.testing.assert_allclose(update("aligned_mtl", parallel), np.array([3.0, 3.0]) / 2, rtol=1e-4)


def literal_gradvac(gradients: np.ndarray, targets: np.ndarray, orders: np.ndarray, beta: float) -> np.ndarray:
    """Wang et al. 2021, Algorithm 1, word for word, on the gradients themselves; `targets` change."""
    total = np.zeros(gradients.shape[1])
    for i, own in enumerate(gradients):
        running = own.copy()
        for j in orders[i]:
            other = gradients[j]
            cosine = running @ other / np.linalg.norm(running) / np.linalg.norm(other)
            target = targets[i, j]
            if cosine < target:
                up = np.linalg.norm(running) * (target * np.sqrt(1 - cosine**2) - cosine * np.sqrt(1 - target**2))
                running = running + up / (np.linalg.norm(other) * np.sqrt(1 - target**2)) * other
            targets[i, j] = (1 - beta) * target + beta * cosine
        total += running
    return total


@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_gradvac_is_its_algorithm_over_several_steps(tasks: int) -> None:
    rng, targets, state = np.random.default_rng(tasks), np.zeros((tasks, tasks)), first("gradvac", tasks)
    for number in range(6):
        jacobian = rng.normal(size=(tasks, 9)) + (0.5 if number % 2 else 0)
        orders = np.asarray(random_orders(jax.random.key(number), tasks, include_self=False))
        expected = literal_gradvac(jacobian, targets, orders, 0.5)
        found, state = step("gradvac", jacobian, seed=number, state=state)
        np.testing.assert_allclose(found @ jacobian, expected, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(state, targets, atol=1e-4)
    assert np.abs(targets).max() > 0.01


def test_random_weights_are_a_softmax_of_normal_numbers_of_mean_one_over_t() -> None:
    drawn = np.stack([weights("random_weights", np.eye(3), seed=seed) for seed in range(400)])
    np.testing.assert_allclose(drawn.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(drawn.mean(0), 1 / 3, atol=0.04)
    normal = jax.random.normal(jax.random.key(7), (3,))
    np.testing.assert_allclose(drawn[7], jax.nn.softmax(normal), rtol=1e-5)


def test_equal_norms_are_those_of_the_longest() -> None:
    jacobian = jacobian_of(9)
    lengths = np.linalg.norm(jacobian, axis=1)
    np.testing.assert_allclose(weights("equal_norms", jacobian) * lengths, lengths.max(), rtol=1e-4)


def test_smoothed_weights_are_moving_averages_from_the_first_ones() -> None:
    rng = np.random.default_rng(0)
    state, expected = first("smoothed", 3, alpha=0.8), None
    for number in range(5):
        jacobian = rng.normal(size=(3, 6))
        plain = weights("cagrad", jacobian)
        absent = number == 2  # task 1 is left out: it keeps its average
        if absent:
            jacobian[1] = 0
            plain = weights("cagrad", jacobian)
        new = plain if expected is None else 0.8 * expected + 0.2 * plain
        expected = new if expected is None else np.where([False, absent, False], expected, new)
        found, state = step("smoothed", jacobian, state=state, alpha=0.8)
        np.testing.assert_allclose(found, np.where([False, absent, False], 0, expected), atol=1e-4)
        np.testing.assert_allclose(state.weights, expected, atol=1e-4)


def test_smoothed_takes_an_aggregator_with_all_that_it_has() -> None:
    params = {"encoder": {"layer_0": {"bias": jnp.zeros(3)}, "layer_1": {"bias": jnp.zeros(3)}}}
    tx = mt.smoothed(mt.gradvac(beta=0.3, by="layer", seed=4, num_tasks=2), alpha=0.5)
    state = tx.init(params).rule_state
    assert state.weights.shape == (2, 2)
    assert state.inner.shape == (2, 2, 2)
    assert mt.smoothed(mt.uw(num_tasks=2)).method.heads
    twice = mt.smoothed(mt.smoothed(mt.mean_tasks(num_tasks=3)))
    assert twice.init(None).rule_state.inner.weights.shape == (3,)
    with pytest.raises(InputError, match=r"smoothed takes an aggregator, as in smoothed\(cagrad\(c=0.4\)\)"):
        mt.smoothed(mt.layerwise_decay(0.9))
    with pytest.raises(InputError, match=r"aggregator smoothed\(cagrad\(\)\) keeps a state .* give num_tasks"):
        mt.smoothed(mt.cagrad())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mt.cagrad(c=-1.0), "c = -1.0: must be at least 0"),
        (lambda: mt.fairgrad(alpha=-1.0), "alpha = -1.0: must be at least 0"),
        (lambda: mt.nash_mtl(max_norm=-1.0), "max_norm = -1.0: must be at least 0"),
        (lambda: mt.aligned_mtl(scale="max"), "scale = 'max': must be 'min', 'median' or 'rmse'"),
        (lambda: mt.gradvac(beta=2.0, num_tasks=2), "beta = 2.0: must be from 0 to 1"),
        (lambda: mt.smoothed(mt.cagrad(), alpha=2.0, num_tasks=2), "alpha = 2.0: must be from 0 to 1"),
        (lambda: mt.uw(lr=-1.0, num_tasks=2), "lr = -1.0: must be at least 0"),
        (lambda: mt.famo(decay=-1.0, num_tasks=2), "decay = -1.0: must be at least 0"),
        (lambda: mt.gradnorm(first_steps=0, num_tasks=2), "first_steps = 0: must be at least 1"),
        (lambda: mt.dwa(steps=0, num_tasks=2), "steps = 0, temperature = 2.0: must be at least 1, and above 0"),
        (lambda: mt.stch(mu=0.0), "mu = 0.0: must be above 0"),
        (lambda: mt.stch(weights=[1.0, 2.0, 3.0], num_tasks=2), "weights has 3 numbers for 2 tasks in a step"),
        (lambda: mt.pcgrad(by="depth"), "by = 'depth': must be one of 'encoder', 'layer', 'matrix'"),
        (lambda: mt.uw(by="layer", num_tasks=2), "by = 'layer': aggregator uw weighs losses, which have no parts"),
    ],
)
def test_options_that_cannot_be_are_refused(make: Any, message: str) -> None:
    with pytest.raises((ValueError, InputError), match=message):
        make()
