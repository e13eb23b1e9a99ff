"""The methods of a task's kind and its metrics, called once: what is wrong with a plugin's shows before any step."""

import json
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtbert_jax.config import TaskConfig
from mtbert_jax.config.schema import describe
from mtbert_jax.errors import InputError, failures_of
from mtbert_jax.programs import made_once
from mtbert_jax.tasks.kind import TaskKind
from mtbert_jax.tasks.metrics import Metric
from mtbert_jax.tasks.registry import kind_of

SAID: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "label_shape": ("a tuple of whole numbers", lambda found: _is_tuple_of(int, found)),
    "classes": ("a tuple of strings", lambda found: _is_tuple_of(str, found)),
    "num_outputs": ("a whole number of at least 0", lambda found: isinstance(found, int) and found >= 0),
    "expected": ("a string", lambda found: isinstance(found, str)),
    "reads_label": ("True or False", lambda found: isinstance(found, bool)),
}
"""Methods that say something of a task without its data: what they must return."""
RESAMPLES = 3
"""Sets of examples that metrics are tried on; another number than that of the examples, which is 2."""


def check_fields(task: TaskConfig) -> None:
    """Checks a task's own fields by its kind, and that what the kind says of the task is of the types it must have."""
    kind = kind_of(task)
    with failures_of(f"kind {kind.name!r}: check"):
        kind.check(task)
    for name, (wanted, is_right) in SAID.items():
        with failures_of(f"kind {kind.name!r}: {name}"):
            found = getattr(kind, name)(task)
        if not is_right(found):
            raise InputError(f"kind {kind.name!r}: {name} returns {describe(found)}; it must be {wanted}")


def check_methods(task: TaskConfig) -> None:
    """Calls the methods of a task's kind, and its metrics, for two examples: what is wrong shows before any step."""
    check_fields(task)
    kind = kind_of(task)
    _check(task, kind, kind.metrics)


def check_methods_again(task: TaskConfig) -> None:
    """`check_methods` of a plugin's kind, which may be another than in training; the library's own are the same."""
    if type(kind_of(task)).__module__.partition(".")[0] != __name__.partition(".")[0]:
        check_methods(task)


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
    if not kind.auxiliary:
        _try_predictions(task, kind, predictions, labels)
    labels[1] = 1  # some scores are of labels that differ
    _try_metrics(metrics, predictions, labels)


def _is_tuple_of(one: type, found: Any) -> bool:
    return isinstance(found, tuple) and all(isinstance(item, one) for item in found)


def _try_predictions(task: TaskConfig, kind: TaskKind, predictions: np.ndarray, labels: np.ndarray) -> None:
    """Calls what prediction files, `predict` and reports make of predictions."""
    with failures_of(f"kind {kind.name!r}: describe"):
        found = kind.describe(task, predictions[0])
    try:
        json.dumps(found)
    except (TypeError, ValueError):
        raise InputError(
            f"kind {kind.name!r}: describe returns {describe(found)}; it must be what JSON can hold, such as a string, "
            "a number of Python's or a list of them"
        ) from None
    with failures_of(f"kind {kind.name!r}: format"):
        text = kind.format(task, predictions[0])
    if not isinstance(text, str):
        raise InputError(f"kind {kind.name!r}: format returns {describe(text)}; it must be a string")
    with failures_of(f"kind {kind.name!r}: errors"):
        shape = np.shape(kind.errors(predictions, labels.astype(np.float64)))
    if shape != (2,):
        raise InputError(f"kind {kind.name!r}: errors returns shape {shape} for 2 examples; it must be (2,)")


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
                low, high = float(metric.on_unit(0.25)), float(metric.on_unit(0.75))
                if low > high if metric.best == "max" else low < high:
                    raise InputError(
                        f"metric {metric.name!r}: to_unit makes {low:g} of a score of 0.25 and {high:g} of 0.75, and "
                        f"with best = {metric.best!r} the better score must get the larger number"
                    )
