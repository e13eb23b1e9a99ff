"""Aggregators by layer and by matrix: each group of parameters as if it were all there is."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax import trees
from mtbert_jax.optim.aggregators.gramian import gramian, grouped_gramian
from mtbert_jax.optim.aggregators.grouping import groups_of
from mtbert_jax.optim.chain import build_chain, chain_context, check_chain
from tests.cases import slow_but_for

SHAPES = {
    "embeddings": {"word": {"embedding": (5, 4)}, "layer_norm": {"scale": (4,)}},
    "layer_0": {"attention": {"kernel": (4, 4), "bias": (4,)}},
    "layer_1": {"attention": {"kernel": (4, 4), "bias": (4,)}},
    "layer_10": {"attention": {"kernel": (4, 4), "bias": (4,)}},
    "pooler": {"kernel": (4, 4), "bias": (4,)},
    "final_norm": {"scale": (4,)},
}
IS_SHAPE = {"is_leaf": lambda node: isinstance(node, tuple)}
PARAMS = {"encoder": jax.tree.map(jnp.zeros, SHAPES, **IS_SHAPE), "heads": {t: {"bias": jnp.zeros(2)} for t in "abc"}}


def gradients(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    draw = lambda shape: jnp.asarray(rng.normal(size=(3, *shape)), jnp.float32)  # noqa: E731
    return {"encoder": jax.tree.map(draw, SHAPES, **IS_SHAPE), "heads": PARAMS["heads"]}


def parts(tree: Any, by: str) -> dict[str, Any]:
    """The encoder's gradients as one tree for each group."""
    found: dict[str, dict[str, Any]] = {}
    for path, leaf in trees.leaves(tree["encoder"]):
        top = path.partition("/")[0]
        layer = top if top.startswith(("layer_", "embeddings")) else "rest"
        found.setdefault(layer if by == "layer" else path, {})[path] = leaf
    return found


def test_a_layer_is_the_embeddings_one_of_the_encoders_or_the_rest() -> None:
    paths = [f"encoder/{path}" for path, _ in trees.leaves(PARAMS["encoder"])]
    groups = groups_of(paths, "layer")
    of = dict(zip(paths, groups, strict=True))
    assert len(set(groups)) == 5
    assert of["encoder/layer_1/attention/bias"] != of["encoder/layer_10/attention/bias"]
    assert of["encoder/embeddings/word/embedding"] == of["encoder/embeddings/layer_norm/scale"]
    assert of["encoder/pooler/kernel"] == of["encoder/final_norm/scale"]
    assert groups_of(paths, "matrix") == list(range(len(paths)))
    assert groups_of(paths, "encoder") == [0] * len(paths)


def test_the_gramian_of_all_is_the_sum_of_the_groups() -> None:
    leaves = jax.tree.leaves(gradients(0)["encoder"])
    groups = groups_of([f"encoder/{path}" for path, _ in trees.leaves(SHAPES)], "encoder")[: len(leaves)]
    for groups in ([n % 3 for n in range(len(leaves))], list(range(len(leaves)))):
        grams = grouped_gramian(leaves, groups)
        np.testing.assert_allclose(grams.sum(0), gramian(leaves), rtol=1e-5, atol=1e-5)


def test_the_products_of_a_leaf_are_computed_once() -> None:
    """In a step the cosines of the records need the Gramian of all, too."""
    grads = gradients(0)
    leaves = jax.tree.leaves(grads["encoder"])
    tx = mt.cagrad(by="layer")

    def both(grads: Any) -> Any:
        return tx.update(grads, tx.init(PARAMS), PARAMS)[0], gramian(jax.tree.leaves(grads["encoder"]))

    def products(function: Any) -> int:
        text = jax.jit(function).lower(grads).compile().as_text()
        return sum(text.count(f"f32[{leaf.size // 3 // leaf.shape[-1]},{leaf.shape[-1]}]") for leaf in leaves)

    alone = products(lambda grads: gramian(jax.tree.leaves(grads["encoder"])))
    update = products(lambda grads: tx.update(grads, tx.init(PARAMS), PARAMS)[0])
    assert alone > 0.3 * update
    assert products(both) <= 1.1 * update


@pytest.mark.parametrize("by", slow_but_for(["layer"], ["layer", "matrix"]))
@pytest.mark.parametrize("call", ["cagrad(c=0.4, by={})", "upgrad(by={})", "equal_norms(by={})", "imtl_g(by={})"])
def test_each_group_is_aggregated_by_itself(call: str, by: str) -> None:
    grads, context = gradients(3), chain_context(lambda step: 0.1, PARAMS, 3)
    tx, whole = (build_chain((call.format(repr(one)),), context) for one in (by, "encoder"))
    check_chain(tx, grads, PARAMS, ("a", "b", "c"))
    found, _ = jax.jit(tx.update)(grads, tx.init(PARAMS), PARAMS)
    flat = dict(trees.leaves(found["encoder"]))
    assert len(parts(grads, by)) == (5 if by == "layer" else 11)
    for part in parts(grads, by).values():
        expected, _ = whole.update(part, whole.init(None), None)
        for path, leaf in expected.items():
            np.testing.assert_allclose(flat[path], leaf, rtol=2e-3, atol=2e-4)


def test_each_group_keeps_a_state_and_a_key_of_its_own() -> None:
    tx = build_chain(("gradvac(by='layer')",), chain_context(lambda step: 0.1, PARAMS, 3))
    state = tx.init(PARAMS)
    assert state[0].rule_state.shape == (5, 3, 3)
    for number in range(2):
        _, state = jax.jit(tx.update)(gradients(number), state, PARAMS)
    targets = np.asarray(state[0].rule_state)
    assert len({one.tobytes() for one in targets}) == 5
    drawn = mt.random_weights(by="matrix")
    alike = jax.tree.map(
        lambda leaf: jnp.broadcast_to(jnp.arange(1.0, 4.0).reshape(3, *[1] * (leaf.ndim - 1)), leaf.shape),
        gradients(0)["encoder"],
    )
    found, _ = drawn.update(alike, drawn.init(None), None)
    assert len({float(leaf.ravel()[0]) for leaf in jax.tree.leaves(found)}) == 11


def test_a_task_that_is_not_finite_in_one_group_is_left_out_of_all() -> None:
    grads = gradients(1)
    broken = jax.tree.map(jnp.array, grads)
    broken["encoder"]["pooler"]["bias"] = grads["encoder"]["pooler"]["bias"].at[2, 0].set(jnp.nan)
    rest = {**grads, "encoder": jax.tree.map(lambda leaf: leaf[:2], grads["encoder"])}
    tx = mt.mgda(by="layer")
    found, expected = (jax.jit(tx.update)(one, tx.init(PARAMS), PARAMS)[0] for one in (broken, rest))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, expected)


def test_frozen_layers_are_no_groups() -> None:
    params = {"encoder": {"pooler": PARAMS["encoder"]["pooler"]}, "heads": PARAMS["heads"]}
    tx = build_chain(("gradvac(by='layer')",), chain_context(lambda step: 0.1, params, 3))
    assert tx.init(params)[0].rule_state.shape == (1, 3, 3)
