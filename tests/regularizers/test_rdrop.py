"""R-Drop against its formula, alone and beside SMART (docs/numerics.md, section 2.3)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax.config import Config, HeadConfig
from mtbert_jax.errors import InputError
from mtbert_jax.regularizers import RDrop, Smart
from mtbert_jax.tasks import kind_of
from mtbert_jax.training.objective import Objective, Place, StageSpec
from tests.conftest import replace_task
from tests.training.test_objective import KEY, SMART, Bench

PLACE = Place(jnp.int32(0), KEY, jnp.int32(0))


@pytest.fixture
def bench(config: Config) -> Bench:
    return Bench(replace_task(config, "sst", class_weights=(1.0, 2.0, 5.0, 0.5, 1.0)))


@pytest.mark.parametrize("task", ["sst", *(pytest.param(task, marks=pytest.mark.slow) for task in ("para", "sts"))])
def test_the_objective_and_its_gradient_are_the_formula(bench: Bench, task: str) -> None:
    """½ (ℓ₁ + ℓ₂) + α ½ (KL(P₁ ‖ P₂) + KL(P₂ ‖ P₁)), of two passes under two sets of dropout masks."""
    stage, batch = StageSpec(regularizers=(RDrop(weight=0.7),)), bench.batches[task]
    spec = bench.setup.tasks[task]

    def ours(params: Any) -> Any:
        return Objective(bench.model, (spec,), stage)(params, None, batch, PLACE)

    def literal(params: Any) -> Any:
        keys = KEY, jax.random.fold_in(KEY, RDrop.key_fold)
        one, two = (bench.model.logits(params, task, batch, key) for key in keys)
        kind = kind_of(spec)
        losses = [jnp.sum(kind.loss(z, batch.labels) * batch.weights) / batch.weights.sum() for z in (one, two)]
        if spec.kind == "regression":
            distance = jnp.square(one - two)[:, 0]
        else:
            pair = (one, two) if spec.kind == "classification" else (jnp.pad(x, [(0, 0), (1, 0)]) for x in (one, two))
            log_p, log_q = (jax.nn.log_softmax(x) for x in pair)
            distance = 0.5 * ((jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q)).sum(-1)
        return 0.5 * sum(losses) + 0.7 * distance.mean(), (*losses, distance.mean())

    (value, terms), grads = jax.jit(jax.value_and_grad(ours, has_aux=True))(bench.params)
    (expected, (first, second, distance)), wanted = jax.jit(jax.value_and_grad(literal, has_aux=True))(bench.params)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert float(terms.loss) == pytest.approx(float(first), rel=1e-5)
    assert float(terms.penalties["second_loss"]) == pytest.approx(float(second), rel=1e-5)
    assert float(terms.penalties["rdrop"]) == pytest.approx(float(distance), rel=1e-4)
    assert float(distance) > 1e-6
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), grads, wanted)


def beside_smart(bench: Bench, of: Callable[[Callable[[Any], Any]], Any]) -> tuple[Any, Any, Any, Any]:
    """What `of` says of the objective without a regulariser, with SMART, with R-Drop, and with both."""
    batch = bench.batches["sst"]
    smart, rdrop = Smart(dataclasses.replace(SMART, weight=1.0)), RDrop(0.5)

    def said(*regularizers: Any) -> Any:
        objective = Objective(bench.model, (bench.setup.tasks["sst"],), StageSpec(regularizers=regularizers))
        return of(lambda params: objective(params, None, batch, PLACE))

    return said(), said(smart), said(rdrop), said(smart, rdrop)


def test_beside_smart_both_read_the_same_clean_pass(bench: Bench) -> None:
    """The traced program has one pass fewer than both have apart."""
    products = lambda objective: str(jax.make_jaxpr(objective)(bench.params)).count("dot_general")  # noqa: E731
    plain, alone, apart, both = beside_smart(bench, products)
    assert both == alone + apart - plain


@pytest.mark.slow
def test_beside_smart_the_objective_is_the_sum_of_both(bench: Bench) -> None:
    def terms(objective: Callable[[Any], Any]) -> tuple[float, dict[str, float]]:
        value, found = jax.jit(objective)(bench.params)
        return float(value), {name: float(value) for name, value in found.penalties.items()}

    plain, alone, apart, both = beside_smart(bench, terms)
    assert both[0] == pytest.approx(alone[0] + apart[0] - plain[0], rel=1e-5)
    assert both[1] == pytest.approx(alone[1] | apart[1], rel=1e-5)


def test_without_dropout_nothing_is_added(config: Config) -> None:
    config = replace_task(config, "sst", head=HeadConfig(dropout=0.0))
    bench = Bench(dataclasses.replace(config, encoder_dropout=0.0))
    objective = Objective(bench.model, (bench.setup.tasks["sst"],), StageSpec(regularizers=(RDrop(3.0),)))
    value, terms = jax.jit(objective)(bench.params, None, bench.batches["sst"], PLACE)
    assert float(terms.penalties["rdrop"]) == 0.0
    assert float(value) == pytest.approx(float(terms.loss), rel=1e-6)


@pytest.mark.parametrize("weight", [-0.1, float("inf"), float("nan")])
def test_a_weight_that_is_no_factor_is_refused(weight: float) -> None:
    with pytest.raises(InputError, match="weight must be a number of at least 0"):
        RDrop(weight)
