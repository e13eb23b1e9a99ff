"""The gradient of one task: a jitted program for each group of tasks that differ in their heads only."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mtbert_jax import trees
from mtbert_jax.config import TaskConfig
from mtbert_jax.model import EncoderWithHeads
from mtbert_jax.parallel import Layout
from mtbert_jax.programs import made_once
from mtbert_jax.regularizers.base import WHOLE, Share
from mtbert_jax.tasks.kind import TaskKind
from mtbert_jax.training.objective import Objective, Place, StageSpec, Terms, shares
from mtbert_jax.types import Batch, FeatureBatch, Params


@made_once
def gradient_program(
    model: EncoderWithHeads,
    group: tuple[TaskConfig, ...],
    kinds: tuple[TaskKind, ...],
    stage: StageSpec,
    layout: Layout,
    micro_batches: int,
) -> Callable[..., tuple[Params, Terms]]:
    """The gradient of a group's tasks; `kinds` are theirs, so that a kind that is registered anew makes a new one."""
    del kinds
    gradient = TaskGradient(Objective(model, group, stage), layout, micro_batches)
    program: Callable[..., tuple[Params, Terms]] = jax.jit(
        layout.over_replicas(gradient.compute, (None, 0, 0, 0, 0, None), (0, 0))
    )
    return program


def own_gradient(
    program: Callable[..., tuple[Params, Terms]], task: str, index: int, *arguments: Any
) -> tuple[Params, Terms]:
    """The gradient of one task of a group; the other heads' are zeros, and dropped."""
    grads, terms = program(np.int32(index), *arguments)
    own = {name: head for name, head in grads.get("heads", {}).items() if name == task}
    return {**grads, "heads": own}, terms


@dataclass(frozen=True, eq=False)
class TaskGradient:
    """The gradient of the objective of a group of tasks, each batch's computed in so many micro-batches."""

    objective: Objective
    layout: Layout
    micro_batches: int

    def compute(
        self,
        index: Int[Array, ""],
        params: Params,
        teacher: Params | None,
        batch: Batch | FeatureBatch,
        key: PRNGKeyArray,
        step: Int[Array, ""],
    ) -> tuple[Params, Terms]:
        """Gradient of one task's objective by the encoder and its group's heads, less what is frozen; and its terms.

        Parameters that are split over devices are gathered here, and the gradient leaves split as they are.
        """
        tasks, layout, micro_batches = self.objective.tasks, self.layout, self.micro_batches
        params, teacher = layout.whole((params, teacher))
        concerned = {"encoder": params["encoder"], "heads": {task.name: params["heads"][task.name] for task in tasks}}
        fixed, trainable = trees.split(concerned, self.objective.stage.frozen)
        names = jnp.array([zlib.crc32(task.name.encode()) for task in tasks], jnp.uint32)
        key = jax.random.fold_in(jax.random.fold_in(key, step), names[index])
        whole_teacher = None if teacher is None else trees.merge(params, teacher)

        def objective(
            trainable: Params, batch: Batch | FeatureBatch, key: PRNGKeyArray, share: Share
        ) -> tuple[Float[Array, ""], Terms]:
            place = Place(index, key, step)
            return self.objective(trees.merge(fixed, trainable), whole_teacher, batch, place, share)

        gradient = jax.grad(objective, has_aux=True)
        if micro_batches == 1:
            grads, terms = gradient(trainable, batch, key, WHOLE)
            return layout.summed(grads), terms

        def add(total: tuple[Params, Terms], part: tuple[Batch | FeatureBatch, Share, Int[Array, ""]]) -> Any:
            grads, terms = gradient(trainable, part[0], jax.random.fold_in(key, part[2]), part[1])
            return jax.tree.map(jnp.add, total, (layout.summed(grads), terms)), None

        parts = micro_parts(batch, micro_batches)
        numbers = jnp.arange(micro_batches)
        first = jax.tree.map(lambda leaf: leaf[0], parts)
        shapes = jax.eval_shape(gradient, trainable, first, key, shares(batch, first))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        of_parts = jax.vmap(lambda part: shares(batch, part))(parts)
        return jax.lax.scan(add, zeros, (parts, of_parts, numbers))[0]


def micro_parts(batch: Batch | FeatureBatch, number: int) -> Batch | FeatureBatch:
    """A batch's rows dealt out to `number` parts, which become a leading axis.

    Part i has the rows i, i + number, …: rows that lie on one device stay there.
    """
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf.reshape(-1, number, *leaf.shape[1:]), 1, 0), batch)
