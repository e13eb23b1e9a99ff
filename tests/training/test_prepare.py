"""What a run would be, said before it is."""

import dataclasses
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, ProximalConfig, SmartConfig, StageConfig, TaskConfig, load_config, save_config
from mtbert_jax.encoders import hub
from mtbert_jax.errors import InputError
from mtbert_jax.nn import products
from mtbert_jax.training import describe, prepare
from mtbert_jax.training.describe import rehearse
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.records import read_metrics
from tests.conftest import light, replace_task
from tests.training.files import equal_labels
from tests.training.test_fit import run

HEADS = StageConfig(name="heads", steps=4, freeze=("encoder",), cache_features=True)


def test_a_dry_run_says_what_would_be_trained_and_leaves_nothing(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(config, lengths=(16, 32, 48), stages=(HEADS, StageConfig("full")))
    path = tmp_path / "run.toml"
    save_config(config, path)
    assert main(["train", str(path), "--lr", "0.002", "--dry-run"]) == 0
    assert not Path(config.out).exists()
    toml, said = capsys.readouterr().out.split("\n0.0M parameters")
    (tmp_path / "said.toml").write_text(toml)
    assert load_config(tmp_path / "said.toml") == dataclasses.replace(config, lr=0.002)
    assert "task sst: 37 train, 21 dev examples" in said
    assert "stage full: 6 steps, round_robin" in said
    assert "stage heads: batches" not in said  # it reads kept features
    for stage in ("heads", "full"):
        assert f"stage {stage}: about 0.00 GiB on a device, by estimate (state" in said


def shapes_of_the_first_epoch(config: Config, stage: str) -> list[str]:
    start = f"stage {stage}: batches of "
    (line,) = (line for line in rehearse(config) if line.startswith(start))
    return line.removeprefix(start).partition(" tokens; ")[0].split(", ")


@pytest.mark.usefixtures("fresh_programs")
def test_the_shapes_of_a_dry_run_are_those_that_training_compiles(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(light(config), lengths=(16, 32, 48), steps=None, epochs=1.0)
    shapes = shapes_of_the_first_epoch(config, "train")
    assert set(shapes) <= {"4 × 16", "4 × 32", "4 × 48"}
    (stage,) = (r for r in read_metrics(run(config, tmp_path / "run").metrics) if r["kind"] == "stage")
    assert stage["compiled_shapes"] == len(shapes) + 1  # the update is one more program


def test_rows_without_a_label_in_a_file_of_several_tasks_are_counted(config: Config, tmp_path: Path) -> None:
    """Three of the file's four rows have a label of one task, two one of the other; dev has them all."""
    (tmp_path / "a.tsv").write_text("t\tx\ty\nfilm\t1\t\nsong\t\t1\nmeal\t0\t0\ntrip\t1\t\n")
    (tmp_path / "b.tsv").write_text("t\tx\ty\nfilm\t1\t1\n")
    x = TaskConfig("x", "binary", ("t",), "x", id="", train="a.tsv", dev="b.tsv")
    config = dataclasses.replace(config, tasks=(x, dataclasses.replace(x, name="y", label="y")), data_dir=str(tmp_path))
    said = list(rehearse(config))
    assert "task x: 1 rows of a.tsv have no label for it" in said
    assert "task y: 2 rows of a.tsv have no label for it" in said
    assert not any("b.tsv" in line for line in said[1:])
    assert any(line.startswith("task x: 3 train, 1 dev examples") for line in said)


def test_a_rate_that_no_chain_uses_is_said_to_have_no_effect(config: Config) -> None:
    """And no record of the run claims it."""
    stages = (StageConfig("own", optimizer=("sgd(1e-3)",)), StageConfig("ours"))
    config = dataclasses.replace(light(config), lr=0.5, warmup_fraction=0.5, schedule="constant", stages=stages)
    config = dataclasses.replace(config, save_every_steps=6, affinity_every_steps=0, max_shapes=3)
    said = [line for line in rehearse(config) if "without effect" in line]
    assert said == [
        "max_shapes without effect: lengths has all lengths",
        "stage own: lr, warmup_fraction without effect: its optimizer does not use lr, as adam(lr) would",
    ]
    last = list(rehearse(dataclasses.replace(config, save_every_steps=7)))
    assert "save_every_steps = 7 without effect: no stage has more than 6 steps" in last
    single = rehearse(dataclasses.replace(config, steps=1, save_every_steps=0))
    assert not any("every_steps" in line for line in single if "without effect" in line)
    own, ours = prepare.prepare(config, RunFolder(Path(config.out))).runs[0].plans
    assert own.rate is None
    assert ours.rate is not None


def test_shares_of_steps_that_are_none_and_a_patience_that_never_ends_are_said_to_have_no_effect(
    config: Config,
) -> None:
    smart = SmartConfig(weight=1.0, ramp_fraction=0.08)
    config = dataclasses.replace(light(config), warmup_fraction=0.05, smart=smart, patience=2)  # 6 steps, 2 evaluations
    assert [line for line in rehearse(config) if "without effect" in line] == [
        "stage train: warmup_fraction = 0.05 without effect: of 6 steps that is none, rounded",
        "stage train: smart.ramp_fraction = 0.08 without effect: of 6 steps that is none, rounded",
        "patience = 2 without effect: before its last evaluation no stage has more than 1",
    ]
    smart = dataclasses.replace(smart, ramp_fraction=0.2)
    config = dataclasses.replace(config, warmup_fraction=0.2, smart=smart, eval_every_steps=2)
    assert not any("without effect" in line for line in rehearse(config))


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ({"kind": "ranking"}, ("1", "2")),
        ({"kind": "binary"}, ("0", "1")),
        ({"kind": "multilabel", "classes": ("a", "b")}, ("", "a")),
        ({"kind": "tokens", "classes": ("X",)}, ("O O", "O B-X")),
    ],
)
def test_training_labels_that_are_all_alike_are_named(
    config: Config, tmp_path: Path, kind: dict[str, Any], labels: tuple[str, str]
) -> None:
    """A ranking's loss of them is 0; other tasks learn to say the one label."""
    task = TaskConfig("x", text=("t",), label="y", id="", train="a.tsv", **kind)
    config = dataclasses.replace(light(config), tasks=(task,), data_dir=str(tmp_path))
    told = []
    for other in labels:
        (tmp_path / "a.tsv").write_text(f"t\ty\na film\t{labels[0]}\na song\t{other}\n")
        told.append([line for line in rehearse(config) if "all its training labels are alike" in line])
    assert [len(lines) for lines in told] == [1, 0]


@pytest.mark.parametrize(
    ("teacher", "share"),
    [
        ({}, "99%"),  # .99 once and .999 five times
        ({"momentum": 0.5, "early_momentum": 0.5}, ""),
        ({"teacher": "vanilla"}, "100%"),
        ({"teacher": "vanilla", "anchor_every_steps": 6}, ""),
    ],
)
def test_a_teacher_that_stays_behind_is_named(config: Config, teacher: dict[str, Any], share: str) -> None:
    proximal = ProximalConfig(**teacher)
    config = dataclasses.replace(light(config), proximal=proximal, evaluate="teacher")
    told = [line for line in rehearse(config) if "of the teacher, which is scored" in line]
    assert [line.split()[3] for line in told] == ([share] if share else [])
    student = dataclasses.replace(config, proximal=dataclasses.replace(proximal, weight=1.0), evaluate="student")
    assert not any("which is scored" in line for line in rehearse(student))


def test_examples_that_are_cut_off_are_counted(config: Config) -> None:
    """Of the 48 tokens that are allowed no example has all."""
    config = light(config)
    assert not any("cut off" in line for line in rehearse(config))
    told = [line for line in rehearse(dataclasses.replace(config, max_length=12)) if "cut off" in line]
    assert len(told) == 1
    assert re.match(r"task sst: \d+ of 37 in train, \d+ of 21 in dev, \d+ of 11 in test have max_length = 12", told[0])


def test_a_task_that_trains_on_its_dev_file_is_named(config: Config) -> None:
    config = light(config)
    same = dataclasses.replace(config.tasks[0], dev=f"./{config.tasks[0].train}")
    told = "warning: task sst: its dev file is its training file; scores on it say nothing about new texts"
    assert [told in list(rehearse(dataclasses.replace(config, tasks=(own,)))) for own in (config.tasks[0], same)] == [
        False,
        True,
    ]


def test_what_is_wrong_with_a_run_is_wrong_with_its_rehearsal(config: Config) -> None:
    with pytest.raises(InputError, match="freeze: no parameter lies below 'encodr'"):
        list(rehearse(dataclasses.replace(config, freeze=("encodr",))))


def test_a_runs_revision_is_what_the_hub_is_asked_for(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing but the files that are read: no pickle comes along, whatever else lies there."""
    asked: list[tuple[Any, ...]] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, sorted(allow_patterns)))
        return config.encoder

    monkeypatch.setattr(hub.huggingface_hub, "snapshot_download", download)
    list(rehearse(dataclasses.replace(config, encoder="org/bert", revision="0123abc")))
    (name, revision, patterns), *others = asked
    assert (name, revision, others) == ("org/bert", "0123abc", [])
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"} <= set(patterns)
    assert all(pattern.endswith((".json", ".safetensors", ".txt")) for pattern in patterns)


def spoilt_encoder(config: Config, folder: Path) -> Path:
    spoilt = Path(shutil.copytree(config.encoder, folder))
    tensors = {name: value.copy() for name, value in load_file(spoilt / "model.safetensors").items()}
    tensors["pooler.dense.bias"][0] = np.nan
    save_file(tensors, spoilt / "model.safetensors")
    return spoilt


@pytest.mark.parametrize("rehearsed", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("test file", r"cannot read the data file .*gone.tsv: No such file"),
        ("test row", r"few.tsv:3: has 2 columns where the header has 4"),
        ("test labels", r"labels.tsv:2: column 'similarity' is .*9.0"),
        ("weights", r"tensor pooler.dense.bias has 1 of 16 values that are not finite"),
        ("no weights", r"has no model.safetensors"),
        ("folder", r"cannot write the run folder .*: Not a directory"),
        ("predictions", r"cannot write the run folder .*predictions\): Not a directory"),
        ("package", r'writers: "wandb" needs the package wandb'),
    ],
)
def test_what_the_end_needs_is_checked_at_the_start(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, message: str, rehearsed: bool
) -> None:
    """By a dry run, too; and nothing is left behind."""
    rows = {"few.tsv": "1\tid1\ta\tb\n2\tid2\n", "labels.tsv": "1\tid1\ta\tb\t9.0\n"}
    more = {"few.tsv": "", "labels.tsv": "\tsimilarity"}
    for name, text in rows.items():
        (tmp_path / name).write_text(f"\tid\tsentence1\tsentence2{more[name]}\n{text}")
    out, kept = Path(config.out), set(tmp_path.iterdir())
    match change:
        case "test file" | "test row" | "test labels":
            name = {"test file": "gone.tsv", "test row": "few.tsv", "test labels": "labels.tsv"}[change]
            config = replace_task(config, "sts", test=str(tmp_path / name))
        case "weights" | "no weights":
            spoilt = spoilt_encoder(config, tmp_path / "spoilt")
            if change == "no weights":
                (spoilt / "model.safetensors").unlink()
            config, kept = dataclasses.replace(config, encoder=str(spoilt)), {*kept, spoilt}
        case "folder":
            (tmp_path / "file").touch()
            config, kept = dataclasses.replace(config, out=str(tmp_path / "file" / "x")), {*kept, tmp_path / "file"}
        case "predictions":
            out.mkdir()
            (out / "predictions").touch()
            kept |= {out}
        case "package":
            monkeypatch.setitem(sys.modules, "wandb", None)
            config = dataclasses.replace(config, writers=("wandb",))
    with pytest.raises(InputError, match=message):
        list(rehearse(config)) if rehearsed else run(config, Path(config.out))
    assert set(tmp_path.iterdir()) <= {*kept, tmp_path / "cache"}
    assert not (out / ".lock").exists()


def test_a_cache_that_cannot_be_written_is_no_fault(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert list(rehearse(dataclasses.replace(config, cache_dir=str(tmp_path / "file" / "cache"))))


def test_a_refusal_leaves_no_folder_of_another_seed(config: Config, tmp_path: Path) -> None:
    save_config(config, tmp_path / "config.toml")
    (tmp_path / "all" / "seed1").mkdir(parents=True)
    shutil.copy(tmp_path / "config.toml", tmp_path / "all" / "seed1")
    with pytest.raises(InputError, match="seed1 holds a run already"):
        run(dataclasses.replace(config, seeds=(0, 1)), tmp_path / "all")
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["seed1"]


def test_a_rehearsal_tells_of_a_run_that_lies_there_and_of_what_going_on_would_change(config: Config) -> None:
    assert not any("holds a run already" in line for line in rehearse(config))
    Path(config.out).mkdir()
    save_config(config, Path(config.out) / "config.toml")
    assert list(rehearse(config))[-1].startswith(f"{config.out} holds a run already: training needs --resume")
    assert any(line.startswith("nothing to resume") for line in rehearse(config, "resume"))
    with pytest.raises(InputError, match=r"lr: 0.001 → 0.5.*--init-from"):
        list(rehearse(dataclasses.replace(config, lr=0.5), "resume"))


def goes_by(config: Config) -> str:
    (line,) = (line for line in rehearse(config) if "best checkpoint: " in line or "is the best" in line)
    return line


def test_a_line_says_what_the_best_checkpoint_goes_by(config: Config, tmp_path: Path) -> None:
    every = "best checkpoint: by the average of sst accuracy, para accuracy, sts pearson on dev"
    assert goes_by(config) == every
    assert goes_by(dataclasses.replace(config, checkpoint_metric="sts.mae")) == "best checkpoint: by sts mae on dev"
    assert goes_by(dataclasses.replace(config, checkpoint_metric="para")) == "best checkpoint: by para accuracy on dev"
    one = replace_task(config, "sst", dev="")
    plain = dataclasses.replace(one, checkpoint_metric="plain_average")
    without = "para accuracy, sts pearson on dev (sst has no dev file)"
    assert goes_by(plain) == f"best checkpoint: by the plain average of {without}"
    none = replace_task(replace_task(one, "para", dev=""), "sts", dev="")
    assert goes_by(none) == "no dev file: the latest checkpoint is the best"
    assert goes_by(dataclasses.replace(none, patience=3)).endswith("is the best; patience has no effect")
    equal = replace_task(one, "sts", dev=str(equal_labels(tmp_path)))
    assert goes_by(equal) == (
        "best checkpoint: by the average of para accuracy on dev (sst has no dev file; the score of sts is undefined "
        "for its dev labels)"
    )
    with pytest.raises(InputError, match="checkpoint_metric = 'sts.spearman' is undefined for the labels"):
        goes_by(dataclasses.replace(equal, checkpoint_metric="sts.spearman"))
    assert goes_by(dataclasses.replace(equal, checkpoint_metric="sts.rmse")) == "best checkpoint: by sts rmse on dev"
    alone = dataclasses.replace(equal, tasks=equal.tasks[2:])
    assert goes_by(alone) == "best checkpoint: the latest (the score of sts is undefined for its dev labels)"


@pytest.mark.parametrize(
    ("units", "dtype", "said"),
    [
        ("amx_bf16", "auto", "products in bfloat16 by amx_bf16"),
        ("", "auto", "products in float32\n"),
        ("amx_bf16", "float32", 'products in float32 (compute_dtype = "auto" would take bfloat16, by amx_bf16)'),
        ("", "bfloat16", "products in bfloat16, for which this device has no units"),
    ],
)
def test_the_type_of_products_is_said_with_the_device(
    units: str, dtype: Any, said: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(describe, "bfloat16_units", lambda: units)
    monkeypatch.setattr(products, "bfloat16_units", lambda: units)
    assert said in "\n".join(rehearse(dataclasses.replace(config, compute_dtype=dtype)))


def test_a_run_keeps_the_type_of_products_that_it_began_with(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run folder that moves to a machine without units goes on, and is evaluated, as it began."""
    monkeypatch.setattr(products, "bfloat16_units", lambda: "avx512_bf16")
    config = dataclasses.replace(light(config), compute_dtype="auto", steps=3, eval_every_steps=3)
    run(config, Path(config.out))
    folder = RunFolder(Path(config.out))
    assert folder.load_config().compute_dtype == "bfloat16"
    monkeypatch.setattr(products, "bfloat16_units", lambda: "")
    assert prepare.prepare(config, folder, "resume").config.compute_dtype == "bfloat16"
    with pytest.raises(InputError, match="compute_dtype"):
        prepare.prepare(dataclasses.replace(config, compute_dtype="float32"), folder, "resume")
    fresh = RunFolder(Path(config.out).with_name("other"))
    assert prepare.prepare(config, fresh, "resume").config.compute_dtype == "float32"


def test_a_task_that_no_step_trains_is_named_and_not_scored(config: Config, tmp_path: Path) -> None:
    """Its head, as it was drawn, would have a part in the choice of the best checkpoint."""
    config = dataclasses.replace(config, order="sequential", steps=11, eval_every_steps=11)
    (told,) = (line for line in rehearse(config) if "before one trains it" in line)  # 37 rows in batches of 4: ten each
    assert told == "task sts: the steps end before one trains it; its head stays as it was, and no step is best"
    (scored,) = (r for r in read_metrics(run(config, tmp_path / "run").metrics) if r["kind"] == "eval")
    assert set(scored["scores"]) == {"sst", "para", "average", "plain_average"}
    stages = (StageConfig("first", steps=11), StageConfig("second", order="round_robin", steps=1))
    assert "before one trains it" not in "\n".join(rehearse(dataclasses.replace(config, stages=stages)))
