"""The configs that are shipped: all are sound, the study's rows change what they say, and each trains.

Training all rows takes minutes: `make test-all` does. Of those for MiniLM the first and one with all parts are quick.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from mtbert_jax.checks import check_config
from mtbert_jax.config import Config, load_config
from mtbert_jax.config.includes import read_all
from mtbert_jax.config.schema import difference, to_dict
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.results.write import write_results
from mtbert_jax.training.fit import fit
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.plan import make_plans
from mtbert_jax.training.records import read_metrics
from mtbert_jax.training.setup import Setup
from tests.conftest import replace_task
from tests.training.test_fit import Quiet

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
RUNS = [path for path in sorted(CONFIGS.rglob("*.toml")) if any("encoder" in own for _, own in read_all(path))]
STUDY = [path for path in RUNS if path.parent.name == "study"]
WITH_REVIEWS = [path for path in RUNS if any(task.name == "cfimdb" for task in load_config(path).tasks)]
ROWS = {
    "dense": ("baseline", {"head.hidden_layers"}),
    "tuned": ("dense", {"lr"}),
    "smart": ("tuned", {"smart.weight", "smart.preset"}),
    "round_robin": ("tuned", {"order"}),
    "pcgrad": ("round_robin", {"optimizer[0]"}),
    "pcgrad_mean": ("pcgrad", {"optimizer[0]"}),
    "pcgrad_one_stage": ("pcgrad", {"stages"}),
    "smart_pcgrad": ("pcgrad", {"smart.weight", "smart.preset"}),
    "smart_pcgrad_bregman": ("smart_pcgrad", {"proximal.weight"}),
    "smart_ball_pcgrad": ("pcgrad", {"smart.weight", "smart.preset", "smart.radius", "smart.step_size"}),
    "smart_pcgrad_x5": ("smart_pcgrad", {"smart.weight"}),
    "smart_pcgrad_x25": ("smart_pcgrad", {"smart.weight"}),
}
QUICK_ROWS = ("baseline", "smart_pcgrad")
LENGTH = 12


def named(paths: list[Path], slow: Callable[[Path], bool] = lambda path: False) -> list:
    return [
        pytest.param(path, id=path.relative_to(CONFIGS).as_posix(), marks=[pytest.mark.slow] if slow(path) else [])
        for path in paths
    ]


def on_bert_base(path: Path) -> bool:
    return "bert-base" in load_config(path).encoder


def small(path: Path, encoder: Path, folder: Path, cache: Path) -> Config:
    """The config as it stands, but on a tiny encoder and short texts, with two steps a stage."""
    config = load_config(path)
    for task in config.tasks:
        config = replace_task(config, task.name, max_length=None if task.max_length is None else LENGTH + 4)
    stages = tuple(dataclasses.replace(stage, steps=2, epochs=None) for stage in config.stages)
    return dataclasses.replace(
        config,
        encoder=str(encoder),
        data_dir=str(ROOT / "examples" / "data"),
        cache_dir=str(cache),
        out=str(folder),
        max_length=LENGTH,
        lengths=(LENGTH,),
        stages=stages,
        steps=None if stages else 2,
        log_every_steps=1,
        eval_batch_size=256,
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens of the bundled corpus, shared by all runs."""
    return tmp_path_factory.mktemp("tokens")


def check_run(config: Config) -> RunFolder:
    """Trains, and checks scores, records and parameters."""
    folder = RunFolder(Path(config.out))
    fit(config, folder, display=Quiet())
    write_results(folder, config)
    scores = json.loads(folder.results.read_text(encoding="utf-8"))["dev"]
    assert set(scores) == {*(task.name for task in config.tasks), "average", "plain_average"}
    assert np.isfinite(scores["average"])
    records = [record for record in read_metrics(folder.metrics) if record["kind"] == "train"]
    assert [record["step"] for record in records] == list(range(1, 2 * max(len(config.stages), 1) + 1))
    assert not any("left_out" in record for record in records)
    params = MultitaskModel.from_checkpoint(folder.path, "latest").params
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    return folder


@pytest.mark.parametrize("path", named(RUNS))
def test_every_run_that_is_shipped_is_sound(path: Path) -> None:
    check_config(load_config(path))


def test_what_is_no_run_is_a_list_of_tasks() -> None:
    others = set(CONFIGS.rglob("*.toml")) - set(RUNS)
    assert {path.name for path in others} == {"course_tasks.toml", "cfimdb_task.toml"}
    assert all(load_config(path).tasks for path in others)


def test_every_row_of_the_study_has_a_twin_for_a_cpu() -> None:
    names = {path.stem for path in STUDY}
    assert names == {prefix + row for prefix in ("", "minilm_") for row in ("baseline", *ROWS)}


@pytest.mark.parametrize("prefix", ["", "minilm_"])
@pytest.mark.parametrize("row", ROWS)
def test_a_row_changes_what_it_says_and_nothing_else(row: str, prefix: str) -> None:
    other, fields = ROWS[row]
    one, base = (to_dict(load_config(CONFIGS / "study" / f"{prefix}{name}.toml")) for name in (row, other))
    assert {line.split(":")[0] for line in difference(base, one)} == fields


@pytest.mark.parametrize("path", named(STUDY))
def test_heads_start_on_kept_features_and_without_smart_on_any_row(path: Path) -> None:
    config = load_config(path)
    config = dataclasses.replace(config, smart=dataclasses.replace(config.smart, weight=0.02))  # as on the command line
    check_config(config)
    *before, full = config.resolved_stages()
    assert full.smart is not None
    assert (full.freeze, full.cache_features, full.lr, full.smart.weight) == ((), False, config.lr, 0.02)
    assert (full.epochs, full.schedule) == (config.epochs, config.schedule)
    assert bool(before) != path.stem.endswith("one_stage")
    for heads in before:
        assert heads.smart is not None and heads.proximal is not None
        assert (heads.freeze, heads.cache_features, heads.lr) == (("encoder",), True, 1e-3)
        assert (heads.schedule, heads.warmup_fraction) == ("constant", 0.0)
        assert (heads.smart.weight, heads.proximal.weight) == (0.0, 0.0)


@pytest.mark.parametrize(
    "path", named([*filter(on_bert_base, STUDY)], slow=lambda path: path.stem not in ("baseline", "smart_pcgrad"))
)
def test_the_chains_of_every_row_for_bert_base_fit_the_model(
    path: Path, small_encoder_dir: Path, tmp_path: Path, cache: Path
) -> None:
    setup = Setup.load(small(path, small_encoder_dir, tmp_path, cache), small_encoder_dir)
    plans = make_plans(setup, setup.datasets("dev"))
    one_by_one = path.stem in ("baseline", "dense", "tuned", "smart")
    assert {len(plan.batches.names(0)) for plan in plans} == {1 if one_by_one else 3}


@pytest.mark.slow
@pytest.mark.parametrize("path", named(STUDY))
def test_every_row_of_the_study_trains(path: Path, small_encoder_dir: Path, tmp_path: Path, cache: Path) -> None:
    config = small(path, small_encoder_dir, tmp_path / "run", cache)
    records = read_metrics(check_run(config).metrics)
    last = [record for record in records if record["kind"] == "train"][-1]
    assert ("smoothness" in last, "proximal" in last) == (config.smart.weight > 0, config.proximal.weight > 0)
    assert set(last["loss"]) == ({"sst", "para", "sts"} if config.order == "round_robin" else {"sst"})


@pytest.mark.parametrize("path", named(WITH_REVIEWS, slow=lambda path: path.stem != "minilm_cfimdb"))
def test_reviews_train_and_are_predicted_in_the_courses_format(
    path: Path, small_encoder_dir: Path, tmp_path: Path, cache: Path
) -> None:
    folder = check_run(small(path, small_encoder_dir, tmp_path / "run", cache))
    for split, rows in (("dev", 40), ("test", 20)):
        head, *lines = (folder.predictions / f"cfimdb-{split}-output.csv").read_text().splitlines(keepends=True)
        assert head == "id \t Predicted_Sentiment \n"
        assert len(lines) == rows
        assert {line.split(" , ")[1] for line in lines} <= {"0 \n", "1 \n"}


def test_reviews_are_cut_off_at_a_limit_of_their_own() -> None:
    for path in WITH_REVIEWS:
        config = load_config(path)
        limits = {task.name: (task.max_length, task.batch_size) for task in config.resolved_tasks()}
        assert limits.pop("cfimdb") == (256, 8)
        assert set(limits.values()) <= {(128, None)}
    assert {path.stem for path in WITH_REVIEWS} == {"minilm_cfimdb", "minilm_four_tasks", "mpnet_cfimdb"}
