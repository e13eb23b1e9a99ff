"""Eight simulated devices against one."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtbert_jax.config import Config, HeadConfig, LoraConfig, ProximalConfig, SmartConfig, save_config
from tests.conftest import environment, replace_task, tiny_run

ROOT = Path(__file__).parents[2]
LAYOUTS: dict[str, dict[str, int]] = {
    "one": {"data": 1},
    "data": {"data": 8},
    "fsdp": {"data": 1, "fsdp": 8},
    "both": {"data": 2, "fsdp": 4},
}


def in_process(module: str, argument: str, **own: str) -> None:
    """Runs a module of the tests in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", module, argument],
        cwd=ROOT,
        env=environment(**own),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def config(small_encoder_dir: Path, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Three steps of PCGrad with a teacher; batches of 4 that 8 devices cannot divide.

    One of the tasks has a loss of a whole batch, whose rows lie on several devices.
    """
    tiny = tiny_run(small_encoder_dir, data_dir, tmp_path_factory.mktemp("devices"))
    order = dataclasses.replace(tiny.tasks[2], name="order", kind="ranking", label_range=())
    teacher = ProximalConfig(weight=1.0, momentum=0.5, early_momentum=0.5)
    return dataclasses.replace(tiny, tasks=(tiny.tasks[0], order), steps=3, proximal=teacher)


def with_everything(config: Config) -> Config:
    """The same with SMART, for tasks of which one has hidden tokens and one reads its texts apart, too."""
    text = dataclasses.replace(config.tasks[0], name="text", kind="masked_lm", num_classes=0)
    near = dataclasses.replace(config.tasks[0], name="near", kind="contrastive", num_classes=0)
    score = dataclasses.replace(config.tasks[2], name="sts", kind="regression", label_range=(0.0, 5.0))
    config = replace_task(config, "para", head=HeadConfig(pooling="both", hidden_layers=0))
    # Noise well above float32's rounding of the outputs, whose differences are what the ascent follows.
    smart = SmartConfig(weight=1.0, preset="paper", radius=0.1, noise_std=0.1, step_size=0.1)
    return dataclasses.replace(config, tasks=(*config.tasks, score, text, near), smart=smart)


@pytest.fixture(scope="module")
def results(config: Config) -> dict[str, Any]:
    """What comes of it on one device, and with rows and parameters split over eight."""
    return under(config, "one", "both")


@pytest.fixture(scope="module")
def everything(config: Config) -> dict[str, Any]:
    """What comes of a run with everything, under every layout."""
    return under(with_everything(config), *LAYOUTS)


def under(config: Config, *names: str) -> dict[str, Any]:
    """What comes of a config's steps under each layout, on eight devices."""
    out, layouts = Path(config.cache_dir).parent, {name: LAYOUTS[name] for name in names}
    save_config(config, out / "config.toml")
    spec = {
        "config": str(out / "config.toml"),
        "devices": 8,
        "layouts": layouts,
        "steps": config.steps,
        "out": str(out),
    }
    (out / "spec.json").write_text(json.dumps(spec))
    in_process("tests.parallel.devices", str(out / "spec.json"))
    found: dict[str, Any] = {name: dict(np.load(out / f"{name}.npz")) for name in layouts}
    return {**found, "places": json.loads((out / "places.json").read_text())}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Parameters, teacher, momentum and losses after three steps, dropout on, fillers in every batch."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5, err_msg=name)


def test_updates_are_those_of_one_device(results: dict[str, Any]) -> None:
    assert_same(results["both"], results["one"])


@pytest.mark.slow
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "one"])
def test_so_they_are_with_everything_and_other_layouts(everything: dict[str, Any], layout: str) -> None:
    assert_same(everything[layout], everything["one"])


@pytest.mark.slow
def test_lora_trains_the_same_products_over_devices(small_encoder_dir: Path, data_dir: Path, tmp_path: Path) -> None:
    """Kernels split, products whole: they are put together inside the step's programs."""
    config = tiny_run(small_encoder_dir, data_dir, tmp_path)
    paths = ("encoder/*/attention", "encoder/*/intermediate")
    config = dataclasses.replace(
        config, tasks=config.tasks[1:], steps=3, lora=LoraConfig(rank=8, alpha=64.0, paths=paths)
    )
    found = under(config, "one", "both")
    assert found["places"]["both"]["kernel"] == [16, 6]
    products = [name for name, leaf in found["one"].items() if "lora_b" in name and leaf.any()]
    assert len(products) == 3 * 5  # parameters, teacher, momentum
    assert_same(found["both"], found["one"])


def test_fsdp_splits_parameters_and_optimizer_state(results: dict[str, Any]) -> None:
    places = results["places"]
    assert places["one"]["kernel"] == [16, 24]
    assert places["both"]["kernel"] == [16, 6]
    assert places["both"]["bytes"] < 0.35 * places["both"]["whole"]


@pytest.mark.slow
def test_rows_alone_split_nothing_else(everything: dict[str, Any]) -> None:
    places = everything["places"]
    assert places["data"]["kernel"] == [16, 24]
    assert places["data"]["bytes"] == places["data"]["whole"]
    assert places["fsdp"]["kernel"] == [16, 3]
    assert places["fsdp"]["bytes"] < 0.25 * places["fsdp"]["whole"]
