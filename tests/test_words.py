"""Words that functions take: a wrong one is refused, and is no other word in silence."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mtbert_jax as mt
from mtbert_jax.data.dataset import load_dataset
from mtbert_jax.export.write import export_run
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.origin import restore_params
from mtbert_jax.training.setup import Setup

NONE: Any = None
CALLS: list[tuple[str, Callable[[Any], Any]]] = [
    ("split = .* is none of train, dev, test", lambda word: Setup.datasets(SimpleNamespace(tasks={}), word)),  # type: ignore[arg-type]
    ("split = .* is none of train, dev, test", lambda word: load_dataset(NONE, NONE, word, NONE)),
    ("which = .* is none of best, latest", lambda word: restore_params(RunFolder(Path()), NONE, NONE, word)),
    ("form = .* is none of hf, stablehlo", lambda word: export_run(Path(), word)),
    ("unknown aggregator", lambda word: mt.aggregator_weights(word, [[1.0]])),
    ("kernel = .* is none of xla, cudnn", lambda word: mt.encoder(mt.BertConfig(), kernel=word)),
    ("model = .* is none of WordPiece, BPE, Unigram", lambda word: mt.TokenizerRules(model=word)),
]


@pytest.mark.parametrize(("message", "call"), CALLS)
@pytest.mark.parametrize("word", ["newest", None, ["dev"], 3])
def test_a_word_that_is_none_is_refused(message: str, call: Callable[[Any], Any], word: Any) -> None:
    with pytest.raises(mt.InputError, match=message):
        call(word)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("^task is a table: give an mt.TaskConfig", lambda: mt.read_task({}, "train")),  # type: ignore[arg-type]
        ("^encoder = None: give a directory, or a hub name", lambda: mt.load_tokenizer(NONE)),
        (
            "^dtype = 'float99': must be a type of floating-point numbers",
            lambda: mt.encoder(mt.BertConfig(), "float99"),
        ),
        ("^hidden_act is 'swish2', none of gelu", lambda: mt.encoder(mt.BertConfig(hidden_act="swish2"))),
        ("^pair = .*: must have a and b in it", lambda: mt.TokenizerRules(pair="[CLS] x [SEP]")),
        (
            "^tokenizer is a str: give a tokenizers.Token",
            lambda: mt.save_pretrained("new", mt.BertConfig(), {}, "tiny"),
        ),
        (r"^tasks: expected a list, got 'sts'; write \['sts'\]", lambda: mt.Ensemble.with_both_orders(NONE, "sts")),
    ],
)
def test_a_thing_that_is_none_is_refused(message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(mt.InputError, match=message):
        call()
