"""What SMART, the proximal term, kept features and class balance refuse. Other fields: test_config.py."""

import dataclasses
import math
import re
from typing import Any

import pytest

from mtbert_jax.checks import check_config
from mtbert_jax.config import (
    Config,
    HeadConfig,
    LoraConfig,
    ProximalConfig,
    SmartConfig,
    StageConfig,
    TaskConfig,
)
from mtbert_jax.errors import InputError

SST = TaskConfig("sst", num_classes=3, label="y", train="a.csv")
NER = TaskConfig("ner", "tokens", ("text",), "tags", classes=("X",), train="t")
PARA = TaskConfig("para", "binary", label="y", train="a.csv")
STS = TaskConfig("sts", "regression", label="y", train="a.csv")


def refusal(config: Config) -> str:
    with pytest.raises(InputError) as error:
        check_config(config)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": -1.0}, "smart.weight = -1.0: must be at least 0"),
        ({"weight": math.inf}, "smart.weight = inf: must be at least 0 and finite"),
        ({"radius": -0.1}, "smart.radius = -0.1"),
        ({"noise_std": -0.1}, "smart.noise_std = -0.1"),
        ({"step_size": math.inf}, "smart.step_size = inf"),
        ({"steps": -1}, "smart.steps = -1"),
        ({"ramp_fraction": 1.1}, "smart.ramp_fraction = 1.1: must be from 0 to 1"),
    ],
)
@pytest.mark.parametrize("in_stage", [False, True])
def test_smart_that_cannot_work_is_named(changes: dict[str, Any], message: str, in_stage: bool) -> None:
    smart = SmartConfig(**changes)
    stages = (StageConfig("full", smart=smart),)
    config = Config(tasks=(SST,), stages=stages) if in_stage else Config(tasks=(SST,), smart=smart)
    assert refusal(config).startswith(("stage full: " if in_stage else "") + message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": -1.0}, "proximal.weight = -1.0: must be at least 0"),
        ({"momentum": 1.0}, "proximal.momentum = 1.0: must be at least 0 and below 1"),
        ({"early_momentum": -0.5}, "proximal.early_momentum = -0.5"),
        ({"early_fraction": 2.0}, "proximal.early_fraction = 2.0"),
        ({"anchor_every_steps": 0}, "proximal.anchor_every_steps = 0: must be at least 2"),
    ],
)
def test_a_proximal_term_that_cannot_work_is_named(changes: dict[str, Any], message: str) -> None:
    assert refusal(Config(tasks=(SST,), proximal=ProximalConfig(**changes))).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling_exponent": 0.3}, 'sampling_exponent belongs to order = "temperature", which no stage has'),
        ({"sampling_cap": 7}, 'sampling_cap belongs to order = "temperature", which no stage has'),
        ({"order": "temperature", "sampling_exponent": 1.5}, "sampling_exponent = 1.5: must be from 0 to 1"),
        ({"order": "temperature", "sampling_cap": -1}, "sampling_cap = -1: must be at least 0"),
    ],
)
def test_sampling_that_cannot_work_is_named(changes: dict[str, Any], message: str) -> None:
    assert refusal(Config(tasks=(SST, STS), **changes)).startswith(message)


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (SST, {"swap_pairs": 0.5}, "tasks[0] (sst): swap_pairs is for labelled pairs of texts"),
        (SST, {"word_deletion": 1.0}, "tasks[0] (sst): word_deletion = 1.0: must be at least 0 and below 1"),
        (SST, {"word_swap": 1.5}, "tasks[0] (sst): word_swap = 1.5: must be from 0 to 1"),
        (NER, {"word_deletion": 0.1}, "tasks[0] (ner): word_deletion is for labels of whole texts, not for kind = 'to"),
        (
            TaskConfig("lm", "masked_lm", train="t"),
            {"word_swap": 0.1},
            "tasks[0] (lm): word_swap is for labels of whole texts, not for kind = 'masked_lm', which reads their tok",
        ),
        (SST, {"both_orders": True}, "tasks[0] (sst): both_orders is for labelled pairs of texts, not for kind = 'cl"),
        (NER, {"both_orders": True}, "tasks[0] (ner): both_orders is for labelled pairs of texts, not for kind = 'to"),
        (
            TaskConfig("lm", "masked_lm", ("a", "b"), train="t"),
            {"both_orders": True},
            "tasks[0] (lm): both_orders is for labelled pairs of texts, not for kind = 'masked_lm' over 2 text(s)",
        ),
        (PARA, {"swap_pairs": 1.5, "text": ("a", "b")}, "tasks[0] (para): swap_pairs = 1.5: must be from 0 to 1"),
    ],
)
def test_changes_of_texts_that_cannot_work_are_named(task: TaskConfig, changes: dict[str, Any], message: str) -> None:
    assert refusal(Config(tasks=(dataclasses.replace(task, **changes),))).startswith(message)


@pytest.mark.parametrize("name", ["swap_pairs", "word_deletion", "word_swap"])
def test_kept_features_are_of_texts_as_they_are(name: str) -> None:
    task = dataclasses.replace(PARA, text=("a", "b"), **{name: 0.5})  # type: ignore[arg-type]
    stage = StageConfig("heads", freeze=("encoder",), cache_features=True)
    assert f"task para has {name} = 0.5" in refusal(Config(tasks=(task,), stages=(stage,)))


def test_an_anchor_in_every_step_is_refused_with_the_reason() -> None:
    """docs/numerics.md, section 2.2: with S = 1 the gradient is exactly zero."""
    config = Config(tasks=(SST,), proximal=ProximalConfig(weight=1.0, teacher="vanilla", anchor_every_steps=1))
    assert "the gradient of the proximal term is zero" in refusal(config)


def test_kept_features_need_a_frozen_encoder_and_no_smart() -> None:
    config = Config(tasks=(SST,), cache_features=True)
    assert 'cache_features needs a frozen encoder: freeze = ["encoder"]' in refusal(config)
    assert "cache_features" in refusal(dataclasses.replace(config, freeze=("encoder/embeddings",)))
    frozen = dataclasses.replace(config, freeze=("encoder",))
    check_config(frozen)
    assert "set smart.weight = 0 in this stage" in refusal(dataclasses.replace(frozen, smart=SmartConfig(weight=0.1)))
    stage = StageConfig("heads", freeze=("encoder",), cache_features=True, smart=SmartConfig())
    check_config(Config(tasks=(SST,), smart=SmartConfig(weight=0.1), stages=(stage, StageConfig("full"))))


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (SST, {"max_length": 2}, "max_length = 2: an example needs at least 3 tokens"),
        (SST, {"smart_factor": -1.0}, "smart_factor = -1.0"),
        (SST, {"loss_balance": 1.5}, "loss_balance = 1.5: must be from 0 to 1"),
        (SST, {"sampling_balance": -0.5}, "sampling_balance = -0.5: must be from 0 to 1"),
        (SST, {"class_weights": (1.0, 2.0)}, "class_weights: give 3 numbers, one per class, not 2"),
        (PARA, {"class_weights": (1.0,)}, "class_weights: give 2 numbers, one per class, not 1"),
        (SST, {"class_weights": (1.0, 0.0, 1.0)}, "class_weights: every weight must be above 0"),
        (SST, {"class_weights": (1.0, 1.0, 1.0), "loss_balance": 0.5}, "class_weights and loss_balance exclude"),
        (STS, {"class_weights": (1.0,)}, "class_weights is for tasks with classes"),
        (STS, {"loss_balance": 0.5}, "loss_balance is for tasks with classes"),
        (STS, {"sampling_balance": 0.5}, "sampling_balance is for tasks with classes"),
    ],
)
def test_task_options_that_cannot_work_are_named(task: TaskConfig, changes: dict[str, Any], message: str) -> None:
    assert refusal(Config(tasks=(dataclasses.replace(task, **changes),))).startswith(
        f"tasks[0] ({task.name}): {message}"
    )


@pytest.mark.parametrize("kind", ["contrastive", "ranking"])
def test_a_loss_of_a_batch_needs_two_examples_in_it(kind: str) -> None:
    """Of one it is 0, whatever the model says."""
    task = TaskConfig("near", kind, ("a", "b"), train="a.csv", batch_size=1)
    check_config(Config(tasks=(dataclasses.replace(task, batch_size=2),), batch_size=1))
    message = f"task near of kind = '{kind}' compares the examples of a batch with each other, and "
    assert refusal(Config(tasks=(task,))).startswith(f"{message}its batch_size = 1 leaves none")
    stages = (StageConfig("first", batch_size=1, tasks=("sst",)), StageConfig("last", batch_size=1, tasks=("near",)))
    config = Config(tasks=(SST, dataclasses.replace(task, batch_size=None)), stages=stages)
    assert refusal(config).startswith(f"stage last: {message}batch_size = 1 leaves none")


def test_task_options_that_can_work_are_not_refused() -> None:
    weighted = dataclasses.replace(SST, class_weights=(0.5, 1.0, 2.0), sampling_balance=0.5, smart_factor=0.0)
    check_config(Config(tasks=(weighted, dataclasses.replace(PARA, loss_balance=1.0, class_weights=()))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 10**9}, "batch_size = 1000000000: must be at most 65536"),
        ({"eval_batch_size": 10**6}, "eval_batch_size = 1000000: must be at most 65536"),
        ({"micro_batches": 10**6}, "micro_batches = 1000000: must be at most 65536"),
        ({"steps": 10**8}, "steps = 100000000: must be at most 10000000"),
        ({"epochs": 1e300}, "epochs = 1e+300: must be above 0, and at most 100000"),
        ({"smart": SmartConfig(steps=10**6)}, "smart.steps = 1000000: must be at most 100"),
        (
            {"proximal": ProximalConfig(anchor_every_steps=2**40)},
            "proximal.anchor_every_steps = 1099511627776: must",
        ),
        ({"seeds": tuple(range(5000))}, "seeds: there are 5000, and 100 are allowed"),
        ({"stages": (StageConfig(),) * 5000}, "stages: there are 5000, and 100 are allowed"),
        ({"head": HeadConfig(hidden_layers=10**6)}, "tasks[0] (sst): head.hidden_layers must be at most 100"),
        ({"head": HeadConfig(hidden_size=10**9)}, "tasks[0] (sst): head.hidden_layers must be at most 100"),
        (
            {"tasks": (dataclasses.replace(SST, batch_size=10**9),)},
            "tasks[0] (sst): batch_size = 1000000000: must be at",
        ),
        ({"tasks": (dataclasses.replace(SST, num_classes=10**9),)}, "tasks[0] (sst): 1000000000 classes: there may be"),
    ],
)
def test_sizes_that_would_end_in_memory_or_patience_are_refused(changes: dict[str, Any], message: str) -> None:
    assert refusal(dataclasses.replace(Config(tasks=(SST,)), **changes)).startswith(message)


@pytest.mark.parametrize("name", ["encoder", "data_dir", "cache_dir", "out"])
def test_no_path_has_a_nul_in_it(name: str) -> None:
    assert refusal(dataclasses.replace(Config(tasks=(SST,)), **{name: "a\0b"})).startswith(f"{name} = 'a\\x00b': ")
    assert "train = 'a\\x00b'" in refusal(Config(tasks=(dataclasses.replace(SST, train="a\0b"),)))


@pytest.mark.parametrize(
    "changes",
    [{"output_column": "a\nb , 1"}, {"classes": ("a", "b\r"), "num_classes": 0}, {"output_column": "a\u2028b"}],
)
def test_what_is_written_into_prediction_files_is_one_line(changes: dict[str, Any]) -> None:
    message = refusal(Config(tasks=(dataclasses.replace(SST, **changes),)))
    assert message.endswith("names of classes and columns stand in one line of the prediction file")


def test_a_class_cannot_hold_what_parts_the_courses_rows() -> None:
    """Rows are ``id , prediction``."""
    classes = dataclasses.replace(SST, num_classes=0, classes=("so , so", "good"))
    assert "classes: 'so , so' has ' , ' in it" in refusal(
        Config(tasks=(dataclasses.replace(classes, output_column="P"),))
    )
    assert check_config(Config(tasks=(dataclasses.replace(classes, output_column=""),))) is None


def test_the_name_of_a_stage_can_be_printed() -> None:
    assert "must be printable" in refusal(Config(tasks=(SST,), stages=(StageConfig("\x1b[2J"),)))


@pytest.mark.parametrize(
    ("names", "told"), [(("x", "y", "x"), "x, y, x"), (("stage2", ""), "stage2, stage2"), (("",), None)]
)
def test_stage_names_differ(names: tuple[str, ...], told: str | None) -> None:
    """Flags and records go by them."""
    config = Config(tasks=(SST,), stages=tuple(map(StageConfig, names)))
    if told is None:
        check_config(config)
    else:
        assert refusal(config).startswith(f"stage names must differ, got {told}; ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "average"}, "no task can be called average, plain_average, file or allow_pickle"),
        ({"name": "Plain_Average"}, "name = 'Plain_Average'"),
        ({"name": "file"}, "name = 'file'"),
        ({"text": ("a", "a")}, "text: names column 'a' twice"),
        ({"text": ("a", "label")}, "label = 'label': is a text column, too"),
    ],
)
def test_names_that_collide_are_refused(changes: dict[str, Any], message: str) -> None:
    task = dataclasses.replace(TaskConfig("sst", num_classes=5, train="a.csv"), **changes)
    with pytest.raises(InputError, match=re.escape(message)):
        check_config(Config(tasks=(task,)))


def test_task_names_differ_in_more_than_capitals() -> None:
    """Their prediction files would be one on many disks."""
    task = TaskConfig("sst", num_classes=5, train="a.csv")
    with pytest.raises(InputError, match="task names must differ, got sst, SST"):
        check_config(Config(tasks=(task, dataclasses.replace(task, name="SST"))))


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (LoraConfig(rank=-1), "lora.rank = -1: must be at least 0"),
        (LoraConfig(rank=8, alpha=0.0), "lora.alpha = 0.0: must be above 0"),
        (LoraConfig(rank=8, alpha=math.inf), "lora.alpha = inf: must be above 0"),
        (
            LoraConfig(paths=("encoder",)),
            "lora.paths: lora.rank = 0 turns LoRA off, and the encoder itself would train",
        ),
        (LoraConfig(rank=8, paths=("encoder",) * 101), "lora.paths: there are 101, and 100 are allowed"),
    ],
)
def test_a_lora_that_cannot_work_is_named(lora: LoraConfig, message: str) -> None:
    assert refusal(Config(tasks=(SST,), lora=lora)).startswith(message)


def test_lora_needs_a_stage_in_which_it_trains() -> None:
    heads = StageConfig("heads", freeze=("encoder",))
    config = Config(tasks=(SST,), lora=LoraConfig(rank=8), stages=(heads,))
    assert refusal(config).startswith("lora: every stage freezes the encoder, and LoRA's products with it")
    check_config(dataclasses.replace(config, stages=(heads, StageConfig("products"))))
