"""Which texts of an example the encoder reads together, and what the head reads of them."""

from mtbert_jax.config import Task
from mtbert_jax.tasks.registry import kind_of

INPUTS = {"towers": ((0,), (1,)), "both": ((0, 1), (0,), (1,))}
"""Poolings that read several inputs of an example, and the texts of each."""


def head_reads(task: Task) -> str:
    """What the head of a task reads: a pooling, or `tokens`, `masked`, `cls_each` or `mean_each`."""
    kind = kind_of(task)
    if kind.reads == "texts":
        return f"{task.head.pooling}_each"
    return kind.reads if kind.has_places else task.head.pooling


def inputs(task: Task) -> tuple[tuple[int, ...], ...]:
    """The texts of each input that the encoder reads of an example, by their places: all in one, if not said otherwise.

    >>> from mtbert_jax.config import HeadConfig
    >>> inputs(Task(text=("a", "b"), head=HeadConfig(pooling="towers")))
    ((0,), (1,))
    """
    if kind_of(task).reads == "texts":
        return ((0,), (len(task.text) - 1,))
    return INPUTS.get(head_reads(task), (tuple(range(len(task.text))),))
