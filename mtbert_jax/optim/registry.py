"""The transformations that a config's call strings can name: this project's, optax's, and those that plugins add."""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar

import optax
import optax.contrib

from mtbert_jax.errors import InputError
from mtbert_jax.protocols import must_be_name, origin

F = TypeVar("F", bound=Callable[..., Any])
AGGREGATORS: dict[str, Any] = {}
"""Factories of aggregators, which make one gradient of several tasks', by name; `register_aggregator` adds to them."""
_REGISTERED: dict[str, Callable[..., Any]] = {}
_SOURCES: dict[str, str] = {}  # of registered names: where they are defined


def known_calls() -> Mapping[str, Callable[..., Any]]:
    """Functions by name: optax.contrib's public ones, then optax's, then registered ones."""
    return {**_optax_calls(), **_REGISTERED}


@functools.cache
def _optax_calls() -> dict[str, Callable[..., Any]]:
    found = {name: _function(module, name) for module in (optax.contrib, optax) for name in dir(module)}
    return {name: function for name, function in found.items() if function is not None}


def _function(module: ModuleType, name: str) -> Callable[..., Any] | None:
    value = None if name.startswith("_") else getattr(module, name, None)
    return value if inspect.isfunction(value) or isinstance(value, functools.partial) else None


def register_transformation(name: str) -> Callable[[F], F]:
    """A decorator that lets a config's optimizer name a function of one's own.

    Args:
        name: What call strings are to call it.

    Returns:
        The decorator of a function that returns an optax gradient transformation; call strings give its arguments.

    Raises:
        InputError: The name is taken, or is none, or what is to have it is no function.
    """
    must_be_name(name, "register_transformation", "", in_calls=True)

    def register(function: F) -> F:
        if not callable(function):
            raise InputError(f"{name!r} cannot be registered: it must be a function that returns a transformation")
        add(name, function, origin(function))
        return function

    return register


def add(name: str, function: Callable[..., Any], source: str) -> None:
    """Lets call strings name a function; `InputError` if the name is that of another `source`, its `origin`."""
    of_optax = any(_function(module, name) is not None for module in (optax, optax.contrib))
    if of_optax or _SOURCES.get(name, source) != source:
        raise InputError(f"{name!r} cannot be registered: a transformation of that name exists")
    _REGISTERED[name] = function
    _SOURCES[name] = source


def unregister(name: str) -> None:
    """Takes a registered transformation or aggregator away again."""
    for names in (_REGISTERED, AGGREGATORS, _SOURCES):
        names.pop(name, None)
