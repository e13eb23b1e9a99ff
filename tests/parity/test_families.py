"""Every family against Hugging Face's classes: states, pooler, gradients, token ids, and what we write of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import mtbert_jax as mt
from mtbert_jax.data.batches import make_batch
from mtbert_jax.data.tokens import tokenize_texts
from mtbert_jax.encoders.family import FAMILIES, family_of
from mtbert_jax.encoders.mpnet import buckets
from mtbert_jax.types import Params
from tests.encoders.tiny import REPLACED, TOKENIZERS, charsmap, pieces
from tests.parity.test_transformers import TOLERANCE
from tests.plugins import registered

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make parity")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: make parity")

SIZES = {"vocab_size": 320, "max_position_embeddings": 170, "initializer_range": 0.2}
LAYERS = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80}
NARROW = {"dim": 48, "n_layers": 3, "n_heads": 4, "hidden_dim": 80}
ONE_TYPE = {"type_vocab_size": 1, "layer_norm_eps": 1e-5}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", LAYERS),
    "roberta": ("Roberta", LAYERS | ONE_TYPE),
    "roberta of two token types": ("Roberta", LAYERS),
    "xlm-roberta": ("XLMRoberta", LAYERS | ONE_TYPE),
    "camembert": ("Camembert", LAYERS | ONE_TYPE),
    "distilbert": ("DistilBert", NARROW),
    "electra": ("Electra", LAYERS | {"embedding_size": 24}),
    "electra of one width": ("Electra", LAYERS | {"embedding_size": 48}),
    "mpnet": ("MPNet", LAYERS | {"layer_norm_eps": 1e-5}),
    "albert": ("Albert", LAYERS | {"embedding_size": 24}),
    "albert of one width": ("Albert", LAYERS | {"embedding_size": 48}),
    "ernie": ("Ernie", LAYERS),
}
UNIGRAM = ("albert", "xlm-roberta", "camembert")
NAMED = [
    "the <s> film </s> was [SEP] not <mask> good <pad>",
    "[CLS] was <unk> [MASK] [PAD] [UNK]",
    "<s></s></s>",
]
"""Texts with names of special tokens."""
TEXTS = [
    "the film was good .",
    "",
    "A  song\tis\nvery  bad .   ",
    "Ünïcode caf\u00e9 — 日本 🙂🙂 ok\u200b!",
    "isn't it 3,141 times 50%? ``So'' it is ① ﬁlm",
    "GOOD good Good gOOd",
    " leading and trailing ",
    "the room was warm " * 15,
    "e\u0301 \ufeff\u00a0 x",
]


def make_model(name: str) -> Any:
    """A random model whose biases and LayerNorms matter, too."""
    prefix, sizes = MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, f"{prefix}Model")(getattr(transformers, f"{prefix}Config")(**SIZES, **sizes)).eval()
    for path, parameter in model.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, float("norm" in path.lower() and path.endswith("weight")), 0.3)
    return model


@pytest.fixture(params=list(MODELS))
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A random encoder, written by `transformers`, and a tokenizer of its family."""
    with registered("ernie.py", tmp_path):
        make_model(request.param).save_pretrained(tmp_path / "theirs")
        TOKENIZERS[request.param.partition(" ")[0]](tmp_path / "theirs")
        yield tmp_path / "theirs"


def tensors(config: Any, batch: Any) -> dict[str, Any]:
    """A batch for `transformers`: ours pads with 0, theirs with the family's own id."""
    mask = np.asarray(batch.attention_mask)
    arrays = {"input_ids": np.where(mask > 0, batch.input_ids, config.pad_token_id), "attention_mask": mask}
    if family_of(config).token_types(config):
        arrays["token_type_ids"] = np.asarray(batch.token_type_ids)
    return {name: torch.tensor(value, dtype=torch.long) for name, value in arrays.items()}


def batch_of(directory: Path, length: int) -> Any:
    texts: list[tuple[str, ...]] = [*((text,) for text in TEXTS), *zip(TEXTS, TEXTS[::-1], strict=True)]
    tokens = tokenize_texts(mt.load_tokenizer(directory), texts, length)
    batch = make_batch(tokens, np.zeros(len(texts), np.float32), np.arange(len(texts)), length, len(texts))
    assert batch.attention_mask.sum(1).max() == length and batch.attention_mask.sum(1).min() == 2
    return batch


def test_states_pooler_and_gradients_agree_over_padded_texts_and_pairs(directory: Path) -> None:
    """And so they do of what `save_pretrained` wrote."""
    config, params = mt.load_pretrained(directory)
    mt.save_pretrained(directory.parent / "ours", config, params)
    batch = batch_of(directory, 30)
    mask = batch.attention_mask[..., None]
    encoder = mt.encoder(config)
    output: Any = jax.jit(encoder.apply)({"params": params}, *batch[:3])
    for folder in (directory, directory.parent / "ours"):
        model, report = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
        theirs = model.eval()(**tensors(config, batch))
        states = theirs.last_hidden_state.detach().numpy()
        assert np.abs((output.hidden_states - states) * mask).max() <= TOLERANCE
        assert (output.pooled is None) == ("pooler_output" not in theirs)
        if output.pooled is not None:
            assert np.abs(output.pooled - theirs.pooler_output.detach().numpy()).max() <= TOLERANCE

    def loss(params: Params) -> Array:
        states: Array = encoder.apply({"params": params}, *batch[:3]).hidden_states  # type: ignore[assignment]
        return jnp.mean(states**3 * mask)

    gradient = jax.jit(jax.grad(loss))(params)
    (theirs.last_hidden_state**3 * torch.tensor(np.asarray(mask))).mean().backward()
    table = model.get_input_embeddings().weight.grad.numpy()
    found = np.array(gradient["embeddings"]["word"]["embedding"])
    found[config.pad_token_id] = table[config.pad_token_id]  # torch leaves the row of padding as it is
    np.testing.assert_allclose(found, table, rtol=0, atol=1e-5 * np.abs(table).max())
    assert np.abs(table).max() > 0


def test_long_texts_agree(directory: Path) -> None:
    """Beyond the distances that MPNet tells apart, up to the last position."""
    config, params = mt.load_pretrained(directory)
    longest = family_of(config).max_length(config)
    assert longest in (168, 170)
    rng = np.random.default_rng(0)
    mask = (np.arange(longest) < np.array([[longest], [7]])).astype(int)
    ids = rng.integers(5, 320, (2, longest))
    batch = mt.Batch(ids, mask, np.zeros_like(ids), np.zeros(2), np.ones(2))  # type: ignore[arg-type]
    model = transformers.AutoModel.from_pretrained(directory).eval()
    with torch.no_grad():
        theirs = model(**tensors(config, batch)).last_hidden_state.numpy()
    ours: Any = jax.jit(mt.encoder(config).apply)({"params": params}, ids, mask)
    assert np.abs((ours.hidden_states - theirs) * mask[..., None]).max() <= TOLERANCE


@pytest.mark.parametrize("max_length", [512, 11])
def test_token_ids_agree(directory: Path, max_length: int) -> None:
    """As the directory came, and as we write it."""
    tokenizer, (config, params) = mt.load_tokenizer(directory), mt.load_pretrained(directory)
    rules = family_of(config).tokenizer
    mt.save_pretrained(directory.parent / "ours", config, params, tokenizer)
    # Their Unigram models find special tokens in a text, with `split_special_tokens` too; as we write it none does.
    awkward = [] if rules.model == "Unigram" else NAMED
    for folder, texts in ((directory, TEXTS + awkward), (directory.parent / "ours", TEXTS + NAMED)):
        pairs = [(a, b) for a in texts for b in texts[::-3]]
        agree(
            transformers.AutoTokenizer.from_pretrained(folder), tokenizer, [*((t,) for t in texts), *pairs], max_length
        )
    saved = transformers.AutoTokenizer.from_pretrained(directory.parent / "ours")
    assert ("token_type_ids" in saved("a", "b")) == family_of(config).token_types(config)
    assert (saved.pad_token, saved.sep_token, saved.cls_token) == (rules.pad, rules.sep, rules.cls)
    assert saved.pad_token_id == tokenizer.token_to_id(rules.pad)
    assert saved.model_max_length == family_of(config).max_length(config)


def agree(theirs: Any, ours: Any, texts: list[tuple[str, ...]], max_length: int) -> None:
    tokens = tokenize_texts(ours, texts, max_length)
    limits = {"max_length": max_length, "truncation": "longest_first", "split_special_tokens": True}
    for number, text in enumerate(texts):
        start, end = tokens.starts[number : number + 2]
        found = theirs(*text, **limits)
        assert tokens.ids[start:end].tolist() == found["input_ids"], text
        if any(types := found.get("token_type_ids", [])):
            assert sum(types) == end - start - tokens.first[number], text


@pytest.mark.parametrize("options", [{}, {"do_lower_case": False, "keep_accents": True}, {"add_prefix_space": False}])
@pytest.mark.parametrize("name", UNIGRAM)
def test_a_sentencepiece_tokenizer_that_transformers_made_has_the_same_ids(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """Its table of replacements, too; read by its class, or as the file stands."""
    make = getattr(transformers, f"{MODELS[name][0]}Tokenizer")
    table = charsmap(REPLACED)
    make(vocab=pieces(name), _spm_precompiled_charsmap=table, **options).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(f'{{"model_type": "{name}"}}')
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), mt.load_tokenizer(tmp_path)
    # Without pairs of a text and an empty one: those are one text for `transformers`.
    texts: list[tuple[str, ...]] = [*((text,) for text in TEXTS), *((a, b) for a in TEXTS for b in TEXTS[::-1] if b)]
    assert make.__name__ in (type(theirs).__name__, f"{type(theirs).__name__}Fast")
    for max_length in (512, 9):
        agree(theirs, ours, texts, max_length)
    assert "film" in "".join(theirs.convert_ids_to_tokens(theirs("ﬁlm")["input_ids"]))


@pytest.mark.parametrize("name", ["DistilBert", "Roberta", "XLMRoberta", "Camembert", "Electra", "MPNet", "Albert"])
def test_a_whole_model_loads_as_its_encoder(name: str, tmp_path: Path) -> None:
    """Names there start with the family's prefix; masked-LM training leaves no pooler."""
    sizes = NARROW if name == "DistilBert" else LAYERS
    model = getattr(transformers, f"{name}ForMaskedLM")(getattr(transformers, f"{name}Config")(**SIZES, **sizes))
    model.save_pretrained(tmp_path / "whole")
    model.base_model.save_pretrained(tmp_path / "encoder")
    (config, whole), (_, encoder) = (mt.load_pretrained(tmp_path / folder) for folder in ("whole", "encoder"))
    jax.tree.map(np.testing.assert_array_equal, whole, encoder)
    assert not mt.encoder(config).pools


def test_mpnets_buckets_are_theirs() -> None:
    distances = np.arange(-600, 601)
    bucket = transformers.models.mpnet.modeling_mpnet.MPNetEncoder.relative_position_bucket
    np.testing.assert_array_equal(buckets(distances), bucket(torch.tensor(-distances)).numpy())


@pytest.mark.parametrize("name", FAMILIES)
def test_fields_that_config_json_lacks_have_the_values_of_transformers(name: str) -> None:
    family = FAMILIES[name]
    theirs = family.from_json(transformers.AutoConfig.for_model(name).to_dict())
    for field, value in vars(family.config()).items():
        if field not in ("has_pooler", "layer_types", "type_vocab_size") or (field == "type_vocab_size" and value):
            assert theirs.get(family.config_names.get(field, field), value) == value, field


MPNET = Path("weights/mpnet")


@pytest.mark.skipif(not (MPNET / "model.safetensors").is_file(), reason="no encoder: make weights-base")
def test_real_weights_of_the_papers_size_agree() -> None:
    """all-mpnet-base-v2, 12 layers: states of padded pairs, the pooler, and token ids."""
    texts = [("A man is playing a guitar.", "Someone plays music, isn't it?"), ("Why?", "It was dull " * 40)]
    reference = transformers.AutoTokenizer.from_pretrained(MPNET)(*zip(*texts, strict=True), padding=True)
    tokenizer = mt.load_tokenizer(MPNET)
    for number, pair in enumerate(texts):
        shown = sum(reference["attention_mask"][number])
        assert tokenizer.encode(*pair).ids == reference["input_ids"][number][:shown]
    ids, mask = np.array(reference["input_ids"]), np.array(reference["attention_mask"])
    config, params = mt.load_pretrained(MPNET)
    ours = jax.jit(mt.encoder(config).apply)({"params": params}, ids, mask)
    with torch.no_grad():
        theirs = transformers.AutoModel.from_pretrained(MPNET).eval()(torch.tensor(ids), torch.tensor(mask))
    shown = mask[:, :, None]
    assert np.abs((ours.hidden_states - theirs.last_hidden_state.numpy()) * shown).max() <= TOLERANCE
    assert np.abs(ours.pooled - theirs.pooler_output.numpy()).max() <= TOLERANCE
