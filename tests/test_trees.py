"""Parameter trees by path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbert_jax import trees

TREE = {
    "encoder": {"layer_1": {"kernel": np.ones((2, 3)), "bias": np.zeros(3)}, "layer_10": {"bias": np.zeros(4)}},
    "heads": {"sst": {"kernel": np.ones((3, 5))}},
}
LEAVES = ["encoder/layer_1/bias", "encoder/layer_1/kernel", "encoder/layer_10/bias", "heads/sst/kernel"]

nested = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, min_size=1, max_size=3)
).filter(lambda tree: isinstance(tree, dict))


def test_paths_name_every_leaf_in_the_order_of_jax_leaves() -> None:
    assert trees.paths(TREE) == LEAVES
    shapes = [leaf.shape for leaf in jax.tree.leaves(TREE)]
    assert shapes == [(3,), (2, 3), (4,), (3, 5)]


@pytest.mark.parametrize(
    ("path", "prefix", "below"),
    [
        ("encoder", "encoder", True),
        ("encoder/layer_1/bias", "encoder", True),
        ("encoder/layer_10/bias", "encoder/layer_1", False),
        ("encoder_two/bias", "encoder", False),
        ("heads/sst", "heads/sst/kernel", False),
    ],
)
def test_is_below_compares_whole_names(path: str, prefix: str, below: bool) -> None:
    assert trees.is_below(path, prefix) is below


def test_mask_says_of_each_leaf_what_keep_says_of_its_path() -> None:
    masked = trees.mask(TREE, lambda path: path.endswith("kernel"))
    assert masked == {
        "encoder": {"layer_1": {"kernel": True, "bias": False}, "layer_10": {"bias": False}},
        "heads": {"sst": {"kernel": True}},
    }


def test_split_takes_what_lies_below_the_prefixes_and_leaves_empty_branches_out() -> None:
    below, rest = trees.split(TREE, ["encoder/layer_1", "heads"])
    assert trees.paths(below) == ["encoder/layer_1/bias", "encoder/layer_1/kernel", "heads/sst/kernel"]
    assert trees.paths(rest) == ["encoder/layer_10/bias"]
    assert "heads" not in rest


def test_split_without_prefixes_leaves_everything_in_the_rest() -> None:
    below, rest = trees.split(TREE, [])
    assert below == {}
    assert trees.paths(rest) == LEAVES


def test_split_can_take_its_prefixes_from_a_generator() -> None:
    below, _ = trees.split(TREE, (name for name in ["heads"]))
    assert trees.paths(below) == ["heads/sst/kernel"]


@given(nested, st.lists(st.text("abc/", max_size=4), max_size=3))
def test_merge_puts_together_what_split_took_apart(tree: dict, prefixes: list[str]) -> None:
    below, rest = trees.split(tree, prefixes)
    assert trees.merge(below, rest) == tree
    assert not set(trees.paths(below)) & set(trees.paths(rest))


@pytest.mark.parametrize("choose_new", [True, False])
def test_select_with_a_python_bool_hands_back_one_of_the_trees_itself(choose_new: bool) -> None:
    new, old = {"a": np.ones(2)}, {"a": np.zeros(2)}
    assert trees.select(choose_new, new, old) is (new if choose_new else old)


@pytest.mark.parametrize("choose_new", [True, False])
def test_select_on_the_device_chooses_every_leaf(choose_new: bool) -> None:
    new, old = {"a": jnp.ones(2), "b": {"c": jnp.array(3)}}, {"a": jnp.zeros(2), "b": {"c": jnp.array(4)}}
    chosen = jax.jit(trees.select)(jnp.array(choose_new), new, old)
    assert chosen["a"].tolist() == [float(choose_new)] * 2
    assert int(chosen["b"]["c"]) == (3 if choose_new else 4)


def test_select_never_lets_a_nan_of_the_other_tree_through() -> None:
    chosen = trees.select(jnp.array(False), {"a": jnp.array(np.nan)}, {"a": jnp.array(1.0)})
    assert float(chosen["a"]) == 1.0


def test_count_is_the_number_of_scalars() -> None:
    assert trees.count(TREE) == 3 + 6 + 4 + 15
    assert trees.count({}) == 0
