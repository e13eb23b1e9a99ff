"""Rows beside each other."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mtbert_jax.config import Config
from mtbert_jax.results.differences import differences
from mtbert_jax.results.intervals import bootstrap
from mtbert_jax.results.rows import Row, make_row
from mtbert_jax.results.tables import gain_texts, gains_caption
from tests.conftest import replace_task
from tests.runs import finish, guesses


def row(config: Config, out: Path, seeds: tuple[int, ...], shift: int = 0) -> Row:
    """Seed s predicts as `guesses` has it for seed s + shift."""
    folders = {}
    for seed in seeds:
        own = dataclasses.replace(config, seed=seed)
        folders[seed] = finish(own, out / f"seed{seed}", guesses(config, seed + shift))
    return make_row(out.name, config, folders)


def test_only_seeds_that_both_have_are_compared_each_with_itself(config: Config, tmp_path: Path) -> None:
    a, b = row(config, tmp_path / "a", (0, 3, 1)), row(config, tmp_path / "b", (1, 2, 0), shift=10)
    (gain,) = differences([a, b])
    assert (gain.name, gain.against, gain.seeds) == ("b", "a", (1, 0))
    of = [{0: 2, 1: 0}, {0: 0, 1: 2}]  # places of the seeds in b and in a
    for name in ("sst", "para", "sts", "average", "plain_average"):
        gains = [b.scores(name)[of[0][seed]] - a.scores(name)[of[1][seed]] for seed in (1, 0)]
        assert gain.values[name].mean == pytest.approx(np.mean(gains))
        assert gain.values[name].sd == pytest.approx(np.std(gains, ddof=1))
    mine = {name: task._replace(predicted=task.predicted[[0, 2]]) for name, task in b.judged.items()}
    theirs = {name: task._replace(predicted=task.predicted[[2, 0]]) for name, task in a.judged.items()}
    assert {name: value.interval for name, value in gain.values.items()} == bootstrap(mine, theirs)


def test_the_same_runs_differ_by_nothing(config: Config, tmp_path: Path) -> None:
    (gain,) = differences([row(config, tmp_path / "a", (0, 1)), row(config, tmp_path / "b", (0, 1))])
    assert {(value.mean, value.sd, value.interval) for value in gain.values.values()} == {(0.0, 0.0, (0.0, 0.0))}


@pytest.mark.parametrize(("metric", "told"), [("rmse", " Of sts rmse less is better, so that"), ("spearman", "")])
def test_a_caption_says_of_which_metrics_less_is_better(metric: str, told: str, config: Config, tmp_path: Path) -> None:
    """A config whose error is larger is not better by that."""
    config = replace_task(config, "sts", metric=metric)
    gains = differences([row(config, tmp_path / "a", (0,)), row(config, tmp_path / "b", (0,), shift=1)])
    assert gains_caption(gains).partition("would change.")[2][: len(told) or None] == told


def test_rows_stand_beside_the_named_ones(config: Config, tmp_path: Path) -> None:
    rows = [row(config, tmp_path / name, (0,), shift) for shift, name in enumerate("abc")]
    pairs = [(gain.name, gain.against) for gain in differences(rows, ["b", "a"])]
    assert pairs == [("a", "b"), ("c", "b"), ("b", "a"), ("c", "a")]
    assert [(gain.name, gain.against) for gain in differences(rows)] == [("b", "a"), ("c", "a")]
    assert differences(rows[:1]) == []
    assert differences([]) == []


def test_a_task_that_only_one_row_has_leaves_no_difference_of_averages(config: Config, tmp_path: Path) -> None:
    fewer = dataclasses.replace(config, tasks=config.tasks[:2])
    rows = [row(config, tmp_path / "a", (0,)), row(fewer, tmp_path / "b", (0,))]
    (gain,) = differences(rows)
    assert set(gain.values) == {"sst", "para"}
    assert gain_texts([gain])[1][-2:] == ["", ""]


def test_what_has_nothing_in_common_is_left_out(config: Config, tmp_path: Path) -> None:
    a, other_seed = row(config, tmp_path / "a", (0,)), row(config, tmp_path / "b", (1,))
    other_task = row(dataclasses.replace(config, tasks=config.tasks[2:]), tmp_path / "c", (0,))
    first = row(dataclasses.replace(config, tasks=config.tasks[:2]), tmp_path / "d", (0,))
    assert differences([a, other_seed]) == []
    assert differences([first, other_task]) == []


def test_unreadable_predictions_leave_no_difference(config: Config, tmp_path: Path) -> None:
    a = row(config, tmp_path / "a", (0,))
    folder = finish(config, tmp_path / "b")
    next(folder.predictions.iterdir()).unlink()
    assert differences([a, make_row("b", config, {0: folder})]) == []


def test_the_text_of_a_difference(config: Config, tmp_path: Path) -> None:
    rows = [row(config, tmp_path / name, (0, 1), shift) for shift, name in enumerate("ab")]
    (gain,) = differences(rows)
    header, line = gain_texts([gain])
    assert header == [
        "config", "less", "seeds", "sst accuracy", "para accuracy", "sts pearson", "average", "95% interval"
    ]  # fmt: skip
    average = gain.values["average"]
    assert line[:3] == ["b", "a", "2"]
    assert average.sd is not None
    assert average.interval is not None
    assert line[-2:] == [
        f"{average.mean:+.3f} ± {average.sd:.3f}", f"{average.interval[0]:+.3f} to {average.interval[1]:+.3f}"
    ]  # fmt: skip
