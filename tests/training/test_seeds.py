"""Runs of several seeds that train in one program, against the same runs alone."""

import dataclasses
import shutil
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
from tests.cases import slow_but_for
from tests.conftest import light
from tests.training.test_fit import Quiet, assert_same_run, leaves, run

SEEDS = (3, 0, 7)
# No Adam: it would make a whole step of a gradient that is zero but for rounding.
CHAIN = ("pcgrad()", "clip_by_global_norm(1.0)", "sgd(lr, momentum=0.9)")


@pytest.fixture
def together(config: Config) -> Config:
    """Six steps of PCGrad, dropout on, three seeds."""
    return dataclasses.replace(config, seeds=SEEDS, lr=0.003, optimizer=CHAIN)


def with_everything(config: Config) -> Config:
    """Twenty steps with SMART and a teacher, too, on batches of two lengths."""
    return dataclasses.replace(
        config,
        lengths=(16, 48),
        steps=20,
        eval_every_steps=10,
        smart=SmartConfig(weight=1.0, preset="paper", radius=0.1, noise_std=0.1, step_size=0.1),
        proximal=ProximalConfig(weight=1.0),
    )


def of_two_tasks(config: Config) -> Config:
    return dataclasses.replace(config, tasks=config.tasks[1:])


def with_a_teacher(config: Config) -> Config:
    return dataclasses.replace(config, proximal=ProximalConfig(weight=1.0))


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


@pytest.mark.parametrize("changed", slow_but_for([of_two_tasks], [of_two_tasks, with_a_teacher, with_everything]))
def test_every_replica_is_the_run_that_it_would_have_been_alone(together: Config, tmp_path: Path, changed: Any) -> None:
    display, (first, second) = Quiet(), (3, 7)
    together = dataclasses.replace(changed(together), seeds=(first, second))
    steps, scored = together.steps, together.eval_every_steps
    folder = run(together, tmp_path / "all", display=display)
    for seed in together.seeds:
        own = RunFolder(folder.path / f"seed{seed}")
        assert own.load_config() == dataclasses.replace(together, seed=seed, seeds=(), out=str(own.path))
        assert_close(together, seed, own, alone(together, seed, tmp_path / f"alone{seed}"), steps)
    one, other = (MultitaskModel.from_checkpoint(folder.path / f"seed{seed}") for seed in together.seeds)
    assert not np.allclose(
        one.params["heads"]["sts"]["output"]["kernel"], other.params["heads"]["sts"]["output"]["kernel"]
    )
    assert any(line.startswith(f"seed 7: dev at step {scored}: ") for line in display.lines)
    assert any("train together" in line for line in display.lines)


@pytest.mark.slow
def test_replicas_that_were_stopped_go_on_bit_for_bit_across_a_stage_boundary(config: Config, tmp_path: Path) -> None:
    """With kept features in the first stage."""
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


@pytest.mark.slow
def test_replicas_that_were_stopped_go_on_bit_for_bit_and_one_of_them_alone(together: Config, tmp_path: Path) -> None:
    whole = run(together, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(together, tmp_path / "all", display=Quiet(at=3))
    own = Path(shutil.copytree(tmp_path / "all" / "seed7", tmp_path / "seed7"))
    resumed = run(together, tmp_path / "all", resume=True)
    for seed in SEEDS:
        folders = [RunFolder(folder.path / f"seed{seed}") for folder in (whole, resumed)]
        assert_same_run(dataclasses.replace(together, seed=seed, seeds=()), *folders, 6)
    by_itself = run(dataclasses.replace(together, seed=7, seeds=()), own, resume=True)
    assert_close(together, 7, by_itself, alone(together, 7, tmp_path / "alone"), 6)


def test_the_command_scores_every_seed(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.toml"
    save_config(dataclasses.replace(light(config), steps=2), file)
    assert main(["train", str(file), "--seeds", "1", "2"]) == 0
    printed = capsys.readouterr().out
    assert "runs: seed1, seed2" in printed
    assert "| config | 2 | " in (Path(config.out) / "table.md").read_text()
    assert main(["export", config.out, "--format", "hf"]) == 2
    assert "it holds the runs seed1, seed2: name one of them" in capsys.readouterr().err
    assert main(["evaluate", config.out]) == 0
    assert "dev, mean of 2 runs" in capsys.readouterr().out
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


@pytest.mark.slow
def test_seeds_that_do_not_fit_into_memory_train_one_after_the_other(
    together: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(together, steps=2)
    display, need = Quiet(), 50e6
    monkeypatch.setattr("mtbert_jax.training.seeds.estimate", lambda *_: SimpleNamespace(total=need))
    monkeypatch.setattr("mtbert_jax.training.seeds.free_memory", lambda: int(2.6 * need))
    folder = run(config, tmp_path / "all", display=display)
    assert any(line.startswith("2 of 3 seeds at once: each needs about 0.0 GiB") for line in display.lines)
    compiled = [read_metrics(RunFolder(folder.path / f"seed{seed}").metrics)[-1]["step"] for seed in SEEDS]
    assert compiled == [2, 2, 2]


@pytest.mark.slow
def test_replicas_that_stand_at_different_steps_go_on_apart(together: Config, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(together, tmp_path / "all", display=Quiet(at=3))
    run(dataclasses.replace(together, seed=0, seeds=()), tmp_path / "all" / "seed0", resume=True)
    folder = run(together, tmp_path / "all", resume=True)
    for seed in SEEDS:
        records = read_metrics(RunFolder(folder.path / f"seed{seed}").metrics)
        assert [r["step"] for r in records if r["kind"] == "train"] == [2, 4, 6]
