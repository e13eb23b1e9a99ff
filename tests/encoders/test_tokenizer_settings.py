"""Settings of an encoder's folder that change token ids: honoured, or refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from mtbert_jax.cli.main import main
from mtbert_jax.encoders.tokenizer import load_tokenizer, read_tokenizer
from mtbert_jax.errors import InputError
from tests.encoders.folders import ADDED, CASED, FOLDERS, MARKERS, SETTINGS, SIZE, SPECIAL, STANDS, described, write

SENTENCE = "sentence_bert_config.json"
VISIBLE = {**CASED["added_tokens"][3], "special": False}
"""[SEP] as a token that is not special."""


def tokens(folder: Path, files: dict[str, Any], text: str) -> str:
    """The tokens of a text, special ones left out, as one string."""
    tokenizer = load_tokenizer(write(folder, files))
    names = dict(enumerate(MARKERS, start=SIZE))  # of a token that is looked for in lower case, its name here is, too
    first, *between, last = (names.get(n) or tokenizer.id_to_token(n) for n in tokenizer.encode(text).ids)
    assert (first, last) == ("[CLS]", "[SEP]")
    return " ".join(between)


@pytest.mark.parametrize(
    ("files", "text", "expected"),
    [
        ({}, "SCHÖN Film", "schon film"),
        ({SETTINGS: {"strip_accents": False}}, "SCHÖN Film", "schön film"),
        ({SETTINGS: {"do_lower_case": False}}, "schön Film", "schön Film"),
        ({SETTINGS: {"do_lower_case": False, "strip_accents": True}}, "schön Film", "schon Film"),
        ({}, "中文", "中 文"),
        ({SETTINGS: {"tokenize_chinese_chars": False}}, "中文", "中 ##文"),
        ({"tokenizer.json": CASED, SETTINGS: {"do_lower_case": True}}, "SCHÖN Film", "schon film"),
        ({"tokenizer.json": CASED, SETTINGS: {"do_lower_case": False}}, "schön Film", "schön Film"),
        ({"tokenizer.json": CASED}, "schön Film", "schon film"),  # as the class that nobody named does
        ({"tokenizer.json": CASED, SETTINGS: STANDS}, "schön Film", "schön Film"),
        ({"tokenizer.json": CASED, SETTINGS: {**STANDS, "do_lower_case": True}}, "schön Film", "schön Film"),
        ({SETTINGS: {"do_lower_case": False}, SENTENCE: {"do_lower_case": True}}, "SCHÖN Film", "schön film"),
        ({SENTENCE: {"do_lower_case": False, "max_seq_length": 128}}, "Film", "film"),
    ],
)
def test_capitals_accents_and_chinese_words(files: Any, text: str, expected: str, tmp_path: Path) -> None:
    assert tokens(tmp_path, files, text) == expected


@pytest.mark.parametrize(
    ("files", "text", "expected"),
    [
        ({}, "[E1] film", "[ e ##1 ] film"),
        ({ADDED: {"[E1]": SIZE}}, "[E1] film[e1]", "[E1] film [E1]"),  # a plain one is looked for in lower case, too
        ({ADDED: {"[E1]": SIZE}, SETTINGS: {"extra_special_tokens": ["[E1]"]}}, "[E1] [e1]", "[E1] [ e ##1 ]"),
        ({SETTINGS: {"additional_special_tokens": MARKERS}}, "[E1] film [/E1]", "[E1] film [/E1]"),
        ({SPECIAL: {"additional_special_tokens": MARKERS}}, "a[E1]film[/E1]", "a [E1] film [/E1]"),
        (FOLDERS["markers by their ids"], "[E1] film [/E1]", "[E1] film [/E1]"),
        ({SETTINGS: {"ent_token": "[E1]"}}, "[E1]a [SEP] [E1]", "[E1] a [ sep ] [E1]"),
        ({"tokenizer.json": CASED, SETTINGS: STANDS}, "[E1] [SEP] [/E1] Film", "[E1] [ S ##E ##P ] [/E1] Film"),
        (
            {SETTINGS: {"additional_special_tokens": MARKERS, "split_special_tokens": True}},
            "[E1] film",
            "[ e ##1 ] film",
        ),
        ({SETTINGS: {"bos_token": "[E1]", "pad_token": "[/E1]"}}, "[E1] [/E1]", "[ e ##1 ] [ / e ##1 ]"),
    ],
)
def test_markers_are_one_token_and_the_text_sep_is_text(files: Any, text: str, expected: str, tmp_path: Path) -> None:
    assert tokens(tmp_path, files, text) == expected


def test_markers_have_the_ids_behind_the_vocabulary(tmp_path: Path) -> None:
    """Also where a token with a part of its own comes before them, since the vocabulary lacks it."""
    files = FOLDERS["markers by special_tokens_map.json"]
    tokenizer = load_tokenizer(write(tmp_path / "a", files))
    assert [tokenizer.token_to_id(name) for name in MARKERS] == [SIZE, SIZE + 1]
    files = {"vocab.txt": "[UNK]\n[CLS]\n[SEP]\nfilm\n\n", **files}
    tokenizer = load_tokenizer(write(tmp_path / "b", files))  # 5 lines, then [PAD] and [MASK]
    assert [tokenizer.token_to_id(name) for name in MARKERS] == [7, 8]
    assert load_tokenizer(write(tmp_path / "c", {"vocab.txt": files["vocab.txt"]})).token_to_id("[MASK]") is None


def test_what_a_tokenizer_json_cuts_and_pads_is_set_back(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write(tmp_path, FOLDERS["tokenizer.json that cuts and pads"]))
    assert (tokenizer.padding, tokenizer.truncation) == (None, None)
    assert len(tokenizer.encode("film " * 20).ids) == 22


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({SETTINGS: {"do_basic_tokenize": False}}, f"{SETTINGS}: do_basic_tokenize is False; only true can be taken"),
        ({SETTINGS: {"never_split": ["film"]}}, f"{SETTINGS}: never_split is a list; only null can be taken"),
        ({SETTINGS: {"truncation_side": "left"}}, f"{SETTINGS}: truncation_side is 'left'; only \"right\" can be"),
        ({SETTINGS: {"wordpieces_prefix": "@@"}}, f"{SETTINGS}: wordpieces_prefix is '@@'; only \"##\" can be taken"),
        ({SETTINGS: {"clean_text": False}}, f"{SETTINGS}: clean_text is False; only true can be taken"),
        ({SETTINGS: {"do_lower_case": "no"}}, f"{SETTINGS}: do_lower_case is 'no'; it must be true or false"),
        ({SETTINGS: {"tokenize_chinese_chars": 0}}, f"{SETTINGS}: tokenize_chinese_chars is 0; it must be true or"),
        ({SETTINGS: {"strip_accents": "yes"}}, f"{SETTINGS}: strip_accents is 'yes'; it must be true or false"),
        (
            {SETTINGS: {"tokenizer_class": "BertJapaneseTokenizer"}},
            f"{SETTINGS}: tokenizer_class is 'BertJapaneseTokenizer', which splits texts in a way of its own; only",
        ),
        ({SETTINGS: {"tokenizer_class": ["BertTokenizer"]}}, f"{SETTINGS}: tokenizer_class is a list, which splits"),
        (
            {"config.json": {"model_type": "bert", "tokenizer_class": "RoFormerTokenizer"}},
            "config.json: tokenizer_class is 'RoFormerTokenizer', which splits texts in a way of its own; only",
        ),
        ({SETTINGS: {"unk_token": "<unk>"}}, ": its unk_token is '<unk>'; that of BERT is '[UNK]'"),
        ({SPECIAL: {"cls_token": {"content": "<s>"}}}, ": its cls_token is '<s>'; that of BERT is '[CLS]'"),
        ({SETTINGS: {"sep_token": "</s>"}}, ": its sep_token is '</s>'; that of BERT is '[SEP]'"),
        ({ADDED: {"[E1]": SIZE + 1}}, f"{ADDED}: the token '[E1]' has id {SIZE + 1} there, but {SIZE} in the vocab"),
        ({ADDED: {"film": 7}}, f"{ADDED}: the token 'film' has id 7 there, but {SIZE - 7} in the vocabulary"),
        ({ADDED: {"[E1]": "x"}}, f"{ADDED}: the id of an added token is 'x'; it must be a whole number"),
        ({ADDED: ["[E1]"]}, f"{ADDED} is not a JSON object: it holds a list"),
        ({ADDED: "{"}, f"{ADDED} is not a JSON object: "),
        ({SPECIAL: "[]"}, f"{SPECIAL} is not a JSON object: it holds a list"),
        ({SETTINGS: "[" * 100000}, f"{SETTINGS} is not a JSON object: "),
        ({SENTENCE: "true"}, f"{SENTENCE} is not a JSON object: it holds True"),
        ({SETTINGS: {"additional_special_tokens": [""]}}, f"{SETTINGS}: a special or added token is ''; it must be"),
        ({SETTINGS: {"additional_special_tokens": "[E1]"}}, f"{SETTINGS}: extra_special_tokens is '[E1]'; it must"),
        ({SETTINGS: {"added_tokens_decoder": [1]}}, f"{SETTINGS}: added_tokens_decoder is a list; it must be a table"),
        ({SETTINGS: {"added_tokens_decoder": {"4": 5}}}, f"{SETTINGS}: a special or added token is 5; it must be"),
        (
            {SENTENCE: {"do_lower_case": True}, SETTINGS: {"extra_special_tokens": MARKERS}},
            f"{SENTENCE}: with do_lower_case the token '[E1]' could stand in no text",
        ),
        (
            {"tokenizer.json": {**CASED, "added_tokens": [VISIBLE]}, SETTINGS: STANDS},
            "tokenizer.json is not a tokenizer for BERT: it takes [SEP] in a text for the special token",
        ),
        ({SETTINGS: {"added_tokens_decoder": {"2": {"content": "[SEP]"}}}}, "'[SEP]' has id 2 there, but 3 in the"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(files: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load_tokenizer(write(tmp_path, files))
    assert str(error.value).startswith(str(tmp_path))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ["has words with capitals, but texts are written in lower case"]),
        ({"tokenizer.json": CASED}, ["has words with capitals, but texts are written in lower case"]),
        ({SETTINGS: {"do_lower_case": True}}, []),
        ({SETTINGS: {"do_lower_case": False}}, []),
        ({"tokenizer.json": CASED, SETTINGS: STANDS}, []),
        ({"vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n[unused1]\nfilm\n"}, []),
        (
            {"tokenizer.json": CASED, SETTINGS: {"do_lower_case": True}},
            ["its normalizer is not read, as by transformers: tokenizer_config.json sets a BertTokenizer up;"],
        ),
        ({"tokenizer.json": CASED, SETTINGS: {"do_lower_case": False}}, []),
        ({SETTINGS: {"do_lower_case": True, "model_max_length": 30}}, ["max_length = 40, but", "_length = 30"]),
        ({SETTINGS: {"do_lower_case": True, "model_max_length": 1e30}}, []),
        (
            {
                SETTINGS: {"do_lower_case": True, "model_max_length": 30},
                "sentence_bert_config.json": {"max_seq_length": 20},
            },
            ["max_length = 40, but", "sentence_bert_config.json says max_seq_length = 20"],
        ),
    ],
)  # fmt: skip
def test_what_is_probably_not_meant_is_said(files: Any, expected: list[str], tmp_path: Path) -> None:
    remarks = list(read_tokenizer(write(tmp_path, files)).remarks(40))
    assert len(remarks) == bool(expected)
    assert all(words in remarks[0] for words in expected)
    assert all(remark.startswith("warning: ") for remark in remarks)


def test_a_tokenizer_json_whose_other_parts_are_not_read_is_told_of(tmp_path: Path) -> None:
    other = described()
    other["model"]["max_input_chars_per_word"] = 7
    files = {"tokenizer.json": other, SETTINGS: {"do_lower_case": False}}
    loaded = read_tokenizer(write(tmp_path, files))
    assert loaded.unread == ("max_input_chars_per_word",)
    assert loaded.tokenizer.encode("filmfilm" * 2).tokens[1] == "film"


def test_check_data_tells_of_a_cased_vocabulary_and_of_unknown_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "encoder", {})
    (tmp_path / "q.tsv").write_text("label\ttext\n1\tthe Film 日本 film\n0\tthe 日 film\n")
    (tmp_path / "q.toml").write_text(
        'encoder = "encoder"\nsteps = 1\n[[tasks]]\nname = "q"\nnum_classes = 2\ntext = ["text"]\nid = ""\n'
        'train = "q.tsv"\n'.replace('"encoder"', json.dumps(str(tmp_path / "encoder"))).replace(
            '"q.tsv"', json.dumps(str(tmp_path / "q.tsv"))
        )
    )
    facts = tmp_path / "facts.json"
    assert main(["check-data", str(tmp_path / "q.toml"), "--json", str(facts)]) == 0
    out, err = capsys.readouterr()
    cased, unknown = err.splitlines()
    assert cased.startswith("warning: the vocabulary in ")
    assert unknown.startswith(
        "warning: task q, train: 37.5% of the tokens are [UNK], words that the vocabulary lacks; "
    )
    assert unknown.endswith('texts lose theirs unless tokenizer_config.json says "do_lower_case": false')
    assert "37.5%" in out
    assert json.loads(facts.read_text())["warnings"] == [cased, unknown]
