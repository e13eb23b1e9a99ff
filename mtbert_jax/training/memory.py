"""How much memory a run needs on each device, from the shapes of its arrays: nothing is compiled or computed."""

import math
from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtbert_jax import trees
from mtbert_jax.errors import InputError
from mtbert_jax.machine import free_memory
from mtbert_jax.parallel import Layout
from mtbert_jax.training.active import abstract_state
from mtbert_jax.training.objective import Objective, Place
from mtbert_jax.training.plan import Plan
from mtbert_jax.training.setup import Setup
from mtbert_jax.types import Batch, Params

Tree = Any


class Memory(NamedTuple):
    """Bytes on one device, for one run of a stage.

    Attributes:
        state: Parameters, optimizer state, teacher.
        gradients: One gradient per task of a step, since surgery needs all at once, and as much again for the update.
        activations: What the largest batch of a task keeps for its gradient.
        gathered: Parameters made whole, where they are split over devices.
    """

    state: int
    gradients: int
    activations: int
    gathered: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def estimate(setup: Setup, plan: Plan, layout: Layout) -> Memory:
    """What one run of a stage needs on a device; runs that train together need it once each.

    Compilers save some of it and need work space of their own: measured peaks lie around it, not at it.
    """
    params, state = setup.abstract_params(), abstract_state(setup, plan)
    trainable = trees.split(params, plan.frozen)[1]
    tasks = len(plan.batches.names(0))
    copies = 2 * tasks if tasks > 1 else 1
    split = layout.narrow
    whole = _bytes(params) if layout.mesh and _bytes(params) > _on_device(split, params) else 0
    parts = layout.rows * setup.config.micro_batches
    activations = max(_kept(setup, plan, name, params) for name in plan.batches.tasks) // parts
    return Memory(_on_device(split, state), copies * _on_device(split, trainable), activations, whole)


def check_state(setup: Setup, plan: Plan, layout: Layout) -> None:
    """Refuses a stage whose parameters, optimizer state and teacher need more memory than is free."""
    need, room = _on_device(layout.narrow, abstract_state(setup, plan)), free_memory()
    if room is not None and need > room:
        raise InputError(
            f"stage {plan.stage.name}: parameters and optimizer state take {need / 2**30:.1f} GiB on a device, "
            f"{room / 2**30:.1f} are free; take smaller heads, a smaller encoder or another optimizer"
        )


def _kept(setup: Setup, plan: Plan, name: str, params: Params) -> int:
    """Bytes that the longest batch of a task keeps between its forward and its backward pass."""
    stream = plan.batches.tasks[name]
    task, rows = setup.tasks[name], stream.num_rows
    length = int(stream.lengths[np.searchsorted(stream.lengths, stream.tokens.lengths.max())])
    if plan.stage.cache_features:
        return 4 * rows * setup.model.num_features(name)
    arrays = stream.gathered(0, np.arange(1), length, rows)
    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arrays)
    fixed, trainable = trees.split(params, plan.frozen)

    def pullback(trainable: Params, fixed: Params, batch: Batch) -> Any:
        def objective(trainable: Params) -> Any:
            merged = trees.merge(fixed, trainable)
            teacher = merged if setup.has_teacher(plan.stage) else None
            place = Place(jnp.int32(0), jax.random.key(0), jnp.int32(0))
            return Objective(setup.model, (task,), plan.spec(0))(merged, teacher, batch, place)

        return jax.vjp(objective, trainable, has_aux=True)[1]

    # The pullback holds what it keeps, parameters included: those are counted already.
    own = Counter((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(params))
    kept = Counter(
        (leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(jax.eval_shape(pullback, trainable, fixed, batch))
    )
    return sum(count * _size(shape, dtype) for (shape, dtype), count in (kept - own).items())


def _bytes(tree: Tree) -> int:
    return sum(_size(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree))


def _on_device(layout: Layout, tree: Tree) -> int:
    shardings = jax.tree.leaves(layout.shardings(tree))
    leaves = jax.tree.leaves(tree)
    return sum(_size(where.shard_shape(leaf.shape), leaf.dtype) for leaf, where in zip(leaves, shardings, strict=True))


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    width = 8 if jnp.issubdtype(dtype, jax.dtypes.prng_key) else dtype.itemsize
    return math.prod(shape) * width
