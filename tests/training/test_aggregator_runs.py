"""Runs with aggregators that keep a state or weigh losses: resumed to the bit, and heads with their tasks' weights."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import mtbert_jax as mt
from mtbert_jax import trees
from mtbert_jax.config import Config
from mtbert_jax.errors import InputError
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.training.plan import make_plans
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import make_train_step
from tests.training.test_fit import Quiet, assert_same_run, run
from tests.training.test_objective import Bench
from tests.training.test_regularized_runs import restored


@pytest.mark.slow
def test_weights_that_are_trained_and_smoothed_are_resumed_to_the_bit(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(config, optimizer=("smoothed(famo(lr=0.1), alpha=0.5)", "adam(lr)"))
    whole = run(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(config, tmp_path / "parts", display=Quiet(at=4))
    parts = run(config, tmp_path / "parts", resume=True)
    assert_same_run(config, whole, parts, 6)
    states = [restored(config, whole, step).opt_state[0].rule_state for step in (3, 6)]
    assert states[1].inner.logits.steps.tolist() == [5, 5, 5]  # the first step has no losses before it
    for of in (lambda state: state.weights, lambda state: state.inner.logits.value, lambda state: state.inner.logs):
        assert (np.asarray(of(states[0])) != np.asarray(of(states[1]))).all()
    other = restored(config, parts, 6).opt_state[0].rule_state
    jax.tree.map(np.testing.assert_array_equal, states[1], other)


@pytest.mark.slow
def test_states_of_layers_are_resumed_to_the_bit(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(config, optimizer=("gradvac(by='layer')", "adam(lr)"))
    whole = run(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(config, tmp_path / "parts", display=Quiet(at=3))
    assert_same_run(config, whole, run(config, tmp_path / "parts", resume=True), 6)
    targets = np.asarray(restored(config, whole, 6).opt_state[0].rule_state)
    encoder = Setup.load(config, Path(config.encoder)).abstract_params()
    assert len(targets) == len({trees.part_of_encoder(f"encoder/{path}") for path in trees.paths(encoder["encoder"])})
    assert (np.abs(targets).sum((1, 2)) > 0).all()


def test_in_a_step_a_head_goes_by_its_tasks_weight(config: Config) -> None:
    """GLS over SGD: every parameter of a head moves by GLS / (T L_i) times its task's gradient."""
    bench = Bench(config)
    tx = optax.chain(mt.gls(), optax.sgd(1.0))
    step = make_train_step(bench.model, bench.setup.tasks, tx)
    grads = {
        name: step.gradients[name](bench.params, None, batch, jax.random.key(0), np.int32(0))[0]
        for name, batch in bench.batches.items()
    }
    state = TrainState.create(jax.tree.map(np.copy, bench.params), tx, jax.random.key(0))
    new, metrics = step(state, dict(bench.batches))
    losses = {name: float(loss) for name, loss in metrics.losses.items()}
    mean = np.exp(np.mean(np.log(list(losses.values()))))

    def moved(after: Any, before: Any, gradient: Any, factor: float) -> None:
        np.testing.assert_allclose(after, before - factor * gradient, atol=1e-5)

    for name, loss in losses.items():
        of = lambda tree, name=name: tree["heads"][name]  # noqa: E731
        factor = mean / (3 * loss)
        args = of(new.params), of(bench.params), of(grads[name])
        jax.tree.map(lambda *leaves, factor=factor: moved(*leaves, factor), *args)
        assert abs(factor - 1) > 0.05


def test_wrong_options_and_groupings_are_refused_before_any_step(config: Config) -> None:
    bench = Bench(config)
    for call, message in (
        ("stch(weights=[1.0, 2.0])", r"optimizer\[0\] = .*: weights has 2 numbers for 3 tasks in a step"),
        ("famo(by='layer')", r"optimizer\[0\] = .*: by = 'layer': aggregator famo weighs losses"),
        ("smoothed('cagrad')", r"optimizer\[0\] = .*: smoothed takes an aggregator, as in smoothed\(cagrad\(c=0.4\)\)"),
        ("smoothed(cagrad)", r"optimizer\[0\] = .*: 'cagrad' must be called: cagrad\(...\)"),
    ):
        setup: Setup = bench.setup.with_config(dataclasses.replace(config, optimizer=(call, "adam(lr)")))
        with pytest.raises(InputError, match=message):
            make_plans(setup, setup.datasets("train"))
