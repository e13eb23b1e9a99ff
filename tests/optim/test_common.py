"""What all registered aggregators have in common (docs/numerics.md, section 8.1)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax.optim.aggregators import gramian
from mtbert_jax.optim.chain import build_chain, chain_context, check_chain
from mtbert_jax.optim.registry import AGGREGATORS
from tests.cases import slow_but_for
from tests.optim.rules import LOSSES, NAMES, NEEDS, compiled, first, made, transformed, update, weights
from tests.parallel.test_devices import in_process

RANDOM = {"pcgrad", "gradvac", "random_weights"}
SCALE_FREE = {"fairgrad", "nash_mtl"}
"""Their updates do not depend on the scale of the gradients; all others' grow with it."""
NON_CONFLICTING = {
    "mgda": {},
    "upgrad": {},
    "dualproj": {},
    "cagrad": {"c": 1.0},
    "fairgrad": {},
    "nash_mtl": {},
    "config": {},
}
THREE = np.random.default_rng(5).normal(size=(3, 7)) + 0.3


def close(found: Any, expected: Any, share: float = 1e-3) -> None:
    """Equal but for a share of the expected value's norm."""
    found, expected = (np.asarray(value, np.float64) for value in (found, expected))
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - expected) <= share * np.linalg.norm(expected) + 1e-30


def test_the_registry_is_the_libraries_own() -> None:
    assert len(NAMES) == 22
    assert set(NAMES) == set(AGGREGATORS)


@pytest.mark.parametrize("name", sorted(set(NAMES) - RANDOM))
def test_the_order_of_the_tasks_makes_no_difference(name: str) -> None:
    order = [2, 0, 1]
    close(weights(name, THREE[order], losses=LOSSES[:3][order]), weights(name, THREE)[order])


@pytest.mark.parametrize("name", ["pcgrad", "gradvac"])
def test_nor_does_it_where_two_tasks_meet_in_random_order(name: str) -> None:
    close(weights(name, THREE[1::-1]), weights(name, THREE[:2])[::-1])


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("name", NAMES)
def test_an_update_grows_with_the_gradients_or_does_not_depend_on_their_scale(name: str, scale: float) -> None:
    expected = update(name, THREE) * (1 if name in SCALE_FREE else scale)
    if name == "nash_mtl":
        assert np.linalg.norm(expected) == pytest.approx(1.0, rel=1e-4)
    close(update(name, scale * THREE), expected)


@pytest.mark.parametrize("name", NON_CONFLICTING)
def test_an_update_conflicts_with_no_task(name: str) -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        jacobian = rng.normal(size=(3, 8)) * 10.0 ** rng.uniform(-2, 2)
        if seed % 2:
            jacobian[0] = -rng.uniform(0.5, 2) * jacobian[1] + 0.3 * jacobian[0]
        found = update(name, jacobian, **NON_CONFLICTING[name])
        gains = jacobian @ found / np.linalg.norm(jacobian, axis=1)
        assert gains.min() >= -2e-3 * np.linalg.norm(jacobian, axis=1).max() * np.linalg.norm(weights(name, jacobian))


def test_a_sum_does_conflict() -> None:
    """So that the test above can fail."""
    assert (np.array([[-4, 1.0], [6, 1]]) @ update("sum_tasks", np.array([[-4, 1.0], [6, 1]]))).min() < -1


CASES = {
    "zeros": np.zeros((3, 4)),
    "all parallel": np.outer([1.0, 2.0, 0.5], [1.0, -2.0, 0.0, 1.0]),
    "opposed": np.outer([1.0, -1.0, 2.0], [1.0, -2.0, 0.0, 1.0]),
    "they cancel out": np.array([[1.0, 0, 0, 0], [-0.5, 0.75**0.5, 0, 0], [-0.5, -(0.75**0.5), 0, 0]]),
    "one huge": THREE[:, :4] * np.array([[1.0], [1e8], [1.0]]),
    "all huge": THREE[:, :4] * 1e15,
    "one tiny": THREE[:, :4] * np.array([[1.0], [1.0], [1e-8]]),
    "all tiny": THREE[:, :4] * 1e-15,
    "more tasks than parameters": THREE[:, :2],
}


@pytest.mark.parametrize("name", NAMES)
def test_hard_gradients_have_finite_weights(name: str) -> None:
    for case, jacobian in CASES.items():
        found = weights(name, jacobian)
        assert np.isfinite(found).all(), case
        if name not in ("sum_tasks", "pcgrad") and case == "zeros":
            assert not found.any()


@pytest.mark.parametrize("name", NAMES)
def test_one_task_is_followed(name: str) -> None:
    jacobian = np.array([[3.0, -4.0]])
    (only,) = weights(name, jacobian)
    assert only > 0
    expected = {"cagrad": 1.5, "smoothed": 1.5, "fairgrad": 0.2, "nash_mtl": 0.2, "uw": 0.5}
    assert only == pytest.approx(expected.get(name, 1.0), rel=1e-4)


@pytest.mark.parametrize("left_out", slow_but_for([2], [0, 2]))
@pytest.mark.parametrize("name", NAMES)
def test_a_task_that_is_left_out_does_not_touch_the_others(name: str, left_out: int) -> None:
    """Three steps with a task that is never finite, beside three without that task: updates, states and heads."""
    rest = [task for task in range(3) if task != left_out]
    rng = np.random.default_rng(0)
    (init, with_it), (init_fewer, without) = transformed(name, 3), transformed(name, 2)
    state, fewer = init(None), init_fewer(None)
    for number in range(3):
        encoder = rng.normal(size=(3, 7)).astype(np.float32)
        losses = rng.uniform(0.2, 2, 3).astype(np.float32)
        expected, fewer = without({"w": encoder[rest]}, fewer, losses[rest])
        encoder[left_out, number] = [np.nan, np.inf, -np.inf][number]
        losses[left_out] = np.nan
        found, state = with_it({"w": encoder}, state, losses)
        if name == "random_weights" and left_out == 0:  # of other numbers
            assert np.isfinite(found["w"]).all()
            continue
        close(found["w"], expected["w"])
    if hasattr(state, "rule_state"):
        for own, other in zip(jax.tree.leaves(state.rule_state), jax.tree.leaves(fewer.rule_state), strict=True):
            for axis in range(own.ndim):
                own = jnp.take(own, jnp.array(rest), axis)
            np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_compiled_and_mapped_it_is_the_same(name: str) -> None:
    plain = made(name, 3).method.rule
    jacobians = np.stack([THREE, THREE[::-1] - 1, 2 * THREE * [[1], [-1], [1]]]).astype(np.float32)
    grams = jnp.stack([gramian([one]) for one in jacobians])
    keys, losses = jax.random.split(jax.random.key(3), 3), jnp.stack([LOSSES[:3] * n for n in (1, 2, 3)])
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), first(name, 3))
    mapped, after = jax.jit(jax.vmap(plain))(grams, states, keys, losses)
    for number in range(3):
        own = jax.tree.map(lambda leaf, n=number: leaf[n], (states, after))
        alone, state = compiled(name, 3, ())(grams[number], own[0], keys[number], losses[number])
        close(mapped[number], alone, 1e-4)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), own[1], state)
        if number == 0:
            close(plain(grams[0], own[0], keys[0], losses[0])[0], alone, 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_may_be_of_bfloat16(name: str) -> None:
    init, updated = transformed(name, 3)
    short = jnp.asarray(THREE, jnp.bfloat16)
    (found, _), (expected, _) = (
        updated({"w": grads}, init(None), LOSSES[:3]) for grads in (short, short.astype(jnp.float32))
    )
    assert found["w"].dtype == jnp.bfloat16
    close(found["w"].astype(jnp.float32), expected["w"], 2e-2)


@pytest.mark.parametrize("name", NAMES)
def test_under_x64_its_state_stays_of_float32(name: str) -> None:
    with jax.enable_x64(True):
        tx, grads = made(name, 3), {"w": jax.ShapeDtypeStruct((3, 2), jnp.float64)}
        state = tx.init(None)
        found, after = jax.eval_shape(lambda grads: tx.update(grads, state, losses=np.ones(3)), grads)
    assert found["w"].dtype == jnp.float64
    assert [leaf.dtype for leaf in jax.tree.leaves(after)] == [leaf.dtype for leaf in jax.tree.leaves(state)]


def test_all_can_be_lowered_for_other_platforms() -> None:
    def everything(gram: jax.Array, losses: jax.Array) -> Any:
        rules = {name: made(name, 3).method.rule for name in NAMES}
        return {name: rules[name](gram, first(name, 3), jax.random.key(0), losses)[0] for name in NAMES}

    exported = jax.export.export(jax.jit(everything), platforms=["cuda", "tpu"])(jnp.eye(3), jnp.ones(3))
    assert exported.platforms == ("cuda", "tpu")


@pytest.mark.parametrize("name", NAMES)
def test_it_stands_in_a_chain_with_its_state_and_a_key(name: str) -> None:
    params = {"encoder": {"layer_0": {"bias": jnp.zeros(7)}}, "heads": {t: {"bias": jnp.zeros(2)} for t in "abc"}}
    grads = {"encoder": {"layer_0": {"bias": jnp.asarray(THREE, jnp.float32)}}, "heads": params["heads"]}
    call = "smoothed(cagrad(c=0.5), alpha=0.9)" if name in NEEDS else f"{name}()"
    tx = build_chain((call, "sgd(1.0)"), chain_context(lambda step: 0.1, params, 3))
    check_chain(tx, grads, params, ("a", "b", "c"))
    about = {"losses": jnp.asarray(LOSSES[:3]), "finite": {task: jnp.array(True) for task in "abc"}}
    found, state = jax.jit(tx.update)(grads, tx.init(params), params, **about)
    if name not in RANDOM:
        close(-found["encoder"]["layer_0"]["bias"], update(name, THREE))
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))


@pytest.mark.parametrize("name", ["mgda", "upgrad", "dualproj", "cagrad"])
def test_more_than_eight_tasks_are_refused_where_every_subset_is_tried(name: str) -> None:
    assert np.isfinite(weights(name, np.random.default_rng(0).normal(size=(8, 12)))).all()
    message = rf"9 tasks in a step: {name} tries every subset of them and takes 8 at most; pcgrad, gradvac, fairgrad"
    with pytest.raises(ValueError, match=message):
        AGGREGATORS[name](num_tasks=9)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"mgda", "upgrad", "dualproj", "cagrad", "smoothed"}))
def test_the_others_take_nine(name: str) -> None:
    jacobian = np.random.default_rng(0).normal(size=(9, 12))
    assert np.isfinite(weights(name, jacobian, losses=np.ones(9))).all()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("sharded") / "out.npz"
    in_process("tests.optim.sharded", str(path))
    return np.load(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_over_eight_devices_it_is_the_same(name: str, sharded: Any) -> None:
    close(sharded[f"eight_{name}"], sharded[f"one_{name}"], 1e-3)
