"""The decorator that makes a rule an aggregator, for this library's methods and a user's own alike."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import optax

from mtbert_jax.config.schema import nearest, plain_scalar
from mtbert_jax.errors import InputError
from mtbert_jax.optim.aggregators.base import (
    Aggregator,
    Key,
    Losses,
    Method,
    Rule,
    State,
    Weights,
    aggregator,
    first_state,
    follow,
)
from mtbert_jax.optim.aggregators.given import losses_of
from mtbert_jax.optim.aggregators.gramian import Gramian, as_gramian, finite_part
from mtbert_jax.optim.aggregators.grouping import ENCODER
from mtbert_jax.optim.registry import AGGREGATORS, add
from mtbert_jax.programs import made_once
from mtbert_jax.protocols import must_be_name, origin

GIVEN = 4
"""Leading parameters of a rule that a step gives: Gramian, state, key, losses."""
OWN = {"seed": 0, "num_tasks": None, "by": ENCODER}
"""What every aggregator takes beside its rule's options, with defaults."""
TRIED = 2
"""Number of tasks that a rule is tried on where the number is not known."""


Init = Callable[..., State]
"""``num_tasks → state``; by name it may take options of its rule."""


class Factory(Protocol):
    """What `register_aggregator` makes of a rule: ``(**options, seed=0, num_tasks=None, by=…) → transformation``."""

    rule: Rule
    init: Init | None

    def __call__(self, *values: Any, **named: Any) -> optax.GradientTransformationExtraArgs:
        """The aggregator with these options."""


def register_aggregator(name: str, *, init: Init | None = None, heads: bool = False) -> Callable[[Rule], Factory]:
    """A decorator that makes a rule an aggregator, and lets a config's optimizer name it.

    A rule is a function ``(gramian, state, key, losses, **options) → (weights, state)`` (see `aggregator`). What the
    decorator returns is a function of the options, ``seed`` (of the keys), ``num_tasks`` and ``by`` (``"encoder"``,
    ``"layer"`` or ``"matrix"``), as `pcgrad` is. It traces the rule once, on shapes alone: options that the rule
    refuses are refused before any step. It does so for `num_tasks` tasks, which call strings of a config need not give,
    or for two where the number is left out.

    Args:
        name: What call strings are to call it.
        init: ``num_tasks → state``, arrays, for a rule that keeps something from step to step. Further parameters of
            the same names as options get the options' values.
        heads: Whether the rule weighs losses: a task's weight is then the factor of its head's gradient, too. Without
            it heads keep their own gradients, as for methods about shared parameters alone.

    Raises:
        InputError: The name is taken, or is none, or a function takes other arguments than a rule or its `init`.

    >>> @register_aggregator("strongest")
    ... def strongest(gramian, state, key, losses, scale=1.0):
    ...     return scale * jax.nn.one_hot(gramian.diagonal().argmax(), len(gramian)), state
    >>> "strongest" in AGGREGATORS
    True
    >>> aggregator_weights("strongest", jnp.diag(jnp.array([1.0, 4.0])), scale=0.5).tolist()
    [0.0, 0.5]
    >>> from mtbert_jax.optim.registry import unregister
    >>> unregister("strongest")
    """
    must_be_name(name, "register_aggregator", "", in_calls=True)

    def register(rule: Rule) -> Factory:
        def make(*values: Any, **named: Any) -> optax.GradientTransformationExtraArgs:
            bound = signature.bind(*values, **named)
            # A rule may compare an option with a number, which it cannot do with an array while it is traced.
            traced = jax.core.Tracer
            bound.arguments = {
                key: value if isinstance(value, traced) else plain_scalar(value)
                for key, value in bound.arguments.items()
            }
            options = {key: value for key, value in bound.arguments.items() if key != "seed"}
            refused = refusal_of_traced(name, options)
            if refused and isinstance(options.get("num_tasks"), traced):
                raise refused
            own = {key: bound.arguments.pop(key, default) for key, default in OWN.items()}
            chosen, first = bind(*bound.args, **bound.kwargs)
            try:
                return tried(aggregator(chosen, **own, init=first, heads=heads))
            except jax.errors.ConcretizationTypeError as error:
                raise refused or error from None

        def bind(*values: Any, **named: Any) -> tuple[Rule, Callable[[int], State] | None]:
            return _with_options(name, rule, *values, **named), _first(rule, init, taken, *values, **named)

        taken = _taken(name, rule, init) if init is not None else ()
        factory, signature = cast(Factory, functools.wraps(rule)(make)), _signature(name, rule)
        factory.__signature__ = signature  # type: ignore[attr-defined]
        factory.rule, factory.init = rule, init
        register_factory(name, factory, origin(rule))
        return factory

    return register


def register_factory(name: str, factory: Any, source: str) -> None:
    """Lets call strings, and `aggregator_weights`, name a function that returns an `Aggregator`."""
    add(name, factory, source)
    factory.__name__ = name
    AGGREGATORS[name] = factory


def refusal_of_traced(name: str, options: Mapping[str, Any]) -> InputError | None:
    """What to say of options of which only their types are known; None where there are none."""
    traced = [option for option, value in options.items() if isinstance(value, jax.core.Tracer)]
    if not traced:
        return None
    which = ", ".join(traced)
    return InputError(
        f"aggregator {name}: {which} must be known when the aggregator is made, and is traced here; under "
        "optax.inject_hyperparams list it in static_args"
    )


def tried(made: optax.GradientTransformationExtraArgs) -> Aggregator:
    """An aggregator, once its rule has been traced: what the rule refuses is refused here."""
    made = cast(Aggregator, made)
    _trace(made.method)
    return made


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
        losses: Mean loss of each task; zeros if left out, where the rule does not weigh losses.
        state: What the rule keeps from step to step; its first state if left out.
        options: The aggregator's options.

    Raises:
        InputError: There is no such aggregator, it needs the losses, or an array has another shape.
        ValueError: The aggregator refuses an option, or so many tasks.

    >>> aggregator_weights("pcgrad", jnp.array([[18.0, -22.0], [-22.0, 38.0]])).round(4).tolist()
    [2.22..., 1.57...]
    """
    if not isinstance(name, str) or name not in AGGREGATORS:
        raise InputError(f"unknown aggregator {name!r}{nearest(name, AGGREGATORS)} ({', '.join(sorted(AGGREGATORS))})")
    gram = as_gramian(gramian).astype(jnp.float32)
    method = AGGREGATORS[name](**options, num_tasks=len(gram)).method
    losses = losses_of(
        method.name, losses, len(gram), "give losses, the mean loss of each task" if method.heads else ""
    )
    gram, finite = finite_part(gram, losses=losses)
    state = first_state(method.init, len(gram)) if state is None else state
    key = jax.random.key(0) if key is None else key
    return _follow(method.rule, gram, state, key, jnp.where(finite, losses, 0.0))[0]


_follow = jax.jit(follow, static_argnums=0)


@made_once
def _with_options(name: str, rule: Rule, *values: Any, **named: Any) -> Rule:
    def chosen(gram: Gramian, state: State, key: Key, losses: Losses) -> tuple[Weights, State]:
        return rule(gram, state, key, losses, *values, **named)

    chosen.__name__ = name
    return chosen


@made_once
def _first(
    rule: Rule, init: Init | None, taken: tuple[str, ...], *values: Any, **named: Any
) -> Callable[[int], State] | None:
    """`init` with the options that it takes."""
    if init is None:
        return None
    bound = inspect.signature(rule).bind(*[None] * GIVEN, *values, **named)
    bound.apply_defaults()
    return functools.partial(init, **{key: bound.arguments[key] for key in taken})


def _taken(name: str, rule: Rule, init: Init) -> tuple[str, ...]:
    """The options that `init` takes."""
    try:
        options = list(inspect.signature(rule).parameters)[GIVEN:]
        taken = tuple(key for key in list(inspect.signature(init).parameters)[1:] if key in options)
        inspect.signature(init).bind(1, **dict.fromkeys(taken))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"aggregator {name}: init takes the number of tasks, then options of the rule by their names: {error}"
        ) from None
    return taken


@made_once
def _trace(method: Method) -> None:
    """Traces a rule on zeros; once for rules that are alike, since a run makes its chain several times."""

    def weights() -> Weights:
        num_tasks = method.num_tasks or TRIED
        gram, losses = jnp.zeros((num_tasks, num_tasks)), jnp.zeros(num_tasks)
        return follow(method.rule, gram, first_state(method.init, num_tasks), jax.random.key(0), losses)[0]

    jax.eval_shape(weights)


def _signature(name: str, rule: Rule) -> inspect.Signature:
    """Signature of the rule's options, with `seed` behind those that may be given by position, `num_tasks` and `by`."""
    kinds = inspect.Parameter
    given: list[inspect.Parameter] = []
    options: list[inspect.Parameter] = []
    own = [
        kinds("seed", kinds.POSITIONAL_OR_KEYWORD, default=0, annotation=int),
        kinds("num_tasks", kinds.KEYWORD_ONLY, default=None, annotation=int | None),
        kinds("by", kinds.KEYWORD_ONLY, default=ENCODER, annotation=str),
    ]
    try:
        for parameter in inspect.signature(rule).parameters.values():
            by_position = {kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD} >= {parameter.kind}
            (given if by_position and len(given) < GIVEN else options).append(parameter)
        if len(given) < GIVEN:
            raise ValueError(f"it takes {len(given)} of them")
        ordered = sorted([*options, *own], key=lambda parameter: parameter.kind)
        return inspect.Signature(ordered, return_annotation=optax.GradientTransformationExtraArgs)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"aggregator {name}: a rule takes (gramian, state, key, losses), then options by name: {error}"
        ) from None
