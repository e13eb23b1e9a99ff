"""What hostile input is made of: odd texts, odd values, and ways to spoil bytes and JSON."""

import copy
import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

ODD_TEXTS = [
    "",
    " ",
    "[SEP]",
    "a [SEP] b [CLS] [PAD] [MASK]",
    "\x00",
    "\x1b[2J\x07\x08",
    "".join(map(chr, range(32))),
    "\x7f\x80\x9f",
    "\u202egood\u202c \u200f\u200e",
    "\ufeffgood",
    "\u2028\u2029\x85\x0b\x0c",
    "\ud800",
    "a\udcff\udfffb",
    "e\u0301\u0327" * 50,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\ufdfa" * 20,
    "漢字" * 30,
    '"',
    '"open',
    'a "b" c',
    "'",
    "a\tb",
    "a,b",
    "a\nb",
    "a\rb",
    "a \n",
    " , ",
    "x" * 5000,
    "good " * 2000,
    "=cmd()",
    "../../etc/passwd",
    "%s%n{0}$(id)",
]
odd_texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=20), st.text(st.characters(), max_size=8))
odd_numbers = st.one_of(
    st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, 10**30, -(10**30), 10**400]),
    st.sampled_from([0.0, -0.0, 1e308, -1e308, 1e-320, float("nan"), float("inf"), float("-inf")]),
    st.integers(),
    st.floats(),
)
odd_values = st.recursive(
    st.one_of(st.none(), st.booleans(), odd_numbers, odd_texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(odd_texts, inner, max_size=3)),
    max_leaves=5,
)


@st.composite
def spoiled(draw: st.DrawFn, whole: bytes, most: int = 4) -> bytes:
    """`whole` after a few accidents: bits flipped, parts cut out, repeated, overwritten, put in, or all cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(0, 40))
        match draw(st.sampled_from(["flip", "cut", "end", "repeat", "overwrite", "insert", "lines"])):
            case "flip" if data:
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[place : place + length]
            case "end":
                del data[place:]
            case "repeat":
                data[place:place] = data[place : place + length] * draw(st.integers(1, 50))
            case "overwrite":
                data[place : place + length] = draw(st.binary(max_size=40))
            case "insert":
                data[place:place] = draw(st.sampled_from(BYTES))
            case "lines":
                data = bytearray(bytes(data).replace(b"\n", draw(st.sampled_from([b"\r\n", b"\r", b"\n\n", b""]))))
    return bytes(data)


BYTES = [
    b"\x00" * 8,
    b"\xff",
    b"\xff" * 8,
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\xfe\xff\x00a",
    b"\r",
    b"\n",
    b'"',
    b"\t" * 3,
    b"{" * 2000,
    b"[" * 2000,
    b"9" * 400,
    b"9" * 5000,
    b"1e999",
    b"-",
    b"NaN",
    b"Infinity",
    b"null",
    b"\\ud800",
    b"\\u0000",
    b"a" * 100_000,
]


def places(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in nested lists and dicts."""
    items = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    return [place for key, item in items for place in [(*prefix, key), *places(item, (*prefix, key))]]


def at(value: Any, place: tuple[Any, ...]) -> Any:
    """What stands at a place."""
    for key in place:
        value = value[key]
    return value


def altered(value: Any, place: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """A copy of nested lists and dicts, with `change(container, key)` done to what holds `place`."""
    whole = copy.deepcopy(value)
    change(at(whole, place[:-1]), place[-1])
    return whole


@st.composite
def spoiled_json(draw: st.DrawFn, value: Any, values: st.SearchStrategy[Any] = odd_values, most: int = 2) -> str:
    """JSON of `value` with some of its parts replaced, taken out, renamed or said twice."""
    for _ in range(draw(st.integers(1, most))):
        known = places(value)
        if not known:
            break
        place = draw(st.sampled_from(known))
        new = draw(values)
        match draw(st.sampled_from(["replace", "replace", "delete", "rename", "nest"])):
            case "replace":
                value = altered(value, place, lambda inner, key, new=new: inner.__setitem__(key, new))
            case "delete":
                value = altered(value, place, lambda inner, key: inner.__delitem__(key))
            case "rename" if isinstance(place[-1], str):
                name = draw(odd_texts)
                value = altered(value, place, lambda inner, key, name=name: inner.__setitem__(name, inner.pop(key)))
            case "nest":
                depth = draw(st.sampled_from([1, 2, 50]))

                def nest(inner: Any, key: Any, depth: int = depth) -> None:
                    for _ in range(depth):
                        inner[key] = [inner[key]]

                value = altered(value, place, nest)
    text = json.dumps(value)
    if isinstance(value, dict) and value and draw(st.integers(0, 9)) == 0:
        name = draw(st.sampled_from(sorted(value)))
        text = f"{{{json.dumps(name)}: {json.dumps(draw(values))}, {text[1:]}"
    return text


def to_toml(table: dict[str, Any]) -> bytes:
    """Any nested dict as a TOML document, with tables in line; what TOML cannot hold makes it a broken one."""
    lines = (f"{json.dumps(key)} = {_toml_value(value)}\n" for key, value in table.items())
    return "".join(lines).encode("utf-8", "surrogatepass")


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {_toml_value(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, float):
        return str(value)  # inf and nan have these names in TOML
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
