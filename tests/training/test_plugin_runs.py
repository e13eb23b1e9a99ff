"""Runs with an aggregator or a regulariser of one's own: its formula, its records, its state in checkpoints."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtbert_jax as mt
from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, ProximalConfig, SmartConfig, save_config
from mtbert_jax.errors import InputError
from mtbert_jax.export.card import _training
from mtbert_jax.plugins import run_plugins
from mtbert_jax.regularizers import REGULARIZERS, Proximal, Smart
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.training.objective import StageSpec, task_groups
from mtbert_jax.training.plan import make_plans
from mtbert_jax.training.records import read_metrics
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import make_train_step
from tests.conftest import replace_task
from tests.plugins import forgetting, write
from tests.training.test_fit import Quiet, assert_same_run, run
from tests.training.test_objective import Bench
from tests.training.test_regularized_runs import restored


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    with forgetting():
        yield


def plugin(name: str, folder: Path) -> Path:
    """Runs a plugin from a file in `folder`."""
    path = write(f"{name}.py", folder)
    run_plugins([path])
    return path


# R3F


@pytest.mark.slow
def test_r3f_trains_from_the_command_line_and_is_on_record(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, flags = tmp_path / "tiny.toml", ["--plugins", str(write("r3f.py", tmp_path))]
    config = dataclasses.replace(config, steps=2, log_every_steps=1, micro_batches=2, regularizers=("r3f(size=0.1)",))
    save_config(config, path)
    assert main(["train", str(path), "--dry-run", *flags]) == 0
    assert "stage train: 2 steps, round_robin, r3f(weight=1.0, size=0.1): pcgrad()" in capsys.readouterr().out
    assert main(["train", str(path), *flags]) == 0
    records = [record for record in read_metrics(Path(config.out) / "metrics.jsonl") if record["kind"] == "train"]
    assert [record["step"] for record in records] == [1, 2]
    for record in records:
        assert set(record["r3f"]) == {"sst", "para", "sts"}
        assert min(record["r3f"].values()) > 0
    assert main(["report", config.out]) == 0
    page = (Path(config.out) / "report.html").read_text(encoding="utf-8")
    assert "R3F: distance under random noise" in page
    del REGULARIZERS["r3f"]
    capsys.readouterr()
    # What only reads a run needs no plugin; what trains does.
    assert main(["report", config.out]) == 0
    assert ">r3f<" in (Path(config.out) / "report.html").read_text(encoding="utf-8")
    assert main(["evaluate", config.out]) == 0
    capsys.readouterr()
    assert main(["train", str(path), "--resume"]) == 2
    assert "regularizers[0] = 'r3f(size=0.1)': unknown regularizer 'r3f'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (lambda forward: {"other": mt.Penalty(forward.mean_loss(forward.logits), 1.0)}, "it gives 'other', which its"),
        (lambda forward: {"broken": forward.mean_loss(forward.logits)}, "'broken' is no Penalty of one number"),
        (lambda forward: {"broken": mt.Penalty(forward.real, 1.0)}, "'broken' is no Penalty of one number"),
        (lambda forward: {"broken": mt.Penalty(1.0, jnp.ones(3))}, "'broken' is no Penalty of one number and its wei"),
        (lambda forward: {"broken": mt.Penalty(1.0, "1")}, "'broken' is no Penalty of one number and its weight"),
        (lambda forward: {"broken": mt.Penalty(None, 1.0)}, "'broken' is no Penalty of one number and its weight"),
        (lambda forward: None, "penalty returns None; it must be a dict of mt.Penalty by title"),
        (lambda forward: forward.no_such_thing, "AttributeError: 'Forward' object has no attribute 'no_such_thing'"),
        (lambda forward: sys.exit(0), "SystemExit: 0"),
        (lambda forward: forward.teacher_logits(), "ValueError: there is no teacher; a regularizer that reads its log"),
    ],
)
def test_a_regularizer_that_fails_is_named_before_any_step(config: Config, gives: Any, message: str) -> None:
    assert f"regularizer broken: {message}" in refusal(config, penalty=lambda self, forward, key: gives(forward))


def refusal(config: Config, **methods: Any) -> str:
    """What is said of a run with a regulariser of these methods."""
    body = {"titles": {"broken": "b"}, "__module__": __name__, **methods}
    mt.register_regularizer("broken")(dataclasses.dataclass(frozen=True)(type("Broken", (mt.Regularizer,), body)))
    setup = Setup.load(config, Path(config.encoder))
    setup = setup.with_config(dataclasses.replace(config, regularizers=("broken()",)))
    with pytest.raises(InputError) as caught:
        make_plans(setup, setup.datasets("train"))
    return str(caught.value)


def squared(self: Any, forward: Any, key: Any) -> dict[str, mt.Penalty]:
    return {"broken": mt.Penalty((forward.embeddings**2).mean(), 1.0)}


def test_a_regularizer_is_tried_on_kept_features_where_the_stage_has_them(config: Config) -> None:
    kept = dataclasses.replace(config, freeze=("encoder",), cache_features=True)
    message = "regularizer broken on kept features, without embeddings (needs_embeddings = False): TypeError: unsupp"
    assert refusal(kept, penalty=squared).startswith(message)
    assert "stage train: cache_features leaves no embeddings for broken to perturb" in refusal(
        kept, penalty=squared, needs_embeddings=True
    )


def test_a_regularizer_is_tried_on_every_task_where_a_step_has_one(config: Config) -> None:
    def of_classes(self: Any, forward: Any, key: Any) -> dict[str, mt.Penalty]:
        return {"broken": mt.Penalty(forward.logits.mean(), 1.0 / (forward.logits.shape[1] - 1))}

    last = dataclasses.replace(config, order="sequential", tasks=(config.tasks[0], config.tasks[2]))
    assert refusal(last, penalty=of_classes).startswith("regularizer broken: ZeroDivisionError")


def test_a_regularizer_that_cannot_say_whether_it_is_on_is_named(config: Config) -> None:
    message = refusal(config, penalty=squared, is_on=lambda self, task: task.no_such_field)
    assert message.startswith("regularizer broken: is_on: AttributeError")


def test_tasks_with_other_regularizers_have_programs_of_their_own(config: Config) -> None:
    bench = Bench(replace_task(config, "sts", smart_factor=0.0))
    smart, proximal = Smart(SmartConfig(weight=1.0)), Proximal(ProximalConfig(weight=1.0))
    for own, names in (((), [["sst", "para", "sts"]]), ((proximal,), [["sst", "para", "sts"]])):
        groups = task_groups(bench.model, bench.setup.tasks, StageSpec(regularizers=own))
        assert [[task.name for task in group] for group in groups] == names
    groups = task_groups(bench.model, bench.setup.tasks, StageSpec(regularizers=(smart, proximal)))
    assert [[task.name for task in group] for group in groups] == [["sts"], ["sst", "para"]]


def test_a_card_shows_what_was_on(config: Config) -> None:
    plain = _training(config)
    assert not any(word in plain for word in ("smart", "proximal", "regularizers"))
    on = _training(dataclasses.replace(config, regularizers=("rdrop()",), smart=SmartConfig(weight=0.5)))
    assert 'regularizers = ["rdrop()"]' in on
    assert "[stages.smart]" in on


# Aggregators


@pytest.mark.slow
def test_a_rules_state_is_kept_over_steps_and_through_a_checkpoint(config: Config, tmp_path: Path) -> None:
    plugin("evened", tmp_path)
    config = dataclasses.replace(config, optimizer=("evened(beta=0.75)", "adam(lr)"))
    whole = run(config, tmp_path / "whole")
    for at in (2, 4):
        with pytest.raises(Interrupted):
            run(config, tmp_path / "parts", resume=True, display=Quiet(at=at))
    parts = run(config, tmp_path / "parts", resume=True)
    assert_same_run(config, whole, parts, 6)
    states = [np.asarray(restored(config, whole, step).opt_state[0].rule_state) for step in (3, 6)]
    assert states[0].shape == (3,)
    assert (states[0] != states[1]).all()
    assert np.array_equal(states[1], restored(config, parts, 6).opt_state[0].rule_state)


@pytest.mark.slow
def test_a_rule_gets_the_losses_of_the_step(config: Config) -> None:
    """The encoder goes by Σ loss_t g_t; a task whose labels are not numbers counts as no loss."""

    @mt.register_aggregator("by_loss")
    def by_loss(gramian: Any, state: Any, key: Any, losses: Any) -> Any:
        return losses, state

    bench = Bench(config)
    tx = optax.chain(by_loss(), optax.sgd(1.0))
    step = make_train_step(bench.model, bench.setup.tasks, tx)
    broken = dict(bench.batches)
    broken["sts"] = broken["sts"]._replace(labels=np.full_like(broken["sts"].labels, np.nan))
    grads = {
        name: step.gradients[name](bench.params, None, batch, jax.random.key(0), np.int32(0))
        for name, batch in broken.items()
    }
    state = TrainState.create(jax.tree.map(jnp.copy, bench.params), tx, jax.random.key(0))
    new, metrics = step(state, broken)
    losses = {name: float(metrics.losses[name]) for name in ("sst", "para")}
    assert not metrics.finite["sts"]
    update = jax.tree.map(
        lambda one, other: losses["sst"] * one + losses["para"] * other,
        grads["sst"][0]["encoder"],
        grads["para"][0]["encoder"],
    )
    jax.tree.map(
        lambda after, before, moved: np.testing.assert_allclose(after, before - moved, atol=1e-5),
        new.params["encoder"],
        bench.params["encoder"],
        update,
    )
