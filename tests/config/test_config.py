"""Configs: TOML files, stages and heads filled in, and what is refused."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from mtbert_jax.checks import check_config
from mtbert_jax.config import Config, HeadConfig, Stage, StageConfig, TaskConfig, load_config, save_config
from mtbert_jax.errors import InputError
from mtbert_jax.tasks import kind_of

SST = TaskConfig("sst", "classification", ("sentence",), "sentiment", train="sst.csv", num_classes=5)
STS = TaskConfig("sts", "regression", ("a", "b"), "similarity", dev="sts.csv", label_range=(0.0, 5.0))
GOOD = Config(tasks=(SST, STS))


def refusal(config: Config) -> str:
    with pytest.raises(InputError) as error:
        check_config(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_config_survives_saving_and_loading(config: Config, tmp_path: Path) -> None:
    stage = StageConfig("heads", steps=3, optimizer=("sum_tasks()", "adam(lr)"), lr=1e-3, freeze=("encoder",))
    config = dataclasses.replace(config, stages=(stage, StageConfig(epochs=1.5)), encoder_dropout=0.0, data_dir='a "b"')
    save_config(config, tmp_path / "config.toml")
    assert load_config(tmp_path / "config.toml") == config


def test_the_default_config_survives_saving_and_loading(tmp_path: Path) -> None:
    save_config(Config(), tmp_path / "config.toml")
    assert load_config(str(tmp_path / "config.toml")) == Config()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the config .*nowhere.toml: No such file"):
        load_config(tmp_path / "nowhere.toml")


def test_a_directory_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the config"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    "data",
    [b"lr = ", b"lr = 1\nlr = 2\n", b"\xff\xfe\x00", b"name = \xe9\n", b"a = " + b"[" * 9999, b"seed = " + b"1" * 5000],
)
def test_a_file_that_is_no_toml_is_named(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_bytes(data)
    with pytest.raises(InputError, match="bad.toml(:1)?(: is not UTF-8 text| is not a TOML file)"):
        load_config(tmp_path / "bad.toml")


def test_a_misspelt_key_is_named_with_the_file_and_a_hint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run.toml: tasks\[0\]: unknown key 'lable'; did you mean 'label'\?"):
        load_config(write(tmp_path / "run.toml", '[[tasks]]\nlable = "x"\n'))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rate = 1e-5", "unknown key 'learning_rate'; use lr"),
        ("num_labels = 3", "unknown key 'num_labels'; use classes in [[tasks]]"),
        ("no_cuda = true", "unknown key 'no_cuda'; use the environment variable JAX_PLATFORMS (cpu, cuda)"),
        ('[[tasks]]\nlabel_column = "x"', "tasks[0]: unknown key 'label_column'; use label"),
        ('[[tasks]]\nlabels = "x"', "tasks[0]: unknown key 'labels'; did you mean 'label'?"),
        ("[smart]\nsmart_lambda = 1", "smart: unknown key 'smart_lambda'; use weight"),
    ],
)
def test_what_other_trainers_call_a_field_gets_a_hint(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_config(write(tmp_path / "run.toml", line + "\n"))
    assert str(caught.value) == f"{tmp_path / 'run.toml'}: {message}"


def test_a_task_takes_the_runs_head_where_it_has_none() -> None:
    own, shared = HeadConfig(hidden_layers=0), HeadConfig(hidden_layers=3)
    config = Config(tasks=(SST, dataclasses.replace(STS, head=own)), head=shared)
    assert [task.head for task in config.resolved_tasks()] == [shared, own]


@pytest.mark.parametrize(
    ("task", "outputs"),
    [
        (SST, 5),
        (STS, 1),
        (TaskConfig(kind="binary"), 1),
        (TaskConfig(kind="classification", classes=("no", "maybe", "yes")), 3),
    ],
)
def test_the_kind_gives_the_number_of_outputs(task: TaskConfig, outputs: int) -> None:
    assert kind_of(task).num_outputs(task) == outputs


def test_without_stages_the_run_is_one_of_its_own_fields() -> None:
    config = Config(lr=3e-5, steps=7, order="annealed", freeze=("encoder",))
    (stage,) = config.resolved_stages()
    assert stage.name == "train"
    for field in dataclasses.fields(Stage):
        if field.name not in ("name", "epochs"):
            assert getattr(stage, field.name) == getattr(config, field.name)
    assert stage.epochs == 0  # the length is told in steps


def test_a_stage_keeps_its_own_values_and_inherits_the_rest() -> None:
    own = StageConfig(lr=1e-3, freeze=("encoder",), warmup_fraction=0.0, schedule="cosine")
    config = Config(lr=1e-5, warmup_fraction=0.2, batch_size=8, epochs=2.0, stages=(own, StageConfig("all")))
    first, second = config.resolved_stages()
    assert (first.name, first.lr, first.freeze, first.warmup_fraction) == ("stage1", 1e-3, ("encoder",), 0.0)
    assert (first.schedule, first.batch_size, first.epochs, first.order) == ("cosine", 8, 2.0, "round_robin")
    assert (second.name, second.lr, second.freeze, second.warmup_fraction) == ("all", 1e-5, (), 0.2)
    assert second.optimizer == config.optimizer


@pytest.mark.parametrize(
    ("stage", "length"),
    [(StageConfig(), (0, 50)), (StageConfig(epochs=1.0), (1.0, 0)), (StageConfig(steps=9), (0, 9))],
)
def test_a_stage_with_a_length_of_its_own_inherits_neither(stage: StageConfig, length: tuple) -> None:
    (resolved,) = Config(epochs=2.0, steps=50, stages=(stage,)).resolved_stages()
    assert (resolved.epochs, resolved.steps) == length


def test_a_sound_config_is_not_refused(config: Config) -> None:
    check_config(GOOD)
    check_config(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ()}, "the config has no [[tasks]]"),
        ({"tasks": (SST, SST)}, "task names must differ, got sst, sst"),
        ({"max_length": 2}, "max_length = 2: "),
        ({"max_shapes": 0}, "max_shapes = 0: "),
        ({"lengths": (16, 0)}, "lengths: "),
        ({"encoder_dropout": 1.0}, "encoder_dropout = 1.0: "),
        ({"encoder_dropout": -0.1}, "encoder_dropout = -0.1: "),
        ({"eval_batch_size": 0}, "eval_batch_size = 0: must be at least 1"),
        ({"log_every_steps": 0}, "log_every_steps = 0: must be at least 1"),
        ({"eval_every_steps": -1}, "eval_every_steps = -1: must be at least 0"),
        ({"save_every_steps": -1}, "save_every_steps = -1: must be at least 0"),
        ({"patience": -1}, "patience = -1: must be at least 0"),
        ({"seed": -1}, "seed = -1: "),
        ({"seed": 2**32}, "seed = 4294967296: "),
    ],
)
def test_a_field_of_the_run_that_cannot_work_is_named(changes: dict[str, Any], message: str) -> None:
    assert refusal(dataclasses.replace(GOOD, **changes)).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0.0}, "epochs = 0.0: "),
        ({"epochs": math.inf}, "epochs = inf: "),
        ({"steps": 0}, "steps = 0: "),
        ({"steps": -5}, "steps = -5: "),
        ({"batch_size": 0}, "batch_size = 0: "),
        ({"lr": 0.0}, "lr = 0.0: "),
        ({"lr": math.inf}, "lr = inf: "),
        ({"warmup_fraction": 1.5}, "warmup_fraction = 1.5: "),
        ({"warmup_fraction": -0.5}, "warmup_fraction = -0.5: "),
        ({"optimizer": ()}, "optimizer is empty"),
    ],
)
@pytest.mark.parametrize("in_stage", [False, True])
def test_a_field_of_a_stage_that_cannot_work_is_named(changes: dict[str, Any], message: str, in_stage: bool) -> None:
    if in_stage:
        config = dataclasses.replace(GOOD, stages=(StageConfig(), StageConfig("second", **changes)))
        message = "stage second: " + message
    else:
        config = dataclasses.replace(GOOD, **changes)
    assert refusal(config).startswith(message)


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (SST, {"name": ""}, "tasks[0]: name = ''"),
        (SST, {"name": "../up"}, "tasks[0] (../up): name"),
        (SST, {"name": "sst\n"}, "tasks[0]"),
        (SST, {"text": ()}, "tasks[0] (sst): text"),
        (SST, {"text": ("a", "")}, "tasks[0] (sst): text"),
        (SST, {"text": ("a", "b", "c")}, "tasks[0] (sst): text"),
        (SST, {"train": ""}, "tasks[0] (sst): no file: give train, dev or test"),
        (SST, {"num_classes": 1}, "tasks[0] (sst): classification needs num_classes"),
        (SST, {"num_classes": 0}, "tasks[0] (sst): classification needs num_classes"),
        (SST, {"classes": ("a", "b")}, "tasks[0] (sst): num_classes = 5 but 2 classes"),
        (SST, {"num_classes": 0, "classes": ("a", "a")}, "tasks[0] (sst): classes"),
        (SST, {"label_range": (0.0, 5.0)}, "tasks[0] (sst): label_range"),
        (STS, {"num_classes": 2}, "tasks[0] (sts): num_classes"),
        (STS, {"classes": ("a", "b")}, "tasks[0] (sts): num_classes and classes"),
        (STS, {"label_range": (5.0, 0.0)}, "tasks[0] (sts): label_range"),
        (STS, {"label_range": (5.0,)}, "tasks[0] (sts): label_range"),
        (SST, {"head": HeadConfig(dropout=1.0)}, "tasks[0] (sst): head.dropout = 1.0"),
        (SST, {"head": HeadConfig(hidden_layers=-1)}, "tasks[0] (sst): head.hidden_layers"),
        (SST, {"head": HeadConfig(hidden_size=-1)}, "tasks[0] (sst): head.hidden_layers and head.hidden_size"),
        (SST, {"loss_weight": 0.0}, "tasks[0] (sst): loss_weight = 0.0"),
        (SST, {"loss_weight": math.inf}, "tasks[0] (sst): loss_weight = inf"),
        (SST, {"batch_size": 0}, "tasks[0] (sst): batch_size = 0"),
    ],
)
def test_a_field_of_a_task_that_cannot_work_is_named(task: TaskConfig, changes: dict[str, Any], message: str) -> None:
    assert refusal(Config(tasks=(dataclasses.replace(task, **changes),))).startswith(message)


def test_the_runs_head_is_checked_too() -> None:
    assert "head.dropout" in refusal(dataclasses.replace(GOOD, head=HeadConfig(dropout=2.0)))


@pytest.mark.parametrize("field", ["seed", "lr", "encoder", "order", "tasks", "freeze"])
def test_a_number_that_python_would_not_even_print_is_refused_in_one_line(field: str, tmp_path: Path) -> None:
    path = write(tmp_path / "run.toml", f"{field} = 0x{'f' * 9000}\n")
    with pytest.raises(InputError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}: {field}")
    assert len(str(error.value)) < 400
