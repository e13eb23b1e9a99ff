"""Texts that are hardly texts, from a data file to a prediction: they train, are scored, and are predicted."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mtbert_jax.config import Config
from mtbert_jax.data.examples import clean
from mtbert_jax.data.tokens import tokenize_texts
from mtbert_jax.encoders.tokenizer import load_tokenizer
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.machine import peak_memory
from mtbert_jax.results.write import write_results
from mtbert_jax.training.fit import fit
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.records import read_metrics
from tests.conftest import WORDS, replace_task
from tests.fuzz.attempts import BYTES
from tests.fuzz.strategies import ODD_TEXTS
from tests.tally import Tally
from tests.training.test_fit import Quiet

LINES = ["x" * 2**20, "the film " * 2**17, "[SEP]" * 2**18, "\u202e\x00" * 2**18, "漢" * 2**18]
SHORT, LONG = pytest.param(ODD_TEXTS, id="short"), pytest.param(LINES, id="long", marks=pytest.mark.slow)


@pytest.mark.parametrize("texts", [SHORT, LONG])
def test_odd_texts_train_and_are_scored_and_predicted(
    texts: list[str], config: Config, tmp_path: Path, tally: Tally
) -> None:
    """JSON Lines hold them all as they are, lone surrogates too; each stands in both places of a pair."""
    rows = [
        json.dumps({"id": str(n), "sentence1": text, "sentence2": texts[-1 - n], "is_duplicate": n % 2})
        for n, text in enumerate(texts)
    ]
    (tmp_path / "odd.jsonl").write_text("\n".join(rows) + "\n")
    path = str(tmp_path / "odd.jsonl")
    config = replace_task(config, "para", train=path, dev=path, test="")
    config = dataclasses.replace(config, tasks=(config.tasks[1],), steps=len(texts) // 4 + 1, eval_every_steps=0)
    folder = RunFolder(Path(config.out))
    fit(config, folder, display=Quiet())
    records = [record for record in read_metrics(folder.metrics) if record["kind"] == "train"]
    assert records
    assert not any("left_out" in record for record in records)
    results = write_results(folder, config)
    assert 0 <= results["dev"]["para"]["accuracy"] <= 1
    predictions = MultitaskModel.from_checkpoint(folder.path).predict(
        "para", list(zip(texts, texts[::-1], strict=True))
    )
    assert len(predictions) == len(texts)
    assert all(0 <= prediction.probabilities["1"] <= 1 for prediction in predictions)
    tally("odd texts trained and predicted", len(texts))


@pytest.mark.parametrize("texts", [SHORT, LONG])
def test_no_text_becomes_a_special_token(texts: list[str], encoder_dir: Path) -> None:
    """Neither alone, nor in a pair, nor a megabyte of it: only the frame of each example has any."""
    tokenizer = load_tokenizer(encoder_dir)
    special = [WORDS.index(name) for name in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")]
    texts = [clean(text) for text in (*texts, "[CLS]", "[MASK]", "[PAD] [UNK]", " [SEP] ", "a[SEP]b", "##[SEP]")]
    memory = peak_memory()
    for examples, frame in (([(t,) for t in texts], 2), ([(t, u) for t, u in zip(texts, texts[::-1], strict=True)], 3)):
        tokens = tokenize_texts(tokenizer, examples, 64)
        for start, end in zip(tokens.starts[:-1], tokens.starts[1:], strict=True):
            assert np.isin(tokens.ids[start:end], special).sum() == frame
    assert peak_memory() - memory < BYTES
