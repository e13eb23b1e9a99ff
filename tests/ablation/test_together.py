"""Runs whose seeds train in one process."""

import dataclasses
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from mtbert_jax.ablation.planned import PlannedRun, SeedGroup, jobs, plan_runs
from mtbert_jax.ablation.processes import Event, has_accelerator
from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, save_config
from tests.runs import finish


def cells_of(config: Config, out: Path, seeds: tuple[int, ...] = (0, 4)) -> tuple[PlannedRun, ...]:
    return plan_runs([(Path("a.toml"), config), (Path("b.toml"), config)], seeds, out, ["--lr", "0.5"])


def test_all_seeds_of_a_config_are_one_process(config: Config, tmp_path: Path) -> None:
    runs = cells_of(config, tmp_path)
    assert jobs(runs, together=False) == list(runs)
    first, second = jobs(runs, together=True)
    assert isinstance(first, SeedGroup)
    assert (str(first), str(second)) == ("a seeds 0, 4", "b seeds 0, 4")
    assert first.command[4:] == ["a.toml", "--seeds", "0", "4", "--out", f"{tmp_path}/a", "--resume", "--lr", "0.5"]
    assert first.log == tmp_path / "a" / "log.txt"
    assert jobs(cells_of(config, tmp_path, (7,)), together=True) == list(cells_of(config, tmp_path, (7,)))


def test_it_is_finished_when_all_are(config: Config, tmp_path: Path) -> None:
    (both, _) = jobs(cells_of(config, tmp_path), together=True)
    assert isinstance(both, SeedGroup)
    finish(both.runs[0].config, both.runs[0].folder.path)
    assert not both.finished
    finish(both.runs[1].config, both.runs[1].folder.path)
    assert both.finished
    assert both.changes() == []
    finish(dataclasses.replace(both.runs[1].config, lr=0.25), both.runs[1].folder.path)
    assert "lr: 0.25" in both.changes()[0]


def test_seeds_train_together_where_there_is_an_accelerator(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Any] = []

    def stand_in(todo: list[Any], *_: Any) -> Generator[Event, None, None]:
        ran.extend(todo)
        yield from (Event(number, job, 0.0, "stopped") for number, job in enumerate(todo, start=1))

    monkeypatch.setattr("mtbert_jax.ablation.execute.work", stand_in)
    save_config(config, tmp_path / "a.toml")
    for found, flag in ((True, "auto"), (False, "auto"), (True, "off"), (False, "on")):
        monkeypatch.setattr("mtbert_jax.cli.main.has_accelerator", lambda found=found: found)
        ran.clear()
        main(["ablate", str(tmp_path / "a.toml"), "--out", str(tmp_path / "out"), "--together", flag])
        assert len(ran) == (1 if flag == "on" or (found and flag == "auto") else 3)


@pytest.mark.slow
def test_runs_that_trained_together_fill_the_table(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real processes; the second time nothing is run."""
    save_config(dataclasses.replace(config, steps=2), tmp_path / "a.toml")
    command = ["ablate", str(tmp_path / "a.toml"), "--out", str(tmp_path / "out"), "--seeds", "0", "1"]
    assert main([*command, "--together", "on"]) == 0
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| a | 2 |" in table
    assert main(command) == 0
    assert "2 of 2 runs are finished already" in capsys.readouterr().err
    assert not has_accelerator()
