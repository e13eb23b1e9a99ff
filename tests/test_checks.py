"""What SMART, the proximal term, kept features and class balance refuse. Other fields: test_config.py."""

import dataclasses
import math
from typing import Any

import pytest

from mtbert_jax.checks import check_config
from mtbert_jax.config import Config, ProximalConfig, SmartConfig, StageConfig, TaskConfig
from mtbert_jax.types import InputError

SST = TaskConfig("sst", num_classes=3, label="y", train="a.csv")
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
        ({"weight": math.inf}, "smart.weight = inf"),
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


def test_an_anchor_in_every_step_is_refused_with_the_reason() -> None:
    """NUMERICS 2: with S = 1 the gradient is exactly zero."""
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
        f"tasks[1] ({task.name}): {message}"
    )


def test_task_options_that_can_work_are_not_refused() -> None:
    weighted = dataclasses.replace(SST, class_weights=(0.5, 1.0, 2.0), sampling_balance=0.5, smart_factor=0.0)
    check_config(Config(tasks=(weighted, dataclasses.replace(PARA, loss_balance=1.0, class_weights=()))))
