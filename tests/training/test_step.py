"""One optimizer step against literal formulas."""

import dataclasses
from operator import itemgetter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtbert_jax import trees
from mtbert_jax.config import Config, ProximalConfig, SmartConfig
from mtbert_jax.encoders.hub import load_pretrained
from mtbert_jax.optim import mgda, pcgrad, sum_tasks
from mtbert_jax.optim.headwise import chain
from mtbert_jax.regularizers import Proximal, Smart
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.losses import mean_loss
from mtbert_jax.training.gradient import micro_parts
from mtbert_jax.training.objective import StageSpec, shares
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import TrainStep, make_train_step
from mtbert_jax.types import Batch, FeatureBatch, Params
from tests.cases import slow_but_for
from tests.conftest import replace_task, tiny_run

SGD = optax.sgd(0.1)
DESCENT = optax.chain(sum_tasks(), SGD)
SURGERY = optax.chain(pcgrad(), SGD)
SUMMED_ADAM = optax.chain(sum_tasks(), optax.adam(1e-2))
"""Made once, since an update is compiled for every chain that is made."""


class Bench:
    """A tiny run, dropout off, with the batches of its first step."""

    def __init__(self, config: Config) -> None:
        for task in config.tasks:
            config = replace_task(config, task.name, head=dataclasses.replace(task.head, dropout=0.0))
        self.setup = Setup.load(dataclasses.replace(config, encoder_dropout=0.0), Path(config.encoder))
        self.params = self.setup.initial_params(load_pretrained(config.encoder)[1])
        train = self.setup.datasets("train")
        self.batches = self.setup.batches(0, config.resolved_stages()[0], train)[0]

    def step(self, tx: optax.GradientTransformation, frozen: tuple[str, ...] = ()) -> tuple[TrainStep, TrainState]:
        copy = jax.tree.map(jnp.copy, self.params)  # the step donates its state
        state = TrainState.create(copy, tx, jax.random.key(0), frozen)
        return make_train_step(self.setup.model, self.setup.tasks, tx, StageSpec(frozen)), state

    def loss(self, params: Params, name: str, batch: Batch) -> Any:
        logits = self.setup.model.logits(params, name, batch)
        return mean_loss(kind_of(self.setup.tasks[name]).loss(logits, batch.labels), batch.weights)


@pytest.fixture(scope="module")
def bench(small_encoder_dir: Path, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tiny_run(small_encoder_dir, data_dir, tmp_path_factory.mktemp("bench")))


def assert_close(a: Any, b: Any, tolerance: float = 1e-6) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance, rtol=1e-5), a, b)


def assert_equal(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_sum_tasks_is_descent_on_the_sum_of_the_losses(bench: Bench) -> None:
    step, state = bench.step(DESCENT)
    new, metrics = step(state, bench.batches)

    def total(params: Params) -> Any:
        return sum(bench.loss(params, name, batch) for name, batch in bench.batches.items())

    expected = jax.tree.map(lambda p, g: p - 0.1 * g, bench.params, jax.jit(jax.grad(total))(bench.params))
    assert_close(new.params, expected)
    for name, batch in bench.batches.items():
        np.testing.assert_allclose(metrics.losses[name], bench.loss(bench.params, name, batch), rtol=1e-5)
    assert int(new.step) == 1


def test_pcgrad_projects_the_encoder_and_leaves_the_heads(bench: Bench) -> None:
    """docs/numerics.md, section 3: surgery on the shared parameters, heads keep their own gradient."""
    names = ("sst", "sts")
    step, state = bench.step(optax.chain(pcgrad(), optax.sgd(1.0)))
    new, metrics = step(state, {name: bench.batches[name] for name in names})
    gradient = jax.jit(jax.grad(bench.loss), static_argnums=1)
    grads = {name: gradient(bench.params, name, bench.batches[name]) for name in names}
    flat = {name: jnp.concatenate([g.ravel() for g in jax.tree.leaves(grads[name]["encoder"])]) for name in names}
    a, b = flat["sst"], flat["sts"]
    dot = a @ b
    np.testing.assert_allclose(
        metrics.cosines, [[1, c := dot / jnp.linalg.norm(a) / jnp.linalg.norm(b)], [c, 1]], atol=1e-4
    )
    weight = {"sst": 1 - min(dot, 0) / (a @ a), "sts": 1 - min(dot, 0) / (b @ b)}
    for path, new_leaf in trees.flatten_dict(new.params["encoder"], sep="/").items():
        old = trees.flatten_dict(bench.params["encoder"], sep="/")[path]
        update = sum(weight[n] * trees.flatten_dict(grads[n]["encoder"], sep="/")[path] for n in names)
        np.testing.assert_allclose(new_leaf, old - update, atol=2e-5, err_msg=path)
    for name in names:
        head, gradient = bench.params["heads"][name], grads[name]["heads"][name]
        assert_close(new.params["heads"][name], jax.tree.map(lambda p, g: p - g, head, gradient), 1e-5)
    assert_equal(new.params["heads"]["para"], bench.params["heads"]["para"])


def test_a_head_without_a_batch_keeps_its_parameters_and_statistics(bench: Bench) -> None:
    step, state = bench.step(optax.adamw(1e-2, weight_decay=0.1))
    state, _ = step(state, {"sst": bench.batches["sst"]})
    own = jax.tree.map(np.asarray, state.opt_state.state[0].mu["heads"]["sst"])
    head = jax.tree.map(np.asarray, state.params["heads"]["sst"])
    encoder = jax.tree.map(np.asarray, state.params["encoder"])
    state, _ = step(state, {"para": bench.batches["para"]})
    assert_equal(state.opt_state.state[0].mu["heads"]["sst"], own)
    counts = {head: int(count) for head, (count,) in state.opt_state.clocks.items()}
    assert counts == {"sst": 1, "para": 1, "sts": 0}
    assert int(state.opt_state.state[0].count) == 2
    assert_equal(state.params["heads"]["sst"], head)
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (state.params["encoder"], encoder)), strict=True))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_task_with_a_bad_loss_is_left_out_and_counted(bench: Bench, bad: float) -> None:
    broken = dict(bench.batches)
    broken["sts"] = broken["sts"]._replace(labels=np.full_like(broken["sts"].labels, bad))
    step, state = bench.step(SUMMED_ADAM)
    new, metrics = step(state, broken)
    assert {name: bool(ok) for name, ok in metrics.finite.items()} == {"sst": True, "para": True, "sts": False}
    other_step, other = bench.step(SUMMED_ADAM)
    expected, _ = other_step(other, {name: bench.batches[name] for name in ("sst", "para")})
    assert_close(new.params["encoder"], expected.params["encoder"])
    assert_equal(new.params["heads"]["sts"], bench.params["heads"]["sts"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(new.params))


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize(
    "links",
    [
        pytest.param((mgda(), optax.sgd(0.1)), id="an aggregator first"),
        pytest.param(
            (optax.clip_by_global_norm(1.0), sum_tasks(), optax.sgd(0.1)),
            id="another link first",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_task_is_left_out_whatever_of_it_is_not_finite(
    bench: Bench, links: tuple[optax.GradientTransformation, ...], what: str
) -> None:
    step, state = bench.step(chain(*links))
    found = {
        name: step.gradients[name](state.params, None, batch, state.key, state.step)
        for name, batch in bench.batches.items()
    }
    grads, terms = ({name: pair[place] for name, pair in found.items()} for place in (0, 1))
    rest = [name for name in found if name != "para"]
    two, expected = bench.step(chain(*links))
    expected, _ = two.update(*expected.parted(), *({name: all_of[name] for name in rest} for all_of in (grads, terms)))
    if what == "loss":
        terms["para"] = terms["para"]._replace(loss=jnp.array(jnp.nan))
    else:
        word = grads["para"]["encoder"]["embeddings"]["word"]
        word["embedding"] = word["embedding"].at[3, 2].set(jnp.inf)
    new, metrics = step.update(*state.parted(), grads, terms)
    assert {name for name, ok in metrics.finite.items() if ok} == set(rest)
    assert_close(new.params["encoder"], expected.params["encoder"])
    assert_equal(new.params["heads"]["para"], bench.params["heads"]["para"])
    place = list(metrics.losses).index("para")
    for cosines in (metrics.cosines, *metrics.layers.values()):
        assert not np.asarray(cosines)[place].any() and np.isfinite(np.asarray(cosines)).all()


def test_a_step_with_no_good_task_changes_nothing_but_its_number(bench: Bench) -> None:
    step, state = bench.step(optax.adam(1e-2))
    sts = bench.batches["sts"]
    new, _ = step(state, {"sts": sts._replace(labels=np.full_like(sts.labels, np.nan))})
    assert_equal(new.params, bench.params)
    assert int(new.opt_state.state[0].count) == 0
    assert not any(counts[0] for counts in new.opt_state.clocks.values())
    assert int(new.step) == 1


FROZEN = [("encoder",), ("encoder/embeddings", "encoder/layer_0"), ("heads/para",)]


@pytest.mark.parametrize("frozen", slow_but_for(FROZEN[1:], FROZEN))
def test_what_is_frozen_stays_bit_identical_and_has_no_optimizer_state(bench: Bench, frozen: tuple[str, ...]) -> None:
    step, state = bench.step(optax.chain(pcgrad(), optax.adamw(1e-2, weight_decay=0.1)), frozen)
    new, metrics = step(state, bench.batches)
    fixed, free = trees.split(new.params, frozen)
    assert_equal(fixed, trees.split(bench.params, frozen)[0])
    changed = zip(*map(jax.tree.leaves, (free, trees.split(bench.params, frozen)[1])), strict=True)
    assert any((a != b).any() for a, b in changed)
    moments = trees.paths(new.opt_state.state[1][0].mu)
    assert not any(trees.is_below(path, prefix) for path in moments for prefix in frozen)
    assert (metrics.cosines is None) == (frozen == ("encoder",))


def test_loss_weight_scales_the_gradient_and_not_the_reported_loss(config: Config) -> None:
    results = []
    for weight in (1.0, 3.0):
        bench = Bench(replace_task(config, "sst", loss_weight=weight))
        step, state = bench.step(SGD)
        results.append(step(state, {"sst": bench.batches["sst"]}))
    (one, first), (three, second) = results
    assert float(first.losses["sst"]) == float(second.losses["sst"])
    start = bench.params["heads"]["sst"]["output"]["kernel"]
    moved = [state.params["heads"]["sst"]["output"]["kernel"] - start for state in (one, three)]
    np.testing.assert_allclose(moved[1], 3.0 * moved[0], atol=1e-6)


def test_rows_of_weight_zero_have_no_part(bench: Bench) -> None:
    batch = bench.batches["sst"]
    half = batch._replace(weights=np.array([1, 1, 0, 0], np.float32))
    other = half._replace(labels=half.labels * np.array([1, 1, 0, 0], np.float32))
    results = []
    for variant in (half, other):
        step, state = bench.step(SGD)
        results.append(step(state, {"sst": variant})[0].params)
    assert_equal(*results)


def test_dropout_changes_from_step_to_step_and_repeats_for_the_same(config: Config) -> None:
    setup = Setup.load(config, Path(config.encoder))
    params = setup.initial_params(load_pretrained(config.encoder)[1])
    batch = setup.batches(0, config.resolved_stages()[0], setup.datasets("train"))[0]["sst"]
    gradient = make_train_step(setup.model, setup.tasks, SGD).gradients["sst"]
    losses = [float(gradient(params, None, batch, jax.random.key(1), step)[1].loss) for step in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.usefixtures("fresh_programs")
def test_each_task_and_length_is_compiled_once(bench: Bench) -> None:
    step, state = bench.step(DESCENT)
    for _ in range(3):
        state, _ = step(state, bench.batches)
    assert step.compiled_shapes == 2  # one gradient for all three tasks, one update


@pytest.mark.parametrize("number", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_micro_batches_give_the_gradient_of_the_whole_batch(config: Config, number: int) -> None:
    """Task gradients add up before surgery: unequal numbers of examples, weights per class, a teacher, fillers."""
    config = replace_task(config, "sst", class_weights=(1.0, 2.0, 5.0, 0.5, 1.0), batch_size=3)
    bench = Bench(dataclasses.replace(config, micro_batches=number))
    teacher = jax.tree.map(lambda leaf: leaf + 0.1, bench.params)
    stage = StageSpec(regularizers=(Proximal(ProximalConfig(weight=2.0)),))
    ends = []
    for parts in (1, number):
        state = TrainState.create(jax.tree.map(jnp.copy, bench.params), SURGERY, jax.random.key(0))
        state = state._replace(teacher=jax.tree.map(jnp.copy, teacher))
        step = make_train_step(bench.setup.model, bench.setup.tasks, SURGERY, stage, micro_batches=parts)
        ends.append(step(state, bench.batches))
    (whole, told), (parted, told_in_parts) = ends
    assert bench.batches["sst"].weights.shape == (4,)
    assert_close(whole.params, parted.params, 1e-5)
    assert_close(told, told_in_parts, 1e-5)


def test_shares_of_the_smoothness_of_micro_batches_add_up() -> None:
    """A mean over the batch is a weighted sum of the parts' means; smart-pytorch's sum over the batch is a sum."""
    weights = jnp.array([0.5, 2.0, 1.0, 1.0, 3.0, 0.0, 0.0, 0.0])
    batch = FeatureBatch(jnp.arange(16.0).reshape(8, 2), jnp.zeros(8), weights)
    parts = micro_parts(batch, 2)
    assert parts.features[1, :, 0].tolist() == [2.0, 6.0, 10.0, 14.0]
    found = [shares(batch, jax.tree.map(itemgetter(n), parts)) for n in range(2)]
    assert [float(share.weight) for share in found] == pytest.approx([4.5 / 7.5, 3.0 / 7.5])
    assert [float(share.examples) for share in found] == pytest.approx([3 / 5, 2 / 5])


@pytest.mark.slow
@pytest.mark.parametrize("regularizers", [(), (Smart(SmartConfig(weight=1.0, noise_std=0.1)),)], ids=["plain", "smart"])
def test_layers_computed_again_give_the_same_step(config: Config, regularizers: tuple[Any, ...]) -> None:
    """Dropout on: the masks are drawn again, too."""
    ends = []
    for remat in (False, True):
        setup = Setup.load(dataclasses.replace(config, remat=remat), Path(config.encoder))
        params = setup.initial_params(load_pretrained(config.encoder)[1])
        batches = setup.batches(0, config.resolved_stages()[0], setup.datasets("train"))[0]
        stage = StageSpec(regularizers=regularizers)
        step = make_train_step(setup.model, setup.tasks, SURGERY, stage)
        ends.append(step(TrainState.create(params, SURGERY, jax.random.key(0)), batches)[0].params)
        if remat:
            index = np.int32(0)
            key = jax.random.key(0)
            jaxpr = step.programs[0].trace(index, ends[0], None, batches["sst"], key, np.int32(0)).jaxpr  # type: ignore
            assert "checkpoint" in str(jaxpr) or "remat" in str(jaxpr)
    assert_close(*ends)
