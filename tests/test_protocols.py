"""Names under which things can be registered, by all decorators alike."""

import functools
from typing import Any

import pytest

import mtbert_jax as mt
from mtbert_jax.errors import InputError

IN_CALLS = (mt.register_aggregator, mt.register_regularizer, mt.register_transformation)
WORDS = (mt.register_kind, mt.register_family, functools.partial(mt.register_metric, kinds=["binary"]))


class Mine:
    """What somebody decorates."""


def mine() -> None:
    """The same."""


@pytest.mark.parametrize("decorator", [*IN_CALLS, *WORDS])
@pytest.mark.parametrize("decorated", [Mine, mine])
def test_a_decorator_without_its_name_shows_how_it_is_written(decorator: Any, decorated: Any) -> None:
    written = getattr(decorator, "func", decorator).__name__
    with pytest.raises(InputError) as caught:
        decorator(decorated)
    assert str(caught.value) == (
        f'{decorated.__name__} cannot be registered: its decorator needs a name, as in @mt.{written}("my_name")'
    )


@pytest.mark.parametrize("decorator", IN_CALLS)
@pytest.mark.parametrize("name", [5, None, ["a"], "", "my name", "my-name", "None", "class"])
def test_what_no_call_string_can_call_is_no_name(decorator: Any, name: Any) -> None:
    with pytest.raises(InputError, match="cannot be registered: call strings need a name such as my_name$"):
        decorator(name)


@pytest.mark.parametrize("decorator", WORDS)
@pytest.mark.parametrize("name", [5, None, ["a"], "", "my name", "my\nname", "my/name", "my\x1bname"])
def test_what_is_no_word_is_no_name(decorator: Any, name: Any) -> None:
    with pytest.raises(InputError, match="cannot be registered: give a name such as my_name, without blanks and slash"):
        decorator(name)


@pytest.mark.parametrize("name", ["deberta-v3", "f0.5", "recall@10", "größe"])
def test_other_words_are_names(name: str) -> None:
    for decorator in WORDS:
        assert callable(decorator(name))
