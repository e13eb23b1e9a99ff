"""The command `ablate` in this process, with a stand-in for training."""

import csv
import dataclasses
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from mtbert_jax.ablation.planned import PlannedRun
from mtbert_jax.ablation.processes import Event
from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, StageConfig, save_config
from tests.cli.test_main import fails
from tests.runs import finish


@pytest.fixture
def tomls(config: Config, tmp_path: Path) -> list[str]:
    """Two configs: `b`, and `a` without its second task."""
    save_config(config, tmp_path / "b.toml")
    save_config(dataclasses.replace(config, tasks=(config.tasks[0], config.tasks[2])), tmp_path / "a.toml")
    return [str(tmp_path / "b.toml"), str(tmp_path / "a.toml")]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[PlannedRun]:
    """The runs that were run; those of seed 13 fail."""
    runs: list[PlannedRun] = []

    def stand_in(todo: list[PlannedRun], *_: Any) -> Generator[Event, None, None]:
        for number, run in enumerate(todo, start=1):
            runs.append(run)
            lucky = run.config.seed != 13
            if lucky:
                finish(run.config, run.folder.path)
            yield Event(number, run, 1.0, "" if lucky else "exit status 1: out of luck")

    monkeypatch.setattr("mtbert_jax.ablation.execute.work", stand_in)
    monkeypatch.setattr("mtbert_jax.cli.main.has_accelerator", lambda: False)
    return runs


def test_one_table_of_all_runs(
    tomls: list[str], tmp_path: Path, ran: list[PlannedRun], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    assert (
        main(["ablate", *tomls, "--out", str(out), "--seeds", "5", "2", "--", "--lr", "0.5", "--head.dropout=0"]) == 0
    )
    assert [(run.source.stem, run.config.seed) for run in ran] == [("b", 5), ("a", 5), ("b", 2), ("a", 2)]
    assert all((run.config.lr, run.config.head.dropout) == (0.5, 0.0) for run in ran)
    assert all(run.command[-3:] == ["--lr", "0.5", "--head.dropout=0"] for run in ran)
    assert sorted(path.name for path in out.iterdir()) == ["a", "b", "table.csv", "table.json", "table.md"]
    with (out / "table.csv").open() as file:
        b, a = csv.DictReader(file)
    assert (b["config"], b["seeds"], a["config"], a["seeds"]) == ("b", "2", "a", "2")
    assert b["para_accuracy_mean"]
    assert a["para_accuracy_mean"] == ""
    scores = [run["dev"]["average"] for run in json.loads((out / "table.json").read_text())["rows"][1]["runs"]]
    assert float(a["average_mean"]) == pytest.approx(sum(scores) / 2)
    captured = capsys.readouterr()
    printed = [line for line in captured.out.splitlines() if line.startswith(("│ b", "│ a"))]
    lines = (out / "table.md").read_text().splitlines()
    assert [[run.strip() for run in line.split("│")] for line in printed] == [
        [run.strip() for run in line.split("|")] for line in lines if line.startswith(("| b", "| a"))
    ]
    assert captured.out.splitlines()[-1] == f"tables: {out}/table.md, .csv, .json"


def test_three_seeds_and_a_folder_are_taken_by_default(
    tomls: list[str], tmp_path: Path, ran: list[PlannedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ablate", "a.toml"]) == 0
    assert [run.config.out for run in ran] == [f"runs/ablation/a/seed{seed}" for seed in range(3)]
    assert main(["ablate", "a.toml"]) == 0
    assert len(ran) == 3


def test_a_failed_run_makes_status_1_after_all_others(
    tomls: list[str], tmp_path: Path, ran: list[PlannedRun], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--seeds", "13", "2", "--out", str(tmp_path / "out")]
    assert main(["ablate", *tomls, *flags]) == 1
    assert len(ran) == 4
    captured = capsys.readouterr()
    log = tmp_path / "out" / "b" / "seed13" / "log.txt"
    assert f"b seed 13 failed: exit status 1: out of luck (log: {log})" in captured.err.splitlines()
    assert "1 of 2" in captured.out
    assert main(["ablate", *tomls, *flags]) == 1  # what failed is tried again
    assert [run.config.seed for run in ran[4:]] == [13, 13]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--", "--seed", "3"], "--seed cannot follow --: ablate gives every run its own"),
        (["--", "--out=x"], "--out cannot follow --"),
        (["--", "--resume"], "--resume cannot follow --"),
        (["--", "--no-overwrite"], "--overwrite cannot follow --"),
        (["--", "--log-every-steps", "0"], "b.toml: log_every_steps = 0: must be at least 1"),
        (["--lr", "3"], "ablate has no --lr; what is for the runs follows --"),
        (["--seeds", "1", "1"], "seed 1 is given twice"),
        (["--seeds"], "give one or more seeds"),
        (["--against", "c"], "--against c: no such config (configs: b, a)"),
        (["--at-once", "0"], "--at-once 0: must be at least 1"),
        (["--at-once", "1000000"], "CPU cores, and each process needs one"),
        (["nowhere.toml"], "cannot read the config nowhere.toml"),
        (["other/b.toml"], "cannot read the config other/b.toml"),
    ],
)
def test_what_is_wrong_ends_it_before_anything_is_run(
    tomls: list[str],
    tmp_path: Path,
    ran: list[PlannedRun],
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    expected: str,
) -> None:
    out = ["--out", str(tmp_path / "out")]
    first, rest = ([], flags) if flags[0].startswith("-") else (flags, [])
    fails(capsys, ["ablate", *tomls, *first, *out, *rest], expected)
    assert ran == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["md", "csv", "json"])
def test_tables_of_others_are_not_written_over(
    tomls: list[str], tmp_path: Path, ran: list[PlannedRun], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    table = tmp_path / "out" / f"table.{name}"
    table.parent.mkdir()
    table.write_text("mine\n")
    fails(capsys, ["ablate", *tomls, "--out", str(table.parent)], f"{table} is no table of runs, and one would be")
    fails(capsys, ["train", tomls[0], "--seeds", "0", "1", "--out", str(table.parent)], f"{table} is no table of runs")
    assert (table.read_text(), ran) == ("mine\n", [])


def test_processes_do_not_share_an_accelerator(
    tomls: list[str],
    tmp_path: Path,
    ran: list[PlannedRun],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mtbert_jax.cli.main.has_accelerator", lambda: True)
    fails(capsys, ["ablate", *tomls, "--at-once", "2", "--out", str(tmp_path)], "--together trains seeds there")
    assert ran == []


def test_a_flag_that_only_one_config_lacks_names_it(
    tomls: list[str], tmp_path: Path, ran: list[PlannedRun], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", *tomls, "--out", str(tmp_path / "out"), "--", "--tasks.2.loss-weight", "2"]) == 2
    assert capsys.readouterr().err.startswith(f"mtbert: {tomls[1]}: --tasks.2.loss-weight: no task '2' (tasks: ")
    assert ran == []


def test_a_flag_that_stages_hide_is_refused_with_its_config(
    config: Config, tomls: list[str], tmp_path: Path, ran: list[PlannedRun], capsys: pytest.CaptureFixture[str]
) -> None:
    staged = tmp_path / "staged.toml"
    save_config(dataclasses.replace(config, stages=(StageConfig(lr=0.1),)), staged)
    fails(capsys, ["ablate", tomls[0], str(staged), "--", "--lr", "1"], f"{staged}: --lr has no effect")
    assert ran == []


def test_a_finished_run_of_another_config_is_refused(
    tomls: list[str], tmp_path: Path, ran: list[PlannedRun], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [tomls[1], "--out", str(tmp_path / "out"), "--seeds", "0"]
    assert main(["ablate", *flags]) == 0
    table = (tmp_path / "out" / "table.md").read_bytes()
    capsys.readouterr()
    fails(capsys, ["ablate", tomls[0], *flags, "--", "--lr", "0.5"], "a/seed0 holds a run with another config (lr: ")
    assert len(ran) == 1
    assert (tmp_path / "out" / "table.md").read_bytes() == table


def test_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "ablate CONFIG.toml" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["ablate", "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "What follows `--` goes to every run" in printed
    assert "--seeds" in printed
    fails(capsys, ["ablate"], "give one or more configs")
