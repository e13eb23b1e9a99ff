"""The methods of a task's kind, called once: what is wrong with a plugin's shows before any step."""

import jax
import jax.numpy as jnp
import numpy as np

from mtbert_jax.config import TaskConfig
from mtbert_jax.errors import InputError, first_line
from mtbert_jax.programs import made_once
from mtbert_jax.tasks.kind import TaskKind
from mtbert_jax.tasks.registry import kind_of


def check_methods(task: TaskConfig) -> None:
    """Calls the methods of a task's kind for two examples: what is wrong with one shows before any step."""
    _check(task, kind_of(task))


@made_once
def _check(task: TaskConfig, kind: TaskKind) -> None:
    """The same, once for a task and an object of its kind."""
    each = (2, 3) if kind.has_places else (2,)
    texts = kind.reads == "texts"
    logits = np.zeros((*each, *([2] if texts else []), kind.num_outputs(task) or 2), np.float32)
    labels = np.zeros(each if kind.has_places else (2, *kind.label_shape(task)), np.float32)
    classes = 0 if kind.has_places else len(kind.classes(task))
    shapes = {
        "loss": (lambda: jax.eval_shape(kind.loss, logits, labels), each),
        "batch_loss": (lambda: jax.eval_shape(kind.batch_loss, logits, labels, np.ones(2, np.float32)), ()),
        "divergence": (lambda: jax.eval_shape(kind.divergence, logits, logits), each),
        "one_sided": (lambda: jax.eval_shape(kind.one_sided, logits, logits), each),
        "probabilities": (lambda: jax.eval_shape(kind.probabilities, logits), (2, classes)),
        "predict": (
            lambda: kind.predict(np.asarray(kind.kept(jnp.asarray(logits), jnp.asarray(labels)))),
            logits.shape if texts else labels.shape,
        ),
    }
    for name, (call, wanted) in shapes.items():
        try:
            found = call().shape
        except Exception as error:
            raise InputError(f"kind {kind.name!r}: {name}: {type(error).__name__}: {first_line(error)}") from error
        if found != wanted:
            raise InputError(f"kind {kind.name!r}: {name} returns shape {found} for 2 examples; it must be {wanted}")
