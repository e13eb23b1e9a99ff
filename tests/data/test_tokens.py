"""Texts → token ids, and their cache."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from mtbert_jax.data import tokens
from mtbert_jax.data.tokens import Tokens, tokenize_cached, tokenize_texts
from mtbert_jax.encoders.tokenizer import load_tokenizer
from mtbert_jax.errors import InputError
from tests.conftest import VOCAB

TEXTS = [("the film was good .",), ("a song",), ("",)]


@pytest.fixture
def tokenizer(encoder_dir: Path) -> Tokenizer:
    return load_tokenizer(encoder_dir)


def words(tokens: Tokens, row: int = 0) -> list[str]:
    return [VOCAB[token] for token in tokens.ids[tokens.starts[row] : tokens.starts[row + 1]]]


def same(a: Tokens, b: Tokens) -> bool:
    return all(np.asarray(x).dtype == np.asarray(y).dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def write_vocab(directory: Path, vocab: list[str] = VOCAB, end: str = "\n") -> Path:
    (directory / "vocab.txt").write_bytes((end.join(vocab) + end).encode())
    return directory


def test_a_text_stands_between_cls_and_sep(tokenizer: Tokenizer) -> None:
    tokens = tokenize_texts(tokenizer, TEXTS, 48)
    assert words(tokens) == ["[CLS]", "the", "film", "was", "good", ".", "[SEP]"]
    assert words(tokens, 1) == ["[CLS]", "a", "song", "[SEP]"]
    assert tokens.starts.tolist() == [0, 7, 11, 13]
    assert tokens.lengths.tolist() == tokens.first.tolist() == [7, 4, 2]


def test_a_pair_has_token_type_1_from_its_second_text_on(tokenizer: Tokenizer) -> None:
    """docs/numerics.md, sections 1.1 and 4: [CLS] a [SEP] b [SEP], types 0 up to the first [SEP]."""
    tokens = tokenize_texts(tokenizer, [("the film", "a song was"), ("", "a")], 48)
    assert words(tokens) == ["[CLS]", "the", "film", "[SEP]", "a", "song", "was", "[SEP]"]
    assert words(tokens, 1) == ["[CLS]", "[SEP]", "a", "[SEP]"]
    assert tokens.first.tolist() == [4, 2]


def test_the_text_sep_is_text(encoder_dir: Path, tmp_path: Path) -> None:
    """Although a tokenizer.json of Hugging Face's names it a special token."""
    theirs = Tokenizer.from_file(str(encoder_dir / "tokenizer.json"))
    theirs.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    for directory in (encoder_dir, tmp_path):
        tokens = tokenize_texts(load_tokenizer(directory), [("a [SEP] the",)], 48)
        assert words(tokens) == ["[CLS]", "a", "[", "sep", "]", "the", "[SEP]"]


def test_unknown_words_are_unk_and_capitals_are_lowered(tokenizer: Tokenizer) -> None:
    assert words(tokenize_texts(tokenizer, [("THE Xylophone Fílm",)], 48)) == ["[CLS]", "the", "[UNK]", "film", "[SEP]"]


@pytest.mark.parametrize(
    ("texts", "max_length", "expected"),
    [
        (("the film was good .",), 5, "[CLS] the film was [SEP]"),
        (("the film was good", "a song"), 8, "[CLS] the film was [SEP] a song [SEP]"),
        (("a song", "the film was good"), 8, "[CLS] a song [SEP] the film was [SEP]"),
        (("the film was good", "a song is bad"), 7, "[CLS] the film [SEP] a song [SEP]"),
        (("the film", "a song"), 3, "[CLS] [SEP] [SEP]"),
    ],
)
def test_the_longer_text_is_cut_first(
    texts: tuple[str, ...], max_length: int, expected: str, tokenizer: Tokenizer
) -> None:
    assert words(tokenize_texts(tokenizer, [texts], max_length)) == expected.split()


def test_padding_and_truncation_fixed_in_a_tokenizer_json_are_reset(encoder_dir: Path, tmp_path: Path) -> None:
    fixed = Tokenizer.from_file(str(encoder_dir / "tokenizer.json"))
    fixed.enable_padding(length=30)
    fixed.enable_truncation(4)
    fixed.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path)
    assert loaded.padding is None
    assert loaded.truncation is None
    assert same(tokenize_texts(loaded, TEXTS, 48), tokenize_texts(load_tokenizer(encoder_dir), TEXTS, 48))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_vocabulary_alone_makes_the_same_tokenizer(end: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = [*TEXTS, ("the film", "a [SEP] song"), ("é É 漢字 good",)]
    assert same(
        tokenize_texts(load_tokenizer(write_vocab(tmp_path, end=end)), texts, 9), tokenize_texts(tokenizer, texts, 9)
    )


def test_a_cased_vocabulary_keeps_capitals(tmp_path: Path) -> None:
    write_vocab(tmp_path, [*VOCAB, "The"])
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert tokenize_texts(load_tokenizer(tmp_path), [("The the FILM",)], 48).ids.tolist() == [
        2,
        len(VOCAB),
        VOCAB.index("the"),
        1,
        3,
    ]


def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has neither tokenizer.json nor vocab.txt"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": {"type": "WordPiece"}}', "\x01"])
def test_a_broken_tokenizer_json_is_named_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match="tokenizer.json is not a tokenizer( for BERT)?: ") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("missing", ["[CLS]", "[SEP]"])
def test_a_tokenizer_without_berts_special_tokens_is_refused(missing: str, encoder_dir: Path, tmp_path: Path) -> None:
    description = json.loads((encoder_dir / "tokenizer.json").read_text())
    del description["model"]["vocab"][missing]
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match=r"tokenizer.json is not a tokenizer for BERT: it has no \[") as error:
        load_tokenizer(tmp_path)
    assert str(error.value).endswith(missing)


@pytest.mark.parametrize("missing", ["[CLS]", "[SEP]", "[UNK]"])
def test_a_vocabulary_without_a_special_token_is_refused(missing: str, tmp_path: Path) -> None:
    write_vocab(tmp_path, [word for word in VOCAB if word != missing])
    with pytest.raises(InputError, match="vocab.txt"):
        load_tokenizer(tmp_path)


def test_a_broken_tokenizer_config_is_named_itself(tmp_path: Path) -> None:
    (write_vocab(tmp_path) / "tokenizer_config.json").write_text("{")
    with pytest.raises(InputError, match="tokenizer_config.json"):
        load_tokenizer(tmp_path)


def test_the_cache_gives_what_encode_gives(tokenizer: Tokenizer, tmp_path: Path) -> None:
    plain = tokenize_texts(tokenizer, TEXTS, 6)
    assert same(tokenize_cached(tokenizer, TEXTS, 6, tmp_path), plain)
    assert same(tokenize_cached(tokenizer, TEXTS, 6, tmp_path), plain)


def test_a_second_call_uses_the_cache(encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tokenize_cached(load_tokenizer(encoder_dir), TEXTS, 48, tmp_path)
    monkeypatch.setattr(tokens, "tokenize_texts", lambda *_: pytest.fail("encoded again"))
    assert same(tokenize_cached(load_tokenizer(encoder_dir), TEXTS, 48, tmp_path), first)


def test_the_cache_does_not_depend_on_what_the_tokenizer_encoded_before(encoder_dir: Path, tmp_path: Path) -> None:
    used = load_tokenizer(encoder_dir)
    tokenize_cached(used, [("another text",)], 48, tmp_path / "other")
    tokenize_cached(used, TEXTS, 48, tmp_path / "cache")
    tokenize_cached(load_tokenizer(encoder_dir), TEXTS, 48, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize(
    ("texts", "max_length"),
    [
        ([("the film was good .",), ("a song",), ("a",)], 48),
        ([("the film was good .", "a song"), ("",), ("a",)], 48),
        ([("the film was good .a song",), ("",), ("",)], 48),
        (TEXTS[:2], 48),
        (TEXTS, 47),
    ],
)
def test_other_texts_or_another_length_miss_the_cache(
    texts: list[tuple[str, ...]], max_length: int, encoder_dir: Path, tmp_path: Path
) -> None:
    tokenize_cached(load_tokenizer(encoder_dir), TEXTS, 48, tmp_path)
    cached = tokenize_cached(load_tokenizer(encoder_dir), texts, max_length, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert same(cached, tokenize_texts(load_tokenizer(encoder_dir), texts, max_length))


def test_a_cut_off_cache_file_is_written_anew(encoder_dir: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(encoder_dir)
    expected = tokenize_cached(tokenizer, TEXTS, 48, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for size in [*range(0, len(whole), 41), len(whole) - 1]:
        path.write_bytes(whole[:size])
        assert same(tokenize_cached(load_tokenizer(encoder_dir), TEXTS, 48, tmp_path), expected)
        assert path.read_bytes() == whole


def test_a_damaged_cache_file_never_stops_a_run(encoder_dir: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(encoder_dir)
    expected = tokenize_cached(tokenizer, TEXTS, 48, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        cached = tokens._load(path, len(TEXTS))
        assert cached is None or same(cached, expected), f"byte {place}"


def test_a_cache_file_of_other_arrays_is_not_used(encoder_dir: Path, tmp_path: Path) -> None:
    expected = tokenize_cached(load_tokenizer(encoder_dir), TEXTS, 48, tmp_path)
    (path,) = tmp_path.iterdir()
    one = np.array([0, 1])
    for arrays in (
        {"ids": one},
        {"ids": one, "starts": one, "first": one},
        {**dict(zip(("ids", "starts", "first"), expected, strict=False)), "ids": one},
    ):
        np.savez(path, **arrays)
        assert same(tokenize_cached(load_tokenizer(encoder_dir), TEXTS, 48, tmp_path), expected)


def test_a_cache_folder_that_cannot_be_written_is_no_error(encoder_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    tokens = tokenize_cached(load_tokenizer(encoder_dir), TEXTS, 48, tmp_path / "file" / "cache")
    assert same(tokens, tokenize_texts(load_tokenizer(encoder_dir), TEXTS, 48))


def test_the_cache_lies_in_the_users_cache_folder_by_default(
    encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tokenize_cached(load_tokenizer(encoder_dir), TEXTS, 48)
    assert len(list((tmp_path / "mtbert_jax" / "tokens").glob("*.npz"))) == 1


def test_encoding_leaves_the_tokenizer_as_it_was(tokenizer: Tokenizer) -> None:
    tokenize_texts(tokenizer, TEXTS, 5)
    assert tokenizer.truncation is None


@pytest.mark.parametrize("max_length", [3, 4, 7, 16])
def test_long_pairs_are_cut_where_the_tokenizer_itself_would_cut_them(max_length: int, tokenizer: Tokenizer) -> None:
    long, longer = "the film was gööd . " * 12, "x" * 150 + " a song " * 40
    pairs = [(long, "a song"), ("a song", long), (long, long), (long, longer), (longer, long), (" " * 900, longer)]
    tokens = tokenize_texts(tokenizer, pairs, max_length)
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    expected = [encoding.ids for encoding in tokenizer.encode_batch(pairs)]
    assert [tokens.ids[a:b].tolist() for a, b in pairwise(tokens.starts)] == expected
