"""An encoder's files, from wherever: config.json, model.safetensors and what describes the tokenizer."""

import dataclasses
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from mtbert_jax.config import Config
from mtbert_jax.data.examples import clean
from mtbert_jax.data.tokens import tokenize_texts
from mtbert_jax.encoders.hub import FILES, load_pretrained
from mtbert_jax.training.setup import Setup
from tests.encoders.tiny import save_encoder
from tests.fuzz.attempts import fuzz, outcome
from tests.fuzz.strategies import ODD_TEXTS, odd_texts, odd_values, spoiled, spoiled_json
from tests.tally import Tally


class Files(dict[str, bytes | None]):
    """Files by name; None where one is missing. A failing case is named by them, not printed: they are long."""

    def __repr__(self) -> str:
        return f"Files of {', '.join(self)}"


LENGTHS = [0, 1, 7, 8, 100, 10**6, 2**24, 10**8, 10**8 + 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1]
DTYPES = ["F32", "F16", "BF16", "F64", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F8_E8M0", "F4", "C64", "f32", "F128"]
SIZES = [0, 1, 2, 16, 24, 100, 101, 10**5, 10**6, 10**7, 2**31, 2**62, 2**63, 2**64, -1]
ACTS = ["gelu", "gelu_new", "relu", "silu", "tanh", "mish"]
WORDS = ["[SEP]", "[CLS]", "[UNK]", "##a", "a", "<s>", "</s>", "\u0120", "BertTokenizer", "PreTrainedTokenizerFast"]
TOKEN = {"content": "very", "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
SETTINGS: dict[str, dict[str, Any]] = {
    "tokenizer_config.json": {
        **{"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True, "never_split": None},
        **{"tokenizer_class": "BertTokenizer", "unk_token": "[UNK]", "extra_special_tokens": ["very"]},
        **{"added_tokens_decoder": {"9": TOKEN}, "model_max_length": 512, "split_special_tokens": False},
    },
    "special_tokens_map.json": {"sep_token": {**TOKEN, "content": "[SEP]"}, "additional_special_tokens": ["very"]},
    "added_tokens.json": {"very": 9},
    "sentence_bert_config.json": {"do_lower_case": True, "max_seq_length": 128},
}
"""Files that an encoder may have beside those that we write, about words of the tests' vocabulary."""
INDEX, SHARD = "model.safetensors.index.json", "model-00001-of-00001.safetensors"
KINDS = [
    "BertNormalizer",
    "NFKC",
    "Strip",
    "Sequence",
    "WordPiece",
    "WordLevel",
    "BPE",
    "Unigram",
    "Split",
    "Whitespace",
    "ByteLevel",
    "RobertaProcessing",
    "TemplateProcessing",
]
values = st.one_of(st.sampled_from(SIZES), st.sampled_from([*DTYPES, *ACTS, *WORDS, *KINDS]), odd_values)
PAIRS = list(pairwise(map(clean, ODD_TEXTS)))


@st.composite
def safetensors(draw: st.DrawFn, whole: bytes) -> bytes:
    """Weights with another header, or another length before it, or fewer of their bytes."""
    length = int.from_bytes(whole[:8], "little")
    header, data = whole[8 : 8 + length], whole[8 + length :]
    match draw(st.integers(0, 6)):
        case 0:
            return draw(spoiled(whole))
        case 1:
            length = draw(st.sampled_from([*LENGTHS, length - 1, length + 1]))
        case 2:
            header = draw(spoiled(header))
            length = len(header)
        case 3:
            data = draw(st.sampled_from([b"", data[:-1], data + b"\0", data[: len(data) // 2]]))
        case _:
            header = other_header(draw, json.loads(header)).encode("utf-8", "surrogatepass")
            length = len(header)
    return length.to_bytes(8, "little") + header + data


def other_header(draw: st.DrawFn, header: dict[str, Any]) -> str:
    """The header with some tensors described otherwise: as overlapping, of another type or shape, by another name."""
    tensors = sorted(name for name in header if name != "__metadata__")
    for _ in range(draw(st.integers(1, 3))):
        name, other = draw(st.sampled_from(tensors)), draw(st.sampled_from(tensors))
        about = header[name] = dict(header[name])
        match draw(st.integers(0, 6)):
            case 0:
                about["dtype"] = draw(st.sampled_from(DTYPES))
            case 1:
                about["shape"] = draw(st.lists(st.sampled_from(SIZES), max_size=5))
            case 2:
                about["data_offsets"] = header[other]["data_offsets"]
            case 3:
                about["data_offsets"] = draw(st.lists(st.sampled_from([*SIZES, 64, 4096]), max_size=3))
            case 4:
                about |= {"dtype": "F16", "shape": [2, *about["shape"]]}
            case 5:
                header[name], header[other] = header[other], header[name]
            case 6:
                return draw(spoiled_json(header, values))
    return json.dumps(header)


@st.composite
def encoder_files(draw: st.DrawFn, whole: dict[str, bytes | None]) -> Files:
    """One or two of the files, otherwise."""
    found = Files()
    names = ["config.json", "model.safetensors", "model.safetensors", "tokenizer.json", "tokenizer.json"]
    names = [name for name in [*names, "tokenizer_config.json", "vocab.txt"] if whole.get(name)]
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=2)):
        data = whole[name] or b""
        if name == "model.safetensors":
            found[name] = draw(safetensors(data))
        elif name.endswith(".json") and draw(st.integers(0, 3)):
            found[name] = draw(spoiled_json(json.loads(data), values)).encode("utf-8", "surrogatepass")
        else:
            found[name] = draw(
                st.one_of(spoiled(data), spoiled(data), odd_texts.map(lambda t: t.encode("utf-8", "replace")))
            )
        if name == "vocab.txt":
            found["tokenizer.json"] = None  # else it is not read
    for name in draw(st.lists(st.sampled_from(sorted(SETTINGS)), max_size=2)):
        found[name] = draw(spoiled_json(SETTINGS[name], values)).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 4)) == 0:
        data = found.get("model.safetensors") or whole["model.safetensors"] or b""
        index = {"weight_map": dict.fromkeys(tensor_names(whole["model.safetensors"] or b""), SHARD)}
        text = draw(st.one_of(st.just(json.dumps(index)), spoiled_json(index, values)))
        found |= {"model.safetensors": None, SHARD: data, INDEX: text.encode("utf-8", "surrogatepass")}
    return found


def tensor_names(whole: bytes) -> list[str]:
    """Names of the tensors of a sound file."""
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    return [name for name in header if name != "__metadata__"]


@pytest.mark.parametrize("cases", [pytest.param(30), pytest.param(500, marks=pytest.mark.slow)])
def test_any_encoder_is_loaded_or_refused(
    cases: int, small_encoder_dir: Path, config: Config, tmp_path: Path, tally: Tally
) -> None:
    place = Path(shutil.copytree(small_encoder_dir, tmp_path / "room" / "encoder"))
    tally("encoders fuzzed", fuzz_files(cases, place, config))


@pytest.mark.parametrize("family", ["roberta", "albert"])
@pytest.mark.parametrize("cases", [pytest.param(30), pytest.param(500, marks=pytest.mark.slow)])
def test_any_encoder_over_a_tokenizer_json_is_loaded_or_refused(
    cases: int, family: str, config: Config, tmp_path: Path, tally: Tally
) -> None:
    """Byte-level BPE, and Unigram with a table of replacements."""
    (tmp_path / "room").mkdir()
    place = save_encoder(family, tmp_path / "room" / "encoder")
    tally("encoders fuzzed", fuzz_files(cases, place, config))


def fuzz_files(cases: int, place: Path, config: Config) -> int:
    """Spoils the files of an encoder so many times."""
    whole: dict[str, bytes | None] = dict.fromkeys((*SETTINGS, INDEX, SHARD))
    whole |= {name: (place / name).read_bytes() for name in FILES if (place / name).exists()}
    config = dataclasses.replace(config, encoder=str(place))

    def case(given: Files) -> None:
        for name, data in (whole | given).items():
            (place / name).write_bytes(data) if data is not None else (place / name).unlink(missing_ok=True)
        outcome(lambda: check_encoder(config, place), place, *FILES, str(place), "max_length")

    return fuzz(encoder_files(whole), case, cases)


def check_encoder(config: Config, place: Path) -> None:
    """What was loaded can be trained: every id is in the table, and what is text is no separator."""
    setup = Setup.load(config, place)
    encoder, params = load_pretrained(place)
    width = getattr(encoder, "embedding_size", encoder.hidden_size)
    assert params["embeddings"]["word"]["embedding"].shape == (encoder.vocab_size, width)
    rules = setup.family.tokenizer
    special = {setup.tokenizer.token_to_id(name) for name in (rules.cls, rules.sep, rules.mask, rules.pad)}
    between = rules.num_special(2) - 2
    tokens = tokenize_texts(setup.tokenizer, PAIRS, 40)
    assert tokens.ids.max() < encoder.vocab_size
    assert tokens.lengths.max() <= 40
    for (start, end), first in zip(pairwise(tokens.starts), tokens.first, strict=True):
        ids = tokens.ids[start:end]
        assert not special & {*ids[1 : first - between].tolist(), *ids[first:-1].tolist()}
    assert np.isin(tokens.ids[tokens.starts[:-1]], setup.tokenizer.token_to_id(rules.cls)).all()
