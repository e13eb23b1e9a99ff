"""Words: read from files, encoded with the place of their first token, and gathered into batches."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.config import Config, TaskConfig
from mtbert_jax.data import tokens
from mtbert_jax.data.batches import make_batch
from mtbert_jax.data.dataset import load_dataset, load_datasets
from mtbert_jax.data.readers import read_split
from mtbert_jax.data.texts import read_texts
from mtbert_jax.data.tokens import Tokens, tokenize_cached, tokenize_texts
from mtbert_jax.encoders.tokenizer import load_tokenizer
from mtbert_jax.errors import InputError

NER = TaskConfig("ner", "tokens", ("words",), "tags", id="", classes=("THING",), train="train.jsonl")


def write(path: Path, *rows: dict[str, object]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_words_and_tags_are_texts_or_lists(tmp_path: Path) -> None:
    rows = [
        {"words": "the  film was\tgood", "tags": "O B-THING O O"},
        {"words": ["the", "film"], "tags": ["O", "B-THING"]},
    ]
    write(tmp_path / "train.jsonl", *rows)
    (tmp_path / "train.tsv").write_text("words\ttags\nthe film was good\tO B-THING O O\nthe film\tO B-THING\n")
    for name in ("train.jsonl", "train.tsv"):
        task = TaskConfig(**{**vars(NER), "train": name})
        found = mt.read_task(task, "train", tmp_path)
        assert [(e.texts, e.label.tolist()) for e in found] == [
            (("the film was good",), [0, 1, 0, 0]),
            (("the film",), [0, 1]),
        ]


CONLL = """-DOCSTART- -X- -X- O

# id 7 = a comment
the DT B O
film NN I B-THING

# NN B O
hash NN I B-THING
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("between", [" ", "\t"])
def test_a_word_a_line(tmp_path: Path, end: str, between: str) -> None:
    text = CONLL.replace(" ", between).removesuffix("\n")
    (tmp_path / "train.conll").write_bytes(text.replace("\n", end).encode())
    reading = read_split(dataclasses.replace(NER, train="train.conll", id="id"), "train", tmp_path)
    found = [(example.id, example.texts, example.label.tolist()) for example in reading.examples]
    assert found == [("0", ("the film",), [0, 1]), ("1", ("# hash",), [0, 1])]
    assert reading.lines == [4, 7]
    text_itself = TaskConfig("lm", "masked_lm", ("words",), "", id="", train="train.conll")
    assert mt.read_task(text_itself, "train", tmp_path)[0].texts == ("the film",)
    assert read_texts(CONLL.encode(), "a.conll", NER) == [("the film",), ("# hash",)]


def test_where_a_line_has_tabs_blanks_beside_them_are_passed_over(tmp_path: Path) -> None:
    text = "-DOCSTART- -X-\tO\n\n# a note\tof several words\nthe \tDT x\t\tO\nfilm\t \tNN\t B-THING \n"
    (tmp_path / "train.conll").write_text(text)
    (found,) = mt.read_task(dataclasses.replace(NER, train="train.conll"), "train", tmp_path)
    assert (found.texts, found.label.tolist()) == (("the film",), [0, 1])
    text_itself = TaskConfig("lm", "masked_lm", ("words",), "", id="", train="train.conll")
    (tmp_path / "train.conll").write_text("New York\tB-PER\n")
    assert mt.read_task(text_itself, "train", tmp_path)[0].texts == ("New York",)


def test_words_of_a_test_file_need_no_tags(tmp_path: Path) -> None:
    (tmp_path / "test.bio").write_text("the\nfilm\n\n#\n")
    found = mt.read_task(dataclasses.replace(NER, test="test.bio"), "test", tmp_path)
    assert [(example.texts, example.label) for example in found] == [(("the film",), None), (("#",), None)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.conll",
            "a O\n\nthe O\nfilm\n",
            ":3: words of one sentence have different numbers of columns: 2 in line 3, 1 in line 4",
        ),
        ("a.conll", "a O\n\nthe B-X\n", """:3: column 'tags' is '["B-X"]', not a list of tags"""),
        ("a.conll", "the\nfilm\n", ":1: has no field 'tags'"),
        ("a.conll", "New York\tB-THING\n", ":1: field 'words' has 'New York' as word 1, which is not one word"),
        ("a.conll", "York\tNN B\tB-THING O\n", """:1: column 'tags' is '["B-THING O"]', not a list of tags"""),
        ("a.conll", "\n\n", ": no rows"),
        (
            "a.txt",
            "a O\nfilm B-THING\n",
            ":1: no column 'words'; its first line must name the columns; a file with a word a line is named .conll",
        ),
    ],
)
def test_what_is_wrong_with_a_word_a_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        read_split(dataclasses.replace(NER, train=name), "train", tmp_path)
    assert f"{name}{message}" in str(caught.value)


def test_a_misspelt_header_is_no_file_of_words(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("word\ttag\nfilm\tO\n")
    with pytest.raises(InputError, match=r"a.tsv:1: no column 'words'; did you mean 'word'\?"):
        read_split(dataclasses.replace(NER, train="a.tsv"), "train", tmp_path)


def test_a_task_of_pairs_reads_no_words_a_line(tmp_path: Path) -> None:
    (tmp_path / "train.conll").write_text(CONLL)
    pair = TaskConfig("pair", "binary", ("a", "b"), "label", id="", train="train.conll")
    with pytest.raises(InputError, match="a file with a word a line has one text in a sentence, and task pair"):
        mt.read_task(pair, "train", tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"words": "the film", "tags": "O"}, "column 'tags' has 1 tags for the 2 words of 'words'"),
        ({"words": "the film", "tags": "O B-X"}, "column 'tags' is 'O B-X', not a list of tags"),
        (
            {"words": ["the", "old film"], "tags": "O O"},
            "field 'words' has 'old film' as word 2, which is not one word",
        ),
        ({"words": ["the", 3], "tags": "O O"}, "field 'words' has 3 as word 2"),
        ({"words": 3, "tags": "O"}, "field 'words' is a number, not a text"),
        ({"words": "the", "tags": ""}, "column 'tags' is ''"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: dict[str, object], message: str) -> None:
    write(tmp_path / "train.jsonl", {"words": "a", "tags": "O"}, row)
    with pytest.raises(InputError) as caught:
        read_split(NER, "train", tmp_path)
    assert f"train.jsonl:2: {message}" in str(caught.value)


def test_the_first_token_of_a_word_carries_its_label(small_encoder_dir: Path, tmp_path: Path) -> None:
    """The tiny vocabulary parts `good.` into two tokens; `[CLS]` and `[SEP]` belong to no word."""
    write(
        tmp_path / "train.jsonl",
        {"words": "the film was good. ?", "tags": "O B-THING O B-THING I-THING"},
        {"words": "the . ? book", "tags": "O O O B-THING"},
    )
    tokenizer = load_tokenizer(small_encoder_dir)
    config = Config(tasks=(NER,), data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"), max_length=6)
    (task,) = config.resolved_tasks()
    data = load_dataset(config, task, "train", tokenizer)
    assert data.labels.tolist() == [[0, 1, 0, 1, 2], [0, 0, 0, 1, -1]]
    assert data.tokens.num_words is not None and data.tokens.num_words.tolist() == [5, 4]
    batch = make_batch(data.tokens, data.labels, np.array([1, 0]), 6, 3)
    assert batch.positions is not None
    # [CLS] the . ? book [SEP]; [CLS] the film was good [SEP], since `.` and `?` are cut off.
    assert batch.positions.tolist() == [[1, 2, 3, 4, -1, -1], [1, 2, 3, 4, -1, -1], [-1] * 6]
    assert batch.labels.tolist() == [[0, 0, 0, 1, -1, -1], [0, 1, 0, 1, -1, -1], [-1] * 6]
    longer = tokenize_texts(tokenizer, [("the film was good. ?",)], 16, words="first")
    assert longer.words is not None and longer.words.tolist() == [-1, 0, 1, 2, 3, -1, 4, -1]


def test_texts_that_tasks_share_are_encoded_once(small_encoder_dir: Path, tmp_path: Path) -> None:
    tokenizer, texts = load_tokenizer(small_encoder_dir), [("the film was good",), ("the book",)]
    with_words = tokenize_cached(tokenizer, texts, 16, tmp_path, words="first")
    plain = tokenize_cached(tokenizer, texts, 16, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert plain.words is None
    assert plain.ids.tolist() == with_words.ids.tolist()
    again = tokenize_cached(tokenizer, texts, 16, tmp_path, words="first")
    assert again.words is not None and with_words.words is not None
    assert again.words.tolist() == with_words.words.tolist()


def test_a_file_of_several_tasks_is_encoded_once_whatever_is_labelled(
    small_encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each task has the tokens that it would have alone."""
    rows = [
        {"text": "the film was good", "mood": "good"},
        {"text": "a book", "stars": 3},
        {"text": "the film was good", "mood": "bad", "stars": 1},
        {"text": "a dull room .", "mood": "bad", "stars": 2},
    ]
    write(tmp_path / "train.jsonl", *rows)
    common = {"text": ("text",), "id": "", "train": "train.jsonl"}
    tasks = (
        TaskConfig("mood", label="mood", classes=("good", "bad"), **common),  # type: ignore[arg-type]
        TaskConfig("stars", "regression", label="stars", **common),  # type: ignore[arg-type]
    )
    config = Config(tasks=tasks, data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"), max_length=12)
    calls: list[int] = []

    def counting(tokenizer: object, texts: list[tuple[str, ...]], *rest: object) -> Tokens:
        calls.append(len(texts))
        return tokenize_texts(tokenizer, texts, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(tokens, "tokenize_texts", counting)
    tokenizer, resolved = load_tokenizer(small_encoder_dir), config.resolved_tasks()
    found = load_datasets(config, resolved, "train", tokenizer)
    assert calls == [3]
    for task in resolved:
        alone = load_dataset(config, task, "train", tokenizer)
        assert found[task.name].texts == alone.texts
        for one, other in zip(found[task.name].tokens[:3], alone.tokens[:3], strict=True):
            assert one.dtype == other.dtype  # type: ignore[union-attr]
            np.testing.assert_array_equal(one, other)
