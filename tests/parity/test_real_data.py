"""The course's own files and a real encoder, where they are at hand; nothing of them is in this repository."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.data.dataset import load_dataset
from mtbert_jax.encoders.tokenizer import load_tokenizer

DATA = Path(os.environ.get("MTBERT_COURSE_DATA", "../shared/data/cs224n"))
WEIGHTS = Path("weights/minilm")
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no course data: set MTBERT_COURSE_DATA to its folder")
ROWS = {
    "sst": (8544, 1101, 2210),
    "para": (13986, 2222, 4004),
    "sts": (6040, 863, 1725),
    "cfimdb": (1707, 245, 488),
}


@pytest.fixture
def config() -> mt.Config:
    return dataclasses.replace(mt.load_config("configs/minilm_four_tasks.toml"), data_dir=str(DATA))


def test_every_row_of_the_real_files_is_read(config: mt.Config) -> None:
    for task in config.tasks:
        for split, rows in zip(("train", "dev", "test"), ROWS[task.name], strict=True):
            examples = mt.read_task(task, split, DATA)  # type: ignore[arg-type]
            assert len(examples) == rows
            assert len({example.id for example in examples}) == rows
            assert all((example.label is None) == (split == "test") for example in examples)


@pytest.mark.skipif(not (WEIGHTS / "model.safetensors").is_file(), reason="no encoder: make weights")
def test_real_sentences_have_the_lengths_that_are_documented(config: mt.Config, tmp_path: Path) -> None:
    config = dataclasses.replace(config, cache_dir=str(tmp_path))
    data = load_dataset(config, config.resolved_tasks()[0], "train", load_tokenizer(WEIGHTS))
    assert round(float(np.mean(data.tokens.lengths))) == 25
    assert round(float(np.median(data.tokens.lengths))) == 24


@pytest.mark.skipif(not (WEIGHTS / "model.safetensors").is_file(), reason="no encoder: make weights")
def test_real_reviews_have_the_lengths_that_are_documented(config: mt.Config, tmp_path: Path) -> None:
    task, config = config.resolved_tasks()[3], dataclasses.replace(config, cache_dir=str(tmp_path))
    whole = load_dataset(config, dataclasses.replace(task, max_length=10_000), "train", load_tokenizer(WEIGHTS))
    lengths = whole.tokens.lengths
    assert (round(float(np.mean(lengths))), lengths.max()) == (224, 514)
    assert 0.3 < np.mean(lengths > 256) < 0.36
    assert np.mean(lengths > 512) < 0.001
    cut = load_dataset(config, task, "train", load_tokenizer(WEIGHTS))
    assert cut.tokens.lengths.max() == 256
    assert set(cut.labels.tolist()) == {0.0, 1.0}
