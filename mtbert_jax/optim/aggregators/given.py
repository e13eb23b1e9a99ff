"""What a caller gives an aggregator, checked: state, gradients, losses, and which tasks take part."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mtbert_jax import trees
from mtbert_jax.errors import InputError

Tree = Any
Losses = Float[Array, " task"]


def must_be_state(name: str, state: Any, wanted: type) -> None:
    """Refuses another transformation's state."""
    if not isinstance(state, wanted):
        raise InputError(
            f"aggregator {name}: its state is of type {type(state).__name__}; it must be the {wanted.__name__} that "
            "its init gave"
        )


def must_fit(name: str, updates: Tree, params: Tree | None) -> None:
    """Refuses gradients that are of other parameters."""
    if params is None:
        return
    given, own = trees.leaves(updates), trees.leaves(params)
    if len(given) != len(own):
        raise InputError(
            f"aggregator {name}: gradients have {len(given)} leaves, and params {len(own)}; give trees of one "
            "structure, with the tasks' gradients stacked in each leaf"
        )
    for (path, grad), (_, param) in zip(given, own, strict=True):
        shape, one = jnp.shape(grad), jnp.shape(param)
        if one not in (shape, shape[1:]):
            raise InputError(
                f"aggregator {name}: gradient {path} has the shape {shape}, and its parameter {one}; give "
                f"(tasks, {', '.join(map(str, one))}), or {one} where it is of one task"
            )


def num_tasks_of(name: str, wanted: int | None, stacked: list[Array], finite: Any) -> int:
    """The number of tasks of a step; `InputError` if gradients or flags do not fit it, or each other."""

    def refuse(why: str) -> None:
        raise InputError(f"aggregator {name}: {why}")

    lengths = {jnp.shape(leaf)[:1] for leaf in stacked}
    if len(lengths) > 1 or lengths & {(), (0,)}:
        shapes = ", ".join(dict.fromkeys(str(jnp.shape(leaf)) for leaf in stacked))
        refuse(f"gradients need a leading axis, as long as there are tasks; their shapes are {shapes}")
    if whole := [leaf.dtype for leaf in stacked if not jnp.issubdtype(leaf.dtype, jnp.floating)]:
        refuse(f"gradients of type {whole[0]} cannot be weighted; give floating-point numbers")
    number = len(stacked[0])
    if wanted not in (None, number):
        refuse(f"num_tasks = {wanted}, and the step has {number} tasks")
    if finite is not None and not isinstance(finite, Mapping):
        refuse('finite says by name which tasks take part, in their order, such as {"sst": True, "sts": False}')
    if finite and len(finite) != number:
        refuse(f"finite names {', '.join(finite)}, and the step has {number} tasks")
    return number


def note_combined(name: str, stacked: list[str], paths: list[str], combined_by: dict[str, str]) -> None:
    """Notes which gradients an aggregator combines; refuses one for which another has left none."""
    before = [combined_by[path] for path in paths if path in combined_by]
    if before and not stacked:
        raise InputError(
            f"aggregator {name} has no effect behind {before[0]}, which has combined the tasks' gradients "
            "already; take one of the two"
        )
    combined_by.update(dict.fromkeys(stacked, name))


def losses_of(name: str, given: Any, num_tasks: int, needs: str = "") -> Losses:
    """The losses that a rule may read, zeros where none are given; `needs` is how to give them to one that must."""
    if given is None:
        if needs:
            raise InputError(f"aggregator {name} weighs losses: {needs}")
        return jnp.zeros(num_tasks)
    try:
        losses = jnp.asarray(given, jnp.float32)
    except (TypeError, ValueError):
        raise InputError(
            f"aggregator {name}: losses is a {type(given).__name__}; give an array of {num_tasks} numbers, a "
            "mean loss for each task in their order"
        ) from None
    if losses.shape != (num_tasks,):
        raise InputError(
            f"aggregator {name}: losses of shape {losses.shape} for {num_tasks} tasks; give a mean loss for each"
        )
    return losses


def is_whole(value: Any, least: int) -> bool:
    """Whether a value is a whole number from `least` to 2**32 - 1."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(least <= value < 2**32)
