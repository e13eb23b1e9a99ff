"""Words of training texts left out or exchanged, against the same in lists of words (docs/numerics.md, section 11)."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mtbert_jax.config import Config, TaskConfig
from mtbert_jax.data import tokens as tokens_module
from mtbert_jax.data.augment import WORDS, Augmentation, exchanged, has_words, left_words
from mtbert_jax.data.batches import TaskBatches
from mtbert_jax.data.dataset import load_dataset, load_datasets
from mtbert_jax.data.tokens import Tokens, tokenize_texts
from mtbert_jax.encoders.tokenizer import load_tokenizer
from mtbert_jax.errors import InputError
from mtbert_jax.types import Batch

CLS, SEP = 1, 2
Word = tuple[int, ...]
"""The ids of a word's tokens: all ids of all words of an example differ."""


def encoded(examples: list[list[list[Word]]]) -> Tokens:
    """Examples of one or two lists of words, as a tokenizer encodes them: [CLS] a [SEP] b [SEP]."""
    ids, words, first, starts = [], [], [], [0]
    for texts in examples:
        own, numbers, seen = [CLS], [-1], 0
        for place, text in enumerate(texts):
            for word in text:
                own += word
                numbers += [seen] * len(word)
                seen += 1
            own.append(SEP)
            numbers.append(-1)
            if not place:
                first.append(len(own))
        ids += own
        words += numbers
        starts.append(len(ids))
    counts = np.zeros(len(examples), np.int32)
    return Tokens(
        np.array(ids, np.int32), np.array(starts), np.array(first, np.int32), np.array(words, np.int32), counts
    )


def examples(count: int, most: int = 12, texts: int = 2, seed: int = 0) -> list[list[list[Word]]]:
    """Random texts of up to so many words, none at all among them, of one to three tokens each."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        numbers = iter(range(10, 10_000))
        sizes = [int(rng.integers(0, most + 1)) for _ in range(texts)]
        found.append([[tuple(next(numbers) for _ in range(rng.integers(1, 4))) for _ in range(size)] for size in sizes])
    return found


def literal(text: list[Word], deletion: float, swap: float, rng: np.random.Generator) -> list[Word]:
    """A text by the definition: words are left out one by one, then pairs of places exchange their words."""
    if not text:
        return []
    left = [word for word, draw in zip(text, rng.random(len(text)).tolist(), strict=True) if draw >= deletion]
    left = left or [text[int(rng.integers(0, len(text), 1)[0])]]
    pairs = swap * len(left) / 2
    count = min(int(pairs) + (rng.random() < pairs - int(pairs)), len(left) // 2)
    for one, other in zip(*rng.choice(len(left), (2, count), replace=False), strict=True) if count else ():
        left[one], left[other] = left[other], left[one]
    return left


def rows_of(tokens: Tokens) -> list[tuple[list[int], list[int]]]:
    """Ids of the first segment and of the second, of every example."""
    found = []
    for start, end, first in zip(tokens.starts, tokens.starts[1:], tokens.first, strict=False):
        ids = tokens.ids[start:end].tolist()
        found.append((ids[:first], ids[first:]))
    return found


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("deletion", "swap"), [(0.3, 0.0), (0.0, 0.4), (0.5, 1.0), (0.97, 0.3), (0.0, 0.0)])
def test_tokens_are_those_of_lists_of_words(count: int, deletion: float, swap: float) -> None:
    """Whole words move, each text by itself; special tokens stay; the second text begins where it did."""
    given = examples(60, texts=count)
    changes = Augmentation(encoded(given), word_deletion=deletion, word_swap=swap)
    rows = np.random.default_rng(1).permutation(60)[:40]
    changed = 0
    for row, (first, second) in zip(rows, rows_of(changes.changed(rows, (3, 0, 5))), strict=True):
        rng = np.random.default_rng([3, 0, 5, int(row), WORDS])
        wanted = [literal(text, deletion, swap, rng) for text in given[row]]
        flat = [[token for word in text for token in word] for text in wanted]
        assert first == [CLS, *flat[0], SEP]
        assert second == ([*flat[1], SEP] if count == 2 else [])
        changed += wanted != given[row]
    assert (changed > 20) == (deletion + swap > 0)


def test_what_is_drawn_is_of_the_seed_the_batch_and_the_row_alone() -> None:
    changes = Augmentation(encoded(examples(30)), word_deletion=0.3, word_swap=0.3)
    rows = np.arange(30)
    whole = rows_of(changes.changed(rows, (0, 0, 7)))
    assert whole == rows_of(changes.changed(rows, (0, 0, 7)))
    back = rows_of(changes.changed(rows[::-1], (0, 0, 7)))
    assert whole == back[::-1]
    assert [rows_of(changes.changed(np.array([row]), (0, 0, 7)))[0] for row in rows] == whole
    for seed in ((1, 0, 7), (0, 1, 7), (0, 0, 8)):
        other = rows_of(changes.changed(rows, seed))
        assert sum(one != two for one, two in zip(whole, other, strict=True)) > 20


def test_so_many_words_are_left_out() -> None:
    rng = np.random.default_rng(0)
    kept = np.array([len(left_words(40, 0.1, rng)) for _ in range(4000)])
    assert kept.mean() == pytest.approx(36, abs=5 * np.sqrt(40 * 0.09 / 4000))
    assert kept.var() == pytest.approx(40 * 0.09, rel=0.15)  # each word by itself
    places = np.bincount(np.concatenate([left_words(4, 0.5, rng) for _ in range(4000)]), minlength=4)
    assert places / 4000 == pytest.approx(np.full(4, 0.5 + 0.5**4 / 4), abs=0.04)  # of none left, one of four stays


@pytest.mark.parametrize(("count", "deletion"), [(1, 0.9), (2, 0.5), (3, 0.9)])
def test_one_word_stays_at_least(count: int, deletion: float) -> None:
    rng = np.random.default_rng(0)
    sizes = [len(left_words(count, deletion, rng)) for _ in range(4000)]
    assert min(sizes) == 1
    assert np.mean(sizes) == pytest.approx(count * (1 - deletion) + deletion**count, abs=0.05)


@pytest.mark.parametrize(("count", "share"), [(20, 0.1), (7, 0.3), (10, 1.0), (3, 0.1), (2, 0.5)])
def test_so_many_words_are_exchanged(count: int, share: float) -> None:
    """The share is exact over many texts, however short they are: the number of pairs is rounded at random."""
    rng, words = np.random.default_rng(0), np.arange(count)
    moved, where = [], np.zeros(count)
    for _ in range(4000):
        found = exchanged(words, share, rng)
        assert sorted(found) == words.tolist()
        assert found[found].tolist() == words.tolist()  # pairs: exchanged again they are back
        where += found != words
        moved.append(int(np.count_nonzero(found != words)))
    assert np.mean(moved) / count == pytest.approx(share, abs=0.02)
    assert max(moved) - min(moved) <= 2
    assert where / 4000 == pytest.approx(np.full(count, share), abs=0.05)


def test_the_odd_word_stays_and_a_single_one_has_no_partner() -> None:
    rng = np.random.default_rng(0)
    assert {int(np.count_nonzero(exchanged(np.arange(5), 1.0, rng) != np.arange(5))) for _ in range(100)} == {4}
    assert all(exchanged(np.array([8]), 1.0, rng).tolist() == [8] for _ in range(20))


def stream(changes: Augmentation, count: int = 30, **fields: object) -> TaskBatches:
    tokens = changes.tokens._replace(words=None, num_words=None)
    labels, lengths = np.arange(count, dtype=np.float32), np.array([16, 32, 80])
    return TaskBatches("para", tokens, labels, 8, lengths, (0, 0), augmentation=changes, **fields)  # type: ignore[arg-type]


def test_batches_are_padded_behind_what_is_left() -> None:
    given = examples(30)
    turned = encoded([texts[::-1] for texts in given])
    weights = np.linspace(1, 2, 30).astype(np.float32)
    changed = stream(Augmentation(encoded(given), turned, 0.5, 0.3, 0.3), weights=weights)
    plain = dataclasses.replace(changed, augmentation=None)
    seen, firsts = set(), 0
    for index in range(2 * changed.per_epoch):
        batch, before = changed[index], plain[index]
        rows, length = changed.rows(index)
        assert isinstance(batch, Batch) and isinstance(before, Batch)
        assert rows.tolist() == plain.rows(index)[0].tolist()
        assert batch.input_ids.shape == before.input_ids.shape == (8, length)
        np.testing.assert_array_equal(batch.labels, before.labels)
        np.testing.assert_array_equal(batch.weights, before.weights)
        for place, row in enumerate(rows):
            size = int(batch.attention_mask[place].sum())
            ids, types = (np.asarray(array[place]).tolist() for array in (batch.input_ids, batch.token_type_ids))
            assert batch.attention_mask[place].tolist() == [1] * size + [0] * (length - size)
            assert ids[size:] == types[size:] == [0] * (length - size)
            middle = ids.index(SEP) + 1
            assert types[:size] == [0] * middle + [1] * (size - middle)
            assert (ids[0], ids[size - 1], ids.count(SEP), ids.count(CLS)) == (CLS, SEP, 2, 1)
            sides = [set(ids[1 : middle - 1]), set(ids[middle : size - 1])]
            texts = [{token for word in text for token in word} for text in given[row]]
            swapped = not (sides[0] <= texts[0] and sides[1] <= texts[1])
            texts = texts[::-1] if swapped else texts
            assert sides[0] <= texts[0] and sides[1] <= texts[1]
            assert all(bool(side) == bool(text) for side, text in zip(sides, texts, strict=True))  # never empty
            seen.add((int(row), tuple(ids[:size])))
            firsts += swapped
    assert len(seen) > 45  # 30 rows, twice: every epoch another
    assert 15 < firsts < 45
    parts = [changed.part(1, slice(start, start + 4)) for start in (0, 4)]  # as two devices have them
    for name in ("input_ids", "attention_mask", "token_type_ids", "labels", "weights"):
        np.testing.assert_array_equal(
            np.concatenate([getattr(part, name) for part in parts]), getattr(changed[1], name)
        )


PARA = TaskConfig("para", "binary", ("a", "b"), "y", id="", train="train.jsonl", dev="train.jsonl")


def config_of(folder: Path, *tasks: TaskConfig) -> Config:
    return Config(tasks=tasks, data_dir=str(folder), cache_dir=str(folder / "cache"), max_length=12)


def write(folder: Path, *pairs: tuple[str, str]) -> None:
    rows = ({"a": a, "b": b, "y": n % 2} for n, (a, b) in enumerate(pairs))
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_words_are_the_tokenizers_and_nothing_is_tokenised_twice(
    small_encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that read the same texts share them, whether or not one changes words; dev texts stay as they are."""
    write(tmp_path, ("the film was good.", "a book"), ("not bad ?", "very dull " * 9))
    changing = dataclasses.replace(PARA, word_deletion=0.2, swap_pairs=0.5)
    config = config_of(tmp_path, changing, dataclasses.replace(PARA, name="other"))
    calls: list[int] = []

    def counting(tokenizer: object, texts: list[tuple[str, ...]], *rest: object) -> Tokens:
        calls.append(len(texts))
        return tokenize_texts(tokenizer, texts, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(tokens_module, "tokenize_texts", counting)
    tokenizer = load_tokenizer(small_encoder_dir)
    train = load_datasets(config, config.resolved_tasks(), "train", tokenizer)
    assert calls == [2, 2]  # the pairs, and the pairs the other way round
    dev = load_datasets(config, config.resolved_tasks(), "dev", tokenizer)
    assert calls == [2, 2]
    assert dev["para"].augmentation is train["other"].augmentation is None
    changes = train["para"].augmentation
    assert changes is not None and changes.swapped is not None
    assert (changes.swap_pairs, changes.word_deletion, changes.word_swap) == (0.5, 0.2, 0.0)
    # [CLS] the film was good . [SEP] a book [SEP]: `good.` is two words
    assert changes.tokens.words is not None and changes.swapped.words is not None
    assert changes.tokens.words[:10].tolist() == [-1, 0, 1, 2, 3, 4, -1, 5, 6, -1]
    assert changes.swapped.words[:10].tolist() == [-1, 0, 1, -1, 2, 3, 4, 5, 6, -1]
    for data in (train["para"], train["other"], dev["para"]):
        assert data.tokens.words is None
        np.testing.assert_array_equal(data.tokens.ids, changes.tokens.ids)


def test_texts_of_single_words_are_refused(small_encoder_dir: Path, tmp_path: Path) -> None:
    """An option that would change nothing; a word of each text of a pair is no two words of one."""
    write(tmp_path, ("film", "book"), ("song", ""))
    tokenizer = load_tokenizer(small_encoder_dir)
    for name in ("word_deletion", "word_swap"):
        config = config_of(tmp_path, dataclasses.replace(PARA, **{name: 0.25}))
        with pytest.raises(InputError) as error:
            load_dataset(config, config.resolved_tasks()[0], "train", tokenizer)
        told = f"task para: {name} = 0.25: the encoder's tokenizer finds no text of two words in train.jsonl; set it"
        assert str(error.value).startswith(told)
    assert has_words(encoded([[[(7,)], [(8,), (9,)]]]))
    assert not any(has_words(encoded([[[word], [word]]])) for word in ((7,), (7, 8)))
