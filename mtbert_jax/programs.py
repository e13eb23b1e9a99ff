"""Jitted functions that are alike are made once in a process: a second run, or prediction after training, has them.

JAX keeps what it compiled by the function that was jitted; the same closure made twice is traced and compiled twice.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
MOST_KEPT = 8
"""Functions of one kind that are kept, the last used ones: each holds the programs compiled for it."""

_KEPT: list[Callable[[], None]] = []


def made_once(make: Callable[P, R]) -> Callable[P, R]:
    """A decorator: equal arguments give the same function again. Arguments that have no hash are not remembered."""
    remembered = functools.lru_cache(MOST_KEPT)(make)
    _KEPT.append(remembered.cache_clear)

    @functools.wraps(make)
    def get(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            hash((args, *kwargs.items()))
        except TypeError:
            return make(*args, **kwargs)
        return remembered(*args, **kwargs)  # type: ignore[arg-type]  # mypy takes no ParamSpec for hashable

    return get


def forget_programs() -> None:
    """Lets go of all functions that are kept, as after a change to what they call."""
    for forget in _KEPT:
        forget()
