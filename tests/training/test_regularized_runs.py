"""Whole runs with SMART, with a teacher, and on a frozen encoder's kept features."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mtbert_jax import trees
from mtbert_jax.config import Config, HeadConfig, ProximalConfig, SmartConfig, StageConfig
from mtbert_jax.encoders.hub import load_pretrained
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.results.write import write_results
from mtbert_jax.training.active import abstract_state
from mtbert_jax.training.checkpoint import Checkpoints
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.training.plan import make_plans
from mtbert_jax.training.records import read_metrics
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.state import TrainState
from mtbert_jax.types import Params
from tests.conftest import light, replace_task, tiny_run
from tests.training.test_fit import Quiet, assert_same_run, run

SMART = SmartConfig(weight=0.1, ramp_fraction=0.5)
MOMENTUM = ProximalConfig(weight=1.0, early_momentum=0.5, momentum=0.9, early_fraction=0.5)
VANILLA = ProximalConfig(weight=1.0, teacher="vanilla", anchor_every_steps=2)
HEADS = StageConfig(name="heads", steps=4, freeze=("encoder",), lr=1e-2, smart=SmartConfig(), proximal=ProximalConfig())


def restored(config: Config, folder: RunFolder, step: int) -> TrainState:
    setup = Setup.load(config, Path(config.encoder))
    with Checkpoints(folder.checkpoints, {}) as checkpoints:
        stage = checkpoints.standings[step].stage
        plan = make_plans(setup, setup.datasets("train"))[stage]
        state = checkpoints.try_restore(step, abstract_state(setup, plan))
    assert state is not None
    return state


def without_dropout(config: Config, pooling: Any = "mean") -> Config:
    for task in config.tasks:
        config = replace_task(config, task.name, head=HeadConfig(dropout=0.0, pooling=pooling))
    return dataclasses.replace(config, encoder_dropout=0.0)


def largest_difference(a: Any, b: Any) -> float:
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(np.asarray(x) - np.asarray(y)).max()), a, b)))


@pytest.fixture(scope="module")
def penalised(tmp_path_factory: pytest.TempPathFactory, small_encoder_dir: Path, data_dir: Path) -> Any:
    """A run of two stages, the second with SMART for all tasks but one and with a teacher."""
    config = tiny_run(small_encoder_dir, data_dir, tmp_path_factory.mktemp("penalised"))
    config = replace_task(config, "sts", smart_factor=0.0)
    config = dataclasses.replace(config, smart=SMART, proximal=MOMENTUM, stages=(HEADS, StageConfig("full", steps=5)))
    return config, run(config, Path(config.out))


def resumed_to_the_bit(config: Config, whole: RunFolder, parts: Path) -> None:
    """Stops a run in the stage without a teacher, and in the one with, and compares what it comes to with `whole`."""
    for at in (3, 3):
        with pytest.raises(Interrupted):
            run(config, parts, resume=True, display=Quiet(at=at))
    resumed = run(config, parts, resume=True)
    assert_same_run(config, whole, resumed, 9)
    one, other = restored(config, whole, 9), restored(config, resumed, 9)
    assert one.teacher is not None
    jax.tree.map(np.testing.assert_array_equal, one.teacher, other.teacher)
    assert largest_difference(one.teacher, one.params) > 0


def test_resume_with_a_teacher_is_exact_to_the_bit(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(light(config), proximal=MOMENTUM, stages=(HEADS, StageConfig("full", steps=5)))
    resumed_to_the_bit(config, run(config, tmp_path / "whole"), tmp_path / "parts")


@pytest.mark.slow
def test_resume_with_smart_and_a_teacher_is_exact_to_the_bit(penalised: Any, tmp_path: Path) -> None:
    resumed_to_the_bit(*penalised, tmp_path / "parts")


@pytest.mark.slow
def test_resume_with_an_anchored_teacher_is_exact_to_the_bit(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(config, smart=SMART, proximal=VANILLA, stages=(HEADS, StageConfig("full", steps=5)))
    resumed_to_the_bit(config, run(config, tmp_path / "whole"), tmp_path / "parts")


def test_records_hold_the_penalties_of_the_tasks_that_have_them(penalised: Any) -> None:
    records = [r for r in read_metrics(penalised[1].metrics) if r["kind"] == "train"]
    heads, full = records[0], records[-1]
    assert not {"smoothness", "proximal"} & set(heads)
    assert set(full["smoothness"]) == {"sst", "para"}
    assert set(full["proximal"]) == {"sst", "para", "sts"}
    assert min(*full["smoothness"].values(), *full["proximal"].values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"proximal": MOMENTUM}, {"smart": SMART}], ids=["proximal", "smart"])
def test_smart_and_the_proximal_term_change_what_is_learnt(
    config: Config, tmp_path: Path, changes: dict[str, Any]
) -> None:
    plain = restored(config, run(config, tmp_path / "plain"), 6)
    changed = dataclasses.replace(config, **changes)
    state = restored(changed, run(changed, tmp_path / "changed"), 6)
    assert largest_difference(state.params, plain.params) > 1e-6


@pytest.mark.slow
def test_the_teacher_follows_the_students_checkpoints(config: Config, tmp_path: Path) -> None:
    """Its recursion, from the parameters that a run saved after every step."""
    config = dataclasses.replace(config, steps=4, proximal=MOMENTUM)
    teacher: Params = load_pretrained(config.encoder)[1]
    for step in (1, 2, 3, 4):
        with pytest.raises(Interrupted):
            run(config, tmp_path / "run", resume=True, display=Quiet(at=step))
        state = restored(config, RunFolder(tmp_path / "run"), step)
        beta = 0.5 if step <= 2 else 0.9
        teacher = jax.tree.map(lambda old, new, b=beta: b * old + (1 - b) * new, teacher, state.params["encoder"])
        assert state.teacher is not None
        assert largest_difference(state.teacher["encoder"], teacher) < 1e-6


def test_the_teacher_can_be_what_is_evaluated(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(
        config, lr=1e-2, evaluate="teacher", proximal=dataclasses.replace(MOMENTUM, weight=0.0)
    )
    folder = run(config, tmp_path / "run")
    config = dataclasses.replace(config, out=str(folder.path))
    state = restored(config, folder, 6)
    model = MultitaskModel.from_checkpoint(folder.path, "latest")
    jax.tree.map(np.testing.assert_array_equal, model.params, state.teacher_params())
    assert largest_difference(model.params, state.params) > 1e-4
    scores = {r["step"]: r["scores"] for r in read_metrics(folder.metrics) if r["kind"] == "eval"}
    results = write_results(folder, config)
    assert results["dev"] == scores[results["step"]]


@pytest.mark.slow
def test_the_teacher_lacks_what_is_frozen_and_takes_it_from_the_student(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(config, evaluate="teacher", freeze=("encoder/embeddings",), lr=1e-2)
    folder = run(config, tmp_path / "run")
    state = restored(config, folder, 6)
    assert state.teacher is not None
    assert "embeddings" not in state.teacher["encoder"]
    model = MultitaskModel.from_checkpoint(folder.path, "latest")
    embeddings = load_pretrained(config.encoder)[1]["embeddings"]
    jax.tree.map(np.testing.assert_array_equal, model.params["encoder"]["embeddings"], embeddings)


@pytest.mark.parametrize(
    ("order", "pooling"), [pytest.param("round_robin", "mean", marks=pytest.mark.slow), ("sequential", "cls")]
)
def test_kept_features_train_the_heads_as_the_encoder_itself_would(
    config: Config, tmp_path: Path, order: Any, pooling: Any
) -> None:
    config = dataclasses.replace(without_dropout(config, pooling), freeze=("encoder",), order=order, lr=1e-2, steps=12)
    states, scores = {}, {}
    for cached in (False, True):
        changed = dataclasses.replace(config, cache_features=cached)
        folder = run(changed, tmp_path / str(cached))
        states[cached] = restored(changed, folder, 12)
        scores[cached] = read_metrics(folder.metrics)[-2]["scores"]
    assert largest_difference(states[True].params, states[False].params) < 1e-5
    assert scores[True]["average"] == pytest.approx(scores[False]["average"], abs=1e-5)
    encoder = load_pretrained(config.encoder)[1]
    jax.tree.map(np.testing.assert_array_equal, states[True].params["encoder"], encoder)
    start = Setup.load(config, Path(config.encoder)).initial_params(encoder)
    assert largest_difference(states[True].params["heads"], start["heads"]) > 1e-3


def test_the_encoder_runs_once_over_the_data(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtbert_jax.encoders.bert import BertEncoder

    traced = []
    encode = BertEncoder.encode
    monkeypatch.setattr(BertEncoder, "encode", lambda self, *a, **k: traced.append(a[0].shape) or encode(self, *a, **k))
    config = dataclasses.replace(config, freeze=("encoder",), cache_features=True, epochs=3.0, steps=None)
    display = Quiet()
    run(dataclasses.replace(config, eval_every_steps=0), tmp_path / "run", display=display)
    # Traced once per task, for evaluation batches; no training batch (of 4 rows) ever reaches it, but for shapes.
    assert {shape[0] for shape in traced} <= {1, config.eval_batch_size}
    assert any("features of 174 examples kept" in line for line in display.lines)


@pytest.mark.slow
@pytest.mark.parametrize("smart", [SmartConfig(), SMART], ids=["plain", "smart"])
def test_a_stage_on_kept_features_resumes_to_the_bit_and_the_next_one_trains_everything(
    config: Config, tmp_path: Path, smart: SmartConfig
) -> None:
    heads = dataclasses.replace(HEADS, cache_features=True)
    config = dataclasses.replace(config, smart=smart, stages=(heads, StageConfig("full", steps=3)))
    whole = run(config, tmp_path / "whole")
    for at in (2, 1):
        with pytest.raises(Interrupted):
            run(config, tmp_path / "parts", resume=True, display=Quiet(at=at))
    assert_same_run(config, whole, run(config, tmp_path / "parts", resume=True), 7)
    assert largest_difference(restored(config, whole, 7).params["encoder"], load_pretrained(config.encoder)[1]) > 0


@pytest.mark.slow
def test_the_proximal_term_works_on_kept_features(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(config, freeze=("encoder",), cache_features=True, proximal=MOMENTUM, lr=1e-2)
    folder = run(config, tmp_path / "run")
    last = [r for r in read_metrics(folder.metrics) if r["kind"] == "train"][-1]
    assert min(last["proximal"].values()) > 0
    teacher = restored(config, folder, 6).teacher
    assert teacher is not None
    assert trees.paths(teacher)[0].startswith("heads/")
