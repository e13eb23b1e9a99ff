"""Fields that do nothing beside others are told, each with its reason; sound configs have none."""

import dataclasses
from pathlib import Path
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
    load_config,
)
from mtbert_jax.unused import unused_fields

CONFIGS = Path(__file__).parents[1] / "configs"
SST = TaskConfig("sst", num_classes=3, label="y", train="a.csv")
SMOOTH, NEAR = SmartConfig(weight=1.0), ProximalConfig(weight=1.0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, None),
        ({"lr": 1.0, "steps": 6, "max_shapes": 3, "seed": 3, "head": HeadConfig(dropout=0.5), "batch_size": 3}, None),
        ({"steps": 6, "epochs": 2.0}, "epochs without effect: steps = 6"),
        ({"stages": (StageConfig(steps=6, epochs=2.0),)}, "stages[0]: epochs without effect: steps = 6"),
        ({"seeds": (0, 1), "seed": 3}, "seed without effect: seeds has the seeds of all runs"),
        ({"lengths": (8,), "max_shapes": 3}, "max_shapes without effect: lengths has all lengths"),
        ({"lengths": (8, 64), "max_length": 32}, "64 in lengths without effect: max_length = 32"),
        ({"encoder": ".", "revision": "main"}, "revision without effect: encoder is a folder"),
        ({"lora": LoraConfig(alpha=3.0)}, "lora.alpha without effect: lora.rank = 0"),
        (
            {"tasks": (dataclasses.replace(SST, batch_size=2),), "batch_size": 3},
            "batch_size without effect: every task has its own",
        ),
        (
            {"tasks": (dataclasses.replace(SST, head=HeadConfig()),), "head": HeadConfig(dropout=0.5)},
            "head without effect: every task has its own",
        ),
        (
            {"head": HeadConfig(0, 8, 0.5)},
            "task sst: head.hidden_size, task sst: head.dropout without effect: head.hidden_layers = 0",
        ),
        (
            {"smart": SmartConfig(radius=0.2, steps=2)},
            "smart.radius, smart.steps without effect: no stage has a smart.weight above 0",
        ),
        ({"stages": (StageConfig(smart=SMOOTH), StageConfig()), "smart": SmartConfig(radius=0.2)}, None),
        (
            {"stages": (StageConfig(smart=SMOOTH),), "smart": SmartConfig(radius=0.2)},
            "smart without effect: every stage has its own",
        ),
        (
            {"stages": (StageConfig(smart=SmartConfig(radius=0.2)), StageConfig()), "smart": SMOOTH},
            "stages[0]: smart.radius without effect: the smart.weight of this stage is 0",
        ),
        (
            {"stages": (StageConfig(proximal=ProximalConfig(momentum=0.5)), StageConfig()), "proximal": NEAR},
            "stages[0]: proximal.momentum without effect: the proximal.weight of this stage is 0",
        ),
        (
            {"freeze": ("encoder",), "cache_features": True, "encoder_dropout": 0.3},
            "encoder_dropout without effect: every stage keeps features, which the encoder makes once, without dropout",
        ),
        (
            {"tasks": (dataclasses.replace(SST, loss_balance=1.0),), "batch_size": 1},
            "task sst: loss_balance without effect: batch_size = 1, and the loss of a batch is the weighted mean over "
            "its examples",
        ),
        (
            {"smart": dataclasses.replace(SMOOTH, steps=0, step_size=1.0)},
            "smart.step_size without effect: smart.steps = 0",
        ),
        (
            {"tasks": (dataclasses.replace(SST, smart_factor=0.0),)},
            "smart_factor of sst without effect: no stage has a smart.weight above 0",
        ),
        (
            {"proximal": ProximalConfig(momentum=0.5)},
            "proximal.momentum without effect: no stage has a proximal.weight above 0",
        ),
        ({"proximal": ProximalConfig(momentum=0.5), "evaluate": "teacher"}, None),
        (
            {"proximal": dataclasses.replace(NEAR, anchor_every_steps=3)},
            'proximal.anchor_every_steps without effect: proximal.teacher = "momentum"',
        ),
        (
            {"proximal": dataclasses.replace(NEAR, teacher="vanilla", early_fraction=0.5)},
            'proximal.early_fraction without effect: proximal.teacher = "vanilla"',
        ),
    ],
)
def test_what_does_nothing_beside_other_fields_is_told(changes: dict[str, Any], told: str | None) -> None:
    config = dataclasses.replace(Config(tasks=(SST,)), **changes)
    check_config(config)
    assert list(unused_fields(config)) == ([told] if told else [])


def test_the_configs_that_are_shipped_set_nothing_in_vain() -> None:
    configs = {path: load_config(path) for path in CONFIGS.rglob("*.toml")}
    runs = {path: config for path, config in configs.items() if config.tasks}
    assert len(runs) > 30
    assert {path: told for path, config in runs.items() if (told := list(unused_fields(config)))} == {}
