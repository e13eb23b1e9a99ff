"""Logits and metrics over whole splits."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from mtbert_jax.config import Pooling
from mtbert_jax.data.batches import evaluation_batches, evaluation_feature_batches
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.model import EncoderWithHeads, TaskIndex
from mtbert_jax.parallel import ALONE, Layout
from mtbert_jax.programs import made_once
from mtbert_jax.tasks import score
from mtbert_jax.tasks.kind import finite_rows
from mtbert_jax.training.setup import Setup
from mtbert_jax.types import Batch, FeatureBatch, Params

logger = logging.getLogger(__name__)
EvalStep = Callable[[Params, str, Batch | FeatureBatch], Any]


@made_once
def make_eval_step(
    model: EncoderWithHeads, layout: Layout = ALONE
) -> Callable[[Params, str, Batch | FeatureBatch], Float[Array, "batch width"]]:
    """``(params, task, batch) → logits``, jitted once for all tasks of a group, dropout off.

    The logits have the width of the group's widest head; what a narrower one lacks is zeros. They are whole on every
    device, as everything is that evaluation reads.
    """

    def logits(names: tuple[str, ...], place: Int[Array, ""], params: Params, batch: Batch | FeatureBatch) -> Array:
        return layout.whole(model.logits(layout.whole(params), TaskIndex(names, place), batch))

    program = jax.jit(logits, static_argnums=0)
    places = {name: (names, np.int32(place)) for names in model.groups() for place, name in enumerate(names)}
    return lambda params, task, batch: program(*places[task], params, batch)


@made_once
def make_pooling_step(
    model: EncoderWithHeads, layout: Layout = ALONE
) -> Callable[[Params, str, Any], Float[Array, "batch feature"]]:
    """``(params, pooling, batch) → what a head of that pooling reads``, jitted once for each pooling, dropout off."""

    def features(pooling: Pooling, params: Params, batch: Batch) -> Array:
        return layout.whole(model.features(layout.whole(params), pooling, batch))

    program = jax.jit(features, static_argnums=0)
    return lambda params, pooling, batch: program(pooling, params, batch)


class EvalBatches(NamedTuple):
    """What evaluation batches are like.

    Attributes:
        size: Examples in a batch.
        lengths: Lengths that batches are padded to, ascending.
        layout: Where arrays lie.
    """

    size: int
    lengths: np.ndarray
    layout: Layout = ALONE


def over_split(
    step: EvalStep, params: Params, which: str, dataset: Dataset, batches: EvalBatches, width: int
) -> Float[np.ndarray, "example width"]:
    """The first `width` numbers of what `step` says of every example, in the dataset's order.

    The device is not waited for between batches: the next one is gathered while the last one computes.

    Args:
        step: Called with parameters, `which` and a batch.
        params: All parameters.
        which: Task or pooling, as `step` takes it.
        dataset: One task's examples.
        batches: Their size, lengths and layout.
        width: How many numbers of each row are kept.
    """
    layout, size = batches.layout, batches.layout.fit(batches.size)
    gathered = (
        evaluation_batches(dataset.tokens, dataset.labels, size, batches.lengths)
        if dataset.features is None
        else evaluation_feature_batches(dataset.features, dataset.labels, size)
    )
    pending = []
    for rows, batch in gathered:
        values = step(params, which, layout.spread(batch))
        layout.keep_pace(values)
        pending.append((rows, values))
    outputs = np.zeros((len(dataset.labels), width), np.float32)
    for rows, values in pending:
        outputs[rows] = np.asarray(values)[: len(rows), :width]
    return outputs


def with_features(setup: Setup, params: Params, *splits: dict[str, Dataset]) -> list[dict[str, Dataset]]:
    """The splits with what the encoder says of every example, dropout off: one forward pass over each."""
    step, layout = make_pooling_step(setup.model, setup.layout), setup.layout
    size, lengths = setup.config.eval_batch_size, setup.lengths(*splits)

    def kept(name: str, data: Dataset) -> Dataset:
        pooling, width = setup.model.heads[name].pooling, setup.model.num_features(name)
        batches = EvalBatches(size, lengths[name], layout)
        return data._replace(features=over_split(step, params, pooling, data, batches, width))

    return [{name: kept(name, data) for name, data in split.items()} for split in splits]


def evaluate_all(
    setup: Setup, eval_step: EvalStep, params: Params, datasets: dict[str, Dataset]
) -> tuple[dict[str, Any], dict[str, Float[np.ndarray, "example output"]]]:
    """Scores of several tasks, as `score` gives them (empty where labels are missing), and their logits.

    Where only some examples have labels, those are scored, and a warning says how many.
    """
    size, lengths, layout = setup.config.eval_batch_size, setup.lengths(datasets), setup.layout
    logits = {}
    for name, data in datasets.items():
        batches, width = EvalBatches(size, lengths[name], layout), setup.model.heads[name].num_outputs
        logits[name] = over_split(eval_step, params, name, data, batches, width)
    labelled = {name: data for name, data in datasets.items() if data.labelled}
    rows = {name: slice(None) if data.scored is None else data.scored for name, data in labelled.items()}
    for name, data in labelled.items():
        if data.scored is not None:
            counts = len(data.ids) - len(data.scored), len(data.ids), len(data.scored)
            logger.warning("task %s: %d of %d rows have no label; its scores are over the other %d", name, *counts)
    labels = {name: data.labels[rows[name]] for name, data in labelled.items()}
    scored = {name: logits[name][rows[name]] for name in labels}
    return score(setup.tasks, scored, labels) if labels else {}, logits


def not_finite(
    split: str, datasets: Mapping[str, Dataset], logits: Mapping[str, Float[np.ndarray, "example output"]]
) -> dict[str, str]:
    """What to say of each task that has logits which are not finite: how many examples, and the first one's id."""
    found = {}
    for name, values in logits.items():
        wrong = np.flatnonzero(~finite_rows(values))
        if len(wrong):
            first = datasets[name].ids[wrong[0]]
            found[name] = (
                f"task {name}: the logits of {len(wrong)} of {len(values)} {split} examples are not finite, the first "
                f"those of id {first!r}"
            )
    return found
