"""Tokenizers of a family whose ``tokenizer.json`` is byte-level BPE, and that has no token types: RoBERTa."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import mtbert_jax as mt
from mtbert_jax.data.tokens import tokenize_texts
from mtbert_jax.errors import InputError
from tests.encoders.tiny import byte_level_tokenizer


@pytest.mark.parametrize("max_length", [4, 5, 8, 17])
def test_long_pairs_of_a_byte_level_tokenizer_are_cut_where_itself_would_cut_them(
    max_length: int, roberta: Path
) -> None:
    """One character may be several tokens, and a cut inside of it none."""
    tokenizer, size = mt.load_tokenizer(roberta), 10 * max_length
    long, longer, odd = "the film was gööd . " * max_length, "x" * size + " a  song \n" * max_length, "x" + "ö" * size
    pairs = [(long, "a song"), ("a song", long), (long, long), (long, longer), (longer, long), (" " * 3 * size, longer)]
    pairs += [("x" * 3 * size, odd), (odd, "x" * 3 * size), (odd, odd)]
    tokens = tokenize_texts(tokenizer, pairs, max_length)
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    expected = [encoding.ids for encoding in tokenizer.encode_batch(pairs)]
    assert [tokens.ids[a:b].tolist() for a, b in pairwise(tokens.starts)] == expected


def byte_level(**changes: Any) -> dict[str, Any]:
    return {**json.loads(byte_level_tokenizer().to_str()), **changes}


def template(types: tuple[int, int]) -> dict[str, Any]:
    """RoBERTa's template by another processor, with a token type for either segment."""

    def special(name: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": kind}}

    a, b = ({"Sequence": {"id": name, "type_id": kind}} for name, kind in zip("AB", types, strict=True))
    single = [special("<s>", types[0]), a, special("</s>", types[0])]
    known = {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in (("<s>", 0), ("</s>", 2))}
    pair = [*single, special("</s>", types[0]), b, special("</s>", types[1])]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": known}


@pytest.mark.parametrize(
    "processor",
    [
        template((0, 0)),
        template((0, 1)),
        {
            "type": "Sequence",
            "processors": [
                {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
                template((0, 0)),
            ],
        },
    ],
)
def test_a_template_of_the_family_is_taken_with_and_without_token_types(processor: Any, roberta: Path) -> None:
    (roberta / "tokenizer.json").write_text(json.dumps(byte_level(post_processor=processor)))
    encoding = mt.load_tokenizer(roberta).encode("a", "a")
    assert encoding.tokens == ["<s>", "a", "</s>", "</s>", "a", "</s>"]
    assert encoding.type_ids == [0, 0, 0, 0, 1, 1]


def changed(key: str, value: Any) -> dict[str, Any]:
    found = byte_level()
    return {**found, "model": {**found["model"], key: value}}


BERTS = {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]}
VISIBLE = {"id": 2, "content": "</s>", "special": False, "normalized": False}
VISIBLE |= dict.fromkeys(("single_word", "lstrip", "rstrip"), False)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (lambda: changed("dropout", 0.1), ": dropout is 0.1; it must be null"),
        (lambda: changed("continuing_subword_prefix", "##"), ": continuing_subword_prefix is '##'; it must be null"),
        (lambda: changed("end_of_word_suffix", "</w>"), ": end_of_word_suffix is '</w>'; it must be null"),
        (lambda: changed("unk_token", "a"), " is not a tokenizer for RoBERTa: its unk_token is 'a', not '<unk>'"),
        (lambda: changed("type", "Unigram"), " is not a tokenizer for RoBERTa: its model is 'Unigram', not 'BPE'"),
        (lambda: byte_level(post_processor=BERTS), ": it does not put two texts as <s> a </s> </s> b </s>"),
        (lambda: byte_level(post_processor=template((1, 0))), ": it does not put two texts as <s> a </s> </s> b </s>"),
        (lambda: byte_level(added_tokens=[VISIBLE]), ": it takes </s> in a text for the special token; mark it"),
    ],
)
def test_a_tokenizer_that_is_not_the_familys_is_refused(found: Any, message: str, roberta: Path) -> None:
    (roberta / "tokenizer.json").write_text(json.dumps(found()))
    (roberta / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')  # as it stands
    with pytest.raises(InputError) as error:
        mt.load_tokenizer(roberta)
    assert message in str(error.value)


def test_a_family_without_a_vocab_txt_needs_a_tokenizer_json(roberta: Path) -> None:
    (roberta / "tokenizer.json").rename(roberta / "vocab.txt")
    with pytest.raises(InputError, match="roberta has no tokenizer.json; transformers' AutoTokenizer"):
        mt.load_tokenizer(roberta)


@pytest.mark.parametrize("prefix", [True, False])
def test_robertas_class_puts_a_space_before_a_text_if_its_settings_say_so(prefix: bool, roberta: Path) -> None:
    """Whatever ``tokenizer.json`` says, as by `transformers`; read as it stands, the file counts."""
    (roberta / "tokenizer.json").write_text(json.dumps(byte_level()))
    for named, expected in (("RobertaTokenizerFast", prefix), ("PreTrainedTokenizerFast", False)):
        settings = {"tokenizer_class": named, "add_prefix_space": prefix}
        (roberta / "tokenizer_config.json").write_text(json.dumps(settings))
        assert mt.load_tokenizer(roberta).encode("the").tokens[1].startswith("Ġ") == expected
