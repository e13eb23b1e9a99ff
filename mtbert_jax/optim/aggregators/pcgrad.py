"""Gradient surgery: PCGrad (Yu et al. 2020, arXiv:2001.06782, Algorithm 1).

>>> grads = {"w": jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])}
>>> tx = pcgrad()
>>> updates, _ = tx.update(grads, tx.init(None))
>>> updates["w"].round(4).tolist()
[0.5848..., 3.8011..., 3.8011...]
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mtbert_jax.errors import InputError
from mtbert_jax.optim.aggregators.base import Key, Losses, Weights
from mtbert_jax.optim.aggregators.gramian import Gramian, as_gramian, taking_part
from mtbert_jax.optim.aggregators.registry import register_aggregator


@register_aggregator("pcgrad")
def pcgrad(
    gram: Gramian, state: Any, key: Key, losses: Losses, reduction: str = "sum", include_self: bool = False
) -> tuple[Weights, Any]:
    """Gradient surgery: each task's gradient loses its part against every task that it conflicts with.

    Yu et al. 2020, Algorithm 1. The defaults are the paper's; ``pcgrad("mean", include_self=True)`` is what the code of
    WeiChengTseng/Pytorch-PCGrad computes (docs/numerics.md, section 3). Each task meets the others in a random order.

    Args:
        gram: ``gram[i, j] = g_i · g_j``; this and the next three are the chain's to give.
        state: None.
        key: Key of this step's orders.
        losses: Not used.
        reduction: ``"sum"`` or ``"mean"`` of the projected gradients; the mean is over the tasks that take part.
        include_self: A task's running gradient may be projected onto its own original, too.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction = {reduction!r}: must be 'sum' or 'mean'")
    tasks = gram.shape[0]
    weights = pcgrad_weights(gram, random_orders(key, tasks, include_self))
    return (weights / jnp.maximum(taking_part(gram).sum(), 1) if reduction == "mean" else weights), state


def random_orders(key: PRNGKeyArray, tasks: int, include_self: bool) -> Int[Array, "task met"]:
    """Row i: the tasks that task i meets, in random order, without itself unless asked for."""
    rows = jnp.arange(tasks)
    if include_self:
        others = jnp.broadcast_to(rows, (tasks, tasks))
    else:
        others = (rows[:, None] + 1 + rows[None, : tasks - 1]) % tasks
    return jax.vmap(jax.random.permutation)(jax.random.split(key, tasks), others)


def pcgrad_weights(gram: Float[Array, "task task"], order: Int[Array, "task met"]) -> Float[Array, " task"]:
    """The weights w of ``sum_j w[j] g_j``, the sum of the projected gradients.

    Every projected gradient stays in the span of the originals, so each is a row of coefficients, and the projections
    need inner products only. A zero gradient is never projected onto.

    Args:
        gram: ``gram[i, j] = g_i · g_j``.
        order: Row i: the tasks that task i meets, in order.

    Raises:
        InputError: An array has another shape, or `order` holds something else than the tasks' numbers.
    """
    gram, order = as_gramian(gram), _checked(order, len(gram))
    if not order.shape[1]:  # of one task; without jit JAX refuses a scan of no steps
        return jnp.ones(len(gram), gram.dtype)

    def project(own: Float[Array, " task"], meets: Int[Array, " met"]) -> Float[Array, " task"]:
        def meet(coefficients: Float[Array, " task"], j: Int[Array, ""]) -> tuple[Float[Array, " task"], None]:
            dot = jnp.dot(coefficients, gram[j], precision="highest")
            conflict = (dot < 0) & (gram[j, j] > 0)
            step = jnp.where(conflict, dot / jnp.where(conflict, gram[j, j], 1.0), 0.0)
            return coefficients.at[j].add(-step), None

        return jax.lax.scan(meet, own, meets)[0]

    return jnp.sum(jax.vmap(project)(jnp.eye(gram.shape[0], dtype=gram.dtype), order), axis=0)


def _checked(order: Any, tasks: int) -> Int[Array, "task met"]:
    """An order; what is traced has no values yet to look at, and JAX would clamp those that are out of range."""
    order = order if isinstance(order, jax.Array) else np.asarray(order)
    known = not isinstance(order, jax.core.Tracer)
    if order.ndim != 2 or len(order) != tasks or not jnp.issubdtype(order.dtype, jnp.integer):
        raise InputError(
            f"order has a row of whole numbers for each of the {tasks} tasks, and this one has the shape {order.shape} "
            f"and the type {order.dtype}"
        )
    if known and not all(0 <= number < tasks for number in np.ravel(order)):
        raise InputError(f"order = {np.asarray(order).tolist()}: tasks have the numbers from 0 to {tasks - 1}")
    return jnp.asarray(order)
