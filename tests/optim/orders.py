"""Steps of three tasks in any order with gradients that are given, for the tests of optimizers."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtbert_jax import trees
from mtbert_jax.config.fields import Order
from mtbert_jax.data.batches import TrainBatches
from mtbert_jax.optim.chain import build_chain, chain_context, check_chain
from mtbert_jax.optim.schedules import learning_rate
from mtbert_jax.parallel import ALONE
from mtbert_jax.training.objective import StageSpec, Terms
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.update import Update, stack_gradients

SIZES = {"a": 60, "b": 30, "c": 10}
PEAK = 1e-3
Flat = dict[str, np.ndarray]


class Step(NamedTuple):
    """One step.

    Attributes:
        good: The tasks whose gradients were finite.
        rate: The learning rate of the stage's step.
        grads: The gradient of each parameter that has one, by path; of the encoder the sum.
        params: All parameters after the step, by path.
    """

    good: tuple[str, ...]
    rate: float
    grads: Flat
    params: Flat


def initial() -> Any:
    rng = np.random.default_rng(0)

    def dense(rows: int, columns: int) -> dict[str, Any]:
        shapes = {"kernel": (rows, columns), "bias": (columns,)}
        return {name: jnp.asarray(0.1 * rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}

    return {"encoder": {"layer_0": dense(3, 4)}, "heads": {task: {"output": dense(4, 2)} for task in SIZES}}


def flat(tree: Any) -> Flat:
    return {trees.path_of(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def tasks_of(order: Order, num_steps: int) -> list[tuple[str, ...]]:
    """The tasks of each step, in an epoch of a hundred steps or, sequentially, of all of them."""
    scale = num_steps // 100 if order == "sequential" else 1
    streams: Any = {n: SimpleNamespace(num_examples=k * scale, per_epoch=k * scale) for n, k in SIZES.items()}
    batches = TrainBatches(streams, order, 1.0, num_steps, (0,))
    return [batches.names(step) for step in range(num_steps)]


def steps(calls: tuple[str, ...], order: Order, num_steps: int = 1000, bad: float = 0.0) -> Iterator[Step]:
    """The steps of a stage with warm-up and linear decay; `bad`: share of gradients that are not finite."""
    rate = learning_rate(PEAK, "linear", 0.1, num_steps)
    params, several = initial(), order == "round_robin"
    tx = build_chain((*(("sum_tasks()",) if several else ()), *calls), chain_context(rate, params, len(SIZES)))
    state = TrainState.create(jax.tree.map(jnp.copy, params), tx, jax.random.key(0))
    update = jax.jit(Update(tx, StageSpec(num_steps=num_steps), ALONE).apply_gradients)
    rng = np.random.default_rng(1)
    for number, names in enumerate(tasks_of(order, num_steps)):
        grads, good = {}, []
        for name in names:
            own = {"encoder": params["encoder"], "heads": {name: params["heads"][name]}}
            scale = 10 ** rng.uniform(-2, 0)
            grads[name] = jax.tree.map(lambda leaf: (scale * rng.normal(size=leaf.shape)).astype(np.float32), own)  # noqa: B023
            good += [name]
            if rng.random() < bad:
                grads[name]["heads"][name]["output"]["bias"][0] = rng.choice([np.nan, np.inf, -np.inf])
                good.pop()
        if number == 0:
            check_chain(tx, jax.eval_shape(stack_gradients, params, grads), params)
        state, _ = update(state, grads, {name: Terms(jnp.float32(1.0), {}) for name in names})
        own = {path: leaf for name in good for path, leaf in flat(grads[name]).items() if path.startswith("heads")}
        shared = [flat({"encoder": grads[name]["encoder"]}) for name in good]
        total = {path: sum(leaf[path] for leaf in shared) for path in (shared[0] if shared else ())}
        yield Step(tuple(good), float(rate(number)), {**own, **total}, flat(state.params))  # type: ignore[dict-item]
