"""What a tokenizer from somebody's file must be before it is used."""

import json
from pathlib import Path
from typing import Any

import pytest

from mtbert_jax.encoders.tokenizer import load_tokenizer
from mtbert_jax.errors import InputError

FROM_NOTHING = {"type": "Replace", "pattern": {"String": ""}, "content": "x" * 1000}
FOR_EVER = {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated", "invert": False}
BERT = {"type": "BertPreTokenizer"}


@pytest.fixture
def description(encoder_dir: Path) -> dict[str, Any]:
    """What a sound tokenizer.json holds, to be changed."""
    return json.loads((encoder_dir / "tokenizer.json").read_text(encoding="utf-8"))


def load(folder: Path, description: dict[str, Any]) -> Any:
    (folder / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    return load_tokenizer(folder)


def refusal(folder: Path, description: dict[str, Any]) -> str:
    with pytest.raises(InputError) as error:
        load(folder, description)
    return str(error.value).removeprefix(f"{folder}/tokenizer.json")


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("normalizer", FROM_NOTHING, ": normalizer is 'Replace'; only BertNormalizer, Lowercase"),
        (
            "normalizer",
            {"type": "Sequence", "normalizers": [{"type": "NFC"}, FROM_NOTHING]},
            ": normalizer is 'Replace'",
        ),
        ("normalizer", {"type": "Precompiled"}, ": normalizer is 'Precompiled'"),
        ("normalizer", 3, ": normalizer is 3"),
        ("pre_tokenizer", FOR_EVER, ": pre_tokenizer is 'Split'; only BertPreTokenizer, ByteLevel, Digits"),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [BERT, FOR_EVER]}, ": pre_tokenizer is 'Split'"),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": FOR_EVER}, ": pre_tokenizer is 'Split'"),
        (
            "pre_tokenizer",
            {"type": "Sequence", "normalizers": [], "pretokenizers": [FOR_EVER]},
            ": pre_tokenizer is 'S",
        ),
        ("model", {"type": "BPE"}, " is not a tokenizer for BERT: its model is 'BPE', not 'WordPiece'"),
        ("model", None, " is not a tokenizer for BERT: its model is None"),
    ],
)
def test_parts_that_are_none_of_berts_are_refused(
    part: str, value: Any, message: str, description: dict[str, Any], tmp_path: Path
) -> None:
    """Among them regular expressions, which can take for ever, and replacements that swell a text."""
    assert refusal(tmp_path, description | {part: value}).startswith(message)


def test_other_parts_that_do_no_more_than_berts_are_taken(description: dict[str, Any], tmp_path: Path) -> None:
    lower = {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}]}
    split = {
        "type": "Sequence",
        "pretokenizers": [{"type": "Whitespace"}, {"type": "Punctuation", "behavior": "Isolated"}],
    }
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    tokenizer = load(tmp_path, description | {"normalizer": lower, "pre_tokenizer": split})
    assert tokenizer.encode("THE film [SEP]").tokens == ["[CLS]", "the", "film", "[", "sep", "]", "[SEP]"]


@pytest.mark.parametrize("longest", [0, -1, 1001, 10**9, True, "100", [1]])
def test_words_are_not_looked_up_at_any_length(longest: Any, description: dict[str, Any], tmp_path: Path) -> None:
    description["model"]["max_input_chars_per_word"] = longest
    message = refusal(tmp_path, description)
    assert message.startswith(": max_input_chars_per_word is ")
    assert message.endswith("; it must be a whole number from 1 to 1000")


def test_a_tokenizer_that_takes_the_text_sep_for_a_separator_is_refused(
    description: dict[str, Any], tmp_path: Path
) -> None:
    """Split at spaces alone, or with a token of that name that is not marked as special."""
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')  # as it stands
    ours = " is not a tokenizer for BERT: it takes [{}] in a text for the special token"
    plain = {"normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"}}
    assert refusal(tmp_path, description | plain).startswith(ours.format("CLS"))
    token = {"id": 3, "content": "[SEP]", "special": False, "normalized": False}
    token |= dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    assert refusal(tmp_path, description | {"added_tokens": [token]}).startswith(ours.format("SEP"))


def test_two_tokens_of_one_id_are_refused(description: dict[str, Any], tmp_path: Path) -> None:
    """A full stop could be padding, or end a text."""
    description["model"]["vocab"]["."] = description["model"]["vocab"]["[PAD]"]
    message = refusal(tmp_path, description)
    assert message in (
        f": the tokens {one!r} and {other!r} have the same id" for one, other in ((".", "[PAD]"), ("[PAD]", "."))
    )


def test_a_template_that_is_not_berts_is_refused(description: dict[str, Any], tmp_path: Path) -> None:
    template = description["post_processor"]
    ours = " is not a tokenizer for BERT: it does not put two texts as [CLS] a [SEP] b [SEP]"
    for kind in ("single", "pair"):
        for change in (lambda pieces: pieces[1:], lambda pieces: [*pieces, *pieces[:1] * 100], other_type):
            changed = template | {kind: change(template[kind])}
            assert refusal(tmp_path, description | {"post_processor": changed}) == ours
    assert refusal(tmp_path, description | {"post_processor": None}) == ours


def other_type(pieces: list[Any]) -> list[Any]:
    """The same with the first text of another token type."""
    return [{"Sequence": piece["Sequence"] | {"type_id": 7}} if "Sequence" in piece else piece for piece in pieces]


def test_the_ids_of_a_template_are_those_of_the_vocabulary(description: dict[str, Any], tmp_path: Path) -> None:
    """A template that names a token without an id, or with another one's, would end the program or lie."""
    template, other = description["post_processor"], {"id": "[SEP]", "ids": [9], "tokens": ["film"]}
    for known in ({}, template["special_tokens"] | {"[SEP]": other}):
        tokenizer = load(tmp_path, description | {"post_processor": template | {"special_tokens": known}})
        assert tokenizer.encode("a", "a").tokens == ["[CLS]", "a", "[SEP]", "a", "[SEP]"]
    bert = {"type": "BertProcessing", "sep": ["[SEP]", 9], "cls": ["[CLS]", 9]}
    assert load(tmp_path, description | {"post_processor": bert}).encode("a").tokens == ["[CLS]", "a", "[SEP]"]


def test_an_unknown_words_token_that_is_not_there_is_refused(description: dict[str, Any], tmp_path: Path) -> None:
    description["model"]["unk_token"] = "[NONE]"
    assert refusal(tmp_path, description) == " is not a tokenizer for BERT: its unk_token is '[NONE]', not '[UNK]'"


def test_zero_token_types_are_not_berts(description: dict[str, Any], tmp_path: Path) -> None:
    """Hugging Face's BERT would then read other token types than ours."""
    for piece in description["post_processor"]["pair"]:
        next(iter(piece.values()))["type_id"] = 0
    assert refusal(tmp_path, description).startswith(" is not a tokenizer for BERT: it does not put two texts as")
