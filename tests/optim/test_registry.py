"""What can be registered for a config's call strings, and how it is refused."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtbert_jax as mt
from mtbert_jax.errors import InputError
from mtbert_jax.optim.chain import build_chain, check_chain
from mtbert_jax.optim.registry import AGGREGATORS, known_calls, unregister

GRADS = {"w": jnp.array([[3.0, 0.0], [0.0, 1.0]])}
PARAMS = {"w": jnp.zeros(2)}


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = dict(known_calls())
    yield
    for name in set(known_calls()) - set(before):
        unregister(name)
    assert known_calls() == before


def updates(call: str) -> list[float]:
    tx = build_chain((call,), {})
    check_chain(tx, GRADS, PARAMS)
    return tx.update(GRADS, tx.init(PARAMS), PARAMS)[0]["w"].tolist()


def register(name: str = "inverse_norms") -> Any:
    @mt.register_aggregator(name)
    def rule(gram: jax.Array, key: jax.Array, power: float = 0.5) -> jax.Array:
        return jnp.diagonal(gram) ** -power

    return rule


def test_a_rule_becomes_an_aggregator_with_options() -> None:
    rule = register()
    assert updates("inverse_norms()") == [1.0, 1.0]
    assert updates("inverse_norms(power=1.0)") == pytest.approx([1 / 3, 1.0])
    assert "inverse_norms" in AGGREGATORS
    np.testing.assert_allclose(rule(jnp.eye(2), None), [1.0, 1.0])  # still a function of its own


def test_a_rule_gets_a_fresh_key_of_its_seed_in_every_step() -> None:
    @mt.register_aggregator("random_weights")
    def rule(gram: jax.Array, key: jax.Array) -> jax.Array:
        return jax.random.uniform(key, (2,))

    assert updates("random_weights()") == updates("random_weights(seed=0)") != updates("random_weights(seed=1)")
    tx = build_chain(("random_weights()",), {})
    first, state = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert first["w"].tolist() != tx.update(GRADS, state, PARAMS)[0]["w"].tolist()


def test_a_transformation_can_be_registered() -> None:
    @mt.register_transformation("halve")
    def halve(times: int = 1) -> optax.GradientTransformation:
        return optax.scale(0.5**times)

    tx = build_chain(("sum_tasks()", "halve(2)"), {})
    assert tx.update(GRADS, tx.init(PARAMS), PARAMS)[0]["w"].tolist() == [0.75, 0.25]


def test_an_unknown_name_says_what_exists_and_how_to_add_one() -> None:
    register()
    expected = (
        r"unknown transformation 'pcgrat'; did you mean 'pcgrad'\? "
        r"\(aggregators: pcgrad, sum_tasks, mean_tasks, inverse_norms; then optax's; --plugins FILE can add one\)"
    )
    with pytest.raises(InputError, match=expected):
        build_chain(("pcgrat()",), {})


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("inverse_norms(powr=1.0)", "inverse_norms refuses its arguments: got an unexpected keyword argument 'powr'"),
        ("inverse_norms(1.0)", "inverse_norms refuses its arguments"),
        ("inverse_norms", r'write "inverse_norms\(\)"'),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_any_step(call: str, expected: str) -> None:
    register()
    with pytest.raises(InputError, match=expected):
        build_chain((call,), {})


def test_weights_of_another_shape_are_refused_before_any_step() -> None:
    @mt.register_aggregator("whole")
    def rule(gram: jax.Array, key: jax.Array) -> jax.Array:
        return gram

    with pytest.raises(InputError, match=r"aggregator whole: its rule gave an array of shape \(2, 2\) for 2 tasks"):
        updates("whole()")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("pcgrad", "exists"), ("adam", "exists"), ("my name", "need a name such as my_name"), ("", "need a name")],
)
def test_names_that_cannot_be_are_refused(name: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        register(name)
    with pytest.raises(InputError, match=expected):
        mt.register_transformation(name)(optax.scale)


def test_the_same_file_may_register_again_and_another_may_not() -> None:
    register()
    rule = register()
    rule.__module__ = "elsewhere"
    with pytest.raises(InputError, match="'inverse_norms' cannot be registered: a transformation of that name exists"):
        mt.register_aggregator("inverse_norms")(rule)
