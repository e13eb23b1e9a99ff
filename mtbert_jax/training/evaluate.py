"""Logits and metrics over whole splits."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from mtbert_jax.config import Pooling, Task
from mtbert_jax.data.batches import evaluation_batches
from mtbert_jax.data.dataset import Dataset, in_other_order
from mtbert_jax.data.lengths import Ladder
from mtbert_jax.model import EncoderWithHeads, TaskIndex
from mtbert_jax.parallel import ALONE, Layout
from mtbert_jax.programs import made_once
from mtbert_jax.tasks import score
from mtbert_jax.tasks.arrays import finite_rows
from mtbert_jax.tasks.kind import LOWEST, TaskKind
from mtbert_jax.training.setup import Setup
from mtbert_jax.types import Batch, FeatureBatch, Params

logger = logging.getLogger(__name__)
EvalStep = Callable[[Params, str, Batch | FeatureBatch], Float[Array, "batch width"]]


@made_once
def make_eval_step(
    model: EncoderWithHeads, layout: Layout = ALONE, kinds: tuple[tuple[str, TaskKind], ...] = ()
) -> EvalStep:
    """``(params, task, batch) → logits``, jitted once for all tasks of a group, dropout off, whole on every device.

    The logits have the width of the group's widest head; what a narrower one lacks is zeros. Of a task whose kind is
    given it is what the kind keeps of them; tasks of a group keep the same.
    """
    by_name = dict(kinds)

    def logits(names: tuple[str, ...], place: Int[Array, ""], params: Params, batch: Batch | FeatureBatch) -> Array:
        found, kind = model.logits(layout.whole(params), TaskIndex(names, place), batch), by_name.get(names[0])
        return layout.whole(found if kind is None else kind.kept(found, batch.labels))

    program = jax.jit(logits, static_argnums=0)
    places = {name: (names, np.int32(place)) for names in model.groups() for place, name in enumerate(names)}
    return lambda params, task, batch: program(*places[task], params, batch)


@made_once
def make_pooling_step(model: EncoderWithHeads, layout: Layout = ALONE) -> EvalStep:
    """``(params, pooling, batch) → what a head of that pooling reads``, jitted once for each pooling, dropout off."""

    def features(params: Params, pooling: Pooling, batch: Any) -> Array:
        return layout.whole(model.features(layout.whole(params), pooling, batch))

    return jax.jit(features, static_argnums=1)


def over_split(
    setup: Setup,
    compute: Callable[[Batch | FeatureBatch], Float[Array, "batch width"]],
    dataset: Dataset,
    lengths: Ladder,
    width: int,
) -> Float[np.ndarray, "example *place width"]:
    """The first `width` numbers of what `compute` says of every example, in the dataset's order.

    Of datasets whose words have labels these are numbers of every word: zeros for one that is cut off, and `LOWEST`
    where there is none.

    The device is not waited for between batches: the next one is gathered while the last one computes.
    """
    layout, size = setup.layout, setup.layout.fit(setup.config.eval_batch_size)
    counts, pending = dataset.tokens.num_words, []
    for rows, batch in evaluation_batches(dataset.tokens, dataset.labels, size, lengths, dataset.features):
        values = compute(layout.spread(batch))
        layout.keep_pace(values)
        pending.append((rows, getattr(batch, "positions", None), values))
    outputs = np.zeros((*dataset.labels.shape[: 1 if counts is None else 2], width), np.float32)
    for rows, positions, values in pending:
        found = np.asarray(values)[: len(rows), ..., :width]
        if positions is None:
            outputs[rows] = found
        else:
            row, place = np.nonzero(positions[: len(rows)] >= 0)
            outputs[rows[row], place] = found[row, place]
    if counts is not None:
        outputs[np.arange(outputs.shape[1]) >= counts[:, None]] = LOWEST
    return outputs


def split_logits(
    setup: Setup, eval_step: EvalStep, params: Params, task: str, dataset: Dataset, lengths: Ladder
) -> Float[np.ndarray, "example *place kept"]:
    """What an evaluation keeps of the logits of every example of a task, in the dataset's order.

    Where the task scores pairs in both orders it is the mean of both (docs/numerics.md, section 10).
    """
    compute, width = partial(eval_step, params, task), setup.kept_width(task)
    own = over_split(setup, compute, dataset, lengths, width)
    spec, other = setup.tasks[task], dataset.other_order
    if not spec.both_orders:
        return own
    if other is None:  # of a training file: only an evaluation of it needs them
        other = in_other_order(setup.config, spec, setup.tokenizer, dataset)
    return (own + over_split(setup, compute, other, lengths, width)) / 2


def with_features(setup: Setup, params: Params, *splits: dict[str, Dataset]) -> list[dict[str, Dataset]]:
    """The splits with what the encoder says of every example, dropout off: one forward pass over each.

    Of pairs that are scored in both orders it is kept for both.
    """
    step, lengths = make_pooling_step(setup.model, setup.layout), setup.lengths(*splits)

    def kept(name: str, data: Dataset) -> Dataset:
        compute = partial(step, params, setup.model.heads[name].pooling)
        features = over_split(setup, compute, data, lengths[name], setup.model.num_features(name))
        other = None if data.other_order is None else kept(name, data.other_order)
        return data._replace(features=features, other_order=other)

    return [{name: kept(name, data) for name, data in split.items()} for split in splits]


def evaluate_all(
    setup: Setup, eval_step: EvalStep, params: Params, datasets: dict[str, Dataset]
) -> tuple[dict[str, Any], dict[str, Float[np.ndarray, "example output"]]]:
    """Scores of several tasks, as `scores_of` gives them, and their logits."""
    logits = all_logits(setup, eval_step, params, datasets)
    return scores_of(setup.tasks, datasets, logits), logits


def all_logits(
    setup: Setup, eval_step: EvalStep, params: Params, datasets: dict[str, Dataset]
) -> dict[str, Float[np.ndarray, "example output"]]:
    """What an evaluation keeps of the logits of every example of several tasks, by task."""
    lengths = setup.lengths(datasets)
    return {name: split_logits(setup, eval_step, params, name, data, lengths[name]) for name, data in datasets.items()}


def scores_of(
    tasks: Mapping[str, Task],
    datasets: Mapping[str, Dataset],
    logits: Mapping[str, Float[np.ndarray, "example output"]],
) -> dict[str, Any]:
    """Scores of several tasks, as `score` gives them; empty where labels are missing.

    Where only some examples have labels, those are scored, and a warning says how many.
    """
    scored, labels = {}, {}
    for name, data in datasets.items():
        if data.labelled:
            rows = slice(None) if data.scored is None else data.scored
            scored[name], labels[name] = logits[name][rows], data.labels[rows]
        if data.labelled and data.scored is not None:
            counts = len(data.ids) - len(data.scored), len(data.ids), len(data.scored)
            logger.warning("task %s: %d of %d rows have no label; its scores are over the other %d", name, *counts)
    return score(tasks, scored, labels) if labels else {}


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
