"""The batch at step k, as a pure function of (seed, k): there is no iterator, so a resumed run sees the same batches.

An epoch of a task is a permutation of its rows, sorted into a few lengths and cut into batches whose order is shuffled
again: every row comes once (those of rare classes more often, if asked for), and little padding is computed. The order
of the lengths and that of the tasks are the same for every seed, only the rows differ: so runs of several seeds can
step together, in one program of one length.
"""

import functools
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from mtbert_jax.config import Order
from mtbert_jax.data.augment import Augmentation
from mtbert_jax.data.balance import epoch_counts, epoch_rows
from mtbert_jax.data.masking import Masking, most_places
from mtbert_jax.data.tokens import Tokens
from mtbert_jax.types import Batch, FeatureBatch

Rows = Int[np.ndarray, " example"]
Labels = Float[np.ndarray, "example *label"]
Weights = Float[np.ndarray, " example"]
ANNEALING = 0.8
"""How far `annealed` sampling moves towards equal shares by the last epoch (Stickland and Murray 2019, section 4.1)."""


def make_batch(
    tokens: Tokens, labels: Labels, rows: Rows, length: int, batch_size: int, weights: Weights | None = None
) -> Batch:
    """Gathers `rows` into arrays of shape ``[batch_size length]``; what is left over is padding of weight 0.

    With several inputs an example the shape is ``[batch_size input length]``.

    Examples weigh 1 each where `weights` does not say otherwise. One of whose words none has a label, such as an empty
    text, weighs nothing: it has no loss, which would count as 0 in the mean.
    """
    arrays = input_ids, attention_mask, token_type_ids = np.zeros((3, batch_size * tokens.inputs, length), np.int32)
    for place, own in enumerate(tokens.inputs_of(rows)):
        ids = tokens.ids[tokens.starts[own] : tokens.starts[own + 1]]
        input_ids[place, : len(ids)] = ids
        attention_mask[place, : len(ids)] = 1
        token_type_ids[place, tokens.first[own] : len(ids)] = 1
    attention_mask[len(rows) * tokens.inputs :, 0] = 1  # a filler attends to itself, so that it stays finite
    if tokens.inputs > 1:
        input_ids, attention_mask, token_type_ids = arrays.reshape(3, batch_size, tokens.inputs, length)
    padded_weights = _row_weights(weights, rows, batch_size)
    if tokens.words is None:
        padded_labels = _padded(labels[rows], batch_size)
        return Batch(input_ids, attention_mask, token_type_ids, padded_labels, padded_weights)  # type: ignore[arg-type]
    positions, place_labels = _of_words(tokens, labels, rows, (batch_size, most_places(length, tokens.places)))
    padded_weights = padded_weights * (place_labels >= 0).any(axis=1)
    return Batch(input_ids, attention_mask, token_type_ids, place_labels, padded_weights, positions)  # type: ignore[arg-type]


def _of_words(
    tokens: Tokens, labels: Labels, rows: Rows, shape: tuple[int, int]
) -> tuple[Int[np.ndarray, "batch place"], Float[np.ndarray, "batch place"]]:
    """Where the words of the rows begin, and their labels: -1 for words that are cut off, and beyond the last."""
    positions, own_labels = np.full(shape, -1, np.int32), np.full(shape, -1, np.float32)
    width = min(shape[1], labels.shape[1])
    own_labels[: len(rows), :width] = labels[rows, :width]
    for place, row in enumerate(rows):
        words = tokens.words[tokens.starts[row] : tokens.starts[row + 1]]  # type: ignore[index]
        begins = np.flatnonzero(words >= 0)
        positions[place, words[begins]] = begins
    own_labels[positions < 0] = -1
    return positions, own_labels


def make_feature_batch(
    features: Float[np.ndarray, "example hidden"],
    labels: Labels,
    rows: Rows,
    batch_size: int,
    weights: Weights | None = None,
) -> FeatureBatch:
    """Gathers `rows` into arrays of `batch_size` rows; what is left over is zeros of weight 0."""
    return FeatureBatch(
        _padded(features[rows], batch_size),  # type: ignore[arg-type]
        _padded(labels[rows], batch_size),  # type: ignore[arg-type]
        _row_weights(weights, rows, batch_size),  # type: ignore[arg-type]
    )


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    """`values` with rows of zeros below them, up to `size` rows."""
    return np.concatenate([values, np.zeros((size - len(values), *values.shape[1:]), values.dtype)])


def _row_weights(weights: Weights | None, rows: Rows, batch_size: int) -> Float[np.ndarray, " batch"]:
    own = np.ones(len(rows), np.float32) if weights is None else weights[rows]
    return _padded(own, batch_size)


@dataclass(frozen=True, eq=False)
class TaskBatches:
    """The endless stream of one task's training batches.

    Attributes:
        name: The task's; streams of different tasks differ through it.
        labels: Labels of all examples, ``[example *label]``.
        lengths: The lengths that batches are padded to, ascending.
        seed: Seeds of the stream: the run's, then those that it has in common with runs of other seeds.
        weights: Weights of the examples in the loss, above 0; all 1 if left out.
        features: What a frozen encoder says of every example: then batches hold that in place of tokens.
        size: Rows of a batch, at least `batch_size`; those beyond are fillers. 0 takes `batch_size`.
        masking: Where tokens are hidden: others in every batch, by the seeds, its number and the rows. `tokens` and
            `labels` are then not looked at, but for lengths.
        augmentation: How texts are changed, in each batch otherwise: by the seeds, its number and the rows. `tokens` is
            then not looked at.
    """

    name: str
    tokens: Tokens
    labels: Labels
    batch_size: int
    lengths: np.ndarray
    seed: tuple[int, ...]
    weights: Weights | None = None
    sampling_balance: float = 0.0
    features: Float[np.ndarray, "example hidden"] | None = None
    size: int = 0
    masking: Masking | None = None
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        # One epoch's plan at a time; a cache per object, since arrays are not hashable.
        object.__setattr__(self, "_plan", functools.lru_cache(maxsize=2)(self._plan_epoch))

    @functools.cached_property
    def num_examples(self) -> int:
        """Examples in an epoch; one that is repeated counts every time."""
        if not self.sampling_balance:
            return len(self.labels)
        return int(epoch_counts(self.labels, self.sampling_balance).sum())

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return math.ceil(self.num_examples / self.batch_size)

    def __getitem__(self, index: int) -> Batch | FeatureBatch:
        """Batch number `index`, counted from the first step of the first epoch."""
        return self.part(index, slice(0, self.num_rows))

    @property
    def num_rows(self) -> int:
        """Rows of a batch, fillers included."""
        return self.size or self.batch_size

    def part(self, index: int, place: slice, length: int = 0) -> Batch | FeatureBatch:
        """The rows `place` of batch `index`, padded to the batch's own length, or to `length` if that is longer."""
        rows, own_length = self.rows(index)
        size = place.stop - place.start
        return self.gathered(index, rows[place], max(length, own_length), size)

    def gathered(self, index: int, rows: Rows, length: int, size: int) -> Batch | FeatureBatch:
        """Some rows of batch `index`, padded to `length` tokens, and to `size` rows."""
        if self.features is not None:
            return make_feature_batch(self.features, self.labels, rows, size, self.weights)
        seed = (*self.seed, zlib.crc32(self.name.encode()), index)
        if self.masking is not None:
            tokens, labels = self.masking.masked(rows, seed)
            return make_batch(tokens, labels, np.arange(len(rows)), length, size)
        if self.augmentation is not None:
            tokens = self.augmentation.changed(rows, seed)
            weights = None if self.weights is None else self.weights[rows]
            return make_batch(tokens, self.labels[rows], np.arange(len(rows)), length, size, weights)
        return make_batch(self.tokens, self.labels, rows, length, size, self.weights)

    def rows(self, index: int) -> tuple[Rows, int]:
        """The rows of batch `index` and the length that they are padded to."""
        epoch, place = divmod(index, self.per_epoch)
        rows: Rows = self._plan(epoch)[place]  # type: ignore[attr-defined]
        return rows, int(self.lengths[self._buckets[rows].max()])

    @functools.cached_property
    def _buckets(self) -> Int[np.ndarray, " example"]:
        longest = self.tokens.lengths if self.augmentation is None else self.augmentation.longest
        return np.searchsorted(self.lengths, longest)

    def _plan_epoch(self, epoch: int) -> list[Rows]:
        stream = zlib.crc32(self.name.encode())
        rng = np.random.default_rng([*self.seed, stream, epoch])
        shuffled = rng.permutation(epoch_rows(self.labels, self.sampling_balance, rng))
        by_length = shuffled[np.argsort(self._buckets[shuffled], kind="stable")]
        # Which rows come together is the seed's; in which order the lengths come is not: see the module.
        common = np.random.default_rng([*self.seed[1:], stream, epoch])
        # The one batch that is not full stands anywhere, so that no row is in it more often than others.
        sizes = np.full(self.per_epoch, self.batch_size)
        sizes[common.integers(self.per_epoch)] -= self.per_epoch * self.batch_size - self.num_examples
        batches = np.split(by_length, np.cumsum(sizes)[:-1])
        return [batches[place] for place in common.permutation(self.per_epoch)]


@dataclass(frozen=True, eq=False)
class TrainBatches:
    """All tasks' batches in the order of a stage, which ends after so many `epochs`, or `steps` if that is not 0.

    The `seed` of drawn orders is the same for runs of every seed. `exponent` and `cap` are those of the order
    `temperature`: a task is drawn by min(examples, cap) to the power of the exponent; a cap of 0 is none.
    """

    tasks: dict[str, TaskBatches]
    order: Order
    epochs: float
    steps: int
    seed: tuple[int, ...]
    exponent: float = 1.0
    cap: int = 0

    @functools.cached_property
    def steps_per_epoch(self) -> int:
        """Steps that see as many examples as all tasks hold together."""
        if self.order == "round_robin":
            examples = sum(task.num_examples for task in self.tasks.values())
            return math.ceil(examples / sum(task.batch_size for task in self.tasks.values()))
        return sum(task.per_epoch for task in self.tasks.values())

    @functools.cached_property
    def num_steps(self) -> int:
        """Steps of the stage."""
        return self.steps or max(1, round(self.epochs * self.steps_per_epoch))

    @property
    def trained(self) -> set[str]:
        """The tasks that have a step."""
        return set(self.tasks) if self.order == "round_robin" else {[*self.tasks][n] for n in np.unique(self._drawn[0])}

    def names(self, step: int) -> tuple[str, ...]:
        """The tasks of step `step`, counted from the stage's first."""
        if self.order == "round_robin":
            return tuple(self.tasks)
        return (list(self.tasks)[self._drawn[0][step]],)

    def indices(self, step: int) -> dict[str, int]:
        """For each task of a step, the number of its batch."""
        if self.order == "round_robin":
            return dict.fromkeys(self.tasks, step)
        return {self.names(step)[0]: int(self._drawn[1][step])}

    def with_features(self, features: dict[str, Float[np.ndarray, "example hidden"]]) -> "TrainBatches":
        """The same examples in the same order, as a frozen encoder sees them."""
        tasks = {name: replace(task, features=features[name]) for name, task in self.tasks.items()}
        return replace(self, tasks=tasks)

    def __getitem__(self, step: int) -> dict[str, Batch | FeatureBatch]:
        """The batches of step `step`, by task."""
        return {name: self.tasks[name][index] for name, index in self.indices(step).items()}

    @functools.cached_property
    def _drawn(self) -> tuple[Int[np.ndarray, " step"], Int[np.ndarray, " step"]]:
        """For orders with one task a step: which task, and how many batches it has had before."""
        epochs = math.ceil(self.num_steps / self.steps_per_epoch)
        drawn = np.concatenate([self._draw_epoch(epoch, epochs) for epoch in range(epochs)])[: self.num_steps]
        before = np.zeros(len(drawn), np.int64)
        for number in range(len(self.tasks)):
            places = np.flatnonzero(drawn == number)
            before[places] = np.arange(len(places))
        return drawn, before

    def _draw_epoch(self, epoch: int, epochs: int) -> Int[np.ndarray, " step"]:
        counts = np.array([task.per_epoch for task in self.tasks.values()])
        if self.order == "sequential":
            return np.repeat(np.arange(len(counts)), counts)
        sizes, power = np.array([task.num_examples for task in self.tasks.values()], float), 1.0
        if self.order == "annealed":
            power -= ANNEALING * epoch / max(epochs - 1, 1)
        elif self.order == "temperature":
            sizes, power = np.minimum(sizes, self.cap or np.inf), self.exponent
        shares = sizes**power
        rng = np.random.default_rng([*self.seed, epoch])
        return rng.choice(len(counts), size=self.steps_per_epoch, p=shares / shares.sum())


def evaluation_batches(
    tokens: Tokens,
    labels: Labels,
    batch_size: int,
    lengths: np.ndarray,
    features: Float[np.ndarray, "example hidden"] | None = None,
) -> Iterator[tuple[Rows, Batch | FeatureBatch]]:
    """Every row once: the rows of each batch and the batch, of tokens, sorted by length, or of features, in order."""
    order = np.argsort(tokens.lengths, kind="stable") if features is None else np.arange(len(labels))
    buckets = np.searchsorted(lengths, tokens.lengths)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        if features is None:
            yield rows, make_batch(tokens, labels, rows, int(lengths[buckets[rows].max()]), batch_size)
        else:
            yield rows, make_feature_batch(features, labels, rows, batch_size)
