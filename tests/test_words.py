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
]


@pytest.mark.parametrize(("message", "call"), CALLS)
@pytest.mark.parametrize("word", ["newest", None, ["dev"], 3])
def test_a_word_that_is_none_is_refused(message: str, call: Callable[[Any], Any], word: Any) -> None:
    with pytest.raises(mt.InputError, match=message):
        call(word)
