"""ModernBERT and DeBERTa-v2 against Hugging Face's classes: states, what we write of them, and token ids."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.encoders.deberta_v2 import DebertaV2Config, position_rows
from tests.encoders.modern import ROLES, save_modern
from tests.parity.test_transformers import TOLERANCE

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make parity")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: make parity")

SIZES = {"vocab_size": 320, "max_position_embeddings": 70, "initializer_range": 0.15, "pad_token_id": 0}
LAYERS = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 80}
V3 = {"relative_attention": True, "pos_att_type": "p2c|c2p", "position_buckets": 8, "norm_rel_ebd": "layer_norm"}
V3 |= {"share_att_key": True, "position_biased_input": False, "max_relative_positions": -1}
ROPES = {"full_attention": {"rope_type": "default", "rope_theta": 500.0}}
ROPES["sliding_attention"] = {"rope_type": "default", "rope_theta": 20.0}
BIASES = dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias"), True)
TYPES = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "modernbert": ("ModernBert", {"local_attention": 16}),
    "modernbert with biases": ("ModernBert", {"local_attention": 7, **BIASES, "hidden_activation": "gelu_new"}),
    "modernbert with layer types": ("ModernBert", {"local_attention": 10, "layer_types": TYPES}),
    "modernbert with other rotations": ("ModernBert", {"local_attention": 20, "rope_parameters": ROPES}),
    "deberta-v3": ("DebertaV2", {**V3, "type_vocab_size": 0}),
    "deberta-v2 with a convolution": ("DebertaV2", {**V3, "conv_kernel_size": 3, "conv_act": "gelu"}),
    "deberta-v2 with a wide convolution": ("DebertaV2", {**V3, "conv_kernel_size": 5, "type_vocab_size": 1}),
    "deberta-v2 with layers of its own": (
        "DebertaV2",
        {**V3, "share_att_key": False, "norm_rel_ebd": "none", "position_biased_input": True, "type_vocab_size": 2},
    ),
    "deberta-v2 without buckets": ("DebertaV2", {**V3, "position_buckets": -1, "max_relative_positions": 10}),
    "deberta-v2, c2p": ("DebertaV2", {**V3, "pos_att_type": ["c2p"], "share_att_key": False}),
    "deberta-v2, p2c": ("DebertaV2", {**V3, "pos_att_type": ["p2c"], "position_buckets": 14}),
    "deberta-v2 without relative positions": ("DebertaV2", {"type_vocab_size": 2, "pos_att_type": ["c2p"]}),
}


@pytest.fixture(params=list(VARIANTS))
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A random encoder of a variant, written by `transformers`."""
    family, options = VARIANTS[request.param]
    return written(family, {**options}, tmp_path / "theirs")


def written(family: str, options: dict[str, Any], folder: Path) -> Path:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES, **LAYERS, **options)
    model = getattr(transformers, f"{family}Model")(config)
    for name, value in model.named_parameters():  # biases begin at 0, and scales at 1: neither would show
        if value.ndim == 1:
            torch.nn.init.normal_(value, float("bias" not in name), 0.3)
    model.save_pretrained(folder)
    return folder


def inputs(seq: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs, padded: one row is full, another is short."""
    rng = np.random.default_rng(seq)
    ends = np.array([seq, 3, seq // 2, seq - 1])[:, None]
    mask = (np.arange(seq) < ends).astype(np.int32)
    types = ((np.arange(seq) >= ends // 2) * mask).astype(np.int32)
    return (rng.integers(1, 320, mask.shape) * mask).astype(np.int32), mask, types


def reference(directory: Path, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> np.ndarray:
    model = transformers.AutoModel.from_pretrained(directory).eval()
    given = {"input_ids": ids, "attention_mask": mask}
    if "Deberta" in type(model).__name__:
        given["token_type_ids"] = types if model.config.type_vocab_size > 1 else np.zeros_like(types)
    with torch.no_grad():
        return model(**{k: torch.tensor(v, dtype=torch.long) for k, v in given.items()}).last_hidden_state.numpy()


@pytest.mark.parametrize("seq", [70, 21, 4])
def test_states_agree_over_padded_pairs(directory: Path, seq: int) -> None:
    """Over texts that are longer than windows and buckets, and shorter."""
    batch = inputs(seq)
    config, params = mt.load_pretrained(directory)
    ours = jax.jit(mt.encoder(config).apply)({"params": params}, *batch)
    assert ours.pooled is None
    difference = np.abs(np.asarray(ours.hidden_states) - reference(directory, *batch)) * batch[1][..., None]
    assert difference.max() <= TOLERANCE


def test_what_we_write_gives_transformers_the_same_model(directory: Path) -> None:
    config, params = mt.load_pretrained(directory)
    ours = directory.parent / "ours"
    mt.save_pretrained(ours, config, params)
    one, other = (reference(folder, *inputs(40)) for folder in (directory, ours))
    assert np.abs(one - other).max() <= 1e-6
    assert mt.load_pretrained(ours)[0] == config


@pytest.mark.parametrize("step", [1, 2, 5])
def test_older_files_of_modernbert_give_the_same(tmp_path: Path, step: int) -> None:
    """Those of `transformers` 4, on the hub: other names for rotations and kinds of layers."""
    older = {"global_attn_every_n_layers": step, "global_rope_theta": 700.0, "local_rope_theta": 30.0}
    folder = written("ModernBert", {"local_attention": 12, **older}, tmp_path / "theirs")
    newer = mt.load_pretrained(folder)[0]
    assert (newer.global_rope_theta, newer.local_rope_theta) == (700, 30)
    values = json.loads((folder / "config.json").read_text())
    wanted = reference(folder, *inputs(40))
    values = {name: value for name, value in values.items() if name not in ("layer_types", "rope_parameters")}
    (folder / "config.json").write_text(json.dumps(values | older))
    config, params = mt.load_pretrained(folder)
    assert config == newer
    found = mt.encoder(config).apply({"params": params}, *inputs(40)).hidden_states
    assert (np.abs(found - wanted) * inputs(40)[1][..., None]).max() <= TOLERANCE


@pytest.mark.parametrize("family", ["ModernBert", "DebertaV2"])
def test_a_whole_model_loads_as_its_encoder(family: str, tmp_path: Path) -> None:
    options = V3 if family == "DebertaV2" else {}
    whole = getattr(transformers, f"{family}ForMaskedLM")(
        getattr(transformers, f"{family}Config")(**SIZES, **LAYERS, **options)
    )
    whole.save_pretrained(tmp_path / "whole")
    whole.base_model.save_pretrained(tmp_path / "encoder")
    one, other = (mt.load_pretrained(tmp_path / name)[1] for name in ("whole", "encoder"))
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(("buckets", "farthest"), [(256, 512), (8, 70), (5, 64), (64, 128), (-1, 100), (32, 4096)])
def test_buckets_of_distances_are_theirs(buckets: int, farthest: int) -> None:
    """For every distance, since a bucket's end hangs on one rounding; (256, 512) are DeBERTa-v3's."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

    length = 600
    states = torch.zeros(1, length, 1)
    theirs = build_relative_position(states, states, buckets, farthest)[0].numpy()
    span = buckets if buckets > 0 else farthest
    config = DebertaV2Config(
        max_position_embeddings=length, max_relative_positions=farthest, position_buckets=max(buckets, 0)
    )
    offsets = np.arange(length)[:, None] - np.arange(length)
    np.testing.assert_array_equal(position_rows(config)[length + offsets], np.clip(theirs + span, 0, 2 * span - 1))


TEXTS = [
    "the film was good .",
    "",
    "A  song\tis\nvery  bad .   ",
    "Ünïcode cafe\u0301 — 日本 🙂🙂 ok\u200b!",
    "isn't it 3,141 times 50%?",
    "GOOD good Good gOOd",
    " leading and trailing ",
    "the room was warm " * 15,
]
CLASSES: dict[str, dict[str, Any]] = {
    "modernbert": {"tokenizer_class": "PreTrainedTokenizerFast"},
    "modernbert without settings": {},
    "deberta-v2": {"tokenizer_class": "DebertaV2Tokenizer", "do_lower_case": False},
    "deberta-v2 without settings": {},
    "deberta-v2 in lower case": {"do_lower_case": True, "split_by_punct": True},
    "deberta-v2 as it stands": {"tokenizer_class": "PreTrainedTokenizerFast"},
}


@pytest.mark.parametrize("max_length", [512, 11])
@pytest.mark.parametrize("name", CLASSES)
def test_token_ids_agree(name: str, max_length: int, tmp_path: Path) -> None:
    """As the directory came, and as we write it."""
    from mtbert_jax.data.tokens import tokenize_texts

    directory = save_modern(name.partition(" ")[0], tmp_path / "theirs")
    (directory / "tokenizer_config.json").write_text(json.dumps({**CLASSES[name], **ROLES}))
    tokenizer, (config, params) = mt.load_tokenizer(directory), mt.load_pretrained(directory)
    mt.save_pretrained(tmp_path / "ours", config, params, tokenizer)
    assert mt.load_tokenizer(tmp_path / "ours").to_str() == tokenizer.to_str()
    texts: list[tuple[str, ...]] = [*((text,) for text in TEXTS), *((a, b) for a in TEXTS for b in TEXTS[::-3] if b)]
    tokens = tokenize_texts(tokenizer, texts, max_length)
    for folder in (directory, tmp_path / "ours"):
        read = transformers.AutoTokenizer.from_pretrained(folder)
        assert (read.pad_token, read.pad_token_id) == ("[PAD]", tokenizer.token_to_id("[PAD]"))
        for number, text in enumerate(texts):
            found = read(*text, max_length=max_length, truncation="longest_first")
            start, end = tokens.starts[number : number + 2]
            assert tokens.ids[start:end].tolist() == found["input_ids"], text
            assert folder == directory or "token_type_ids" not in found  # the encoders here would not take them
