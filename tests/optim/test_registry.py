"""What can be registered for a config's call strings, and how it is refused."""

import inspect
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import mtbert_jax as mt
from mtbert_jax.config import Config
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
    def rule(gram: jax.Array, state: Any, key: jax.Array, losses: jax.Array, power: float = 0.5) -> Any:
        return jnp.diagonal(gram) ** -power, state

    return rule


def test_a_rule_becomes_an_aggregator_with_options() -> None:
    make = register()
    assert updates("inverse_norms()") == [1.0, 1.0]
    assert updates("inverse_norms(power=1.0)") == updates("inverse_norms(1.0, seed=3)") == pytest.approx([1 / 3, 1.0])
    assert AGGREGATORS["inverse_norms"] is make
    tx = make(power=1.0)  # the decorator's function is the factory, as the library's own are
    assert tx.update(GRADS, tx.init(PARAMS), PARAMS)[0]["w"].tolist() == pytest.approx([1 / 3, 1.0])


def test_a_rule_gets_a_fresh_key_of_its_seed_in_every_step() -> None:
    @mt.register_aggregator("drawn_anew")
    def rule(gram: jax.Array, state: Any, key: jax.Array, losses: jax.Array) -> Any:
        return jax.random.uniform(key, (2,)), state

    assert updates("drawn_anew()") == updates("drawn_anew(seed=0)") != updates("drawn_anew(seed=1)")
    tx = build_chain(("drawn_anew()",), {})
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
        rf"\(aggregators: {', '.join(sorted(AGGREGATORS))}; then optax's; --plugins FILE can add one\)"
    )
    assert "inverse_norms" in AGGREGATORS
    with pytest.raises(InputError, match=expected):
        build_chain(("pcgrat()",), {})


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("inverse_norms(powr=1.0)", "inverse_norms refuses its arguments: got an unexpected keyword argument 'powr'"),
        ("inverse_norms(1.0, 0, 2)", "inverse_norms refuses its arguments: too many positional arguments"),
        ("inverse_norms(power='much')", "inverse_norms refuses its arguments"),
        ("inverse_norms", r'write "inverse_norms\(\)"'),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_any_step(call: str, expected: str) -> None:
    register()
    with pytest.raises(InputError, match=expected):
        build_chain((call,), {})


def test_weights_of_another_shape_are_refused_before_any_step() -> None:
    @mt.register_aggregator("whole")
    def rule(gram: jax.Array, state: Any, key: jax.Array, losses: jax.Array) -> Any:
        return gram, state

    with pytest.raises(InputError, match=r"aggregator whole: its rule gave an array of shape \(2, 2\) for 2 tasks"):
        updates("whole()")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (lambda gram, state, key, losses: losses, r"aggregator odd: its rule must return a pair, \(weights, state\)"),
        (
            lambda gram, state, key, losses: (losses, losses),
            "aggregator odd: its rule changes the shape or type of its",
        ),
        (lambda gram, state, key, losses: (1j * losses, state), "aggregator odd: its rule gave complex weights"),
    ],
)
def test_what_a_rule_returns_is_checked_when_the_aggregator_is_made(rule: Any, expected: str) -> None:
    make = mt.register_aggregator("odd")(rule)
    with pytest.raises(InputError, match=expected):
        make()


@pytest.mark.parametrize(
    "rule",
    [lambda gramian, key: gramian[0], lambda gram, state, key, losses, seed: losses, 5],
    ids=["of old", "seed", "number"],
)
def test_a_function_that_is_no_rule_is_refused_at_once(rule: Any) -> None:
    with pytest.raises(InputError, match=r"aggregator odd: a rule takes \(gramian, state, key, losses\), then options"):
        mt.register_aggregator("odd")(rule)
    assert "odd" not in known_calls()


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        (lambda num_tasks, zz: jnp.zeros(num_tasks), "missing a required argument: 'zz'"),
        (lambda: jnp.zeros(2), "too many positional arguments"),
        (3, "3 is not a callable object"),
    ],
)
def test_a_first_state_that_cannot_be_made_is_refused_at_once(init: Any, expected: str) -> None:
    message = f"aggregator odd: init takes the number of tasks, then options of the rule by their names: {expected}"
    with pytest.raises(InputError, match=message):
        mt.register_aggregator("odd", init=init)(lambda gram, state, key, losses, power=0.5: (losses, state))
    assert "odd" not in known_calls()


def test_a_first_state_may_have_parameters_of_its_own() -> None:
    make = mt.register_aggregator("odd", init=jnp.zeros)(lambda gram, state, key, losses: (losses, state))
    assert make(num_tasks=3).init(None).rule_state.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("pcgrad", "exists"), ("adam", "exists"), ("my name", "need a name such as my_name"), ("", "need a name")],
)
def test_names_that_cannot_be_are_refused(name: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        register(name)
    with pytest.raises(InputError, match=expected):
        mt.register_transformation(name)(optax.scale)


def test_what_is_no_function_is_no_transformation() -> None:
    with pytest.raises(InputError, match="'odd' cannot be registered: it must be a function that returns a transf"):
        mt.register_transformation("odd")(5)  # type: ignore[type-var]
    assert "odd" not in known_calls()


def test_the_same_file_may_register_again_and_another_may_not() -> None:
    register()
    rule = register().rule
    rule.__module__ = "elsewhere"
    with pytest.raises(InputError, match="'inverse_norms' cannot be registered: a transformation of that name exists"):
        mt.register_aggregator("inverse_norms")(rule)


def test_the_optimizers_help_names_every_aggregator_of_the_library() -> None:
    described = inspect.getsource(Config).partition("optimizer: ")[2].partition("    lr: ")[0]
    named = " ".join(described.split()).partition("which make one gradient of the tasks': ")[2].removesuffix('."""')
    assert named.split(", ") == sorted(AGGREGATORS)
