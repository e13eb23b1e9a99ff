"""A run's probabilities as labels of another run: `mtbert predict --soft-labels`, and training on what it wrote."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, TaskConfig
from tests.conftest import tiny_run
from tests.runs import checkpointed


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, small_encoder_dir: Path, data_dir: Path) -> Config:
    """A run with a checkpoint, of the course's tasks and one of several labels."""
    config = tiny_run(small_encoder_dir, data_dir, tmp_path_factory.mktemp("teacher"))
    checkpointed(config)
    return config


def test_a_run_is_trained_on_what_another_one_says(teacher: Config, tmp_path: Path) -> None:
    """Training and dev files have the same columns; labels of the dev file are classes."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("ids-sst-dev.csv", "quora-dev.csv"):
        (data / name).write_bytes((Path(teacher.data_dir) / name).read_bytes())
    for task in ("sst", "para"):
        argv = ["predict", teacher.out, "--task", task, "--soft-labels", str(data / f"soft-{task}.jsonl")]
        assert main(argv) == 0
    rows = [json.loads(line) for line in (data / "soft-sst.jsonl").read_text().splitlines()]
    model = mt.MultitaskModel.from_checkpoint(teacher.out)
    examples = mt.read_task(teacher.tasks[0], "train", teacher.data_dir)
    assert [(row["id"], row["sentence"]) for row in rows] == [(one.id, one.texts[0]) for one in examples]
    said = model.predict("sst", [one.texts[0] for one in examples])
    shares = [list(one.probabilities.values()) for one in said]
    np.testing.assert_allclose([row["sentiment"] for row in rows], shares, rtol=1e-5)

    soft = [
        dataclasses.replace(task, kind="distribution", train=f"soft-{task.name}.jsonl", test="", num_classes=count)
        for task, count in zip(teacher.tasks, (5, 2), strict=False)
    ]
    config = dataclasses.replace(teacher, tasks=tuple(soft), data_dir=str(data), steps=2)
    run = mt.train(config, out=tmp_path / "run")
    assert isinstance(run, mt.Run)
    assert list(run.scores["sst"]) == ["accuracy", "f1", "cross_entropy"]
    # A cross entropy against a distribution is its entropy at least.
    entropies = -np.sum(np.array(shares) * np.log(shares), axis=1)
    losses = [value for value in run.history["train/loss/sst"] if value is not None]
    assert min(losses) > entropies.min() > 0
    assert run.model.predict("para", [("the film", "the book")])[0].label in (0, 1)


def test_texts_of_ones_own_get_labels_too(teacher: Config, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("the film was good .\nthe city is dull .\n")
    out = tmp_path / "soft.jsonl"
    argv = ["predict", teacher.out, "--task", "sst", "--input", str(tmp_path / "texts"), "--soft-labels", str(out)]
    assert main(argv) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["0", "1"]
    assert all(sum(row["sentiment"]) == pytest.approx(1, abs=1e-5) for row in rows)
    task = TaskConfig("sst", "distribution", label="sentiment", num_classes=5, train=str(out))
    assert [one.texts for one in mt.read_task(task, "train")] == [("the film was good .",), ("the city is dull .",)]


def test_outputs_that_are_no_distribution_are_refused(
    teacher: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "soft.jsonl"
    assert main(["predict", teacher.out, "--task", "sts", "--soft-labels", str(out)]) == 2
    assert "task sts is of kind = 'regression', whose outputs are no distribution" in capsys.readouterr().err
    assert main(["predict", teacher.out, "--soft-labels", str(out)]) == 2
    assert "--soft-labels FILE needs --task" in capsys.readouterr().err
    assert not out.exists()
