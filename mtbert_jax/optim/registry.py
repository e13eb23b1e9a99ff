"""The transformations that a config's call strings can name: this project's, optax's, and those that plugins add."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import optax
import optax.contrib
from jaxtyping import Array, Float, PRNGKeyArray

from mtbert_jax.errors import InputError
from mtbert_jax.optim import aggregators, depth

F = TypeVar("F", bound=Callable[..., Any])
AGGREGATORS: dict[str, Callable[..., optax.GradientTransformation]] = {
    fn.__name__: fn for fn in (aggregators.pcgrad, aggregators.sum_tasks, aggregators.mean_tasks)
}
"""What makes one gradient of several tasks', by name."""
_CALLS: dict[str, Callable[..., Any]] = {}
_SOURCES: dict[str, str] = {}  # of registered names: the module that they come from


def known_calls() -> dict[str, Callable[..., Any]]:
    """Functions by name: this project's own, then optax's public ones, then optax.contrib's; and registered ones."""
    if not _CALLS:
        for module in (optax.contrib, optax):
            _CALLS.update(_public_functions(module))
        _CALLS.update(AGGREGATORS)
        _CALLS["layerwise_decay"] = depth.layerwise_decay
    return _CALLS


def _public_functions(module: Any) -> Iterator[tuple[str, Any]]:
    for name in dir(module):
        value = None if name.startswith("_") else getattr(module, name)
        if inspect.isfunction(value) or value is optax.MultiSteps:
            yield name, value


def register_transformation(name: str) -> Callable[[F], F]:
    """A decorator that lets a config's optimizer name a function of one's own.

    Args:
        name: What call strings are to call it.

    Returns:
        The decorator of a function that returns an optax gradient transformation; call strings give its arguments.

    Raises:
        InputError: The name is taken, or is none.
    """

    def register(function: F) -> F:
        _add(name, function, function.__module__)
        return function

    return register


def register_aggregator(name: str) -> Callable[[F], F]:
    """A decorator that makes an aggregator of a rule, and lets a config's optimizer name it.

    A rule is a function ``(gramian, key, **options) → weights``: the inner products of the tasks' gradients,
    ``[task task]``, and a fresh key in every step, to one weight per task (see `aggregator`). Call strings give its
    options by name, and ``seed``, of the keys.

    Args:
        name: What call strings are to call it.

    Raises:
        InputError: The name is taken, or is none.

    >>> @register_aggregator("strongest")
    ... def strongest(gramian, key, scale=1.0):
    ...     return scale * jax.nn.one_hot(gramian.diagonal().argmax(), len(gramian))
    >>> sorted(AGGREGATORS)
    ['mean_tasks', 'pcgrad', 'strongest', 'sum_tasks']
    >>> unregister("strongest")
    """

    def register(rule: F) -> F:
        def make(*, seed: int = 0, **options: Any) -> optax.GradientTransformation:
            inspect.signature(rule).bind(None, None, **options)  # what does not fit is refused here, not in a step
            return aggregators.aggregator(functools.partial(_checked, name, rule, options), seed)

        _add(name, make, rule.__module__)
        AGGREGATORS[name] = make
        return rule

    return register


def _checked(
    name: str, rule: Callable[..., Any], options: dict[str, Any], gram: Float[Array, "task task"], key: PRNGKeyArray
) -> Float[Array, " task"]:
    weights = jax.numpy.asarray(rule(gram, key, **options))
    if weights.shape != gram.shape[:1]:
        raise InputError(
            f"aggregator {name}: its rule gave an array of shape {weights.shape} for {len(gram)} tasks; it must give "
            "one weight per task"
        )
    return weights


def _add(name: str, function: Callable[..., Any], source: str) -> None:
    if not name.isidentifier():
        raise InputError(f"{name!r} cannot be registered: call strings need a name such as my_name")
    if name in known_calls() and _SOURCES.get(name) != source:  # the same file may run, or a cell be edited, again
        raise InputError(f"{name!r} cannot be registered: a transformation of that name exists")
    _CALLS[name] = function
    _SOURCES[name] = source


def unregister(name: str) -> None:
    """Takes a registered transformation away again."""
    for names in (_CALLS, AGGREGATORS, _SOURCES):
        names.pop(name, None)
