"""What a config makes of its datasets: the lengths that they are padded to, and the batches of every stage."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mtbert_jax.config import Config, Stage
from mtbert_jax.data.balance import loss_weights
from mtbert_jax.data.batches import TaskBatches, TrainBatches
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.data.lengths import Ladder, fit_ladder, ladder


def padded_lengths(config: Config, *splits: dict[str, Dataset], alike: bool = False) -> dict[str, Ladder]:
    """The lengths that each task's batches are padded to: the config's, or those that fit all these splits.

    If `alike`, every task counts the same, however many examples it has, as when each is in every step.
    """
    limits = {task.name: task.max_length for task in config.resolved_tasks()}
    names = [name for split in splits for name in split]
    if config.lengths:
        return {name: ladder(config.lengths, limits[name]) for name in names}
    counts = np.zeros(1 + max(limits.values()))
    for data in (data for split in splits for data in split.values()):
        counts += np.bincount(data.tokens.lengths, minlength=len(counts)) / (len(data.ids) if alike else 1)
    return dict.fromkeys(names, fit_ladder(counts, config.max_shapes, len(counts) - 1))


def stage_batches(
    config: Config, number: int, stage: Stage, train: dict[str, Dataset], size: Callable[[int], int]
) -> TrainBatches:
    """The batches of stage `number`, from 0, of its tasks; `size` makes rows, fillers included, of so many examples."""
    seed = (config.seed, number)
    tasks = {task.name: task for task in config.tasks}
    train = {name: data for name, data in train.items() if name in stage.tasks}
    lengths = padded_lengths(config, train, alike=stage.order == "round_robin")
    streams = {}
    for name, data in train.items():
        batch_size = tasks[name].batch_size or stage.batch_size
        streams[name] = TaskBatches(
            name,
            data.tokens,
            data.labels,
            batch_size,
            lengths[name],
            seed,
            weights=loss_weights(tasks[name], data.labels),
            sampling_balance=tasks[name].sampling_balance,
            size=size(batch_size),
            masking=data.masking,
            augmentation=data.augmentation,
        )
    drawn = {"exponent": stage.sampling_exponent, "cap": stage.sampling_cap}
    return TrainBatches(streams, stage.order, stage.epochs, stage.steps, seed[1:], **drawn)  # type: ignore[arg-type]


class Shapes(NamedTuple):
    """What the first epoch of a stage computes.

    Attributes:
        batches: How many batches there are of each shape, ``(rows, length)``, in ascending order; a row is an input.
        computed: Tokens in all of them, padding and fillers included.
        real: Tokens of examples.
    """

    batches: dict[tuple[int, int], int]
    computed: int
    real: int


def epoch_shapes(batches: TrainBatches) -> Shapes:
    """The shapes of a stage's first epoch, or of the whole stage where that is shorter."""
    found: Counter[tuple[int, int]] = Counter()
    real = 0
    for step in range(min(batches.steps_per_epoch, batches.num_steps)):
        for name, index in batches.indices(step).items():
            stream = batches.tasks[name]
            rows, length = stream.rows(index)
            tokens = stream.tokens
            found[stream.num_rows * tokens.inputs, length] += 1
            real += int(np.sum(np.diff(tokens.starts)[tokens.inputs_of(rows)]))
    computed = sum(rows * length * count for (rows, length), count in found.items())
    return Shapes(dict(sorted(found.items())), computed, real)
