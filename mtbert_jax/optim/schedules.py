"""Learning rate over a stage: warm-up and decay as fractions of all its steps; and whose steps schedules follow."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import optax
from jaxtyping import Array, Int

from mtbert_jax.config import Schedule


def learning_rate(peak: float, schedule: Schedule, warmup_fraction: float, steps: int) -> optax.Schedule:
    """Step → learning rate: it rises linearly from 0 to `peak` during the warm-up's share of the steps.

    After that it is constant, or falls to 0 at the last step as a `linear` or half a `cosine` curve.

    >>> rate = learning_rate(1.0, "linear", 0.5, 8)
    >>> [round(float(rate(step)), 2) for step in (0, 2, 4, 6, 8)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    warmup = round(warmup_fraction * steps)
    rest = max(steps - warmup, 1)
    decay = {
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, 0.0, rest),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
    }[schedule]()
    if not warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])


class StageClock:
    """The step of the stage, which the schedules of a chain follow whatever a transformation has counted.

    A head that comes late gets the rate of the stage's step, as all parameters do and as the records say; also from
    such as Prodigy, whose count serves its statistics and its schedule at once.
    """

    def __init__(self) -> None:
        self._step: Int[Array, ""] | None = None

    @contextmanager
    def at(self, step: Int[Array, ""] | None) -> Iterator[None]:
        """While an update is traced: its step of the stage; None leaves schedules to the counts that they are given."""
        self._step = step
        try:
            yield
        finally:
            self._step = None

    def followed_by(self, factory: Callable[..., Any]) -> Callable[..., Any]:
        """`factory` with the schedules among its arguments bound to this clock.

        What itself makes a schedule gets its arguments as they are, since a schedule of schedules, such as
        `optax.join_schedules`, asks its parts for steps of its own.
        """

        @functools.wraps(factory)
        def make(*values: Any, **named: Any) -> Any:
            made = factory(*values, **named)
            if callable(made) or not any(map(callable, (*values, *named.values()))):
                return made
            return factory(*map(self._bound, values), **{name: self._bound(value) for name, value in named.items()})

        return make

    def _bound(self, value: Any) -> Any:
        return (lambda count: value(count if self._step is None else self._step)) if callable(value) else value
