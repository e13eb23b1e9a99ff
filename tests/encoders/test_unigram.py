"""Tokenizers over sentencepiece's Unigram model, and the tables of replacements in front of them."""

import base64
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import normalizers

import mtbert_jax as mt
from mtbert_jax.data.tokens import tokenize_texts
from mtbert_jax.data.unknown import unknown_share
from mtbert_jax.encoders.charsmap import charsmap_problem
from mtbert_jax.encoders.family import FAMILIES
from mtbert_jax.encoders.tokenizer import unknown_token
from mtbert_jax.errors import InputError
from tests.encoders.tiny import REPLACED, SPECIAL, charsmap, unigram_description

STANDS = {"tokenizer_class": "PreTrainedTokenizerFast"}


def write(folder: Path, family: str, description: Any = None, settings: Any = None) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    (folder / "tokenizer.json").write_text(json.dumps(description or unigram_description(family)))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings or {}))
    return folder


@pytest.mark.parametrize("settings", [{}, STANDS])
@pytest.mark.parametrize("family", SPECIAL)
def test_templates_segments_and_ids_are_the_familys(family: str, settings: dict[str, Any], tmp_path: Path) -> None:
    tokenizer, rules = mt.load_tokenizer(write(tmp_path, family, settings=settings)), FAMILIES[family].tokenizer
    found = tokenizer.encode("the ﬁlm", "a\u00a0song")
    between = [rules.sep] * (2 if family != "albert" else 1)
    assert found.tokens == [rules.cls, "▁the", "▁film", *between, "▁", "a", "▁song", rules.sep]
    assert found.type_ids == [0] * (3 + len(between)) + [1] * 4
    assert [tokenizer.token_to_id(name) for name in SPECIAL[family]] == list(range(len(SPECIAL[family])))
    assert unknown_token(tokenizer) == "<unk>"
    tokens = tokenize_texts(tokenizer, [("the 日 本 film",)], 20)
    assert unknown_share(tokenizer, tokens, [(0,)]) == pytest.approx(2 / 6)  # and a space before either


@pytest.mark.parametrize("family", SPECIAL)
def test_names_of_special_tokens_are_text(family: str, tmp_path: Path) -> None:
    """The model has them among its pieces, with the best of all scores."""
    tokenizer, rules = mt.load_tokenizer(write(tmp_path, family)), FAMILIES[family].tokenizer
    names = (rules.cls, rules.sep, rules.pad, rules.mask)
    special = {tokenizer.token_to_id(name) for name in names}
    for name in (*names, rules.unk):
        for text in (name, f"a{name}", f"{name}{name} a", f"the {name}. film", name.lower(), f"<{name}>"):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            assert not special & {*ids}, text
            assert ids


def test_a_saved_tokenizer_is_read_again_as_it_is(tmp_path: Path) -> None:
    tokenizer = mt.load_tokenizer(write(tmp_path, "albert"))
    again = mt.load_tokenizer(write(tmp_path, "albert", json.loads(tokenizer.to_str()), STANDS))
    assert again.to_str() == tokenizer.to_str()


@pytest.mark.parametrize(
    ("family", "settings", "text", "tokens"),
    [
        ("albert", {}, "``The CAFÉ''", ["▁", '"', "t", "h", "e", "▁", "c", "a", "f", "e", '"']),
        ("albert", {"keep_accents": True}, "É", ["▁", "é"]),
        ("albert", {"do_lower_case": False}, "aA", ["▁", "a", "A"]),
        ("albert", {"add_prefix_space": False}, "the a", ["t", "h", "e", "a"]),
        ("xlm-roberta", {"do_lower_case": True, "keep_accents": False}, "é A", ["▁", "é", "▁", "A"]),
        ("camembert", {"add_prefix_space": False}, "the a", ["t", "h", "e", "a"]),
    ],
)
def test_settings_of_the_classes_are_honoured(
    family: str, settings: dict[str, Any], text: str, tokens: list[str], tmp_path: Path
) -> None:
    """A character that is no piece is its own token there, with the id of the unknown one."""
    tokenizer = mt.load_tokenizer(write(tmp_path, family, settings=settings))
    assert tokenizer.encode(text, add_special_tokens=False).tokens == tokens


@pytest.mark.parametrize("max_length", [4, 5, 8, 17])
def test_long_pairs_are_cut_where_the_tokenizer_would_cut_them(max_length: int, tmp_path: Path) -> None:
    tokenizer = mt.load_tokenizer(write(tmp_path, "xlm-roberta"))
    long, longer = "the ﬁlm was good . " * 12, "song" * 50 + " a  song \n" * 40
    pairs = [(long, "a song"), ("a song", long), (long, long), (long, longer), (longer, long), (" " * 900, longer)]
    tokens = tokenize_texts(tokenizer, pairs, max_length)
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    expected = [encoding.ids for encoding in tokenizer.encode_batch(pairs)]
    assert [tokens.ids[a:b].tolist() for a, b in pairwise(tokens.starts)] == expected


def changed(part: str, **changes: Any) -> dict[str, Any]:
    found = unigram_description("xlm-roberta")
    return {**found, part: {**found[part], **changes}}


OF_ANOTHER = " is not a tokenizer for XLM-RoBERTa: "
NAMES = {"type": "Split", "pattern": {"Regex": "a(?=b)"}, "behavior": "MergedWithPrevious", "invert": False}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (changed("model", type="BPE"), f"{OF_ANOTHER}its model is 'BPE', not 'Unigram'"),
        (changed("model", unk_id=None), f"{OF_ANOTHER}its unk_id is not that of '<unk>'"),
        (changed("model", unk_id=0), f"{OF_ANOTHER}its unk_id is not that of '<unk>'"),
        (changed("model", unk_id=10**6), f"{OF_ANOTHER}its unk_id is not that of '<unk>'"),
        (changed("model", byte_fallback=True), ": byte_fallback is True; it must be null"),
        (
            changed("model", vocab={"a": 1}),
            ": the vocabulary is a table; it must be a list of pieces with their scores",
        ),
        (changed("model", vocab=[["", 0.0]]), ": the vocabulary is a list; it must be a list of pieces with their"),
        (changed("model", vocab=[["a", float("nan")], ["<unk>", 0]], unk_id=1), " is not a tokenizer: "),
        (changed("normalizer", precompiled_charsmap="AAAA"), ": normalizer is 'Precompiled', whose table of repl"),
        (changed("pre_tokenizer", pretokenizers=[NAMES]), ": pre_tokenizer is 'Split'; only BertPreTokenizer"),
    ],
)
def test_what_is_not_the_familys_is_refused(found: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        mt.load_tokenizer(write(tmp_path, "xlm-roberta", found, STANDS))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "taken"), [("``", '"', True), ("ab", "ba", True), ("a", "é", False), ("", "", False)]
)
def test_a_replacement_is_taken_if_it_does_not_swell_a_text(old: str, new: str, taken: bool, tmp_path: Path) -> None:
    part = {"type": "Replace", "pattern": {"String": old}, "content": new}
    spaces = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    folder = write(tmp_path, "xlm-roberta", unigram_description("xlm-roberta") | {"normalizer": part}, STANDS)
    if not taken:
        with pytest.raises(InputError, match="normalizer is 'Replace'; only"):
            mt.load_tokenizer(folder)
        return
    described = unigram_description("xlm-roberta")
    both = {"type": "Sequence", "normalizers": [described["normalizer"], part, spaces]}
    assert mt.load_tokenizer(write(tmp_path, "xlm-roberta", described | {"normalizer": both}, STANDS))


# Tables of replacements

LONG = {"ab": "x" * 32, "é": "y"}


def encoded(table: bytes) -> str:
    return base64.b64encode(table).decode()


def test_a_table_is_followed() -> None:
    table = charsmap(REPLACED | LONG)
    assert charsmap_problem(encoded(table)) is None
    assert normalizers.Precompiled(table).normalize_str("ﬁlm ① a\u00a0b") == "film 1 a b"


def unit(table: bytes, place: int, value: int) -> bytes:
    """The table with another unit of its trie."""
    return table[: 4 + 4 * place] + value.to_bytes(4, "little") + table[8 + 4 * place :]


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (None, "is no base64 of a trie and of text"),
        ("A", "is no base64 of a trie and of text"),
        ("é", "is no base64 of a trie and of text"),
        (encoded(charsmap(REPLACED) + b"\xff"), "is no base64 of a trie and of text"),
        (encoded(bytes(4)), "is cut off: its trie claims 0 bytes"),
        (encoded(charsmap(REPLACED)[:1000]), "is cut off: its trie claims"),
        (encoded(b"\x04\0\0\0" + bytes(4)), "is cut off: its trie claims 4 bytes"),
        (encoded(bytes(2**20 + 1)), "has 1048577 bytes; 1048576 are the most"),
        (encoded(unit(charsmap({"a": "b"}), 0, 2**31 - 1024)), "leads out of its trie"),
        (encoded(unit(charsmap({"a": "b"}), 512, 2**31 | 9)), "leads out of its text"),
        (encoded(unit(charsmap({"a": "é"}), 512, 2**31 | 1)), "leads out of its text"),
        (encoded(charsmap({"ab": "x" * 33})), "has a replacement more than 16 times as long as what it replaces"),
    ],
)
def test_a_table_that_cannot_be_followed_is_refused(found: Any, problem: str) -> None:
    assert (charsmap_problem(found) or "").startswith(problem)


def test_a_spoilt_table_is_refused_or_can_be_followed() -> None:
    """By `tokenizers`, which would end the program where an index leads nowhere."""
    whole, rng = charsmap(REPLACED | LONG), np.random.default_rng(0)
    text = "".join(map(chr, (*range(1, 0x300), *range(0x2000, 0x2500), *range(0xFB00, 0xFB10)))) + "abab"
    refused = 0
    for _ in range(300):
        table = bytearray(whole)
        used = np.flatnonzero(np.frombuffer(whole, np.uint8))
        for place in rng.choice(used, rng.integers(1, 4)):
            table[place] = rng.integers(256)
        if charsmap_problem(encoded(bytes(table))):
            refused += 1
        else:
            normalizers.Precompiled(bytes(table)).normalize_str(text)
    assert 50 < refused < 300
