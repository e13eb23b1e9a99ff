"""GradVac: PCGrad towards a cosine that is learnt, in place of 0."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mtbert_jax.optim.aggregators.base import Key, Losses, Weights
from mtbert_jax.optim.aggregators.gramian import Gramian, inverse, norms, scaled, taking_part
from mtbert_jax.optim.aggregators.pcgrad import random_orders
from mtbert_jax.optim.aggregators.registry import register_aggregator

Row = tuple[Float[Array, " task"], Float[Array, " task"]]
NEAREST = 1e-6
"""How near to 1 a target cosine counts: at 1 its formula divides by 0."""


@register_aggregator("gradvac", init=lambda num_tasks: jnp.zeros((num_tasks, num_tasks)))
def gradvac(
    gram: Gramian, state: Float[Array, "task task"], key: Key, losses: Losses, beta: float = 0.5
) -> tuple[Weights, Float[Array, "task task"]]:
    """Each gradient is turned towards those with which its cosine is below the average of the steps before.

    Wang et al. 2021, arXiv:2010.05874, Algorithm 1. For each task i, over the others j in random order:
    with the running gradient's cosine φ to g_j below the target φ̂, it gets
    ``‖g_i‖ (φ̂ √(1 - φ²) - φ √(1 - φ̂²)) / (‖g_j‖ √(1 - φ̂²))`` times g_j; then ``φ̂ ← (1 - β) φ̂ + β φ``.

    Args:
        gram: ``gram[i, j] = g_i · g_j``; this and the next three are the chain's to give.
        state: φ̂, from 0, for which the first step is PCGrad's.
        key: Key of this step's orders.
        losses: Not used.
        beta: β.

    Raises:
        ValueError: `beta` is not from 0 to 1.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta = {beta}: must be from 0 to 1")
    gram, _ = scaled(gram)
    size, present, tasks = norms(gram), taking_part(gram), len(gram)

    def turn(own: Float[Array, " task"], targets: Float[Array, " task"], meets: Int[Array, " met"]) -> Row:
        here = jnp.any((own > 0) & present)

        def meet(carry: Row, j: Int[Array, ""]) -> tuple[Row, None]:
            coefficients, targets = carry
            running = jnp.sqrt(jnp.maximum(coefficients @ gram @ coefficients, 0.0))
            cosine = jnp.clip((coefficients @ gram[j]) * inverse(running * size[j]), -1.0, 1.0)
            target = jnp.clip(targets[j], -1 + NEAREST, 1 - NEAREST)
            sine, of_target = (jnp.sqrt(jnp.maximum((1 - one) * (1 + one), 0.0)) for one in (cosine, target))
            added = running * (target * sine - cosine * of_target) * inverse(size[j] * of_target)
            counts = here & present[j]
            coefficients = coefficients.at[j].add(jnp.where(counts & (cosine < target), added, 0.0))
            after = jnp.where(counts, (1 - beta) * targets[j] + beta * cosine, targets[j])
            return (coefficients, targets.at[j].set(after)), None

        return jax.lax.scan(meet, (own, targets), meets)[0]

    rows, targets = jax.vmap(turn)(
        jnp.eye(tasks, dtype=gram.dtype), state, random_orders(key, tasks, include_self=False)
    )
    return jnp.where(present, jnp.sum(rows, 0), 0.0), targets
