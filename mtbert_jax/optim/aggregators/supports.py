"""Small convex problems over the tasks without a solver: every support is tried, all of them at once.

The minimum of a convex function over the simplex, or above given values, is a stationary point of one face; a face is
told by its support, the tasks that are free on it. There are 2^T - 1, each with a linear system of T unknowns.
A candidate is made feasible before it is judged, so that rounding can make the result worse, but never unfeasible.
"""

import itertools

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

MOST_TASKS = 8
RIDGE = 1e-6
"""What is added to cosines of 1, so that parallel gradients have a solution: about ten times float32's rounding."""


def supports(tasks: int, name: str) -> Bool[Array, "support task"]:
    """All subsets of the tasks but the empty one; `ValueError` beyond eight tasks."""
    if tasks > MOST_TASKS:
        raise ValueError(
            f"{tasks} tasks in a step: {name} tries every subset of them and takes {MOST_TASKS} at most; pcgrad, "
            "gradvac, fairgrad, nash_mtl, imtl_g, aligned_mtl and config take any number"
        )
    return jnp.array(list(itertools.product([False, True], repeat=tasks))[1:])


def solve_on(
    masks: Bool[Array, "support task"],
    matrix: Float[Array, "task task"],
    right: Float[Array, "task column"],
    ridge: float = 0.0,
) -> Float[Array, "support task column"]:
    """Solutions of the rows and columns of each support, 0 outside.

    Gauss-Jordan elimination of ``matrix + ridge``, which is positive definite and so needs no pivots. Two steps of
    refinement go by the matrix itself: they mend the rounding, and take the ridge away where it is not needed.
    """
    tasks = len(matrix)
    eye = jnp.eye(tasks)
    systems = jnp.where(masks[:, :, None] & masks[:, None, :], matrix, eye)
    right = jnp.where(masks[:, :, None], right, 0.0)
    wide = jnp.concatenate([systems + ridge * eye, jnp.broadcast_to(eye, systems.shape)], axis=-1)
    for k in range(tasks):
        row = wide[:, k : k + 1] / wide[:, k : k + 1, k : k + 1]
        wide = jnp.where(eye[k][:, None] > 0, row, wide - wide[:, :, k : k + 1] * row)
    inverse = wide[..., tasks:]
    found = inverse @ right
    for _ in range(2):
        found = found + inverse @ (right - systems @ found)
    return jnp.where(masks[:, :, None], found, 0.0)


def on_simplex(points: Float[Array, "support task"]) -> Float[Array, "support task"]:
    """Points without their negative parts, each with a sum of 1; all zero where that cannot be."""
    points = jnp.maximum(jnp.nan_to_num(points, nan=0.0, posinf=0.0, neginf=0.0), 0.0)
    total = points.sum(-1, keepdims=True)
    return jnp.where(total > 0, points / jnp.where(total > 0, total, 1.0), 0.0)


def best(
    points: Float[Array, "support task"], values: Float[Array, " support"], valid: Bool[Array, " support"]
) -> Float[Array, " task"]:
    """The valid point of the least value."""
    return points[jnp.argmin(jnp.where(valid & jnp.isfinite(values), values, jnp.inf))]
