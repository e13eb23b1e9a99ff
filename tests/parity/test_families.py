"""Families that are plugins against Hugging Face's classes: states, pooler, token ids, and what we write of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.data.batches import make_batch
from mtbert_jax.data.tokens import tokenize_texts
from tests.encoders.plugins import TOKENIZERS
from tests.parity.test_transformers import TOLERANCE
from tests.plugins import registered

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make parity")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: make parity")

SIZES = {"vocab_size": 320, "max_position_embeddings": 70, "initializer_range": 0.3}
LAYERS = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80}
NARROW = {"dim": 48, "n_layers": 3, "n_heads": 4, "hidden_dim": 80}
MODELS = {
    "roberta": lambda: transformers.RobertaModel(transformers.RobertaConfig(**SIZES, **LAYERS)),
    "distilbert": lambda: transformers.DistilBertModel(transformers.DistilBertConfig(**SIZES, **NARROW)),
}
TEXTS = [
    "the film was good .",
    "",
    "A  song\tis\nvery  bad .   ",
    "the <s> film </s> was [SEP] not <mask> good <pad>",
    "[CLS] was <unk> [MASK] [PAD] [UNK]",
    "Ünïcode caf\u00e9 — 日本 🙂🙂 ok\u200b!",
    "isn't it 3,141 times 50%?",
    "GOOD good Good gOOd",
    " leading and trailing ",
    "the room was warm " * 15,
    "e\u0301 \ufeff\u00a0 x",
    "<s></s></s>",
]


@pytest.fixture(params=list(MODELS))
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Name of a family, and the directory of a random encoder of it, written by `transformers`."""
    torch.manual_seed(0)
    with registered(f"{request.param}.py", tmp_path):
        directory = tmp_path / request.param
        MODELS[request.param]().save_pretrained(directory)
        TOKENIZERS[request.param](directory)
        yield request.param, directory


def reference(directory: Path, ids: np.ndarray, mask: np.ndarray) -> Any:
    model = transformers.AutoModel.from_pretrained(directory).eval()
    with torch.no_grad():
        return model(torch.tensor(ids, dtype=torch.long), torch.tensor(mask, dtype=torch.long))


def test_states_and_pooler_agree_over_padded_texts_and_pairs(family: tuple[str, Path]) -> None:
    """Ours pads with 0, theirs with the family's own id."""
    directory = family[1]
    config, params = mt.load_pretrained(directory)
    texts = [(text,) for text in TEXTS] + list(zip(TEXTS, TEXTS[::-1], strict=True))
    tokens = tokenize_texts(mt.load_tokenizer(directory), texts, 68)
    batch = make_batch(tokens, np.zeros(len(texts), np.float32), np.arange(len(texts)), 68, len(texts))
    mask = np.asarray(batch.attention_mask)
    assert mask.sum(1).max() == 68 and mask.sum(1).min() == 2
    theirs = reference(directory, np.where(mask > 0, batch.input_ids, config.pad_token_id), mask)
    ours = jax.jit(mt.encoder(config).apply)({"params": params}, *batch[:3])
    difference = np.abs(np.asarray(ours.hidden_states) - theirs.last_hidden_state.numpy()) * mask[..., None]
    assert difference.max() <= TOLERANCE
    if ours.pooled is None:
        assert "pooler_output" not in theirs
    else:
        assert np.abs(ours.pooled - theirs.pooler_output.numpy()).max() <= TOLERANCE


@pytest.mark.parametrize("max_length", [512, 11])
def test_token_ids_agree(family: tuple[str, Path], max_length: int) -> None:
    """As the directory came, and as we write it."""
    name, directory = family
    tokenizer, (config, params) = mt.load_tokenizer(directory), mt.load_pretrained(directory)
    mt.save_pretrained(directory.parent / "saved", config, params, tokenizer)
    pairs = [(a, b) for a in TEXTS for b in TEXTS[::-3]]
    texts: list[tuple[str, ...]] = [*((text,) for text in TEXTS), *pairs]
    tokens = tokenize_texts(tokenizer, texts, max_length)
    for folder in (directory, directory.parent / "saved"):
        read = transformers.AutoTokenizer.from_pretrained(folder)
        limits = {"max_length": max_length, "truncation": "longest_first", "split_special_tokens": True}
        for number, text in enumerate(texts):
            found = read(*text, **limits)
            start, end = tokens.starts[number : number + 2]
            assert tokens.ids[start:end].tolist() == found["input_ids"], text
            assert folder == directory or "token_type_ids" not in found  # the encoder would not take them
    saved = transformers.AutoTokenizer.from_pretrained(directory.parent / "saved")
    assert (saved.pad_token, saved.sep_token) == (("<pad>", "</s>") if name == "roberta" else ("[PAD]", "[SEP]"))


def test_what_we_write_gives_transformers_the_same_model(family: tuple[str, Path]) -> None:
    directory = family[1]
    mt.save_pretrained(directory.parent / "saved", *mt.load_pretrained(directory))
    ids, mask = np.arange(5, 65).reshape(3, 20), np.ones((3, 20), int)
    one, other = (
        reference(folder, ids, mask).last_hidden_state.numpy() for folder in (directory, directory.parent / "saved")
    )
    assert np.abs(one - other).max() <= 1e-6


def test_a_whole_model_loads_as_its_encoder(tmp_path: Path) -> None:
    """Names there start with the family's prefix."""
    config = transformers.DistilBertConfig(**SIZES, **NARROW)
    with registered("distilbert.py", tmp_path):
        model = transformers.DistilBertForMaskedLM(config)
        model.save_pretrained(tmp_path / "whole")
        model.distilbert.save_pretrained(tmp_path / "encoder")
        whole, encoder = (mt.load_pretrained(tmp_path / name)[1] for name in ("whole", "encoder"))
    jax.tree.map(np.testing.assert_array_equal, whole, encoder)
