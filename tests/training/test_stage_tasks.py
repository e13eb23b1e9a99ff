"""Stages that train some of the tasks: the other heads stay as they are, and scores are of what has been trained."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.checks import check_config
from mtbert_jax.config import Config, StageConfig
from mtbert_jax.errors import InputError
from mtbert_jax.training.checkpoint import Checkpoints
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.origin import restore_params
from mtbert_jax.training.setup import Setup
from tests.conftest import tiny_run

STAGES = (
    StageConfig(name="pairs", tasks=("sts", "para"), steps=2),
    StageConfig(name="all", steps=2),
    StageConfig(name="sst alone", tasks=("sst",), steps=2, freeze=("encoder",), cache_features=True),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, small_encoder_dir: Path, data_dir: Path) -> Config:
    config = tiny_run(small_encoder_dir, data_dir, tmp_path_factory.mktemp("stages"))
    return dataclasses.replace(config, stages=STAGES, eval_every_steps=1, save_every_steps=1, log_every_steps=1)


@pytest.fixture(scope="module")
def run(base: Config) -> mt.Run:
    done = mt.train(base)
    assert isinstance(done, mt.Run)
    return done


def records(run: mt.Run, kind: str) -> list[dict]:
    lines = map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())
    return [record for record in lines if record["kind"] == kind]


def test_each_stage_trains_its_tasks(run: mt.Run) -> None:
    assert [(record["stage"], sorted(record["loss"])) for record in records(run, "train")] == [
        *[("pairs", ["para", "sts"])] * 2,
        *[("all", ["para", "sst", "sts"])] * 2,
        *[("sst alone", ["sst"])] * 2,
    ]


def test_scores_are_of_tasks_that_have_been_trained(run: mt.Run) -> None:
    averages = {"average", "plain_average"}
    scored = [set(record["scores"]) - averages for record in records(run, "eval")]
    assert scored == [{"para", "sts"}] * 2 + [{"sst", "para", "sts"}] * 4
    with Checkpoints(run.path / "checkpoints") as checkpoints:
        best = checkpoints.best_step()
    assert best is not None and best > 2  # an average of two tasks is none of three


def test_heads_of_absent_tasks_stay_as_they_are(base: Config, run: mt.Run, tmp_path: Path) -> None:
    """After the first stage the head of sst is the fresh one, and after the last the others are those before it."""
    first = dataclasses.replace(
        base, stages=(STAGES[0], dataclasses.replace(STAGES[2], steps=1)), out=str(tmp_path / "a")
    )
    done = mt.train(first)
    assert isinstance(done, mt.Run)
    setup = Setup.load(first, Path(first.encoder))
    fresh = setup.initial_params({})["heads"]
    _, latest = restore_params(RunFolder(done.path), first, setup, "latest")
    shorter = dataclasses.replace(first, tasks=base.tasks[1:], stages=(STAGES[0],), out=str(tmp_path / "b"))
    alone = mt.train(shorter)
    assert isinstance(alone, mt.Run)
    _, pairs = restore_params(RunFolder(alone.path), shorter, Setup.load(shorter, Path(shorter.encoder)), "latest")
    for name in ("para", "sts"):
        for one, other in zip(
            jax.tree.leaves(latest["heads"][name]), jax.tree.leaves(pairs["heads"][name]), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)
        moved = [
            float(np.abs(np.asarray(a) - np.asarray(b)).max())
            for a, b in zip(jax.tree.leaves(latest["heads"][name]), jax.tree.leaves(fresh[name]), strict=True)
        ]
        assert max(moved) > 0
    kernel = np.asarray(latest["heads"]["sst"]["output"]["kernel"]) - np.asarray(fresh["sst"]["output"]["kernel"])
    assert 0 < np.abs(kernel).max() < 3.2e-3  # one step of RMSProp at 1e-3, which is 1e-3 / √.1, and none before


def test_a_run_goes_on_to_the_bit_from_a_stage_of_its_own_tasks(base: Config, run: mt.Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run.path, tmp_path / "copy"))
    shutil.rmtree(copy / "checkpoints" / "6")
    (copy / "results.json").unlink()
    again = mt.train(dataclasses.replace(base, out=str(copy)), resume=True)
    assert isinstance(again, mt.Run)
    assert again.results["dev"] == run.results["dev"]
    timed = ("examples_per_second",)
    plain = [[{k: v for k, v in r.items() if k not in timed} for r in records(one, "train")] for one in (run, again)]
    assert plain[0] == plain[1]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"tasks": ("news",)}], "stage stage1: tasks: 'news' is none of sst, para, sts"),
        ([{"tasks": ()}], "stage stage1: tasks is empty"),
        ([{"tasks": ("sst", "sst")}, {}], "each may stand there once"),
        ([{"tasks": ("sst",)}, {"tasks": ("para",)}], "no stage trains sts; add it to one"),
    ],
)
def test_tasks_of_a_stage_are_checked(base: Config, stages: list[dict], message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_config(dataclasses.replace(base, stages=tuple(StageConfig(**stage) for stage in stages)))
    assert message in str(caught.value)


def test_what_is_planned_is_told(base: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mtbert_jax.training.describe import rehearse

    said = "\n".join(rehearse(dataclasses.replace(base, out=str(tmp_path / "none"))))
    assert "stage pairs: para, sts alone, 2 steps" in said
    assert 'tasks = ["sts", "para"]' in said
