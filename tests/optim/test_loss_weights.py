"""Weights that need the losses: each against its formula in NumPy over 50 steps, encoder and heads."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.errors import InputError
from mtbert_jax.optim.chain import build_chain, chain_context, check_chain
from tests.optim.rules import first, step

STEPS = 50


class Adam:
    """Kingma and Ba 2015, Algorithm 1, with the decay that torch.optim.Adam adds to the gradient."""

    def __init__(self, value: np.ndarray, lr: float, decay: float = 0.0) -> None:
        self.value, self.lr, self.decay, self.t = value, lr, decay, 0
        self.m, self.v = np.zeros_like(value), np.zeros_like(value)

    def move(self, gradient: np.ndarray) -> None:
        gradient = gradient + self.decay * self.value
        self.t += 1
        self.m, self.v = 0.9 * self.m + 0.1 * gradient, 0.999 * self.v + 0.001 * gradient**2
        change = self.m / (1 - 0.9**self.t) / (np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8)
        self.value = self.value - self.lr * change


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


class Uw:
    def __init__(self, lr: float = 1e-3, start: float = 0.0) -> None:
        self.s = Adam(np.full(3, start), lr)

    def weights(self, losses: np.ndarray, norms: np.ndarray) -> np.ndarray:
        found = 0.5 * np.exp(-self.s.value)
        self.s.move(0.5 - 0.5 * np.exp(-self.s.value) * losses)
        return found


class Dwa:
    def __init__(self, steps: int = 100, temperature: float = 2.0) -> None:
        self.steps, self.temperature = steps, temperature
        self.losses: list[np.ndarray] = []

    def weights(self, losses: np.ndarray, norms: np.ndarray) -> np.ndarray:
        done = len(self.losses) // self.steps
        means = [np.mean(self.losses[n * self.steps : (n + 1) * self.steps], 0) for n in range(done)]
        self.losses.append(losses)
        return np.ones(3) if done < 2 else 3 * softmax(means[-1] / means[-2] / self.temperature)


class Gls:
    def weights(self, losses: np.ndarray, norms: np.ndarray) -> np.ndarray:
        return np.exp(np.log(losses).mean()) / (3 * losses)


class Famo:
    def __init__(self, lr: float = 0.025, decay: float = 1e-3) -> None:
        self.xi, self.before = Adam(np.zeros(3), lr, decay), None

    def weights(self, losses: np.ndarray, norms: np.ndarray) -> np.ndarray:
        if self.before is not None:
            z, fallen = softmax(self.xi.value), np.log(self.before) - np.log(losses)
            self.xi.move((np.diag(z) - np.outer(z, z)) @ fallen)
        self.before = losses
        z = softmax(self.xi.value)
        return z / losses / np.sum(z / losses)


class GradNorm:
    def __init__(self, alpha: float = 1.5, lr: float = 0.025, first_steps: int = 10) -> None:
        self.alpha, self.first_steps, self.logits = alpha, first_steps, Adam(np.zeros(3), lr)
        self.losses: list[np.ndarray] = []

    def weights(self, losses: np.ndarray, norms: np.ndarray) -> np.ndarray:
        found = 3 * softmax(self.logits.value)
        if len(self.losses) < self.first_steps:
            self.losses.append(losses)
            return found
        rate = losses / np.mean(self.losses, 0)
        target = np.mean(found * norms) * (rate / rate.mean()) ** self.alpha

        def objective(logits: np.ndarray) -> float:
            return np.abs(3 * softmax(logits) * norms - target).sum()

        shift = 1e-6 * np.eye(3)
        here = self.logits.value
        # By differences, so that no derivative is taken on paper; norms over their length, as Adam does not mind.
        self.logits.move(np.array([(objective(here + e) - objective(here - e)) / 2e-6 for e in shift]))
        return found


class Stch:
    def __init__(self, mu: float = 1.0, weights: Any = None, reference: Any = None) -> None:
        self.mu = mu
        self.lambdas = np.full(3, 1 / 3) if weights is None else np.array(weights)
        self.reference = np.zeros(3) if reference is None else np.array(reference)

    def weights(self, losses: np.ndarray, norms: np.ndarray) -> np.ndarray:
        def value(losses: np.ndarray) -> float:
            return self.mu * np.log(np.sum(np.exp(self.lambdas * (losses - self.reference) / self.mu)))

        return np.array([(value(losses + e) - value(losses - e)) / 2e-6 for e in 1e-6 * np.eye(3)])


METHODS = [
    ("uw", Uw, {}),
    ("uw", Uw, {"lr": 0.05, "start": -0.5}),
    ("dwa", Dwa, {"steps": 7}),
    ("dwa", Dwa, {"steps": 1, "temperature": 0.5}),
    ("gls", Gls, {}),
    ("famo", Famo, {}),
    ("famo", Famo, {"lr": 0.1, "decay": 0.1}),
    ("gradnorm", GradNorm, {}),
    ("gradnorm", GradNorm, {"alpha": 0.5, "lr": 0.1, "first_steps": 1}),
    ("stch", Stch, {}),
    ("stch", Stch, {"mu": 0.1, "weights": [0.2, 0.5, 0.3], "reference": [0.1, 0.0, 0.2]}),
]


@pytest.mark.parametrize(("name", "literal", "options"), METHODS)
def test_weights_over_fifty_steps_are_the_formulas(name: str, literal: Any, options: dict[str, Any]) -> None:
    """Three quadratic losses that fall at rates of their own; the parameters go by the weights themselves."""
    rng, expected_of = np.random.default_rng(0), literal(**options)
    targets, sizes = rng.normal(size=(3, 5)), np.array([1.0, 5.0, 0.3])
    hashable = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    state, params, seen = first(name, 3, **hashable), np.zeros(5), []
    for _ in range(STEPS):
        losses = sizes * (np.sum((params - targets) ** 2, 1) + 0.1) * rng.uniform(0.8, 1.2, 3)
        jacobian = 2 * sizes[:, None] * (params - targets)
        expected = expected_of.weights(losses, np.linalg.norm(jacobian, axis=1) / np.linalg.norm(jacobian))
        found, state = step(name, jacobian, losses=losses, state=state, **hashable)
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5)
        params = params - 0.05 * expected @ jacobian
        seen.append(expected)
    if name != "gls":
        assert np.ptp(np.array(seen), 0).max() > 1e-3


PARAMS = {
    "encoder": {"layer_0": {"bias": jnp.zeros(4)}},
    "heads": {task: {"bias": jnp.zeros(2)} for task in ("para", "sst", "sts")},
}
GRADS = {
    "encoder": {"layer_0": {"bias": jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), jnp.float32)}},
    "heads": {task: {"bias": jnp.array([1.0, -2.0])} for task in ("para", "sst", "sts")},
}
ABOUT = {
    "losses": jnp.array([0.7, 1.9, 0.4]),
    "finite": {task: jnp.array(True) for task in ("para", "sst", "sts")},
}


@pytest.mark.parametrize("name", ["uw", "dwa", "gls", "famo", "gradnorm", "stch"])
def test_a_weight_is_the_factor_of_its_tasks_head(name: str) -> None:
    tx = build_chain((f"{name}()",), chain_context(lambda step: 0.1, PARAMS, 3))
    check_chain(tx, GRADS, PARAMS, tuple(ABOUT["finite"]))
    expected, _ = step(name, GRADS["encoder"]["layer_0"]["bias"], losses=ABOUT["losses"])
    found, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS, **ABOUT)
    for number, task in enumerate(ABOUT["finite"]):
        np.testing.assert_allclose(found["heads"][task]["bias"], expected[number] * np.array([1, -2]), rtol=1e-5)
    assert name in ("dwa", "uw", "gradnorm") or np.ptp(expected) > 0.01


@pytest.mark.parametrize("call", ["cagrad()", "upgrad()", "smoothed(mgda())", "equal_norms()", "random_weights()"])
def test_aggregators_of_shared_parameters_keep_heads_as_they_are(call: str) -> None:
    tx = build_chain((call,), chain_context(lambda step: 0.1, PARAMS, 3))
    found, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS, **ABOUT)
    jax.tree.map(np.testing.assert_array_equal, found["heads"], GRADS["heads"])


def test_smoothed_loss_weights_are_the_heads_too() -> None:
    tx = build_chain(("smoothed(gls())",), chain_context(lambda step: 0.1, PARAMS, 3))
    found, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS, **ABOUT)
    assert found["heads"]["sts"]["bias"][0] > 1.5 * found["heads"]["para"]["bias"][0]


def test_heads_go_by_the_names_of_the_tasks_whatever_their_order() -> None:
    """The gradients lie in the order of `finite`; a head that is not in the step keeps what it is given."""
    tx = mt.gls()
    params = {**PARAMS, "heads": {**PARAMS["heads"], "later": {"bias": jnp.zeros(2)}}}
    grads = {**GRADS, "heads": {**GRADS["heads"], "later": {"bias": jnp.ones(2)}}}
    finite = dict.fromkeys(("sts", "para", "sst"), True)
    found, _ = tx.update(grads, tx.init(params), params, losses=jnp.array([0.4, 0.7, 1.9]), finite=finite)
    expected, _ = mt.gls().update(GRADS, tx.init(PARAMS), PARAMS, losses=ABOUT["losses"])
    assert found["heads"]["later"]["bias"].tolist() == [1.0, 1.0]
    for task in finite:
        np.testing.assert_allclose(found["heads"][task]["bias"], expected["heads"][task]["bias"], rtol=1e-5)
    with pytest.raises(InputError, match=r"aggregator gls: 3 tasks and 4 heads; say whose head is whose by"):
        tx.update(grads, tx.init(params), params, losses=ABOUT["losses"])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_head_of_a_task_that_is_left_out_gets_no_gradient(bad: float) -> None:
    grads = jax.tree.map(jnp.array, GRADS)
    grads["encoder"]["layer_0"]["bias"] = grads["encoder"]["layer_0"]["bias"].at[1, 2].set(bad)
    grads["heads"]["sst"]["bias"] = jnp.array([bad, 1.0])
    tx = mt.gls()
    found, _ = tx.update(grads, tx.init(PARAMS), PARAMS, losses=ABOUT["losses"].at[1].set(bad))
    assert found["heads"]["sst"]["bias"].tolist() == [0.0, 0.0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["uw", "dwa", "gls", "famo", "gradnorm", "stch"])
def test_a_task_whose_loss_is_not_finite_is_left_out(name: str, bad: float) -> None:
    """As if its gradient were not finite, without the extra argument `finite`, by which training says so."""
    losses = ABOUT["losses"].at[1].set(bad)
    nothing = jax.tree.map(jnp.array, GRADS)
    nothing["encoder"]["layer_0"]["bias"] = nothing["encoder"]["layer_0"]["bias"].at[1].set(0.0)
    tx = getattr(mt, name)(num_tasks=3)
    expected, _ = tx.update(nothing, tx.init(PARAMS), PARAMS, losses=ABOUT["losses"].at[1].set(0.0))
    found, state = tx.update(GRADS, tx.init(PARAMS), PARAMS, losses=losses)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert found["heads"]["sst"]["bias"].tolist() == [0.0, 0.0]
    numbers = [leaf for leaf in jax.tree.leaves(state) if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    assert all(np.isfinite(leaf).all() for leaf in numbers)
    rows = GRADS["encoder"]["layer_0"]["bias"]
    weights = mt.aggregator_weights(name, rows @ rows.T, losses=losses)
    assert np.isfinite(weights).all()
    assert [bool(weight) for weight in weights] == [True, False, True]


@pytest.mark.parametrize("losses", [jnp.ones(1), jnp.ones(4), jnp.ones((3, 1)), 1.0])
def test_there_is_one_loss_for_each_task(losses: Any) -> None:
    tx = mt.uw(num_tasks=3)
    with pytest.raises(
        InputError, match=r"aggregator uw: losses of shape \(.*\) for 3 tasks; give a mean loss for each"
    ):
        tx.update(GRADS, tx.init(PARAMS), PARAMS, losses=losses)
    with pytest.raises(InputError, match=r"aggregator gls: losses of shape \(.*\) for 3 tasks"):
        mt.aggregator_weights("gls", jnp.eye(3), losses=losses)


def test_without_losses_they_refuse_to_run() -> None:
    for name in ("gls", "stch"):
        tx = getattr(mt, name)()
        with pytest.raises(InputError, match=f"aggregator {name} weighs losses: it needs update"):
            tx.update(GRADS, tx.init(PARAMS), PARAMS)
        with pytest.raises(InputError, match=f"aggregator {name} weighs losses: give losses"):
            mt.aggregator_weights(name, jnp.eye(2))


def test_a_step_of_one_task_is_left_as_it_is() -> None:
    tx = mt.uw(num_tasks=1)
    found, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, losses=jnp.ones(1))
    jax.tree.map(np.testing.assert_array_equal, found, PARAMS)


def test_a_rule_of_ones_own_can_weigh_losses() -> None:
    from tests.plugins import forgetting

    with forgetting():

        @mt.register_aggregator("by_root", init=lambda num_tasks, scale: jnp.full(num_tasks, scale), heads=True)
        def by_root(gramian: Any, state: Any, key: Any, losses: Any, power: float = 0.5, scale: float = 2.0) -> Any:
            return state * losses**power, state + 1

        tx = by_root(scale=3.0, num_tasks=3)
        state = tx.init(PARAMS)
        for factor in (3.0, 4.0):
            found, state = tx.update(GRADS, state, PARAMS, **ABOUT)
            np.testing.assert_allclose(found["heads"]["sst"]["bias"][0], factor * 1.9**0.5, rtol=1e-5)
        assert mt.aggregator_weights("by_root", jnp.eye(1), losses=[4.0]).tolist() == [4.0]


def test_a_weight_by_which_a_loss_would_rise_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weights = \[1, 2, -3\]: must be at least 0, or a task's loss would rise"):
        mt.stch(weights=[1, 2, -3], num_tasks=3)
