"""Words that the vocabulary lacks."""

import dataclasses
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from mtbert_jax.config import Config
from mtbert_jax.data.tokens import tokenize_texts
from mtbert_jax.data.unknown import unknown_share, unknown_warning
from mtbert_jax.encoders.tokenizer import load_tokenizer
from mtbert_jax.training.describe import rehearse
from tests.encoders.folders import SETTINGS, write


def share(tokenizer: Tokenizer, *texts: tuple[str, ...]) -> float:
    return unknown_share(tokenizer, tokenize_texts(tokenizer, texts, 48), [texts[0]])


def test_the_share_is_of_the_tokens_of_texts(encoder_dir: Path) -> None:
    """[CLS] and [SEP] are not counted, and the text "[UNK]" is no unknown word."""
    tokenizer = load_tokenizer(encoder_dir)
    assert share(tokenizer, ("the film was xyz",), ("good",)) == pytest.approx(1 / 5)
    assert share(tokenizer, ("the xyz", "film"), ("good xyz", "abc")) == pytest.approx(3 / 6)
    assert share(tokenizer, ("the film",)) == 0.0
    assert share(tokenizer, ("",)) == 0.0
    assert tokenizer.encode("[UNK]").tokens[1:-1] == ["[", "[UNK]", "]"]  # "unk" is no word of this vocabulary


LOWER = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\nfilm\n"


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        ({}, 'texts lose theirs unless tokenizer_config.json says "do_lower_case": false'),
        ({"vocab.txt": LOWER, SETTINGS: {"do_lower_case": False}}, 'texts keep theirs unless tokenizer_config.json'),
        ({"vocab.txt": LOWER}, "are the texts in the encoder's language?"),
        ({SETTINGS: {"do_lower_case": False}}, "are the texts in the encoder's language?"),
    ],
)  # fmt: skip
def test_the_cause_is_guessed_by_the_vocabulary(files: dict, cause: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write(tmp_path, files))
    warning = unknown_warning(tokenizer, "task a", 0.0213)
    assert warning is not None
    assert warning.startswith("warning: task a: 2.1% of the tokens are [UNK], words that the vocabulary lacks; ")
    assert cause in warning
    assert unknown_warning(tokenizer, "task a", 0.02) is None


def test_training_tells_of_it_at_the_start(config: Config, data_dir: Path, tmp_path: Path) -> None:
    """A line for each task that has too many, and none for the others."""
    path = tmp_path / "sst.csv"
    text = (data_dir / "ids-sst-train.csv").read_text()
    path.write_text(text.replace("good", "xyz").replace("bad", "xyz"))
    tasks = (dataclasses.replace(config.tasks[0], train=str(path)), *config.tasks[1:])
    lines = [line for line in rehearse(dataclasses.replace(config, tasks=tasks)) if line.startswith("warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("warning: task sst: ")
    assert not [line for line in rehearse(config) if line.startswith("warning: ")]
