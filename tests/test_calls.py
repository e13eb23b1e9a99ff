"""Call strings of any vocabulary; what of Python they may hold is tested with the optimizer's (optim/test_chain.py)."""

from typing import Any

import pytest

from mtbert_jax.calls import Vocabulary, read_call
from mtbert_jax.errors import InputError


def build(*values: Any, power: int = 1) -> tuple[Any, ...]:
    return (*values, power)


def refuse(why: str) -> None:
    raise KeyError(why)


WORDS = Vocabulary(
    unknown="unknown thing",
    example="build(1)",
    calls={"build": build, "refuse": refuse},
    accept=lambda value: value if isinstance(value, tuple) else None,
    wanted="a thing",
    known="known: build, refuse",
    names={"seven": 7},
    counted=("power",),
)


def test_literals_names_and_nested_calls_are_read() -> None:
    text = "build(seven, -2.5, 'a', None, [1, True], {'k': build()}, power=2)"
    assert read_call(text, "things[1]", WORDS) == (7, -2.5, "a", None, [1, True], {"k": (1,)}, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bild(1)", "unknown thing 'bild'; did you mean 'build'? (known: build, refuse)"),
        ("build(sevn)", "unknown name 'sevn'; did you mean 'seven'?"),
        ("build", 'is not a thing; write "build()"'),
        ("seven", "is not a thing"),
        ("build(build)", "'build' must be called: build(...)"),
        ("build(power=1001)", "power = 1001: must be at most 1000"),
        ("build(strength=1)", "build refuses its arguments: got an unexpected keyword argument 'strength'"),
        ("refuse('so')", "refuse refuses its arguments: 'so'"),
        ("build(1", 'is no call such as "build(1)"'),
        ("build(1 + 1)", "only calls, names, numbers, strings, lists and dicts may stand here"),
    ],
)
def test_what_is_refused_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_call(text, "things[3]", WORDS)
    assert str(caught.value).startswith(f"things[3] = {text!r}: {message}")
