"""Each head's optimizer state is what it would be alone: literal formulas in float64, each parameter by itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtbert_jax.optim import pcgrad
from mtbert_jax.optim.chain import build_chain, chain_context
from mtbert_jax.optim.headwise import HeadwiseState, headwise
from tests.optim.orders import flat, initial, steps

B1, B2, EPS = 0.9, 0.999, 1e-8


class Alone:
    """Adam of one parameter, which counts the parameter's own steps (Kingma and Ba 2015, Algorithm 1)."""

    def __init__(self, rule: str, value: np.ndarray) -> None:
        self.rule, self.value, self.t = rule, value.astype(np.float64), 0
        self.m, self.v = np.zeros(value.shape), np.zeros(value.shape)

    def step(self, gradient: np.ndarray, rate: float) -> None:
        g = gradient.astype(np.float64)
        self.t += 1
        self.m, self.v = B1 * self.m + (1 - B1) * g, B2 * self.v + (1 - B2) * g**2
        m = self.m / (1 - B1**self.t)
        if self.rule == "nadam":  # Dozat 2016
            m = B1 * self.m / (1 - B1 ** (self.t + 1)) + (1 - B1) * g / (1 - B1**self.t)
        change = m / (np.sqrt(self.v / (1 - B2**self.t)) + (1e-6 if self.rule == "lamb" else EPS))
        if self.rule == "adamw":
            change = change + 0.1 * self.value
        if self.rule == "lamb":  # You et al. 2020, Algorithm 2
            change = change + 0.1 * self.value
            change = change * np.linalg.norm(self.value) / np.linalg.norm(change)
        self.value = self.value - rate * change


RULES = {
    "adam": "adam(lr)",
    "adamw": "adamw(lr, weight_decay=0.1)",
    "nadam": "nadam(lr)",
    "lamb": "lamb(lr, weight_decay=0.1)",
}


ORDERS = ("sequential", "proportional", "annealed", "round_robin")


def worst_difference(rules: dict[str, str], calls: tuple[str, ...], order: Any, num_steps: int) -> float:
    """How far any parameter is from what it would be alone; `rules`: those of the encoder and the heads."""
    start = flat(initial()).items()
    alone = {path: Alone(rules[path.partition("/")[0]], value) for path, value in start}
    worst = 0.0
    for step in steps(calls, order, num_steps, bad=0.1):
        for path, gradient in step.grads.items():
            alone[path].step(gradient, step.rate)
        worst = max(worst, *(np.abs(step.params[path] - one.value).max() for path, one in alone.items()))
    return worst


@pytest.mark.parametrize(
    ("rule", "order", "num_steps"),
    [(rule, order, 200) for rule, order in zip(RULES, ORDERS, strict=True)]
    + [pytest.param(rule, order, 1000, marks=pytest.mark.slow) for rule in RULES for order in ORDERS],
)
def test_every_parameter_moves_as_if_it_were_alone(rule: str, order: Any, num_steps: int) -> None:
    """Warm-up and linear decay, one gradient in ten not finite. Counts that ran on would be off by several rates."""
    assert worst_difference({"encoder": rule, "heads": rule}, (RULES[rule],), order, num_steps) < 1e-6


@pytest.mark.parametrize("order", ["proportional", "round_robin"])
def test_so_it_does_inside_a_partition(order: Any) -> None:
    calls = ("partition({'encoder': chain(adam(lr)), 'heads': lamb(lr, weight_decay=0.1)}, parts)",)
    assert worst_difference({"encoder": "adam", "heads": "lamb"}, calls, order, 200) < 1e-6


@pytest.mark.parametrize("order", ["sequential", "round_robin"])
def test_a_norm_behind_adam_is_of_what_is_in_the_step_and_counted_for_each_by_itself(order: Any) -> None:
    """Adam, then a global norm: of the encoder and the heads of the step, not of what momentum would do to others."""
    calls = ("scale_by_adam()", "clip_by_global_norm(0.5)", "scale_by_learning_rate(lr)")
    alone = {path: Alone("adam", value) for path, value in flat(initial()).items()}
    for step in steps(calls, order, 150, bad=0.1):
        before = {path: alone[path].value for path in step.grads}
        for path, gradient in step.grads.items():
            alone[path].step(gradient, 1.0)
        moves = {path: alone[path].value - value for path, value in before.items()}
        norm = np.sqrt(sum(np.sum(move**2) for move in moves.values()))
        for path, move in moves.items():
            alone[path].value = before[path] + step.rate * move * min(1.0, 0.5 / max(norm, 1e-30))
        for path, one in alone.items():
            np.testing.assert_allclose(step.params[path], one.value, atol=1e-6, err_msg=f"{path} {step.good}")


MANY = [
    *("acprop(lr)", "adabelief(lr)", "adadelta(lr)", "adafactor(lr)", "adagrad(lr)", "adamax(lr)", "adan(lr)"),
    *("ademamix(lr)", "adopt(lr)", "amsgrad(lr)", "flatten(adam(lr))", "galore(lr)", "lars(lr)", "lion(lr)"),
    *("madgrad(lr)", "masked(adam(lr), heads)", "muon(lr)", "nadamw(lr)", "novograd(lr)", "radam(lr)"),
    *("rmsprop(lr, bias_correction=True)", "sgd(lr, momentum=0.9)", "signum(lr)", "sm3(1e-2)"),
    *("split_real_and_imaginary(adam(lr))", "yogi(lr)", "chain(ema(0.9), named_chain(['a', adam(lr)]))"),
]
QUICK = ("adabelief(lr)", "flatten(adam(lr))", "muon(lr)", "radam(lr)", "masked(adam(lr), heads)")


@pytest.mark.parametrize("call", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in MANY])
def test_a_late_head_is_the_same_as_one_that_has_the_transformation_for_itself(call: str) -> None:
    """optax itself, given one head and its steps alone: fifteen steps without head b, some with it, and so on."""
    params = initial()
    own = {"heads": {"b": params["heads"]["b"]}}
    both, one = (build_chain((call,), chain_context(lambda step: 0.01, tree)) for tree in (params, own))
    step_of_both, step_of_one = jax.jit(both.update), jax.jit(one.update)
    state, own_state, rng = both.init(params), one.init(own), np.random.default_rng(0)
    for number in range(40):
        there = number >= 15 and number % 3 > 0
        grads = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params)
        if not there:
            grads["heads"]["b"] = jax.tree.map(jnp.zeros_like, grads["heads"]["b"])
        finite = {"a": jnp.array(True), "b": jnp.array(there), "c": jnp.array(number % 2 == 0)}
        updates, state = step_of_both(grads, state, params, finite=finite)
        if there:
            expected, own_state = step_of_one({"heads": {"b": grads["heads"]["b"]}}, own_state, own)
            for path, leaf in flat(expected).items():
                np.testing.assert_allclose(flat(updates)[path], leaf, rtol=2e-4, atol=1e-7, err_msg=f"{number} {path}")


@pytest.mark.parametrize(
    "call",
    [
        "sign_sgd(lr)",
        "chain(scale_by_sign(), scale_by_schedule(lr), scale(-1.0))",
        "partition({'encoder': sign_sgd(1.0), 'heads': sign_sgd(lr)}, parts)",
        "sign_sgd(join_schedules([lr, linear_schedule(0.5, 0.0, 10)], [20]))",
    ],
)
def test_a_late_head_gets_the_rate_of_the_stages_step(call: str) -> None:
    params = initial()
    rate = optax.linear_schedule(0.0, 1.0, 40)
    tx = build_chain((call,), chain_context(rate, params))
    update, state = jax.jit(tx.update), tx.init(params)
    ones = jax.tree.map(jnp.ones_like, params)
    for step in range(30):
        finite = {"a": jnp.array(step < 18 and step != 3), "b": jnp.array(step >= 18)}  # nobody in step 3
        updates, state = update(ones, state, params, finite=finite, step=jnp.int32(step))
        expected = rate(step) if "join" not in call or step < 20 else 0.5 - 0.05 * (step - 20)
        for head, there in finite.items():
            if there:
                np.testing.assert_allclose(updates["heads"][head]["output"]["bias"], -expected, rtol=1e-6)


def of_a_plugin(rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.inject_hyperparams(optax.sign_sgd)(rate)


@pytest.mark.parametrize(
    "make", [lambda rate: optax.chain(optax.scale_by_sign(), optax.scale_by_learning_rate(rate)), of_a_plugin]
)
def test_steps_of_schedules_that_a_plugin_brings_along_are_shared(make: Any) -> None:
    """The schedule goes by its own count, which is that of all steps, also of those with no good task."""
    params, rate = initial(), optax.linear_schedule(0.0, 1.0, 40)
    tx = headwise(make(rate))
    update, state = jax.jit(tx.update), tx.init(params)
    ones = jax.tree.map(jnp.ones_like, params)
    for step in range(12):
        updates, state = update(ones, state, params, finite={"b": jnp.array(step >= 9), "a": jnp.array(step < 4)})
        if step >= 9:
            np.testing.assert_allclose(updates["heads"]["b"]["output"]["bias"], -rate(step), rtol=1e-6)


def test_prodigys_schedule_is_the_stages_and_its_count_the_heads() -> None:
    """One count serves both: alone, at the late head's first step, Prodigy would be asked for the rate of step 0."""
    params = initial()
    asked = {}
    for lr in (lambda step: jnp.where(step < 10, 0.25, 1.0), lambda step: 1.0):
        tx = build_chain(("prodigy(lr)",), chain_context(lr, params))
        state = tx.init(params)
        ones = jax.tree.map(jnp.ones_like, params)
        updates, state = jax.jit(tx.update)(ones, state, params, finite={"b": jnp.array(True)}, step=jnp.int32(12))
        asked[len(asked)] = flat(updates)["heads/b/output/bias"]
    np.testing.assert_array_equal(asked[0], asked[1])
    assert asked[1].all()


def test_a_task_named_like_a_part_of_the_state_is_no_label() -> None:
    params = {"encoder": {"w": jnp.ones(2)}, "heads": {"inner_state": {"b": jnp.ones(2)}, "mu": {"b": jnp.ones(2)}}}
    context = chain_context(lambda step: 0.1, params)
    tx = build_chain(("partition({'encoder': adam(lr), 'heads': adam(lr)}, parts)",), context)
    state, ones = tx.init(params), jax.tree.map(jnp.ones_like, params)
    for _ in range(3):
        _, state = tx.update(ones, state, params, finite={"mu": jnp.array(True)})
    for clocks in (state[0].clocks, state[0].state.inner_states["heads"].inner_state.clocks):
        assert {head: [int(n) for n in own] for head, own in clocks.items()} == {"inner_state": [0], "mu": [3]}


def test_nothing_is_added_to_a_state_without_clocks() -> None:
    params = initial()
    for tx in (optax.sgd(0.1, momentum=0.9), pcgrad(), optax.lion(0.1), optax.clip(1.0)):
        state = headwise(tx).init(params)
        counts = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == () and leaf.dtype == jnp.int32]
        assert isinstance(state, HeadwiseState) == bool(counts)
