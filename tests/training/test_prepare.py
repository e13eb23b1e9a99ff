"""What a run would be, said before it is."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, StageConfig, load_config, save_config
from mtbert_jax.encoders import hub
from mtbert_jax.errors import InputError
from mtbert_jax.training.prepare import rehearse
from mtbert_jax.training.records import read_metrics
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


def test_the_shapes_of_a_dry_run_are_those_that_training_compiles(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(config, lengths=(16, 32, 48), steps=None, epochs=1.0)
    shapes = shapes_of_the_first_epoch(config, "train")
    assert set(shapes) <= {"4 × 16", "4 × 32", "4 × 48"}
    (stage,) = (r for r in read_metrics(run(config, tmp_path / "run").metrics) if r["kind"] == "stage")
    assert stage["compiled_shapes"] == len(shapes) + 1  # the update is one more program


def test_what_is_wrong_with_a_run_is_wrong_with_its_rehearsal(config: Config) -> None:
    with pytest.raises(InputError, match="freeze: no parameter lies below 'encodr'"):
        list(rehearse(dataclasses.replace(config, freeze=("encodr",))))


def test_a_runs_revision_is_what_the_hub_is_asked_for(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing but the files that are read: no pickle comes along, whatever else lies there."""
    asked: list[tuple[Any, ...]] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, sorted(allow_patterns)))
        return config.encoder

    monkeypatch.setattr(hub, "snapshot_download", download)
    list(rehearse(dataclasses.replace(config, encoder="org/bert", revision="0123abc")))
    files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    assert asked == [("org/bert", "0123abc", files)]
