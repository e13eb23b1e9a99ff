"""All registered aggregators as compiled functions of a Jacobian, for the tests of what they have in common."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtbert_jax.optim.aggregators import Aggregator, cagrad, gramian
from mtbert_jax.optim.registry import AGGREGATORS

NAMES = tuple(sorted(AGGREGATORS))
NEEDS: dict[str, Any] = {"smoothed": {"of": cagrad()}}
"""Arguments of aggregators that cannot do without."""
LOSSES = np.array([0.7, 1.9, 0.2, 3.1, 1.0, 0.4, 2.2, 0.9], np.float32)
GOLDEN = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])


def made(name: str, tasks: int, **options: Any) -> Aggregator:
    """The aggregator for so many tasks."""
    found: Aggregator = AGGREGATORS[name](**{**NEEDS.get(name, {}), **options}, num_tasks=tasks)
    return found


def first(name: str, tasks: int, **options: Any) -> Any:
    """The first state of its rule."""
    init = made(name, tasks, **options).method.init
    return None if init is None else jax.tree.map(jnp.asarray, init(tasks))


_gramian = jax.jit(lambda jacobian: gramian([jacobian]))


@functools.cache
def compiled(name: str, tasks: int, options: tuple[tuple[str, Any], ...]) -> Any:
    """Its rule, ``(gramian, state, key, losses) → (weights, state)``."""
    return jax.jit(made(name, tasks, **dict(options)).method.rule)


@functools.cache
def transformed(name: str, tasks: int) -> tuple[Any, Any]:
    """As a transformation: its init and its compiled update, ``(updates, state, losses) → (updates, state)``."""
    tx = made(name, tasks)
    return tx.init, jax.jit(lambda updates, state, losses: tx.update(updates, state, None, losses=losses))


def step(
    name: str, jacobian: Any, losses: Any = None, seed: int = 0, state: Any = None, **options: Any
) -> tuple[np.ndarray, Any]:
    """Weights and state after one step, the Gramian being float32's; the first step without a `state`."""
    tasks = len(jacobian)
    state = first(name, tasks, **options) if state is None else state
    losses = jnp.asarray(LOSSES[:tasks] if losses is None else losses, jnp.float32)
    gram = _gramian(jnp.asarray(jacobian, jnp.float32))
    found, state = compiled(name, tasks, tuple(options.items()))(gram, state, jax.random.key(seed), losses)
    return np.asarray(found, np.float64), state


def weights(name: str, jacobian: Any, **about: Any) -> np.ndarray:
    """The weights of the first step."""
    return step(name, jacobian, **about)[0]


def update(name: str, jacobian: Any, **about: Any) -> np.ndarray:
    """The update that they come to."""
    return weights(name, jacobian, **about) @ np.asarray(jacobian, np.float64)
