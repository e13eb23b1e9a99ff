"""Runs of several seeds that train in one program, against the same runs alone."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mtbert_jax.checks import check_config
from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, ParallelConfig, ProximalConfig, SmartConfig, StageConfig, load_config, save_config
from mtbert_jax.errors import InputError
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.training.records import read_metrics
from tests.training.test_fit import Quiet, assert_same_run, leaves, run

SEEDS = (3, 0, 7)
# No Adam: it would make a whole step of a gradient that is zero but for rounding.
CHAIN = ("pcgrad()", "clip_by_global_norm(1.0)", "sgd(lr, momentum=0.9)")


@pytest.fixture
def together(config: Config) -> Config:
    """Twenty steps of PCGrad, SMART and a teacher, dropout on, batches of two lengths, three seeds."""
    return dataclasses.replace(
        config,
        seeds=SEEDS,
        lengths=(16, 48),
        steps=20,
        eval_every_steps=10,
        lr=0.003,
        optimizer=CHAIN,
        smart=SmartConfig(weight=1.0, preset="paper", radius=0.1, noise_std=0.1, step_size=0.1),
        proximal=ProximalConfig(weight=1.0),
    )


def alone(config: Config, seed: int, out: Path) -> RunFolder:
    return run(dataclasses.replace(config, seed=seed, seeds=()), out)


def assert_close(config: Config, seed: int, one: RunFolder, other: RunFolder, step: int) -> None:
    """State, records and scores of two runs of one seed."""
    config = dataclasses.replace(config, seed=seed, seeds=())
    a, b = leaves(config, one, step), leaves(config, other, step)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-5, err_msg=name)
    for first, second in zip(*map(read_metrics, (one.metrics, other.metrics)), strict=True):
        assert first["step"] == second["step"]
        if first["kind"] == "train":
            for part in {"loss", "smoothness", "proximal", "cosine"} & set(first):
                assert first[part] == pytest.approx(second[part], rel=1e-3, abs=1e-4)


def test_every_replica_is_the_run_that_it_would_have_been_alone(together: Config, tmp_path: Path) -> None:
    display, (first, second) = Quiet(), (3, 7)
    together = dataclasses.replace(together, seeds=(first, second))
    folder = run(together, tmp_path / "all", display=display)
    for seed in together.seeds:
        own = RunFolder(folder.path / f"seed{seed}")
        assert own.load_config() == dataclasses.replace(together, seed=seed, seeds=(), out=str(own.path))
        assert_close(together, seed, own, alone(together, seed, tmp_path / f"alone{seed}"), 20)
    one, other = (MultitaskModel.from_checkpoint(folder.path / f"seed{seed}") for seed in together.seeds)
    assert not np.allclose(
        one.params["heads"]["sts"]["output"]["kernel"], other.params["heads"]["sts"]["output"]["kernel"]
    )
    assert any(line.startswith("seed 7: dev at step 10: ") for line in display.lines)
    assert any("train together" in line for line in display.lines)


def test_replicas_that_were_stopped_go_on_bit_for_bit(config: Config, tmp_path: Path) -> None:
    """Across a stage boundary, with kept features in the first stage."""
    heads = StageConfig(name="heads", steps=3, freeze=("encoder",), cache_features=True, lr=1e-2)
    config = dataclasses.replace(config, seeds=SEEDS, stages=(heads, StageConfig(name="full", steps=4)))
    whole = run(config, tmp_path / "whole")
    for at in (2, 3, 2):  # in stage 1, at its end, in stage 2
        with pytest.raises(Interrupted):
            run(config, tmp_path / "parts", resume=True, display=Quiet(at=at))
    parts = run(config, tmp_path / "parts", resume=True)
    for seed in SEEDS:
        own = [RunFolder(folder.path / f"seed{seed}") for folder in (whole, parts)]
        assert_same_run(dataclasses.replace(config, seed=seed, seeds=()), *own, 7)


def test_a_replica_can_go_on_alone(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(config, seeds=SEEDS, optimizer=CHAIN, lr=0.003)
    with pytest.raises(Interrupted):
        run(config, tmp_path / "all", display=Quiet(at=3))
    own = tmp_path / "all" / "seed7"
    resumed = run(dataclasses.replace(config, seed=7, seeds=()), own, resume=True)
    assert_close(config, 7, resumed, alone(config, 7, tmp_path / "alone"), 6)


def test_the_command_scores_every_seed(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.toml"
    save_config(dataclasses.replace(config, steps=2), file)
    assert main(["train", str(file), "--seeds", "1", "2"]) == 0
    printed = capsys.readouterr().out
    assert "runs: seed1, seed2" in printed
    assert "| config | 2 | " in (Path(config.out) / "table.md").read_text()
    assert main(["evaluate", config.out]) == 2
    assert "it holds the runs seed1, seed2: name one of them" in capsys.readouterr().err
    for seed in (1, 2):
        own = RunFolder(Path(config.out) / f"seed{seed}")
        assert own.results.is_file()
        assert load_config(own.config).seed == seed
        assert MultitaskModel.from_checkpoint(own.path).step == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (1, 1)}, "each may stand there once"),
        ({"seeds": (-1,)}, "seed = -1"),
        ({"seeds": (1, 2), "patience": 2}, "patience"),
        ({"micro_batches": 0}, "micro_batches = 0"),
        ({"parallel": ParallelConfig(data=0)}, "parallel.data = 0"),
        ({"parallel": ParallelConfig(data=-1, fsdp=-1)}, "only one of"),
    ],
)
def test_what_cannot_be_is_refused(config: Config, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_config(dataclasses.replace(config, **changes))


def test_seeds_that_do_not_fit_into_memory_train_one_after_the_other(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(config, seeds=SEEDS, steps=2)
    display, need = Quiet(), 50e6
    monkeypatch.setattr("mtbert_jax.training.seeds.estimate", lambda *_: SimpleNamespace(total=need))
    monkeypatch.setattr("mtbert_jax.training.seeds.free_memory", lambda: int(2.6 * need))
    folder = run(config, tmp_path / "all", display=display)
    assert any(line.startswith("2 of 3 seeds at once: each needs about 0.0 GiB") for line in display.lines)
    compiled = [read_metrics(RunFolder(folder.path / f"seed{seed}").metrics)[-1]["step"] for seed in SEEDS]
    assert compiled == [2, 2, 2]


@pytest.mark.slow
def test_replicas_that_stand_at_different_steps_go_on_apart(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(config, seeds=SEEDS, optimizer=CHAIN, lr=0.003)
    with pytest.raises(Interrupted):
        run(config, tmp_path / "all", display=Quiet(at=3))
    run(dataclasses.replace(config, seed=0, seeds=()), tmp_path / "all" / "seed0", resume=True)
    folder = run(config, tmp_path / "all", resume=True)
    for seed in SEEDS:
        records = read_metrics(RunFolder(folder.path / f"seed{seed}").metrics)
        assert [r["step"] for r in records if r["kind"] == "train"] == [2, 4, 6]
