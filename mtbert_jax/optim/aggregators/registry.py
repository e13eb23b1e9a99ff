"""The decorator that makes a rule an aggregator, for this library's methods and a user's own alike."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import optax

from mtbert_jax.config.schema import nearest
from mtbert_jax.errors import InputError
from mtbert_jax.optim.aggregators.base import (
    Gramian,
    Key,
    Losses,
    Rule,
    State,
    Weights,
    aggregator,
    finite_part,
    first_state,
    follow,
)
from mtbert_jax.optim.registry import AGGREGATORS, add

GIVEN = 4
"""Leading parameters of a rule that a step gives: Gramian, state, key, losses."""
TRIED = 2
"""Number of tasks that a rule is tried on where the number is not known."""


class Factory(Protocol):
    """What `register_aggregator` makes of a rule: ``(**options, seed=0, num_tasks=None) → transformation``."""

    rule: Rule
    init: Callable[[int], State] | None

    def __call__(self, *values: Any, **named: Any) -> optax.GradientTransformationExtraArgs:
        """The aggregator with these options."""


def register_aggregator(name: str, *, init: Callable[[int], State] | None = None) -> Callable[[Rule], Factory]:
    """A decorator that makes a rule an aggregator, and lets a config's optimizer name it.

    A rule is a function ``(gramian, state, key, losses, **options) → (weights, state)`` (see `aggregator`). What the
    decorator returns is a function of the options, ``seed`` (of the keys) and ``num_tasks``, as `pcgrad` is. It traces
    the rule once, on shapes alone: options that the rule refuses are refused before any step. It does so for
    `num_tasks` tasks, which call strings of a config need not give, or for two where the number is left out.

    Args:
        name: What call strings are to call it.
        init: ``num_tasks → state``, arrays, for a rule that keeps something from step to step.

    Raises:
        InputError: The name is taken, or is none, or the function takes other arguments than a rule.

    >>> @register_aggregator("strongest")
    ... def strongest(gramian, state, key, losses, scale=1.0):
    ...     return scale * jax.nn.one_hot(gramian.diagonal().argmax(), len(gramian)), state
    >>> sorted(AGGREGATORS)
    ['mean_tasks', 'pcgrad', 'strongest', 'sum_tasks']
    >>> aggregator_weights("strongest", jnp.diag(jnp.array([1.0, 4.0])), scale=0.5).tolist()
    [0.0, 0.5]
    >>> from mtbert_jax.optim.registry import unregister
    >>> unregister("strongest")
    """

    def register(rule: Rule) -> Factory:
        def make(*values: Any, **named: Any) -> optax.GradientTransformationExtraArgs:
            bound = signature.bind(*values, **named)
            seed, num_tasks = bound.arguments.pop("seed", 0), bound.arguments.pop("num_tasks", None)
            chosen = _with_options(name, rule, *bound.args, **bound.kwargs)
            transformation = aggregator(chosen, seed, init, num_tasks)
            jax.eval_shape(functools.partial(_try, chosen, init, num_tasks or TRIED))
            return transformation

        factory, signature = cast(Factory, functools.wraps(rule)(make)), _signature(name, rule)
        add(name, factory, rule.__module__)
        factory.__name__ = name  # type: ignore[attr-defined]
        factory.__signature__ = signature  # type: ignore[attr-defined]
        factory.rule, factory.init = rule, init
        AGGREGATORS[name] = factory
        return factory

    return register


def aggregator_weights(
    name: str,
    gramian: Gramian,
    *,
    key: Key | None = None,
    losses: Losses | None = None,
    state: State = None,
    **options: Any,
) -> Weights:
    """The weights w of ``sum_j w[j] g_j`` that a registered aggregator gives.

    Args:
        name: Name of the aggregator, as call strings have it.
        gramian: ``gramian[i, j] = g_i · g_j``.
        key: Key of random choices; that of seed 0 if left out.
        losses: Mean loss of each task; zeros if left out.
        state: What the rule keeps from step to step; its first state if left out.
        options: The aggregator's options.

    Raises:
        InputError: There is no such aggregator.

    >>> aggregator_weights("pcgrad", jnp.array([[18.0, -22.0], [-22.0, 38.0]])).round(4).tolist()
    [2.22..., 1.57...]
    """
    if name not in AGGREGATORS:
        raise InputError(f"unknown aggregator {name!r}{nearest(name, AGGREGATORS)} ({', '.join(sorted(AGGREGATORS))})")
    factory: Factory = AGGREGATORS[name]
    gram, finite = finite_part(jnp.asarray(gramian, jnp.float32))
    losses = jnp.zeros(len(gram)) if losses is None else jnp.where(finite, jnp.asarray(losses, jnp.float32), 0.0)
    state = first_state(factory.init, len(gram)) if state is None else state
    key = jax.random.key(0) if key is None else key
    return follow(_with_options(name, factory.rule, **options), gram, state, key, losses)[0]


def _with_options(name: str, rule: Rule, *values: Any, **named: Any) -> Rule:
    def chosen(gram: Gramian, state: State, key: Key, losses: Losses) -> tuple[Weights, State]:
        return rule(gram, state, key, losses, *values, **named)

    chosen.__name__ = name
    return chosen


def _try(rule: Rule, init: Callable[[int], State] | None, num_tasks: int) -> Weights:
    gram, losses = jnp.zeros((num_tasks, num_tasks)), jnp.zeros(num_tasks)
    return follow(rule, gram, first_state(init, num_tasks), jax.random.key(0), losses)[0]


def _signature(name: str, rule: Rule) -> inspect.Signature:
    """That of the rule's options, with `seed` behind those that may be given by position, and `num_tasks`."""
    kinds = inspect.Parameter
    given: list[inspect.Parameter] = []
    options: list[inspect.Parameter] = []
    for parameter in inspect.signature(rule).parameters.values():
        by_position = {kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD} >= {parameter.kind}
        (given if by_position and len(given) < GIVEN else options).append(parameter)
    own = [
        kinds("seed", kinds.POSITIONAL_OR_KEYWORD, default=0, annotation=int),
        kinds("num_tasks", kinds.KEYWORD_ONLY, default=None, annotation=int | None),
    ]
    try:
        if len(given) < GIVEN:
            raise ValueError(f"it takes {len(given)} of them")
        ordered = sorted([*options, *own], key=lambda parameter: parameter.kind)
        return inspect.Signature(ordered, return_annotation=optax.GradientTransformationExtraArgs)
    except ValueError as error:
        raise InputError(
            f"aggregator {name}: a rule takes (gramian, state, key, losses), then options by name: {error}"
        ) from None
