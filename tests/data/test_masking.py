"""Hidden tokens: shares, determinism, whole words, what becomes of them, and how batches carry them."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from mtbert_jax.config import Config, TaskConfig
from mtbert_jax.data.batches import TaskBatches
from mtbert_jax.data.dataset import Dataset, load_dataset
from mtbert_jax.data.masking import SHARE, Masking, choose, most_places
from mtbert_jax.data.readers import read_split
from mtbert_jax.data.tokens import Tokens, tokenize_texts
from mtbert_jax.encoders.tokenizer import load_tokenizer, mask_token
from mtbert_jax.errors import InputError
from tests.conftest import GOOD, THINGS, VOCAB

LM = TaskConfig("lm", "masked_lm", ("text",), id="", train="train.txt", dev="train.txt")


def many(count: int, length: int) -> Masking:
    """Texts of distinct ids from 100 to 999, between the special tokens 1 and 2."""
    rng = np.random.default_rng(0)
    rows = [np.concatenate([[1], rng.integers(100, 1000, length - 2), [2]]) for _ in range(count)]
    words = np.tile(np.concatenate([[-1], np.arange(length - 2) // 2, [-1]]), count).astype(np.int32)
    starts = np.arange(count + 1) * length
    tokens = Tokens(np.concatenate(rows).astype(np.int32), starts, np.full(count, length), words, np.zeros(count, int))
    return Masking(tokens, mask=3, vocabulary=100, whole_words=False)


def test_shares_are_those_of_the_paper() -> None:
    """15 % of the tokens; of those 80 % the mask, 10 % any token, 10 % as they were; special tokens never."""
    masking = many(400, 102)
    shown, labels = masking.masked(range(400), (0, 1))
    before, after = masking.tokens.ids, shown.ids
    hidden = shown.words >= 0  # type: ignore[operator]
    assert hidden.sum() == 400 * 15
    assert (before[hidden] == labels[labels >= 0]).all()
    assert (before[~hidden] == after[~hidden]).all()
    assert not hidden[np.isin(before, [1, 2])].any()
    masked, same = (after == 3) & hidden, (after == before) & hidden
    other = hidden & ~masked & ~same
    shares = [part.sum() / hidden.sum() for part in (masked, other, same)]
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.012)
    assert after[other].max() < 100
    places = np.flatnonzero(hidden) % 102
    assert np.bincount(places, minlength=102)[1:-1].min() > 30  # every place is hidden now and then


def test_masks_are_a_function_of_seed_and_row() -> None:
    masking = many(6, 42)
    first, labels = masking.masked([4, 2], (7, 0))
    again, same = masking.masked([2, 4], (7, 0))
    other, _ = masking.masked([4, 2], (7, 1))
    rows = [ids.reshape(2, 42) for ids in (first.ids, again.ids, other.ids)]
    assert (rows[0] == rows[1][::-1]).all()
    assert (labels == same[::-1]).all()
    assert (rows[0] != rows[2]).any(axis=1).all()


def test_a_word_is_hidden_whole_or_not_at_all() -> None:
    words = np.array([-1, 0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 4, 5, 6, 7, 8, 8, 9, 10, 11, -1])
    for seed in range(50):
        hidden = choose(words, True, np.random.default_rng(seed))
        assert 1 <= len(hidden) <= 3 == round(SHARE * 19)
        assert (np.diff(hidden) > 0).all()
        if len(hidden) > 1 or words[hidden[0]] not in (0, 2, 4, 8):
            for word in np.unique(words[hidden]):
                assert (words[hidden] == word).sum() == (words == word).sum()


@pytest.mark.parametrize("whole", [False, True])
def test_a_text_has_one_hidden_token_at_least_and_no_more_than_places(whole: bool) -> None:
    for length in range(1, 70):
        words = np.concatenate([[-1], np.zeros(length, int) if whole else np.arange(length), [-1]])
        hidden = choose(words, whole, np.random.default_rng(length))
        assert 1 <= len(hidden) <= most_places(length + 2, SHARE)
    assert len(choose(np.array([-1, -1]), whole, np.random.default_rng(0))) == 0


def dataset(tmp_path: Path, encoder: Path, **changes: object) -> tuple[Dataset, Config]:
    lines = [f"the {thing} was {' '.join(GOOD[: 1 + number % 5])} ." for number, thing in enumerate(THINGS * 3)]
    (tmp_path / "train.txt").write_text("\n\n".join(lines) + "\n")
    task = TaskConfig(**{**vars(LM), **changes})  # type: ignore[arg-type]
    config = Config(tasks=(task,), data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"), max_length=12)
    return load_dataset(config, config.resolved_tasks()[0], "train", load_tokenizer(encoder)), config


def test_a_plain_file_has_a_text_a_line(small_encoder_dir: Path, tmp_path: Path) -> None:
    data, _ = dataset(tmp_path, small_encoder_dir)
    assert data.ids == [str(number) for number in range(24)]
    assert data.texts[0] == ("the film was good .",)
    assert data.labelled
    with pytest.raises(InputError, match=r"a plain text file has one text a line, and task lm reads 2"):
        read_split(TaskConfig("lm", "masked_lm", ("a", "b"), train="train.txt"), "train", tmp_path)
    with pytest.raises(InputError, match="no column .a."):
        read_split(TaskConfig("c", "classification", ("a",), num_classes=2, train="train.txt"), "train", tmp_path)


def test_texts_of_any_tasks_file_need_no_label(tmp_path: Path) -> None:
    rows = [{"text": "a film", "label": 3}, {"text": "a book"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_split(TaskConfig(**{**vars(LM), "train": "train.jsonl"}), "train", tmp_path).examples
    assert [(one.texts, one.label) for one in found] == [(("a film",), None), (("a book",), None)]


@pytest.mark.parametrize("whole", [False, True])
def test_batches_hide_others_every_time_and_labels_are_what_was_there(
    small_encoder_dir: Path, tmp_path: Path, whole: bool
) -> None:
    data, _ = dataset(tmp_path, small_encoder_dir, whole_words=whole)
    assert data.masking is not None
    stream = TaskBatches("lm", data.tokens, data.labels, 8, np.array([8, 12]), (0, 0), masking=data.masking)
    assert stream.per_epoch == 3
    seen = []
    for index in (0, 1, 2, 3):
        rows, length = stream.rows(index)
        batch = stream[index]
        again = stream.part(index, slice(0, 8))
        assert batch.positions.shape == batch.labels.shape == (8, most_places(length, SHARE))
        assert all(np.array_equal(one, other) for one, other in zip(batch, again, strict=True))
        whole_tokens = data.masking.tokens
        for place, row in enumerate(rows):
            own = whole_tokens.ids[whole_tokens.starts[row] : whole_tokens.starts[row + 1]]
            there = batch.positions[place] >= 0
            assert there.any()
            assert (own[batch.positions[place][there]] == batch.labels[place][there]).all()
            assert (batch.labels[place][~there] == -1).all()
            shown = batch.input_ids[place, : len(own)]
            assert {*np.flatnonzero(shown != own)} <= {*batch.positions[place][there]}
            seen.append((int(row), tuple(batch.positions[place])))
    assert len({*seen}) > 24  # the fourth batch is of rows that the first three had, mostly with other masks


def test_masks_of_a_split_to_score_are_the_same_every_time(small_encoder_dir: Path, tmp_path: Path) -> None:
    first, second = (dataset(tmp_path, small_encoder_dir)[0] for _ in range(2))
    assert (first.tokens.ids == second.tokens.ids).all()
    assert (first.labels == second.labels).all()
    mask = VOCAB.index("[MASK]")
    assert (first.tokens.ids == mask).any()
    assert first.masking is not None and not (first.masking.tokens.ids == mask).any()


def test_words_of_a_pair_are_numbered_through(small_encoder_dir: Path) -> None:
    tokens = tokenize_texts(load_tokenizer(small_encoder_dir), [("the film .", "a book")], 16, words="all")
    assert tokens.words is not None
    assert tokens.words.tolist() == [-1, 0, 1, 2, -1, 3, 4, -1]


def test_the_mask_is_the_encoders_own() -> None:
    """MPNet's vocabulary has `[MASK]` as an ordinary word, and `<mask>` as the special one."""
    vocabulary = {name: number for number, name in enumerate(["[UNK]", "[MASK]", "a", "<mask>"])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    assert mask_token(tokenizer) == "[MASK]"
    tokenizer.add_special_tokens(["<mask>"])
    assert mask_token(tokenizer) == "<mask>"
    masking = Masking.of(many(1, 9).tokens, tokenizer, mask_token(tokenizer), False)
    assert (masking.mask, masking.vocabulary) == (3, 4)
    with pytest.raises(InputError, match="needs a mask token"):
        Masking.of(many(1, 9).tokens, Tokenizer(WordPiece({"a": 0}, unk_token="a")), "[MASK]", False)
