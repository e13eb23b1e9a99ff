"""Metrics: functions of predictions and labels, on the host, in float64.

Tables, averages, the best checkpoint and bootstrap intervals all call the same `Metric`. They compute what functions
of scikit-learn and scipy compute (the tests compare them), and do not call those, for two reasons. An interval needs a
metric of a thousand resamples at once, which scikit-learn computes one by one. And scipy sums correlations by BLAS:
their last digit depends on where an array lies in memory, and the same run again would write another results file.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from mtbert_jax.config.schema import describe
from mtbert_jax.errors import InputError, failures_of

Predictions = Float[np.ndarray, "*leading example"]
"""Predictions or labels; leading axes are resamples, or seeds."""
GROUP = 64
"""Examples that the loss of contrastive learning compares with each other on dev: SimCSE's batch."""
NEIGHBOURS = 1024
"""Examples of which uniformity compares each two."""
NUMBERS = "biuf"
"""Kinds of NumPy's types that are numbers."""
LEAST_UNIFORMITY = 8.0
"""How far below 0 uniformity can be: where every two vectors were opposite."""


def as_it_is(score: Any) -> Any:
    """The map onto the unit interval of a score that lies there."""
    return score


@dataclass(frozen=True)
class Metric:
    """A score of predictions against labels.

    Its functions may be a plugin's: whatever they raise, or return that is no score, is an `InputError`.

    Attributes:
        name: Short name, as it stands in ``results.json`` and in a config's `metric`.
        function: ``(predictions, labels) → scores``, over the last axis (the example); NaN where it is undefined.
        best: Whether a larger or a smaller value is better.
        to_unit: Map onto the unit interval, larger being better: how the metric enters the paper's average. If
            left out, the score itself, or 1 / (1 + e) of an error e, which `best` marks as one.

    >>> ACCURACY(np.array([1.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0]))
    0.6666666666666666
    """

    name: str
    function: Callable[[Predictions, Predictions], Float[np.ndarray, "*leading"]]
    best: Literal["max", "min"] = "max"
    to_unit: Callable[[Any], Any] = as_it_is

    def __post_init__(self) -> None:
        """Refuses what is no function, and a `best` that is none."""
        if not callable(self.function) or not callable(self.to_unit):
            raise InputError(f"metric {self.name!r}: its function and to_unit must be functions")
        if self.best not in ("max", "min"):
            raise InputError(f"metric {self.name!r}: best = {self.best!r}: must be 'max' or 'min'")
        if self.best == "min" and self.to_unit is as_it_is:
            object.__setattr__(self, "to_unit", _of_error)

    def __call__(self, predictions: Predictions, labels: Predictions) -> float:
        """The score of one set of predictions, as a plain float; NaN where a prediction is not finite."""
        return float(self._scores(predictions, labels, 0))

    def of_resamples(self, predictions: Predictions, labels: Predictions) -> Float[np.ndarray, " resample"]:
        """The scores of many sets of predictions, ``[resample example]``; NaN for a set with one that is not finite."""
        return self._scores(predictions, labels, 1)

    def _scores(self, predictions: Predictions, labels: Predictions, leading: int) -> Float[np.ndarray, "*leading"]:
        predictions, labels = np.broadcast_arrays(predictions, labels)
        known, wanted = np.isfinite(predictions), predictions.shape[:leading]
        labels = labels.view()
        labels.flags.writeable = False  # a function that changed them would change the scores of all others
        with failures_of(f"metric {self.name!r}"):
            found = self.function(np.where(known, predictions, labels), labels)  # no function sees a NaN
            scores = np.asarray(found)
        self._must_be_numbers(scores, found, wanted, f"for predictions of shape {predictions.shape}")
        return np.where(known.reshape(*wanted, -1).all(axis=-1), scores, math.nan)

    def on_unit(self, score: float | Float[np.ndarray, "*leading"]) -> Float[np.ndarray, "*leading"]:
        """`to_unit` of a score, or of many."""
        with failures_of(f"metric {self.name!r}: to_unit"):
            found = self.to_unit(score)
            mapped = np.asarray(found)
        self._must_be_numbers(mapped, found, np.shape(score), f"by to_unit for scores of shape {np.shape(score)}")
        return mapped

    def _must_be_numbers(self, values: np.ndarray, found: object, shape: tuple[int, ...], given: str) -> None:
        if values.shape != shape or values.dtype.kind not in NUMBERS:
            what = f"shape {values.shape}" if values.dtype.kind in NUMBERS else describe(found)
            wanted = f"an array of shape {shape}, a number for each set of examples" if shape else "one number"
            raise InputError(f"metric {self.name!r} returns {what} {given}; it must return {wanted}")

    def gain(self, value: float) -> float:
        """A number that is larger the better the score is: the score itself, or its negative."""
        return value if self.best == "max" else -value


def accuracy(predictions: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """Share of predictions that equal their label."""
    return np.mean(predictions == labels, axis=-1)


def binary_f1(predictions: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """F1 of class 1; 0 where neither predictions nor labels hold it."""
    return _f1(predictions == 1, labels == 1)


def macro_f1(predictions: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """Mean F1 over the classes that predictions or labels hold."""
    classes = np.union1d(predictions, labels)
    scores = np.stack([_f1(predictions == c, labels == c) for c in classes])
    held = np.stack([np.any((predictions == c) | (labels == c), axis=-1) for c in classes])
    return np.sum(scores, axis=0, where=held) / np.sum(held, axis=0)


def _f1(predicted: np.ndarray, labelled: np.ndarray) -> Float[np.ndarray, "*leading"]:
    total = np.sum(predicted, axis=-1) + np.sum(labelled, axis=-1)
    return 2 * np.sum(predicted & labelled, axis=-1) / np.maximum(total, 1)


def micro_f1(predictions: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """2 TP / (2 TP + FP + FN) over all examples and classes, of 0 or 1 for each; 0 where neither side holds a class."""
    leading = predictions.shape[:-2]
    return _f1(*(values.reshape(*leading, -1) == 1 for values in (predictions, labels)))


def label_macro_f1(predictions: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """Mean over all classes of each one's F1, of 0 or 1 for each; 0 for a class that neither side holds."""
    return np.mean(_f1(*(np.moveaxis(values, -1, -2) == 1 for values in (predictions, labels))), axis=-1)


def of_largest_accuracy(predictions: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """`accuracy` of the classes with the largest probability."""
    return accuracy(np.argmax(predictions, axis=-1), np.argmax(labels, axis=-1))


def of_largest_f1(predictions: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """`macro_f1` of the classes with the largest probability."""
    return macro_f1(np.argmax(predictions, axis=-1), np.argmax(labels, axis=-1))


def cross_entropy(predictions: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """Mean of -Σ y log p over the classes, in nats; a p below the least float32 counts as that."""
    least = np.finfo(np.float32).tiny
    return np.mean(-np.sum(labels * np.log(np.maximum(predictions, least)), axis=-1), axis=-1)


def span_f1(predictions: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """F1 of whole spans, ``[... example word]``, as seqeval and conlleval count them; 0 where there are none.

    A tag is 0 outside of spans, 2 t + 1 where one of type t begins and 2 t + 2 where it goes on; below 0 there is no
    word. A span that goes on without having begun, or with another type, begins there. One is right if beginning, end
    and type are.
    """
    leading = predictions.shape[:-2]
    pairs = zip(*(values.reshape(-1, *values.shape[-2:]) for values in (predictions, labels)), strict=True)
    scores = []
    for said, gold in pairs:  # one by one, since a thousand resamples of all words are more than memory holds
        (said_starts, said_ends, said_types), (starts, ends, types) = map(_spans, (said, gold))
        hits = said_starts & starts & (said_ends == ends) & (said_types == types)
        scores.append(2 * hits.sum() / max(said_starts.sum() + starts.sum(), 1))
    return np.array(scores).reshape(leading)


def _spans(tags: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where spans begin, and for each such place where the span ends and its type; ``[example word]``."""
    tags = np.maximum(tags.astype(np.int64), 0)
    types = (tags - 1) // 2  # -1 outside
    before = np.pad(types, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    starts = (types >= 0) & ((tags % 2 == 1) | (types != before))
    inside = np.pad((types >= 0) & ~starts, ((0, 0), (0, 1)))[:, 1:]  # whether the next word goes on with a span
    places = np.where(inside, tags.shape[1], np.arange(tags.shape[1]))
    return starts, np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1], types


def word_accuracy(predictions: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """Share of words, ``[... example word]``, whose tag is right; labels below 0 are no words."""
    words = labels >= 0
    return np.sum((predictions == labels) & words, axis=(-2, -1)) / np.maximum(np.sum(words, axis=(-2, -1)), 1)


def masked_loss(losses: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """Mean loss over all hidden tokens, in nats, ``[... example place]``; labels below 0 are no places."""
    there = labels >= 0
    return np.sum(losses * there, axis=(-2, -1)) / np.maximum(np.sum(there, axis=(-2, -1)), 1)


def perplexity(losses: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """Exp of `masked_loss`."""
    return np.exp(masked_loss(losses, labels))


def contrastive_loss(vectors: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """Mean loss of `contrastive`, in nats, of the vectors of two texts each, ``[... example 2 hidden]``.

    The negatives of an example are those of its group, of `GROUP` examples that follow each other, or a few less: so
    the loss depends on no batch size.
    """

    def of(rows: np.ndarray) -> float:
        losses = []
        for group in np.array_split(rows, -(-len(rows) // GROUP)):
            u, v = np.moveaxis(group, 1, 0)
            similarities = u @ v.T
            losses.append(np.logaddexp.reduce(similarities, axis=1) - np.diagonal(similarities))
        return float(np.mean(np.concatenate(losses)))

    return _of_each(of, vectors)


def alignment(vectors: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """Mean squared distance of the unit vectors of positive pairs (Wang and Isola 2020, section 4.1, α = 2)."""

    def of(rows: np.ndarray) -> float:
        u, v = np.moveaxis(unit(rows), 1, 0)
        return float(np.mean(np.sum(np.square(u - v), axis=-1)))

    return _of_each(of, vectors)


def uniformity(vectors: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """Log of the mean of exp(-2 ‖x - y‖²) over pairs of texts (Wang and Isola 2020, section 4.1, t = 2).

    Pairs are of two first texts or of two second ones, among `NEIGHBOURS` examples that follow each other, or a few
    less; NaN where there is one example alone.
    """

    def of(rows: np.ndarray) -> float:
        total, count = 0.0, 0
        for group in np.array_split(rows, -(-len(rows) // NEIGHBOURS)):
            for own in np.moveaxis(unit(group), 1, 0):
                distances = np.maximum(2 - 2 * own @ own.T, 0)[np.triu_indices(len(own), 1)]
                total, count = total + float(np.sum(np.exp(-2 * distances))), count + len(distances)
        return math.log(total / count) if count else math.nan

    return _of_each(of, vectors)


def unit(vectors: Float[np.ndarray, "*leading hidden"]) -> Float[np.ndarray, "*leading hidden"]:
    """Vectors divided by their lengths; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _of_each(of: Callable[[np.ndarray], float], vectors: Predictions) -> Float[np.ndarray, "*leading"]:
    """`of` of each set of examples."""
    leading = vectors.shape[:-3]
    return np.array([of(rows) for rows in vectors.reshape(-1, *vectors.shape[-3:])]).reshape(leading)


def pearson(x: Predictions, y: Predictions) -> Float[np.ndarray, "*leading"]:
    """Pearson's r; NaN for fewer than two examples, where one side is constant, or where a value is not finite."""
    x, y = np.broadcast_arrays(x, y)
    if x.shape[-1] < 2:
        return np.full(x.shape[:-1], math.nan)
    rows = zip(x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]), strict=True)
    return np.array([_pearson_of_row(*row) for row in rows]).reshape(x.shape[:-1])


def _pearson_of_row(x: Float[np.ndarray, " example"], y: Float[np.ndarray, " example"]) -> float:
    finite = np.isfinite(x).all() and np.isfinite(y).all()
    if not finite or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    try:
        return statistics.correlation(x.tolist(), y.tolist())  # exactly rounded sums
    except statistics.StatisticsError:  # a spread so small that its square is 0
        return math.nan


def spearman(x: Predictions, y: Predictions) -> Float[np.ndarray, "*leading"]:
    """Spearman's ρ: Pearson's r of the ranks, ties sharing their mean rank."""
    from scipy import stats  # here, since it takes longer to import than the rest of this package

    x, y = np.broadcast_arrays(x, y)
    finite = np.isfinite(x).all(axis=-1) & np.isfinite(y).all(axis=-1)
    return np.where(finite, pearson(stats.rankdata(x, axis=-1), stats.rankdata(y, axis=-1)), math.nan)


def mean_absolute_error(predictions: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """Mean of |prediction - label|, in the label's units."""
    return np.mean(np.abs(predictions - labels), axis=-1)


def root_mean_squared_error(predictions: Predictions, labels: Predictions) -> Float[np.ndarray, "*leading"]:
    """Root of the mean of (prediction - label)², in the label's units."""
    return np.sqrt(np.mean(np.square(predictions - labels), axis=-1))


def _half_up(correlation: Float[np.ndarray, "*leading"]) -> Float[np.ndarray, "*leading"]:
    return (correlation + 1) / 2


def _of_error(error: Float[np.ndarray, "*leading"]) -> Float[np.ndarray, "*leading"]:
    return 1 / (1 + error)


ACCURACY = Metric("accuracy", accuracy)
BINARY_F1 = Metric("f1", binary_f1)
MACRO_F1 = Metric("f1", macro_f1)
MICRO_F1 = Metric("micro_f1", micro_f1)
LABEL_MACRO_F1 = Metric("macro_f1", label_macro_f1)
OF_LARGEST_ACCURACY = Metric("accuracy", of_largest_accuracy)
OF_LARGEST_F1 = Metric("f1", of_largest_f1)
CROSS_ENTROPY = Metric("cross_entropy", cross_entropy, best="min", to_unit=_of_error)
SPAN_F1 = Metric("f1", span_f1)
WORD_ACCURACY = Metric("accuracy", word_accuracy)
MASKED_LOSS = Metric("loss", masked_loss, best="min", to_unit=lambda loss: np.exp(-loss))
PERPLEXITY = Metric("perplexity", perplexity, best="min", to_unit=lambda value: 1 / value)
CONTRASTIVE_LOSS = Metric("loss", contrastive_loss, best="min", to_unit=lambda loss: np.exp(-loss))
ALIGNMENT = Metric("alignment", alignment, best="min", to_unit=_of_error)
UNIFORMITY = Metric("uniformity", uniformity, best="min", to_unit=lambda value: -value / LEAST_UNIFORMITY)
PEARSON = Metric("pearson", pearson, to_unit=_half_up)
SPEARMAN = Metric("spearman", spearman, to_unit=_half_up)
MAE = Metric("mae", mean_absolute_error, best="min", to_unit=_of_error)
RMSE = Metric("rmse", root_mean_squared_error, best="min", to_unit=_of_error)
