"""One split of one task, from file to token arrays."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mtbert_jax.config import Config
from mtbert_jax.data.dataset import load_dataset
from mtbert_jax.data.readers import read_task
from mtbert_jax.data.tokens import tokenize_texts
from mtbert_jax.encoders.tokenizer import load_tokenizer
from mtbert_jax.errors import InputError


def test_a_split_holds_ids_texts_tokens_and_labels_in_the_files_order(config: Config) -> None:
    tokenizer, task = load_tokenizer(config.encoder), config.resolved_tasks()[2]
    dataset = load_dataset(config, task, "train", tokenizer)
    examples = read_task(task, "train", config.data_dir)
    assert dataset.ids == [f"train{number:03}" for number in range(37)]
    assert dataset.texts == [example.texts for example in examples]
    assert dataset.labels.dtype == np.float32
    np.testing.assert_array_equal(dataset.labels, np.float32([example.label for example in examples]))
    expected = tokenize_texts(tokenizer, dataset.texts, config.max_length)
    assert all(np.array_equal(a, b) for a, b in zip(dataset.tokens, expected, strict=True))
    assert (dataset.labelled, dataset.skipped) == (True, [])


def test_tokens_are_cut_off_at_the_configs_max_length(config: Config) -> None:
    config = dataclasses.replace(config, max_length=7)
    dataset = load_dataset(config, config.resolved_tasks()[1], "dev", load_tokenizer(config.encoder))
    assert set(dataset.tokens.lengths) == {7}


def test_a_tasks_own_max_length_comes_before_the_configs(config: Config) -> None:
    tokenizer = load_tokenizer(config.encoder)
    own, none = dataclasses.replace(config.tasks[1], max_length=7), config.tasks[1]
    config = dataclasses.replace(config, max_length=9, tasks=(own, none))
    for task, limit in zip(config.resolved_tasks(), (7, 9), strict=True):
        dataset = load_dataset(config, task, "dev", tokenizer)
        assert set(dataset.tokens.lengths) == {limit}


def test_tokens_are_kept_in_the_configs_cache_folder(config: Config) -> None:
    load_dataset(config, config.resolved_tasks()[0], "dev", load_tokenizer(config.encoder))
    assert [path.suffix for path in Path(config.cache_dir).iterdir()] == [".npz"]


def test_a_split_without_labels_says_so(config: Config) -> None:
    dataset = load_dataset(config, config.resolved_tasks()[0], "test", load_tokenizer(config.encoder))
    assert not dataset.labelled
    assert dataset.labels.tolist() == [0.0] * 11


def test_bad_rows_stop_or_are_reported_as_the_config_says(config: Config, tmp_path: Path) -> None:
    (tmp_path / "ids-sst-dev.csv").write_text("id\tsentence\tsentiment\na\tgood\t4\nb\tbad\t9\nc\tdull\t0\n")
    config = dataclasses.replace(config, data_dir=str(tmp_path))
    tokenizer = load_tokenizer(config.encoder)
    with pytest.raises(InputError, match="ids-sst-dev.csv:3: "):
        load_dataset(config, config.resolved_tasks()[0], "dev", tokenizer)
    dataset = load_dataset(dataclasses.replace(config, bad_rows="skip"), config.resolved_tasks()[0], "dev", tokenizer)
    assert (dataset.ids, dataset.labels.tolist(), len(dataset.skipped)) == (["a", "c"], [4.0, 0.0], 1)
