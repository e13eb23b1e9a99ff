"""What cannot be registered as a kind or as a metric."""

from typing import Any

import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.errors import InputError
from mtbert_jax.tasks import KINDS
from mtbert_jax.tasks.binary import Binary


def mistakes(predictions: np.ndarray, labels: np.ndarray) -> Any:
    return np.sum(predictions != labels, axis=-1)


@pytest.mark.parametrize("best", ["maximum", "larger", "", None])
def test_a_metric_is_better_the_larger_or_the_smaller_it_is(best: Any) -> None:
    before = KINDS["binary"].metrics
    message = f"metric 'mistakes': best = {best!r}: must be 'max' or 'min'"
    with pytest.raises(InputError, match=message):
        mt.register_metric("mistakes", ["binary"], best=best)(mistakes)
    with pytest.raises(InputError, match=message):
        mt.Metric("mistakes", mistakes, best)
    assert KINDS["binary"].metrics == before


@pytest.mark.parametrize(
    ("attribute", "word", "message"),
    [
        ("decision", "signn", "decision = 'signn' is none of argmax, sign, .*; did you mean 'sign'"),
        ("metrics", 2 * Binary.metrics[:1], "two metrics have one name: accuracy, accuracy"),
        ("batch_loss", lambda self, logits, labels, weights: 0.0, "a class with a batch_loss sets of_batch = True"),
        ("reads", "token", "reads = 'token' is none of vector, tokens, masked, texts; did you mean 'tokens'"),
    ],
)
def test_what_a_kind_cannot_be_is_refused(attribute: str, word: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^task kind 'odd' cannot be registered: {message}"):
        mt.register_kind("odd")(type("Odd", (Binary,), {attribute: word}))
    assert "odd" not in KINDS


def test_a_metric_is_added_to_all_kinds_or_to_none() -> None:
    before = KINDS["binary"].metrics
    with pytest.raises(InputError, match=r"^metric 'mistakes': no task kind 'clasification'; did you mean 'classific"):
        mt.register_metric("mistakes", ["binary", "clasification"])(mistakes)
    assert KINDS["binary"].metrics == before


@pytest.mark.parametrize("kinds", ["binary", [], None, Binary, {"binary"}])
def test_a_metric_names_its_kinds_in_a_list(kinds: Any) -> None:
    with pytest.raises(InputError, match="^metric 'mistakes': kinds = .*: give a list of names, such as"):
        mt.register_metric("mistakes", kinds)


def test_no_kind_is_registered_twice_by_one_file() -> None:
    known = dict(KINDS)
    mt.register_kind("odd")(Odd)
    mt.register_kind("odd")(type("Odd", (Binary,), {"__module__": __name__}))
    with pytest.raises(InputError, match="^task kind 'odd' cannot be registered: a kind of that name exists$"):
        mt.register_kind("odd")(type("Odder", (Binary,), {"__module__": __name__}))
    KINDS.clear()
    KINDS.update(known)


class Odd(Binary):
    """A kind of this file."""
