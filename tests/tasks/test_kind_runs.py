"""Every kind from data to export: one tiny run of each, and every command on it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mtbert_jax.tasks import KINDS
from tests.cases import slow_but_for
from tests.fuzz.attempts import command
from tests.fuzz.strategies import to_toml
from tests.fuzz.test_valid_configs import AFTER, Case, room
from tests.fuzz.valid_configs import AUXILIARY, FILES, TEXTS

__all__ = ["room"]  # a fixture
OLD = ("classification", "binary", "regression")
"""Kinds that the rest of the tests train."""
NAMES = [name for name, task in TEXTS.items() if task["kind"] not in OLD]


def test_there_is_a_task_of_every_kind() -> None:
    assert {task["kind"] for task in TEXTS.values()} == {*KINDS}


@pytest.mark.parametrize("name", slow_but_for(["tags"], NAMES))
def test_a_kind_goes_through_every_command(name: str, room: Path, tmp_path: Path) -> None:
    """Trained, resumed to the bit, gone on from, scored, predicted both ways, handed in, reported, exported twice."""
    train, dev, test = FILES[name]
    task = {"name": name, **TEXTS[name], "train": train, "dev": dev, "test": test}
    table = {
        "tasks": [task],
        "max_length": 24,
        "lengths": [24],
        "steps": 2,
        "batch_size": 4,
        "eval_batch_size": 8,
        "log_every_steps": 1,
        "save_every_steps": 1,
        "lr": 1e-2,
        "optimizer": ["adam(lr)"],
    }
    paths = {"encoder": str(room / "encoder"), "data_dir": str(room / "data"), "cache_dir": str(room / "cache")}
    (tmp_path / "config.toml").write_bytes(to_toml({**table, **paths, "out": str(tmp_path / "run")}))
    case = Case(tmp_path, table)
    case.train()
    for after in AFTER.values():
        after(case)
    if task["kind"] not in AUXILIARY:
        same_labels(case, name)


def same_labels(case: Case, name: str) -> None:
    """The exported program's script labels texts as the command does."""
    texts = case.place / "texts"
    texts.write_text("the film was good .\nthe  very long city is not a song of cold . ? [ ] sep grey dull bad a the\n")
    ours = command("predict", str(case.run), "--task", name, "--input", str(texts)).splitlines()
    script = [sys.executable, "-I", str(case.run / "export" / "stablehlo" / "load.py"), name]
    done = subprocess.run(script, input=texts.read_text(), capture_output=True, text=True, timeout=300, check=True)
    theirs = done.stdout.splitlines()
    for one, other in zip(map(json.loads, ours), map(json.loads, theirs), strict=True):
        if isinstance(one["label"], float):
            assert one["label"] == pytest.approx(other["label"], abs=1e-5)
        else:
            assert one["label"] == other["label"]
