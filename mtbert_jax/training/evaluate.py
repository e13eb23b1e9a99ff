"""Logits and metrics over whole splits."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from mtbert_jax.config import TaskConfig
from mtbert_jax.data.batches import evaluation_batches
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.metrics import averages, predictions, task_metrics
from mtbert_jax.training.setup import Setup
from mtbert_jax.types import Batch, Params

EvalStep = Callable[[Params, str, Batch], Any]


def split_logits(
    eval_step: EvalStep, params: Params, task: TaskConfig, dataset: Dataset, batch_size: int, lengths: np.ndarray
) -> Float[np.ndarray, "example output"]:
    """Logits of every example of one task, in the dataset's order.

    The device is not waited for between batches: the next one is gathered while the last one computes.
    """
    pending = [
        (rows, eval_step(params, task.name, batch))
        for rows, batch in evaluation_batches(dataset.tokens, dataset.labels, batch_size, lengths)
    ]
    logits = np.zeros((len(dataset.labels), task.num_outputs), np.float32)
    for rows, values in pending:
        logits[rows] = np.asarray(values)[: len(rows)]
    return logits


def evaluate_all(
    setup: Setup, eval_step: EvalStep, params: Params, datasets: dict[str, Dataset]
) -> tuple[dict[str, Any], dict[str, Float[np.ndarray, "example output"]]]:
    """Scores of several tasks, as `score` gives them (empty where labels are missing), and their logits."""
    size = setup.config.eval_batch_size
    logits = {
        name: split_logits(eval_step, params, setup.tasks[name], data, size, setup.lengths)
        for name, data in datasets.items()
    }
    labelled = {name: values for name, values in logits.items() if datasets[name].labelled}
    return score(setup.tasks, labelled, datasets) if labelled else {}, logits


def score(
    tasks: dict[str, TaskConfig], logits: dict[str, Float[np.ndarray, "example output"]], datasets: dict[str, Dataset]
) -> dict[str, Any]:
    """Metrics of each task and both averages, as `results.json` holds them."""
    scores = {}
    for name, values in logits.items():
        kind = tasks[name].kind
        scores[name] = task_metrics(kind, predictions(kind, values), datasets[name].labels.astype(np.float64))
    return {**scores, **averages(scores, {name: tasks[name].kind for name in logits})}
