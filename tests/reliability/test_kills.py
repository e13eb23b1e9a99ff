"""SIGKILL at any moment, and what a run is afterwards: what it would have been."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from mtbert_jax.config import Config, HeadConfig, ProximalConfig, SmartConfig, StageConfig, save_config
from tests.conftest import light, replace_task
from tests.reliability.kills import survive
from tests.reliability.subprocesses import ForkServer
from tests.tally import Tally

SMART = SmartConfig(weight=0.1, ramp_fraction=0.5)
TEACHER = ProximalConfig(weight=1.0, early_momentum=0.5, momentum=0.9, early_fraction=0.5)


def everything(config: Config, heads: int, full: int) -> Config:
    """PCGrad, SMART and a teacher that is evaluated, after a stage on the frozen encoder's kept features."""
    frozen = StageConfig(
        "heads",
        steps=heads,
        freeze=("encoder",),
        cache_features=True,
        lr=1e-2,
        smart=SmartConfig(),
        proximal=ProximalConfig(),
    )
    for task in config.tasks:
        config = replace_task(config, task.name, head=HeadConfig(pooling="mean"))
    return dataclasses.replace(
        config,
        smart=SMART,
        proximal=TEACHER,
        evaluate="teacher",
        stages=(frozen, StageConfig("full", steps=full)),
        log_every_steps=1,
        eval_every_steps=40,
        save_every_steps=3,
    )


def written(config: Config, place: Path) -> Path:
    path = place / "run.toml"
    save_config(dataclasses.replace(config, out=""), path)
    return path


def little(config: Config, heads: int, full: int) -> Config:
    """Two stages of one task, a checkpoint after every third step."""
    first = StageConfig("heads", steps=heads, freeze=("encoder",))
    stages = (first, StageConfig("full", steps=full))
    return dataclasses.replace(light(config), stages=stages, log_every_steps=1, save_every_steps=3, eval_every_steps=8)


@pytest.mark.slow
@pytest.mark.parametrize(("run", "kills", "heads", "full"), [(everything, 24, 120, 400), (little, 2, 4, 12)])
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(
    config: Config, tmp_path: Path, tally: Tally, run: Callable[..., Config], kills: int, heads: int, full: int
) -> None:
    path = written(run(config, heads, full), tmp_path)
    with ForkServer(tmp_path / "programs") as server:
        outcome = survive(server, path, tmp_path, kills)
    tally("kills survived", outcome.kills.total())
    tally("kills in the middle of a save", outcome.unfinished)
    assert outcome.differences == []
    assert outcome.steps == heads + full
    assert outcome.kills.total() >= kills - kills // 4  # one that came after the end does not count
    assert outcome.gathered > outcome.steps
    assert kills < 20 or min(outcome.kills[kind] for kind in ("step", "save", "start")) >= 3
    assert kills < 20 or outcome.unfinished >= 3
