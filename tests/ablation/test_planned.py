"""Which runs there are, and which cannot be."""

import dataclasses
import sys
from pathlib import Path

import pytest

from mtbert_jax.ablation.planned import plan_runs, table
from mtbert_jax.config import Config
from mtbert_jax.errors import InputError
from tests.runs import finish


def test_every_config_with_every_seed_in_a_folder_of_its_own(config: Config, tmp_path: Path) -> None:
    configs = [(tmp_path / "b.toml", config), (tmp_path / "a.toml", dataclasses.replace(config, lr=0.5, seed=9))]
    runs = plan_runs(configs, (4, 1), tmp_path / "out", ["--steps", "2"])
    names = [(run.source.stem, run.config.seed) for run in runs]
    assert names == [("b", 4), ("a", 4), ("b", 1), ("a", 1)]
    assert runs[3].folder.path == tmp_path / "out" / "a" / "seed1"
    assert runs[3].config == dataclasses.replace(config, lr=0.5, seed=1, out=str(tmp_path / "out" / "a" / "seed1"))
    flags = ["--seed", "1", "--out", str(tmp_path / "out" / "a" / "seed1"), "--resume", "--steps", "2"]
    assert runs[3].command == [sys.executable, "-m", "mtbert_jax", "train", str(tmp_path / "a.toml"), *flags]
    assert not (tmp_path / "out").exists()


def test_rows_follow_the_configs_and_count_what_is_finished(config: Config, tmp_path: Path) -> None:
    runs = plan_runs([(Path("b.toml"), config), (Path("a.toml"), config)], (4, 1), tmp_path)
    finish(runs[1].config, runs[1].folder.path)
    rows = table(runs)
    assert [(row.name, row.planned, row.seeds) for row in rows] == [("b", (4, 1), ()), ("a", (4, 1), (4,))]


@pytest.mark.parametrize(
    ("names", "seeds", "message"),
    [
        (["x/a.toml", "y/a.toml"], (0,), "config name a is given twice"),
        (["a.toml", "a.toml"], (0,), "config name a is given twice"),
        (["a.toml"], (0, 1, 0), "seed 0 is given twice"),
        (["a.toml"], (), "give one or more seeds"),
        (["a.toml"], (0, -1), r"^a\.toml: seed = -1"),
    ],
)
def test_runs_that_cannot_be_are_refused(
    config: Config, tmp_path: Path, names: list[str], seeds: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan_runs([(Path(name), config) for name in names], seeds, tmp_path)


def test_a_wrong_config_is_named_before_anything_is_there(config: Config, tmp_path: Path) -> None:
    wrong = dataclasses.replace(config, log_every_steps=0)
    with pytest.raises(InputError, match=r"^b\.toml: log_every_steps = 0"):
        plan_runs([(Path("a.toml"), config), (Path("b.toml"), wrong)], (0,), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_with_another_run_is_refused(config: Config, tmp_path: Path, finished: bool) -> None:
    (run,) = plan_runs([(Path("a.toml"), config)], (0,), tmp_path)
    finish(run.config, run.folder.path)
    if not finished:
        run.folder.results.unlink()
    other = dataclasses.replace(config, lr=0.5, log_every_steps=9)
    with pytest.raises(InputError, match=r"a/seed0 holds .* \(lr: 0\.001 → 0\.5\); give another --out, or delete"):
        plan_runs([(Path("a.toml"), other)], (0,), tmp_path)
    plan_runs([(Path("a.toml"), other)], (1,), tmp_path)
    plan_runs([(Path("a.toml"), dataclasses.replace(config, log_every_steps=9))], (0,), tmp_path)


def test_a_type_that_the_machine_chose_is_the_same_run(config: Config, tmp_path: Path) -> None:
    """`auto` is written into the run's folder as the type that it took."""
    auto = dataclasses.replace(config, compute_dtype="auto")
    (run,) = plan_runs([(Path("a.toml"), auto)], (0,), tmp_path)
    finish(dataclasses.replace(run.config, compute_dtype="bfloat16"), run.folder.path)
    (again,) = plan_runs([(Path("a.toml"), auto)], (0,), tmp_path)
    assert again.finished
    other = dataclasses.replace(config, compute_dtype="float32")
    with pytest.raises(InputError, match=r"compute_dtype: 'bfloat16' → 'float32'"):
        plan_runs([(Path("a.toml"), other)], (0,), tmp_path)
