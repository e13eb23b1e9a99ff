"""FreeLB against NumPy's ascent and a literal objective (docs/numerics.md, section 2.3)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtbert_jax.config import Config, Stage
from mtbert_jax.errors import InputError
from mtbert_jax.optim import sum_tasks
from mtbert_jax.regularizers import FreeLB, stage_regularizers
from mtbert_jax.regularizers.freelb import ascended, first_noise
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.losses import mean_loss
from mtbert_jax.training.objective import Objective, Place, StageSpec
from mtbert_jax.training.step import make_train_step
from tests.training.test_objective import KEY, Bench

PLACE = Place(jnp.int32(0), KEY, jnp.int32(0))
OPTIONS = FreeLB(step_size=0.3, start_size=0.8, max_norm=0.5, steps=3)


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Embeddings ``[3 5 4]`` and their mask ``[3 5 1]``; the last row only fills up."""
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]], np.float32)
    return np.random.default_rng(0).normal(size=(3, 5, 4)).astype("f4"), mask[:, :, None]


def numpy_ascent(noise: np.ndarray, gradient: np.ndarray, options: FreeLB) -> np.ndarray:
    """One step of algorithm 1, example by example, in float64."""
    made = []
    for own, slope in zip(noise.astype(float), gradient.astype(float), strict=True):
        length = np.sqrt((slope**2).sum())
        new = own + options.step_size * slope / length if length else own
        size = np.sqrt((new**2).sum())
        made.append(new * options.max_norm / size if options.max_norm and size > options.max_norm else new)
    return np.stack(made)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e15])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 100.0])
def test_the_ascent_is_numpys_at_every_scale(arrays: Any, scale: float, max_norm: float) -> None:
    x, mask = arrays
    options = FreeLB(step_size=0.3, max_norm=max_norm)
    noise, gradient = 0.1 * mask * x, mask * x[::-1] * np.float32(scale)
    gradient[2] = 0.0  # a row without a gradient keeps its noise
    ours = ascended(jnp.asarray(noise), jnp.asarray(gradient), options)
    np.testing.assert_allclose(ours, numpy_ascent(noise, gradient, options), rtol=2e-5, atol=1e-7)


def test_the_first_noise_is_uniform_by_the_number_of_real_tokens(arrays: Any) -> None:
    x, mask = jnp.zeros((64, 50, 8)), jnp.ones((64, 50, 1)).at[32:, 10:].set(0)
    noise = np.asarray(first_noise(KEY, x, mask, FreeLB(start_size=0.6)))
    assert (noise[32:, 10:] == 0).all()
    for rows, tokens in ((noise[:32], 50), (noise[32:, :10], 10)):
        bound = 0.6 / np.sqrt(tokens * 8)
        assert np.abs(rows).max() == pytest.approx(bound, rel=1e-2)
        assert rows.std() == pytest.approx(bound / np.sqrt(3), rel=2e-2)
        assert rows.mean() == pytest.approx(0, abs=0.03 * bound)
    assert not np.asarray(first_noise(KEY, x, mask, FreeLB(start_size=0.0))).any()


@pytest.fixture
def bench(config: Config) -> Bench:
    return Bench(config)


@pytest.mark.parametrize("task", ["sst", *(pytest.param(task, marks=pytest.mark.slow) for task in ("para", "sts"))])
def test_the_objective_and_its_gradient_are_the_formula(bench: Bench, task: str) -> None:
    """1/K Σ ℓ(x + δ_t), with the δ_t found by NumPy and held constant; the loss on record is the clean one."""
    spec, batch = bench.setup.tasks[task], bench.batches[task]
    model = bench.model

    def loss_at(params: Any, noise: Any) -> Any:
        x = model.embed(params, batch, KEY)
        logits = model.logits_of_embeddings(params, task, x + noise, batch, KEY)
        return mean_loss(kind_of(spec).loss(logits, batch.labels), batch.weights)

    loss_of, slope = jax.jit(loss_at), jax.jit(jax.grad(loss_at, argnums=1))
    mask = np.asarray(batch.attention_mask)[:, :, None].astype("f4")
    x = jax.jit(model.embed)(bench.params, batch, KEY)
    key = jax.random.fold_in(KEY, FreeLB.key_fold)
    noises = [np.asarray(first_noise(key, x, jnp.asarray(mask), OPTIONS), float)]
    for _ in range(OPTIONS.steps - 1):
        gradient = mask * np.asarray(slope(bench.params, jnp.asarray(noises[-1], jnp.float32)))
        noises.append(numpy_ascent(noises[-1], gradient, OPTIONS))
    assert np.abs(noises[-1] - noises[0]).max() > 1e-3

    def literal(params: Any) -> Any:
        return sum(loss_at(params, jnp.asarray(noise, jnp.float32)) for noise in noises) / OPTIONS.steps

    objective = Objective(model, (spec,), StageSpec(regularizers=(OPTIONS,)))
    ours = jax.jit(jax.value_and_grad(lambda params: objective(params, None, batch, PLACE), has_aux=True))
    (value, terms), grads = ours(bench.params)
    expected, wanted = jax.jit(jax.value_and_grad(literal))(bench.params)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert float(terms.penalties["freelb"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(terms.loss) == pytest.approx(float(loss_of(bench.params, 0.0)), rel=1e-5)
    assert float(terms.loss) != pytest.approx(float(expected), rel=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), grads, wanted)


def test_a_step_costs_its_passes_and_one_forward_more(bench: Bench) -> None:
    """One backward pass gives the gradients by noise and parameters: products do not double."""
    spec, batch = bench.setup.tasks["sst"], bench.batches["sst"]

    def flops(*regularizers: Any) -> float:
        objective = Objective(bench.model, (spec,), StageSpec(regularizers=regularizers))
        gradient = jax.grad(lambda params: objective(params, None, batch, PLACE)[0])
        return jax.jit(gradient).lower(bench.params).cost_analysis()["flops"]

    plain, one_pass = flops(), flops(FreeLB(steps=1))
    # A loop's body counts once: one pass forward and back, and the clean pass forward, a third of that.
    assert one_pass < 1.6 * plain


@pytest.mark.slow
def test_all_tasks_take_a_step_in_micro_batches(bench: Bench) -> None:
    """Noise is drawn by part, so micro-batches differ from the whole batch in it alone: without it they agree."""
    silent = StageSpec(regularizers=(FreeLB(step_size=0.0, start_size=0.0),))
    tx = optax.chain(sum_tasks(), optax.sgd(0.1))
    step = make_train_step(bench.model, bench.setup.tasks, tx, silent, micro_batches=2)
    grads, terms = step.gradients["sts"](bench.params, None, bench.batches["sts"], KEY, np.int32(0))
    assert float(terms.penalties["freelb"]) == pytest.approx(float(terms.loss), rel=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_size": -1.0}, "step_size must be a number of at least 0"),
        ({"start_size": float("nan")}, "start_size must be a number of at least 0"),
        ({"max_norm": float("inf")}, "max_norm must be a number of at least 0"),
        ({"steps": 0}, "steps must be from 1 to 100"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FreeLB(**options)


def test_two_that_replace_the_loss_are_refused(config: Config) -> None:
    stage: Stage = dataclasses.replace(config.resolved_stages()[0], regularizers=("rdrop()", "freelb()"))
    with pytest.raises(InputError, match="rdrop and freelb each replace the task's loss; take one of them"):
        stage_regularizers(stage)
