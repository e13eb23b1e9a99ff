"""The methods of a task's kind and its metrics, called once: what is wrong with a plugin's shows before any step."""

import warnings
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from mtbert_jax.config import TaskConfig
from mtbert_jax.errors import InputError, failures_of
from mtbert_jax.programs import made_once
from mtbert_jax.tasks.kind import TaskKind
from mtbert_jax.tasks.metrics import Metric
from mtbert_jax.tasks.registry import kind_of

RESAMPLES = 3
"""Sets of examples that metrics are tried on; another number than that of the examples, which is 2."""


def check_methods(task: TaskConfig) -> None:
    """Calls the methods of a task's kind, and its metrics, for two examples: what is wrong shows before any step."""
    kind = kind_of(task)
    _check(task, kind, kind.metrics)


@made_once
def _check(task: TaskConfig, kind: TaskKind, metrics: tuple[Metric, ...]) -> None:
    """The same, once for a task, an object of its kind, and the metrics that the kind has by now."""
    each = (2, 3) if kind.has_places else (2,)
    texts = kind.reads == "texts"
    logits = np.zeros((*each, *([2] if texts else []), kind.num_outputs(task) or 2), np.float32)
    labels = np.zeros(each if kind.has_places else (2, *kind.label_shape(task)), np.float32)
    classes = 0 if kind.has_places else len(kind.classes(task))

    def predict() -> np.ndarray:
        return np.asarray(kind.predict(np.asarray(kind.kept(jnp.asarray(logits), jnp.asarray(labels)))), np.float64)

    shapes = {
        "loss": (lambda: jax.eval_shape(kind.loss, logits, labels), each),
        "batch_loss": (lambda: jax.eval_shape(kind.batch_loss, logits, labels, np.ones(2, np.float32)), ()),
        "divergence": (lambda: jax.eval_shape(kind.divergence, logits, logits), each),
        "one_sided": (lambda: jax.eval_shape(kind.one_sided, logits, logits), each),
        "probabilities": (lambda: jax.eval_shape(kind.probabilities, logits), (2, classes)),
        "predict": (predict, logits.shape if texts else labels.shape),
    }
    for name, (call, wanted) in shapes.items():
        with failures_of(f"kind {kind.name!r}: {name}"):
            found = call().shape
        if found != wanted:
            raise InputError(f"kind {kind.name!r}: {name} returns shape {found} for 2 examples; it must be {wanted}")
    predictions = predict()
    labels[1] = 1  # some scores are of labels that differ
    _try_metrics(metrics, predictions, labels)


def _try_metrics(metrics: Iterable[Metric], predictions: np.ndarray, labels: np.ndarray) -> None:
    """Calls the metrics that are not the library's own for one set of examples and for several, as intervals do."""
    sets = [np.repeat(values[None], RESAMPLES, axis=0) for values in (predictions, labels.astype(np.float64))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a score may be undefined for such examples
        for metric in metrics:
            # The library's own are tested, and Spearman's would wait for scipy.
            if getattr(metric.function, "__module__", None) != Metric.__module__:
                metric(*(values[0] for values in sets))
                metric.of_resamples(*sets)
                metric.on_unit(0.5)
                metric.on_unit(np.full(RESAMPLES, 0.5))
