"""Functions that are alike are made once in a process: a second run, or prediction after training, has them.

JAX keeps what it traced and compiled by the function; the same closure made twice is traced and compiled twice.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
MOST_KEPT = 8
"""Functions of one kind that are kept, the last used ones: each holds the programs compiled for it."""

_KEPT: dict[Callable[..., Any], Callable[..., Any]] = {}
"""By each function that is decorated, the same with a memory."""


def made_once(make: Callable[P, R]) -> Callable[P, R]:
    """A decorator: equal arguments of one type give the same again. Arguments that have no hash are not remembered."""
    _KEPT[make] = _remembering(make)

    @functools.wraps(make)
    def get(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            hash((args, *kwargs.items()))
        except TypeError:
            return make(*args, **kwargs)
        made: R = _KEPT[make](*args, **kwargs)
        return made

    return get


def _remembering(make: Callable[..., R]) -> Callable[..., R]:
    return functools.lru_cache(MOST_KEPT, typed=True)(make)  # True equals 1.0, and may be refused where that is not


def forget_programs() -> None:
    """Lets go of all functions that are kept, as after a change to what they call."""
    _KEPT.update({make: _remembering(make) for make in _KEPT})


@contextlib.contextmanager
def programs_apart() -> Iterator[None]:
    """Inside, nothing is kept from before; afterwards, nothing from inside: while what functions call is another."""
    before = dict(_KEPT)
    forget_programs()
    try:
        yield
    finally:
        _KEPT.update(before)
