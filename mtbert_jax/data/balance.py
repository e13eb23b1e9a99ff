"""Rare classes: how often their examples come in an epoch, and how much each weighs in the loss."""

import numpy as np
from jaxtyping import Float, Int

from mtbert_jax.config import TaskConfig

Labels = Float[np.ndarray, " example"]


def epoch_counts(labels: Labels, sampling_balance: float) -> Int[np.ndarray, " class"]:
    """Examples of each class in an epoch, for the classes that occur, in order: ``n_c^(1-b) n_max^b``, rounded.

    >>> labels = np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 3])
    >>> [epoch_counts(labels, balance).tolist() for balance in (0.0, 0.5, 1.0)]
    [[9, 1], [9, 3], [9, 9]]
    """
    sizes = np.unique(labels, return_counts=True)[1].astype(np.float64)
    return np.rint(sizes ** (1 - sampling_balance) * sizes.max() ** sampling_balance).astype(np.int64)


def epoch_rows(labels: Labels, sampling_balance: float, rng: np.random.Generator) -> Int[np.ndarray, " row"]:
    """The rows of one epoch, in no useful order.

    Every row of a class comes as often as their number goes into the class's count; a random rest of them once more.
    """
    if not sampling_balance:
        return np.arange(len(labels))
    rows = []
    for value, count in zip(np.unique(labels), epoch_counts(labels, sampling_balance), strict=True):
        own = np.flatnonzero(labels == value)
        times, rest = divmod(int(count), len(own))
        rows += [np.tile(own, times), rng.choice(own, rest, replace=False)]
    return np.concatenate(rows)


def loss_weights(task: TaskConfig, labels: Labels) -> Labels:
    """Weight of each example in the loss: ones, the task's `class_weights`, or what its `loss_balance` b asks for.

    That is ``(n / (k n_c))^b``, scaled to a mean of 1, where n_c of the n examples of an epoch are of class c, and k
    classes occur. With b = 1 every class has the same total weight in an epoch, up-sampled or not.

    >>> loss_weights(TaskConfig(kind="binary", loss_balance=1.0), np.array([0, 0, 0, 0, 1])).tolist()
    [0.625, 0.625, 0.625, 0.625, 2.5]
    """
    if task.class_weights:
        return np.array(task.class_weights, np.float32)[labels.astype(int)]
    if not task.loss_balance:
        return np.ones(len(labels), np.float32)
    counts = epoch_counts(labels, task.sampling_balance)
    weights = counts.astype(np.float64) ** -task.loss_balance
    weights /= np.average(weights, weights=counts)  # n and k would cancel here
    return weights[np.unique(labels, return_inverse=True)[1]].astype(np.float32)
