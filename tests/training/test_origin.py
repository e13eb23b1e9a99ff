"""Runs that begin from another run: its encoder, tokenizer and heads; what fits, and what contradicts it."""

import dataclasses
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, HeadConfig, StageConfig, save_config
from mtbert_jax.config.schema import to_dict
from mtbert_jax.errors import InputError
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.training.checkpoint import Checkpoints, Progress
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.prepare import Prepared, prepare
from mtbert_jax.training.records import read_metrics
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.state import TrainState
from mtbert_jax.types import Params
from tests.conftest import replace_task, save_encoder, tiny_run
from tests.runs import checkpointed
from tests.training.test_fit import Quiet, run


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, small_encoder_dir: Path, data_dir: Path) -> Config:
    """The config of a run whose only checkpoint, of step 2, has random parameters."""
    config = tiny_run(small_encoder_dir, data_dir, tmp_path_factory.mktemp("base"))
    checkpointed(config)
    return config


def from_base(base: Config, tmp_path: Path, **changes: Any) -> Config:
    """A run of another seed: its fresh heads would be other ones."""
    changes = {"encoder": "", "init_from": base.out, "out": str(tmp_path / "new"), "seed": 5, **changes}
    return dataclasses.replace(base, **changes)


def prepared(config: Config, existing: Any = "refuse") -> Prepared:
    return prepare(config, RunFolder(Path(config.out)), existing)


def start(ready: Prepared, number: int = 0) -> Params:
    """The parameters at the first step."""
    run = ready.runs[number]
    assert run.origin is not None
    return run.setup.initial_params(run.origin.encoder, run.origin.heads)


def told(ready: Prepared) -> str:
    return "\n".join(line for run in ready.runs if run.origin for line in run.origin.told)


def assert_same(one: Params, other: Params) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


def differ(one: Params, other: Params) -> bool:
    return any(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True))


def test_a_run_begins_with_the_encoder_tokenizer_and_heads_of_another(base: Config, tmp_path: Path) -> None:
    before = MultitaskModel.from_checkpoint(base.out)
    ready = prepared(from_base(base, tmp_path))
    assert_same(start(ready), before.params)
    assert ready.setup.tokenizer.to_str() == before.setup.tokenizer.to_str()
    assert ready.config.encoder == base.encoder
    wanted = f"begins from the best checkpoint of {base.out} (step 2): its encoder, and the heads of sst, para, sts"
    assert told(ready) == wanted
    assert not Path(base.out).with_name("new").exists()


def test_the_first_step_is_taken_from_there(base: Config, tmp_path: Path) -> None:
    """With a rate that moves nothing, the run ends with the parameters that it began with; what it says is true."""
    config = from_base(base, tmp_path, steps=1, lr=1e-30, optimizer=("mean_tasks()", "sgd(lr)"), eval_every_steps=0)
    display = Quiet()
    folder = run(config, tmp_path / "new", display=display)
    trees = (MultitaskModel.from_checkpoint(path).params for path in (folder.path, base.out))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=1e-20), *trees)
    assert any(line.startswith(f"begins from the best checkpoint of {base.out} (step 2)") for line in display.lines)
    saved = folder.load_config()
    assert (saved.init_from, saved.encoder) == (base.out, base.encoder)


def test_heads_that_do_not_fit_are_fresh_and_named(base: Config, tmp_path: Path) -> None:
    config = from_base(base, tmp_path)
    config = replace_task(config, "sst", head=HeadConfig(hidden_layers=2))
    config = replace_task(config, "sts", head=HeadConfig(pooling="mean"))
    tasks = (*config.tasks, dataclasses.replace(config.tasks[1], name="nli"))
    ready = prepared(dataclasses.replace(config, tasks=tasks))
    params, before = start(ready), MultitaskModel.from_checkpoint(base.out).params
    assert_same(params["heads"]["para"], before["heads"]["para"])
    assert_same(params["encoder"], before["encoder"])
    assert differ(params["heads"]["sts"], before["heads"]["sts"])
    assert set(params["heads"]) == {"sst", "para", "sts", "nli"}
    heads = "and the heads of para; fresh heads: sst (of another shape there), sts (reads cls there), nli"
    assert told(ready).endswith(heads)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "binary"}, "kind regression there"),
        ({"kind": "classification", "num_classes": 3}, "kind regression there, classes  there, of another shape there"),
    ],
)
def test_a_head_of_another_kind_is_not_taken(
    base: Config, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    lines = "id\tsentence1\tsentence2\tsimilarity\n" + "".join(f"{n}\ta film\ta song\t{n % 2}\n" for n in range(9))
    (tmp_path / "two.tsv").write_text(lines)
    file = str(tmp_path / "two.tsv")
    config = replace_task(
        from_base(base, tmp_path), "sts", label_range=(), train=file, dev=file, test="", head=HeadConfig(), **changes
    )
    ready = prepared(config)
    assert f"fresh heads: sts ({reason.partition(', of another')[0]}" in told(ready)


def test_classes_in_another_order_are_another_head(base: Config, tmp_path: Path) -> None:
    config = replace_task(from_base(base, tmp_path), "sst", num_classes=0, classes=("4", "3", "2", "1", "0"))
    assert "fresh heads: sst (classes 0, 1, 2, 3, 4 there)" in told(prepared(config))


def test_what_a_run_evaluates_is_what_another_begins_with(base: Config, tmp_path: Path) -> None:
    """Where that is the teacher, the student is left."""
    teacher = dataclasses.replace(base, evaluate="teacher", out=str(tmp_path / "taught"))
    folder = checkpointed(teacher)
    ready = prepared(from_base(base, tmp_path, init_from=str(folder.path)))
    model = MultitaskModel.from_checkpoint(folder.path)
    with Checkpoints(folder.checkpoints) as checkpoints:
        student = checkpoints.restore_params(2, model.setup.restored_params())
    assert differ(student, model.params)  # type: ignore[arg-type]
    assert_same(start(ready), model.params)
    assert "the best teacher of" in told(ready)


def test_the_best_checkpoint_is_taken_not_the_latest(base: Config, tmp_path: Path) -> None:
    source = RunFolder(tmp_path / "two")
    shutil.copytree(base.out, source.path)
    setup = Setup.load(base, source.encoder)
    params = MultitaskModel.from_checkpoint(base.out).params
    later = TrainState.create(jax.tree.map(lambda x: x + 1, params), optax.identity(), jax.random.key(0), step=5)
    with Checkpoints(source.checkpoints, to_dict(setup.config)) as checkpoints:
        checkpoints.save(later, Progress(stage_done=True, average=0.1))
    assert_same(start(prepared(from_base(base, tmp_path, init_from=str(source.path)))), params)


def test_a_run_whose_parameters_are_not_finite_is_no_beginning(base: Config, tmp_path: Path) -> None:
    source = RunFolder(tmp_path / "nan")
    shutil.copytree(base.out, source.path)
    shutil.rmtree(source.checkpoints)
    params = MultitaskModel.from_checkpoint(base.out).params
    params["heads"]["sts"]["output"]["bias"] = jnp.full((1,), jnp.inf)
    with Checkpoints(source.checkpoints, to_dict(base)) as checkpoints:
        checkpoints.save(TrainState.create(params, optax.identity(), jax.random.key(0), step=2), Progress())
    with pytest.raises(InputError, match="heads/sts/output/bias at step 2 are not finite; that run had diverged"):
        prepared(from_base(base, tmp_path, init_from=str(source.path)))


def test_each_seed_begins_with_the_run_of_its_own(base: Config, tmp_path: Path) -> None:
    for seed in (3, 1):
        checkpointed(dataclasses.replace(base, seed=seed, out=str(tmp_path / "all" / f"seed{seed}")))
    config = from_base(base, tmp_path, init_from=str(tmp_path / "all"))
    ready = prepared(dataclasses.replace(config, seeds=(1, 3)))
    for number, seed in enumerate((1, 3)):
        assert_same(start(ready, number), MultitaskModel.from_checkpoint(tmp_path / "all" / f"seed{seed}").params)
    assert differ(start(ready, 0), start(ready, 1))
    assert_same(start(prepared(dataclasses.replace(config, seed=3))), start(ready, 1))
    with pytest.raises(InputError, match=r"holds the runs seed1, seed3, none of seed 2; name one of them, such as"):
        prepared(dataclasses.replace(config, seeds=(1, 2)))
    both = from_base(base, tmp_path, seeds=(1, 3))  # from one run: the same beginning for both
    assert_same(start(prepared(both), 0), start(prepared(both), 1))


def test_one_that_goes_on_needs_neither_the_other_run_nor_weights(base: Config, tmp_path: Path) -> None:
    source, config = tmp_path / "source", from_base(base, tmp_path, steps=2, eval_every_steps=0)
    shutil.copytree(base.out, source)
    config = dataclasses.replace(config, init_from=str(source))
    folder = run(config, tmp_path / "new")
    shutil.rmtree(source)
    display = Quiet()
    run(config, tmp_path / "new", resume=True, display=display)
    assert not any("begins" in line for line in display.lines)
    assert folder.load_config().encoder == base.encoder
    with pytest.raises(InputError, match="is no run folder"):
        run(config, tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_from": "nowhere"}, "init_from = 'nowhere' is no run folder: no folder lies there"),
        ({"init_from": "x" * 5000}, "is no run folder: no folder lies there"),
        ({"init_from": "ENCODER"}, "it is an encoder: encoder = "),
        ({"revision": "v1"}, "revision = 'v1' is not that of init_from"),
        ({"encoder": "./nowhere"}, "neither a directory nor a hub name .*; leave encoder and revision out"),
        (
            {"encoder": "WIDE"},
            r"is not that of init_from = .* \(hidden_size: 16 → 32.*leave encoder and",
        ),
        ({"out": "BASE"}, "init_from and out are the same folder"),
        ({"init_from": "a\0b"}, "no path has a NUL in it"),
        ({"cache_dir": "~/cache"}, "cache_dir = '~/cache': ~ does not stand for the home folder here; write the whole"),
    ],
)
def test_what_contradicts_it_is_refused_before_anything_is_there(
    base: Config, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    if "WIDE" in changes.values():
        from tests.conftest import TINY

        (tmp_path / "wide").mkdir()
        save_encoder(tmp_path / "wide", dataclasses.replace(TINY, hidden_size=32))
    places = {"ENCODER": base.encoder, "WIDE": str(tmp_path / "wide"), "BASE": base.out}
    config = from_base(base, tmp_path, **{name: places.get(value, value) for name, value in changes.items()})
    with pytest.raises(InputError, match=message):
        prepared(config, "overwrite")
    assert not (tmp_path / "new").exists()
    assert (Path(base.out) / "results.json").is_file()


def test_an_encoder_that_agrees_may_be_named(base: Config, tmp_path: Path, small_encoder_dir: Path) -> None:
    """Weights and tokenizer are the run's all the same."""
    shutil.copytree(small_encoder_dir, tmp_path / "copy")
    for name in (base.encoder, str(tmp_path / "copy")):
        ready = prepared(from_base(base, tmp_path, encoder=name))
        assert_same(start(ready), MultitaskModel.from_checkpoint(base.out).params)
        assert ready.config.encoder == base.encoder


@pytest.mark.parametrize("place", ["", "encoder"])
def test_a_run_folder_as_encoder_is_told_of_the_way(
    base: Config, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_config(base, tmp_path / "a.toml")
    folder = str(Path(base.out) / place)
    assert main(["train", str(tmp_path / "a.toml"), "--encoder", folder, "--out", str(tmp_path / "new")]) == 2
    err = capsys.readouterr().err
    assert f"init_from = {base.out!r}" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_longer_run_from_a_finished_one(base: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way, by the command line: the refusal names the flag, and the flag does it."""
    config = dataclasses.replace(base, steps=2, eval_every_steps=0, out=str(tmp_path / "a"))
    stages = (StageConfig("heads", steps=1, freeze=("encoder",)), StageConfig("full", steps=1))
    save_config(dataclasses.replace(config, stages=stages), tmp_path / "a.toml")
    assert main(["train", str(tmp_path / "a.toml")]) == 0
    capsys.readouterr()
    longer = ["train", str(tmp_path / "a.toml"), "--stages.1.steps", "3"]
    assert main([*longer, "--resume"]) == 2
    err = capsys.readouterr().err
    assert "stages.full.steps: 1 → 3" in err
    assert f"--init-from {config.out} with another --out" in err
    assert main([*longer, "--init-from", config.out, "--out", str(tmp_path / "b")]) == 0
    assert "begins from the best checkpoint of" in capsys.readouterr().err
    assert read_metrics(tmp_path / "b" / "metrics.jsonl")[-1]["step"] == 4
    assert main(["train", str(tmp_path / "b"), "--resume"]) == 0
