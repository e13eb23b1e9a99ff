"""What data files hold: rows, labels, lengths, and texts that come twice."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mtbert_jax.config import Config, TaskConfig
from mtbert_jax.data.raw_rows import NUMBERED
from mtbert_jax.data.survey import BadRows, Lines, Repeats, SplitSurvey, survey
from mtbert_jax.data.tokens import tokenize_texts
from mtbert_jax.encoders.tokenizer import load_tokenizer
from mtbert_jax.errors import InputError
from tests.conftest import replace_task

SST = TaskConfig("sst", "classification", ("text",), "label", train="a.tsv", dev="b.tsv", num_classes=3)
HEADER = "id\ttext\tlabel\n"


def surveyed(tmp_path: Path, encoder: Path, train: str, dev: str = "z\tfilm\t0\n", **task: object) -> list[SplitSurvey]:
    """Both splits of one task, from files with these rows."""
    (tmp_path / "a.tsv").write_text(HEADER + train)
    (tmp_path / "b.tsv").write_text(HEADER + dev)
    return survey(one_task(tmp_path, **task), load_tokenizer(encoder)).splits


def one_task(tmp_path: Path, **task: object) -> Config:
    spec = dataclasses.replace(SST, **task)  # type: ignore[arg-type]
    return Config(tasks=(spec,), data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"), max_length=6)


def test_bad_rows_are_counted_by_reason_and_named_by_line(tmp_path: Path, encoder_dir: Path) -> None:
    rows = "a\tgood\t1\nb\tgood\t7\nc\tgood\nd\tgood\tx\n\tgood\t1\na\tfine\t1\n"
    train, dev = surveyed(tmp_path, encoder_dir, rows)
    assert train.rows == 1
    assert train.bad == [
        BadRows("column 'label' is not a whole number from 0 to 2", 2, [3, 5]),
        BadRows("has another number of columns than the header", 1, [4]),
        BadRows("column 'id' is empty", 1, [6], NUMBERED),
        BadRows("its id stands in an earlier row", 1, [7], NUMBERED),
    ]
    assert (dev.rows, dev.bad) == (1, [])


def test_only_the_first_lines_of_many_are_named(tmp_path: Path, encoder_dir: Path) -> None:
    train, _ = surveyed(tmp_path, encoder_dir, "a\tgood\t0\n" + "".join(f"{n}\tbad\t9\n" for n in range(20)))
    assert train.bad == [BadRows("column 'label' is not a whole number from 0 to 2", 20, [3, 4, 5, 6, 7])]


def test_classes_are_counted_also_those_that_are_missing(tmp_path: Path, encoder_dir: Path) -> None:
    train, _ = surveyed(tmp_path, encoder_dir, "a\tgood\t0\nb\tbad\t2\nc\tdull\t2\n")
    assert (train.classes, train.scores, train.labelled) == ({"0": 1, "1": 0, "2": 2}, {}, 3)
    named = {"num_classes": 0, "classes": ("no", "maybe", "yes")}
    train, _ = surveyed(tmp_path, encoder_dir, "a\tgood\tyes\nb\tbad\tno\n", "z\tfilm\tno\n", **named)
    assert train.classes == {"no": 1, "maybe": 0, "yes": 1}


def test_scores_have_percentiles(tmp_path: Path, encoder_dir: Path) -> None:
    rows = "".join(f"{n}\tgood\t{n / 20}\n" for n in range(101))
    train, _ = surveyed(tmp_path, encoder_dir, rows, kind="regression", num_classes=0)
    assert train.scores == pytest.approx({0: 0, 5: 0.25, 25: 1.25, 50: 2.5, 75: 3.75, 95: 4.75, 100: 5}, abs=1e-6)
    assert train.classes == {}


def test_lengths_are_those_of_whole_texts_and_what_is_longer_than_the_limit_is_counted(
    tmp_path: Path, encoder_dir: Path
) -> None:
    """`[CLS] … [SEP]`: two tokens more than words; the limit is 6."""
    rows = "".join(f"{n}\t{'good ' * n}\t0\n" for n in range(1, 11))
    train, dev = surveyed(tmp_path, encoder_dir, rows)
    assert train.tokens == {50: 8, 90: 12, 95: 12, 99: 12, 100: 12}
    assert (train.limit, train.cut) == (6, 6)
    assert (dev.tokens[100], dev.cut) == (3, 0)


def test_training_splits_come_encoded_as_training_has_them(config: Config, encoder_dir: Path) -> None:
    """With limits of their own, which cut some rows off in one task and none in another."""
    config = replace_task(config, "sst", max_length=9)
    tokenizer = load_tokenizer(encoder_dir)
    for name, data in survey(config, tokenizer).train.items():
        own = tokenize_texts(tokenizer, data.texts, 9 if name == "sst" else 48)
        assert all(np.array_equal(*pair) for pair in zip(own, data.tokens, strict=True))
        assert data.labelled
        assert data.tokens.lengths.max() == 9 or name != "sst"


def test_duplicates_are_named_with_the_row_that_they_repeat(tmp_path: Path, encoder_dir: Path) -> None:
    rows = "a\tA  good film\t0\nb\tbad\t1\nc\ta good FILM \t0\nd\tbad\t2\ne\ta goodfilm\t0\n"
    train, dev = surveyed(tmp_path, encoder_dir, rows)
    assert train.duplicates == Repeats(2, 1, [(4, 2), (5, 3)])
    assert dev.duplicates == Repeats(0, 0, [])


def test_overlap_counts_the_later_splits_rows(tmp_path: Path, encoder_dir: Path) -> None:
    (tmp_path / "a.tsv").write_text(HEADER + "a\tgood\t0\nb\tbad\t1\n")
    (tmp_path / "b.tsv").write_text(HEADER + "a\tbad\t1\nb\tdull\t2\nc\tGood\t2\nd\tbad\t1\n")
    (tmp_path / "c.tsv").write_text("id\ttext\na\tdull\n")
    found = survey(one_task(tmp_path, test="c.tsv"), load_tokenizer(encoder_dir))
    assert [(o.split, o.within, o.repeats) for o in found.overlaps] == [
        ("dev", "train", Repeats(3, 1, [(2, 3), (4, 2), (5, 3)])),
        ("test", "train", Repeats(0, 0, [])),
        ("test", "dev", Repeats(1, 0, [(2, 3)])),  # a row without a label has no other one
    ]


def test_a_pair_is_the_same_in_its_order_only_but_known_from_training_in_either(
    tmp_path: Path, encoder_dir: Path
) -> None:
    """Within a split the order may matter, as in entailment; what training has seen turned round is not new to it."""
    (tmp_path / "a.tsv").write_text("id\tx\ty\tlabel\na\tgood\tbad\t1\nb\tbad\tgood\t1\nc\tgood\tbad\t0\n")
    (tmp_path / "b.tsv").write_text("id\tx\ty\tlabel\na\tgood\tdull\t1\nb\tbad\tgood\t1\n")
    (tmp_path / "c.tsv").write_text("id\tx\ty\tlabel\na\tdull\tGood\t1\nb\t \tgood\t1\n")
    config = one_task(tmp_path, text=("x", "y"), test="c.tsv")
    found = survey(config, load_tokenizer(encoder_dir))
    assert found.splits[0].duplicates == Repeats(1, 1, [(4, 2)])
    assert [overlap.repeats for overlap in found.overlaps] == [
        Repeats(1, 0, [(3, 3)]),
        Repeats(0, 0, []),
        Repeats(1, 0, [(2, 2)]),
    ]
    assert [split.empty for split in found.splits] == [Lines(0, []), Lines(0, []), Lines(1, [3])]


def test_a_file_without_any_usable_row_is_told_of_like_others(tmp_path: Path, encoder_dir: Path) -> None:
    train, dev = surveyed(tmp_path, encoder_dir, "a\tgood\t9\nb\tfine\tyes\n")
    assert (train.rows, train.labelled, train.cut, train.tokens) == (0, 0, 0, {})
    assert train.bad == [BadRows("column 'label' is not a whole number from 0 to 2", 2, [2, 3])]
    assert dev.rows == 1
    with pytest.raises(InputError, match=r"a\.tsv: no rows"):
        surveyed(tmp_path, encoder_dir, "")


def test_rows_without_a_label_and_rows_of_several_lines_are_counted(tmp_path: Path, encoder_dir: Path) -> None:
    (tmp_path / "a.tsv").write_text('id\ttext\tx\ty\na\tgood\t0\t\nb\t"bad\nfilm"\t1\t2\nc\tdull\t\t1\nd\tfine\t\t0\n')
    (tmp_path / "c.tsv").write_text("id\ttext\tx\na\tgood\t-1\nb\tbad\t\nc\tdull\t1\n")
    config = one_task(tmp_path, label="x", dev="", test="c.tsv")
    y = dataclasses.replace(config.tasks[0], name="y", label="y", test="")
    found = survey(dataclasses.replace(config, tasks=(*config.tasks, y)), load_tokenizer(encoder_dir))
    assert [(s.task, s.split, s.rows, s.labelled, s.unlabelled, s.several, s.bad) for s in found.splits] == [
        ("sst", "train", 2, 2, Lines(2, [5, 6]), Lines(1, [3]), []),
        ("sst", "test", 3, 1, Lines(2, [2, 3]), Lines(0, []), []),
        ("y", "train", 3, 3, Lines(1, [2]), Lines(1, [3]), []),
    ]
    assert found.train["sst"].unlabelled == 2
