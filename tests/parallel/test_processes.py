"""Several processes, and runs that go on with another number of devices."""

import dataclasses
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, ParallelConfig, ProximalConfig, SmartConfig, save_config
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.training.fit import fit
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.records import read_metrics
from tests.conftest import environment
from tests.parallel.test_devices import ROOT


def free_address() -> str:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def train(config: Config, **spec: Any) -> None:
    """Trains `config` in one or more processes of `devices` each."""
    out = Path(config.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.with_suffix(".toml")
    save_config(config, file)
    count = spec.pop("processes", 1)
    shared: dict[str, Any] = {"config": str(file), **spec}
    if count > 1:
        shared |= {"coordinator": free_address(), "processes": count}
    running = []
    for number in range(count):
        own = out.with_suffix(f".{number}.json")
        own.write_text(json.dumps({**shared, "process": number} if count > 1 else shared))
        command = [sys.executable, "-m", "tests.parallel.train", str(own)]
        running.append(subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True))
    for process in running:
        message = process.communicate(timeout=300)[1]
        assert process.returncode == 0, message[-3000:]


@pytest.fixture
def regularized(config: Config) -> Config:
    """Six steps of PCGrad, SMART and a teacher; a record, an evaluation and a checkpoint after every second one."""
    smart = SmartConfig(weight=1.0, preset="paper", radius=0.1, noise_std=0.1, step_size=0.1)
    proximal = ProximalConfig(weight=1.0, momentum=0.5, early_momentum=0.5)
    # No Adam: it would make a whole step of a gradient that is zero but for rounding.
    chain = ("pcgrad()", "clip_by_global_norm(1.0)", "sgd(lr, momentum=0.9)")
    return dataclasses.replace(config, smart=smart, proximal=proximal, optimizer=chain, lr=0.01, eval_every_steps=2)


def assert_same(config: Config, one: str, other: str) -> None:
    """The latest parameters of two runs, and their records."""
    models = [MultitaskModel.from_checkpoint(out, "latest", config=config) for out in (one, other)]
    assert models[0].step == models[1].step == 6
    for a, b in zip(*map(_leaves, models), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)
    records = [read_metrics(Path(out) / "metrics.jsonl") for out in (one, other)]
    assert [(r["kind"], r["step"]) for r in records[0]] == [(r["kind"], r["step"]) for r in records[1]]
    for a, b in zip(*records, strict=True):
        if a["kind"] == "train":
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


def _leaves(model: MultitaskModel) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(model.params)]


@pytest.mark.slow
def test_a_run_goes_on_with_other_devices_and_processes(regularized: Config, tmp_path: Path) -> None:
    """Eight devices, then one, then two processes of two devices: the run of one device."""
    whole = dataclasses.replace(regularized, out=str(tmp_path / "whole"))
    parts = dataclasses.replace(regularized, out=str(tmp_path / "parts"))
    train(whole, devices=1)
    train(dataclasses.replace(parts, parallel=ParallelConfig(data=2, fsdp=4)), devices=8, stop_at=2)
    train(parts, devices=1, stop_at=4)
    train(dataclasses.replace(parts, parallel=ParallelConfig(data=2, fsdp=2)), devices=2, processes=2)
    assert_same(regularized, str(tmp_path / "whole"), str(tmp_path / "parts"))


@pytest.mark.slow
def test_many_steps_between_two_records_do_not_hang(config: Config) -> None:
    """Twice as many programs under way as XLA bears where processes meet on CPUs (`Layout.keep_pace`)."""
    long = dataclasses.replace(config, steps=70, log_every_steps=70, eval_every_steps=70, eval_batch_size=1)
    train(dataclasses.replace(long, parallel=ParallelConfig(data=2, fsdp=2)), devices=2, processes=2)
    assert [r["step"] for r in read_metrics(Path(config.out) / "metrics.jsonl") if r["kind"] == "train"] == [70]


@pytest.mark.slow
def test_seeds_spread_over_devices_are_those_of_one_device(regularized: Config, tmp_path: Path) -> None:
    """Two seeds on two groups of two devices, with parameters split inside each."""
    several = dataclasses.replace(regularized, seeds=(3, 1))
    one, four = (dataclasses.replace(several, out=str(tmp_path / name)) for name in ("one", "four"))
    train(one, devices=1)
    train(dataclasses.replace(four, parallel=ParallelConfig(replica=2, data=1, fsdp=2)), devices=4)
    for seed in (3, 1):
        alone = dataclasses.replace(regularized, seed=seed)
        assert_same(alone, *(str(tmp_path / name / f"seed{seed}") for name in ("one", "four")))


@pytest.mark.slow
def test_two_processes_train_the_run_of_one(regularized: Config, tmp_path: Path) -> None:
    """By the command: it scores, predicts and prints once, too."""
    config = dataclasses.replace(regularized, smart=SmartConfig(), tasks=regularized.tasks[1:])  # slow tests have more
    one, two = (dataclasses.replace(config, out=str(tmp_path / name)) for name in ("one", "two"))
    fit(one, RunFolder(Path(one.out)))
    file = tmp_path / "two.toml"
    save_config(two, file)
    command = [sys.executable, "-m", "mtbert_jax", "train", str(file), "--num-processes", "2"]
    command += ["--coordinator", free_address(), "--process-id"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([*command, str(n)], cwd=ROOT, env=environment(), **pipes) for n in range(2)]
    said = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert_same(config, str(tmp_path / "one"), str(tmp_path / "two"))
    assert f"run folder: {two.out}" in said[0][0]
    assert "run folder" not in "".join(said[1])
    assert "dev at step 6" in said[0][1]
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    model = MultitaskModel.from_checkpoint(two.out)
    assert model.evaluate("dev")[0]["average"] == pytest.approx(results["dev"]["average"], abs=1e-3)
    assert len(list((tmp_path / "two" / "predictions").glob("*.csv"))) == 4


@pytest.mark.slow
def test_two_processes_begin_from_another_run_as_one_does(regularized: Config, tmp_path: Path) -> None:
    """Of several devices each, with parameters split over two of them."""
    base, one, two = (dataclasses.replace(regularized, out=str(tmp_path / name)) for name in ("base", "one", "two"))
    train(dataclasses.replace(base, seed=3), devices=1)
    begun = {"init_from": base.out, "encoder": ""}
    train(dataclasses.replace(one, **begun), devices=1)  # type: ignore[arg-type]
    split = ParallelConfig(data=2, fsdp=2)
    train(dataclasses.replace(two, **begun, parallel=split), devices=2, processes=2)  # type: ignore[arg-type]
    assert_same(one, one.out, two.out)


def test_a_process_without_a_coordinator_is_refused(capsys: pytest.CaptureFixture[str], regularized: Config) -> None:
    file = Path(regularized.out).with_suffix(".toml")
    save_config(regularized, file)
    assert main(["train", str(file), "--num-processes", "2"]) == 2
    assert "--coordinator HOST:PORT" in capsys.readouterr().err
