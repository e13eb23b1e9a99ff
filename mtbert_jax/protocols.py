"""What may be registered, and under which names: classes that extend one of this library's protocols, and functions."""

import keyword
import re
from typing import Any

from mtbert_jax.errors import InputError

_WORD = re.compile(r"[^\s/]+")


def must_be_name(name: object, decorator: str, what: str, in_calls: bool = False) -> None:
    """Refuses to register, as `what`, a name that no config can have, and a `decorator` without its parentheses."""
    if callable(name):
        called = getattr(name, "__name__", repr(name))
        raise InputError(f'{called} cannot be registered: its decorator needs a name, as in @mt.{decorator}("my_name")')
    word = name if isinstance(name, str) and name.isprintable() else ""
    if in_calls and (keyword.iskeyword(word) or not word.isidentifier()):
        raise InputError(f"{what}{name!r} cannot be registered: call strings need a name such as my_name")
    if not _WORD.fullmatch(word):
        raise InputError(
            f"{what}{name!r} cannot be registered: give a name such as my_name, without blanks and slashes"
        )


def origin(thing: Any) -> str:
    """Where a class or function is defined. The same file may run again, and register the same thing again."""
    module = getattr(thing, "__module__", "")
    # Who works in a notebook may rename what a cell defines.
    return module if module == "__main__" else f"{module}.{getattr(thing, '__qualname__', '')}"


def must_extend(cls: object, base: type, what: str) -> None:
    """Refuses to register, as `what`, what is no class of one of this library's protocols, or lacks a method of it."""
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise InputError(f"{what} cannot be registered: it must be a class that extends mt.{base.__name__}")
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise InputError(f"{what} cannot be registered: the class lacks {', '.join(missing)}")
