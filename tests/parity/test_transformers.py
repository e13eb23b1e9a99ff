"""The encoder against Hugging Face's, on real weights (docs/numerics.md, section 4)."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.data.tokens import tokenize_texts
from mtbert_jax.encoders.hub import save_description
from mtbert_jax.encoders.tokenizer import load_tokenizer

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make parity")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: make parity")

WEIGHTS = Path("weights/minilm")
needs_weights = pytest.mark.skipif(not (WEIGHTS / "model.safetensors").is_file(), reason="no encoder: make weights")
TOLERANCE = 2e-5


def inputs(seed: int, batch: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of random tokens, padded: one row is full, the others end anywhere."""
    rng = np.random.default_rng(seed)
    ends = rng.integers(3, length + 1, batch)
    ends[0] = length
    mask = (np.arange(length) < ends[:, None]).astype(np.int32)
    types = ((np.arange(length) >= ends[:, None] // 2) * mask).astype(np.int32)
    return (rng.integers(1000, 30000, (batch, length)) * mask).astype(np.int32), mask, types


def theirs(model: Any, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    arguments = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    with torch.no_grad():
        output = model(**{name: torch.tensor(value, dtype=torch.long) for name, value in arguments.items()})
    return output.last_hidden_state.numpy(), output.pooler_output.numpy()


def compare(directory: Path, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> tuple[float, float]:
    """Largest difference of hidden states on valid tokens, and of the pooler's output."""
    config, params = mt.load_pretrained(directory)
    model = transformers.AutoModel.from_pretrained(directory).eval()
    hidden, pooled = theirs(model, ids, mask, types)
    ours = jax.jit(lambda *x: mt.BertEncoder(config).apply({"params": params}, *x))(ids, mask, types)
    difference = np.abs(np.asarray(ours.hidden_states) - hidden) * mask[..., None]
    return float(difference.max()), float(np.abs(ours.pooled - pooled).max())


@needs_weights
@pytest.mark.parametrize(("batch", "length"), [(8, 24), (4, 128), (2, 512)])
def test_real_weights_agree_over_padded_pairs(batch: int, length: int) -> None:
    hidden, pooled = compare(WEIGHTS, *inputs(length, batch, length))
    assert hidden <= TOLERANCE
    assert pooled <= TOLERANCE


@needs_weights
def test_real_text_has_the_same_ids_types_and_states() -> None:
    pairs = [("A man is playing a guitar.", "Someone plays [SEP] music, isn't it?"), ("Ünïcode…", "日本 ok\u200b!")]
    tokens = tokenize_texts(load_tokenizer(WEIGHTS), pairs, 64)
    reference = transformers.AutoTokenizer.from_pretrained(WEIGHTS)
    for number, pair in enumerate(pairs):
        expected = reference(*pair, split_special_tokens=True)
        start, end = tokens.starts[number : number + 2]
        types = [0] * tokens.first[number] + [1] * (end - start - tokens.first[number])
        assert tokens.ids[start:end].tolist() == expected["input_ids"]
        assert types == expected["token_type_ids"]


@needs_weights
def test_what_save_pretrained_wrote_gives_transformers_the_same_model(tmp_path: Path) -> None:
    config, params = mt.load_pretrained(WEIGHTS)
    mt.save_pretrained(tmp_path, config, params, load_tokenizer(WEIGHTS))
    ids, mask, types = inputs(1, 4, 40)
    models = [transformers.AutoModel.from_pretrained(folder).eval() for folder in (WEIGHTS, tmp_path)]
    (hidden, pooled), (hidden_again, pooled_again) = (theirs(model, ids, mask, types) for model in models)
    assert np.abs(hidden - hidden_again).max() <= 1e-6
    assert np.abs(pooled - pooled_again).max() <= 1e-6
    texts = ("Hello there, it's me.", "A second one")
    read = [transformers.AutoTokenizer.from_pretrained(folder)(*texts) for folder in (WEIGHTS, tmp_path)]
    assert read[0]["input_ids"] == read[1]["input_ids"]
    assert read[0]["token_type_ids"] == read[1]["token_type_ids"]


@pytest.mark.parametrize("lower_case", [True, False])
def test_a_saved_tokenizer_keeps_what_it_does_with_capitals(tmp_path: Path, lower_case: bool) -> None:
    """BertTokenizer of `transformers` would take the vocabulary alone, and write all in lower case."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "Film", "film", "é", "e"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower_case}))
    tokenizer = load_tokenizer(tmp_path)
    save_description(tmp_path / "saved", mt.BertConfig(), tokenizer)
    read = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    ids = read(["Film film é [SEP]"], ["é"], split_special_tokens=True)["input_ids"]
    assert ids == [tokenizer.encode("Film film é [SEP]", "é").ids]
    assert (ids[0][1] == ids[0][2]) == lower_case


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu"])
def test_a_random_bert_of_any_shape_agrees(tmp_path: Path, activation: str) -> None:
    config = transformers.BertConfig(
        vocab_size=30000,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=80,
        hidden_act=activation,
        initializer_range=0.3,
        layer_norm_eps=1e-6,
        max_position_embeddings=70,
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(tmp_path)
    hidden, pooled = compare(tmp_path, *inputs(2, 5, 33))
    assert hidden <= TOLERANCE
    assert pooled <= TOLERANCE


def test_a_whole_pretraining_checkpoint_loads_as_its_encoder(tmp_path: Path) -> None:
    """Names there start with ``bert.``."""
    config = transformers.BertConfig(
        vocab_size=30000, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    torch.manual_seed(0)
    transformers.BertForPreTraining(config).save_pretrained(tmp_path)
    hidden, pooled = compare(tmp_path, *inputs(3, 3, 20))
    assert hidden <= TOLERANCE
    assert pooled <= TOLERANCE
