"""Nested dicts ↔ frozen dataclasses: one strict reader and one TOML writer."""

import contextlib
import dataclasses
import difflib
import json
import math
import os
import types
import typing
from typing import Any, TypeVar

import numpy as np

from mtbert_jax.config.elsewhere import field_for
from mtbert_jax.errors import InputError

T = TypeVar("T")


def folded(name: object) -> str:
    """A name without capitals and blanks around, which are the least of mistakes."""
    return str(name).strip().casefold()


def nearest(name: object, known: typing.Iterable[str], alike: float = 0.6) -> str:
    """A hint that names the known word nearest to a misspelt one, or nothing; `alike` is `difflib`'s ratio.

    >>> nearest("encodr", ["encoder", "epochs"])
    "; did you mean 'encoder'?"
    >>> nearest("Label ", ["text", "LABEL"])
    "; did you mean 'LABEL'?"
    """
    words = {folded(word): word for word in known}
    close = difflib.get_close_matches(folded(name), words, n=1, cutoff=alike)
    return f"; did you mean {words[close[0]]!r}?" if close else ""


def must_be_among(what: str, value: Any, words: typing.Sequence[str]) -> None:
    """Refuses an argument that is none of the words that it may be."""
    if not isinstance(value, str) or value not in words:
        raise InputError(f"{what} = {value!r} is none of {', '.join(words)}{nearest(value, words)}")


def from_dict(cls: type[T], values: Any, where: str) -> T:
    """Builds a dataclass of scalars, literals, tuples and dataclasses from a nested dict; `where` names the source.

    Raises:
        InputError: A key is unknown (what it is called here, or the nearest known one, is named) or a value has the
            wrong type.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected a table, got {describe(values)}")
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            ours = field_for(key, hints)
            hint = nearest(key, hints, alike=0.85) or (f"; use {ours}" if ours else nearest(key, hints))
            raise InputError(f"{where}: unknown key {key!r}{hint}")
    return cls(**{key: convert(hints[key], value, f"{where}: {key}") for key, value in values.items()})


def plain_scalar(value: Any) -> Any:
    """A scalar of NumPy or JAX as Python's own; all else as it is."""
    is_scalar = getattr(value, "shape", None) == () and isinstance(getattr(value, "dtype", None), np.dtype)
    return value.item() if is_scalar else value


def convert(kind: Any, value: Any, where: str) -> Any:
    """A value as a field of that type holds it; `where` names the field.

    Raises:
        InputError: The value has the wrong type.
    """
    value = plain_scalar(value)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return from_dict(typing.cast(type, kind), value, where)
    if origin in (typing.Union, types.UnionType):
        *others, last = (arg for arg in args if arg is not type(None))
        for inner in others:
            with contextlib.suppress(InputError):
                return convert(inner, value, where)
        return None if value is None else convert(last, value, where)
    if origin is typing.Literal:
        if value not in args or isinstance(value, bool):
            hint = nearest(value, args) if isinstance(value, str) else ""
            raise InputError(f"{where} = {describe(value)} is none of {', '.join(map(repr, args))}{hint}")
        return value
    if kind is Any:
        return value
    if origin is tuple or kind is tuple:
        args = args or (Any,)
        if not isinstance(value, (list, tuple)):
            hint = f"; write [{describe(value)}]" if isinstance(value, str) and args[0] is str else ""
            raise InputError(f"{where}: expected a list, got {describe(value)}{hint}")
        return tuple(convert(args[0], item, f"{where}[{number}]{_named(item)}") for number, item in enumerate(value))
    if kind is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            raise InputError(f"{where}: is too large") from None
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise InputError(f"{where}: is too large")
    kind = origin or kind
    if type(value) is not kind:
        wanted = _NAMES.get(kind, f"a {getattr(kind, '__name__', kind)}")  # a plugin's field may be of any type
        raise InputError(f"{where}: expected {wanted}, got {describe(value)}")
    if kind is float and math.isnan(value):
        raise InputError(f"{where}: is not a number")
    return value


def _named(item: Any) -> str:
    """The name of a list's table, for a message that has its place already."""
    name = item.get("name") if isinstance(item, dict) else None
    return f" ({name})" if isinstance(name, str) and name.isprintable() and 0 < len(name) <= LONGEST_NAME else ""


LONGEST_NAME = 40
_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def describe(value: Any) -> str:
    """A value in a few words, whatever somebody's file holds."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, (list, tuple)):
        return "a list"
    if type(value) is int and not -(2**63) <= value < 2**63:
        return "a number that is too large"  # Python would not even print very large ones
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


RANGES: dict[str, typing.Callable[[float], bool]] = {
    "at least 0": lambda value: 0 <= value < math.inf,
    "above 0": lambda value: 0 < value < math.inf,
    "from 0 to 1": lambda value: 0 <= value <= 1,
    "at least 0 and below 1": lambda value: 0 <= value < 1,
}
"""What a number may have to be, in the words of the message."""


def must_be(wanted: str, where: str, table: object, *names: str) -> None:
    """Refuses numbers of a table that are out of one of the `RANGES`; a number may be left out."""
    for name in names:
        value = getattr(table, name)
        if value is not None and not RANGES[wanted](value):
            finite = " and finite" if math.isinf(value) else ""
            raise InputError(f"{where}{name} = {value}: must be {wanted}{finite}")


def check_number(where: str, value: float, least: float, most: float) -> None:
    """Refuses a number that is below `least` or above `most`."""
    if not value >= least:
        raise InputError(f"{where} = {value}: must be at least {least}")
    if value > most:
        raise InputError(f"{where} = {value}: must be at most {most}")


def to_dict(value: Any) -> Any:
    """Plain values, in dicts of named tuples, and of dataclasses, whose fields that are None are left out."""
    if dataclasses.is_dataclass(value):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: to_dict(item) for name, item in pairs if item is not None}
    value = value._asdict() if hasattr(value, "_asdict") else value
    if isinstance(value, dict):
        return {name: to_dict(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_dict(item) for item in value]
    return str(value) if isinstance(value, os.PathLike) else value


def finite(value: Any) -> Any:
    """A value that JSON can hold and `fits` reads back: None for NaN, infinities and numbers of `LARGEST` or more."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not abs(value) < LARGEST else value


def with_nan(value: Any) -> Any:
    """Numbers, perhaps in dicts, with NaN where JSON has null."""
    if isinstance(value, dict):
        return {key: with_nan(item) for key, item in value.items()}
    return math.nan if value is None else value


def fits(value: Any, shape: Any) -> bool:
    """Whether what was read from JSON is shaped so; for files that only this program writes, and others may spoil.

    A shape is `str`, `int`, `float` (any number or NaN) or None; a tuple of shapes, one of which is enough; or a dict
    of them by key, where other keys may stand beside, those that end in ``?`` may be missing, and ``*`` is for all
    others.

    >>> fits({"step": 3, "loss": {"sst": 0.5}}, {"step": int, "loss": {"*": float}, "lr?": float})
    True
    >>> fits({"step": True}, {"step": int}), fits({}, {"step": int}), fits(10**400, float), fits(float("inf"), float)
    (False, False, False, False)
    """
    if isinstance(shape, tuple):
        return any(fits(value, one) for one in shape)
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return False
        named = {key.removesuffix("?"): inner for key, inner in shape.items()}
        missing = any(key not in value for key in shape if key != "*" and not key.endswith("?"))
        return not missing and all(fits(item, named.get(key, shape.get("*", object))) for key, item in value.items())
    if shape in (int, float):
        number = isinstance(value, (int, shape)) and not isinstance(value, bool)
        return number and not abs(value) >= LARGEST
    return isinstance(value, shape or types.NoneType)


LARGEST = 1e18
"""Numbers in files of this program are smaller; larger ones are an accident, and not all that reads them bears them."""


def to_toml(value: Any) -> str:
    """A dataclass as a TOML document."""
    return "\n".join(_toml_table(to_dict(value), "")).strip() + "\n"


def _toml_table(table: dict[str, Any], prefix: str) -> list[str]:
    lines, below = [], []
    for key, value in table.items():
        if isinstance(value, dict):
            below += ["", f"[{prefix}{key}]", *_toml_table(value, f"{prefix}{key}.")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                below += ["", f"[[{prefix}{key}]]", *_toml_table(item, f"{prefix}{key}.")]
        else:
            lines.append(f"{key} = {_toml_value(value)}")
    return lines + below


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    if isinstance(value, str):  # a JSON string is a TOML string, but for DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return json.dumps(value)


def difference(old: Any, new: Any, prefix: str = "") -> list[str]:
    """What differs between two `to_dict` trees, one line per field: ``lr: 1e-05 → 3e-05``."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [line for key in keys for line in difference(old.get(key), new.get(key), f"{prefix}{key}.")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for number, (a, b) in pairs for line in difference(a, b, f"{_place(prefix, number, a, b)}.")]
    return [] if old == new else [f"{prefix[:-1]}: {old!r} → {new!r}"]


def _place(prefix: str, number: int, old: Any, new: Any) -> str:
    """``tasks.sst``, as flags have it, where both lists have a table of that name at a place; or ``tasks[0]``."""
    named = _named(old) and _named(old) == _named(new)
    return f"{prefix}{old['name']}" if named else f"{prefix[:-1]}[{number}]"
