"""Training records in windows of equal length."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtbert_jax.config import Config, save_config
from mtbert_jax.report.contents import MOST_WINDOWS, RunContents
from mtbert_jax.training.folder import RunFolder


def read(config: Config, out: Path, records: list[tuple[str, int, dict[str, float | None]]]) -> RunContents:
    """A run with training records of these stages, last steps and losses."""
    folder = RunFolder(out)
    out.mkdir()
    save_config(config, folder.config)
    lines: list[dict[str, Any]] = [
        {"kind": "train", "stage": stage, "step": step, "loss": losses, "lr": 0.1, "examples_per_second": 9.0}
        for stage, step, losses in records
    ]
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return RunContents.read_records(out, "mine")


def test_the_few_steps_at_the_end_are_no_point_of_their_own(config: Config, tmp_path: Path) -> None:
    losses = {10: 3.0, 20: 2.0, 30: 1.0, 33: 9.0}
    run = read(config, tmp_path / "run", [("all", step, {"sst": loss}) for step, loss in losses.items()])
    assert [part.steps for part in run.parts] == [10, 10, 10, 3]
    assert run.means("loss", "sst") == ([10, 20, 33], [3.0, 2.0, pytest.approx((10 * 1.0 + 3 * 9.0) / 13)])
    assert run.share("loss", "sst") == (pytest.approx((10 * 6 + 3 * 9) / 33), 33)


def test_no_window_spans_two_stages_and_short_stages_keep_their_rest(config: Config, tmp_path: Path) -> None:
    steps = [("heads", 10), ("heads", 20), ("heads", 26), ("full", 36), ("full", 39)]
    run = read(config, tmp_path / "run", [(stage, step, {"sst": float(step)}) for stage, step in steps])
    assert run.window_steps == 10
    assert run.means("loss", "sst") == ([10, 26, 36, 39], [10.0, (10 * 20 + 6 * 26) / 16, 36.0, 39.0])


def test_a_window_is_the_mean_over_the_steps_that_have_the_number(config: Config, tmp_path: Path) -> None:
    records = [("all", 10, {"sst": 1.0}), ("all", 20, {"sts": 4.0}), ("all", 30, {"sst": None, "sts": 2.0})]
    run = read(config, tmp_path / "run", records)
    assert run.means("loss", "sst") == ([10], [1.0])
    assert run.means("loss", "sts") == ([20, 30], [4.0, 2.0])
    assert run.means("loss", "none") == ([], [])
    assert run.share("loss", "none") == (0.0, 0)


def test_many_records_are_few_points_of_the_same_mean(config: Config, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=1007)
    run = read(config, tmp_path / "run", [("all", 5 * n, {"sst": v}) for n, v in enumerate(values.tolist(), start=1)])
    steps, means = run.means("loss", "sst")
    assert run.window_steps % 5 == 0
    assert 0.9 * MOST_WINDOWS <= len(steps) <= MOST_WINDOWS
    assert means[0] == pytest.approx(values[: run.window_steps // 5].mean())
    counts = np.diff([0, *steps])
    assert counts.max() < 2 * run.window_steps
    assert np.average(means, weights=counts) == pytest.approx(values.mean())


def test_records_that_somebody_has_spoilt_have_windows_too(config: Config, tmp_path: Path) -> None:
    records = [("all", step, {"sst": 1.0}) for step in (10, 5, -7, 10**17)]
    assert read(config, tmp_path / "run", records).means("loss", "sst")[1]
    assert read(config, tmp_path / "none", []).windows == []


def test_results_that_cannot_be_read_are_told_from_missing_ones(config: Config, tmp_path: Path) -> None:
    read(config, tmp_path / "run", [("all", 10, {"sst": 1.0})])
    assert RunContents.read(tmp_path / "run", "mine").notes == ()
    (tmp_path / "run" / "results.json").write_text('{"dev": 1}')
    (note,) = RunContents.read(tmp_path / "run", "mine").notes
    assert note.startswith(f"{tmp_path / 'run' / 'results.json'} is not what a run writes; mtbert train ")


def test_a_run_without_tasks_is_told(config: Config, tmp_path: Path) -> None:
    read(config, tmp_path / "run", [("all", 10, {"sst": 1.0})])
    (tmp_path / "run" / "config.toml").write_text("")
    (note,) = RunContents.read(tmp_path / "run", "mine").notes
    assert note.startswith(f"{tmp_path / 'run' / 'config.toml'} has no [[tasks]]")
