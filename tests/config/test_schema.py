"""The strict reader, the TOML writer, and what differs between two configs."""

import tomllib
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbert_jax.config.schema import difference, from_dict, nearest, to_dict, to_toml
from mtbert_jax.errors import InputError


@dataclass(frozen=True)
class Inner:
    size: int = 1
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    count: int = 0
    rate: float = 0.5
    name: str = ""
    flag: bool = False
    mode: Literal["fast", "slow"] = "fast"
    maybe: float | None = None
    inner: Inner = field(default_factory=Inner)
    inners: tuple[Inner, ...] = ()
    numbers: tuple[float, ...] = ()


def read(values: Any) -> Outer:
    return from_dict(Outer, values, "run.toml")


def round_trip(value: Outer) -> Outer:
    return read(tomllib.loads(to_toml(value)))


def test_missing_keys_take_their_defaults() -> None:
    assert read({}) == Outer()


def test_nested_tables_and_lists_become_dataclasses_and_tuples() -> None:
    values = {"inner": {"size": 3}, "inners": [{"names": ["a", "b"]}, {}], "numbers": [1, 2.5]}
    assert read(values) == Outer(inner=Inner(3), inners=(Inner(1, ("a", "b")), Inner()), numbers=(1.0, 2.5))


def test_a_whole_number_is_taken_as_a_float_where_one_is_due() -> None:
    rate = read({"rate": 2}).rate
    assert rate == 2.0
    assert type(rate) is float


@dataclass(frozen=True)
class OfPlugin:
    """Types that a plugin's options may be of, though no field of a config is."""

    sizes: tuple = ()  # type: ignore[type-arg]
    own: Any = None
    table: dict[str, int] = field(default_factory=dict)
    either: int | str = 0


def test_options_of_other_types_are_read_too() -> None:
    values = {"sizes": [1, "a"], "own": [2], "table": {"a": 1}, "either": "x"}
    assert from_dict(OfPlugin, values, "hs") == OfPlugin((1, "a"), [2], {"a": 1}, "x")
    assert from_dict(OfPlugin, {"either": 3}, "hs").either == 3
    with pytest.raises(InputError, match="hs: table: expected a dict, got 3"):
        from_dict(OfPlugin, {"table": 3}, "hs")
    with pytest.raises(InputError, match="hs: either: expected a string, got a list"):
        from_dict(OfPlugin, {"either": []}, "hs")


def test_scalars_of_numpy_are_numbers() -> None:
    found = read({"count": np.int64(3), "rate": np.float32(0.5), "flag": np.bool_(True), "numbers": [np.int32(2)]})
    assert found == Outer(count=3, rate=0.5, flag=True, numbers=(2.0,))
    values = (found.count, found.rate, found.flag, *found.numbers)
    assert [type(value) for value in values] == [int, float, bool, float]


def test_none_stands_for_a_field_that_may_be_left_out() -> None:
    assert read({"maybe": None}).maybe is None
    assert read({"maybe": 2}).maybe == 2.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cuont": 1}, "run.toml: unknown key 'cuont'; did you mean 'count'?"),
        ({"zzz": 1}, "run.toml: unknown key 'zzz'"),
        ({"inner": {"sise": 1}}, "run.toml: inner: unknown key 'sise'; did you mean 'size'?"),
        ({"inners": [{}, {"sise": 1}]}, "run.toml: inners[1]: unknown key 'sise'; did you mean 'size'?"),
        ({"count": 1.0}, "run.toml: count: expected a whole number, got 1.0"),
        ({"count": True}, "run.toml: count: expected a whole number, got True"),
        ({"count": None}, "run.toml: count: expected a whole number, got None"),
        ({"rate": True}, "run.toml: rate: expected a number, got True"),
        ({"rate": "1"}, "run.toml: rate: expected a number, got '1'"),
        ({"rate": float("nan")}, "run.toml: rate: is not a number"),
        ({"name": 1}, "run.toml: name: expected a string, got 1"),
        ({"count": np.float32(1)}, "run.toml: count: expected a whole number, got 1.0"),
        ({"rate": np.bool_(True)}, "run.toml: rate: expected a number, got True"),
        ({"rate": np.float64("nan")}, "run.toml: rate: is not a number"),
        ({"inner": {"names": "x"}}, "run.toml: inner: names: expected a list, got 'x'; write ['x']"),
        ({"name": ["x"]}, "run.toml: name: expected a string, got a list"),
        ({"flag": 1}, "run.toml: flag: expected true or false, got 1"),
        ({"maybe": "x"}, "run.toml: maybe: expected a number, got 'x'"),
        ({"mode": "slwo"}, "run.toml: mode = 'slwo' is none of 'fast', 'slow'; did you mean 'slow'?"),
        ({"mode": 3}, "run.toml: mode = 3 is none of 'fast', 'slow'"),
        ({"inner": 3}, "run.toml: inner: expected a table, got 3"),
        ({"inner": []}, "run.toml: inner: expected a table, got a list"),
        ({"inners": {}}, "run.toml: inners: expected a list, got a table"),
        ({"numbers": "12"}, "run.toml: numbers: expected a list, got '12'"),
        ({"numbers": [1, "x"]}, "run.toml: numbers[1]: expected a number, got 'x'"),
        ([], "run.toml: expected a table, got a list"),
    ],
)
def test_a_wrong_key_or_value_is_refused_by_name(values: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        read(values)
    assert str(error.value) == message


def test_a_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(InputError) as error:
        read({"count": "x" * 1000})
    assert len(str(error.value)) < 120


def test_a_whole_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(InputError, match="rate"):
        read({"rate": 10**400})


def test_nearest_finds_the_likely_word_or_says_nothing() -> None:
    assert nearest("lerning_rate", ["lr", "learning_rate"]) == "; did you mean 'learning_rate'?"
    assert nearest("qqq", ["lr", "epochs"]) == ""


def test_to_dict_leaves_none_out_and_turns_tuples_into_lists() -> None:
    assert to_dict(Inner(2, ("a",))) == {"size": 2, "names": ["a"]}
    assert "maybe" not in to_dict(Outer())
    assert to_dict(Outer(inners=(Inner(),)))["inners"] == [{"size": 1, "names": []}]


def test_to_toml_puts_scalars_before_tables() -> None:
    text = to_toml(Outer(inners=(Inner(7, ("a",)),)))
    assert text.splitlines()[-7:] == [
        "[inner]",
        "size = 1",
        "names = []",
        "",
        "[[inners]]",
        "size = 7",
        'names = ["a"]',
    ]
    assert text.index("numbers = []") < text.index("[inner]")


@pytest.mark.parametrize(
    "text",
    [
        "",
        'say "so"',
        "back\\slash",
        "line\nbreak\r\n",
        "\x00\x01\x1f\x7f\x80",
        "# no comment",
        "[x]",
        "é 漢 😀 \u2028",
        "'''",
    ],
)
def test_odd_strings_survive_toml(text: str) -> None:
    value = Outer(name=text, inner=Inner(1, (text, text)))
    assert round_trip(value) == value


@pytest.mark.parametrize("number", [0.0, 1.0, 1e-5, 5e-324, 1e16, 1.7976931348623157e308, float("inf"), -float("inf")])
def test_floats_survive_toml_exactly(number: float) -> None:
    assert round_trip(Outer(rate=number, numbers=(number,))) == Outer(rate=number, numbers=(number,))


@given(
    st.builds(
        Outer,
        count=st.integers(-(2**63), 2**63 - 1),
        rate=st.floats(allow_nan=False),
        name=st.text(),
        flag=st.booleans(),
        mode=st.sampled_from(["fast", "slow"]),
        maybe=st.none() | st.floats(allow_nan=False),
        inners=st.lists(
            st.builds(Inner, st.integers(0, 9), st.lists(st.text(), max_size=2).map(tuple)), max_size=3
        ).map(tuple),
    )
)
def test_any_value_survives_toml(value: Outer) -> None:
    assert round_trip(value) == value


def test_difference_has_one_line_per_field() -> None:
    old = to_dict(Outer(rate=1e-5, inners=(Inner(1), Inner(2))))
    new = to_dict(Outer(rate=3e-5, inners=(Inner(1), Inner(5)), maybe=1.0))
    assert difference(old, new) == ["rate: 1e-05 → 3e-05", "inners[1].size: 2 → 5", "maybe: None → 1.0"]


def test_difference_names_a_field_that_went_away() -> None:
    assert difference({"a": 1, "b": 2}, {"a": 1}) == ["b: 2 → None"]


def test_difference_shows_lists_of_unequal_length_whole() -> None:
    assert difference({"a": [1]}, {"a": [1, 2]}) == ["a: [1] → [1, 2]"]


def test_equal_trees_do_not_differ() -> None:
    assert difference(to_dict(Outer()), to_dict(Outer())) == []
