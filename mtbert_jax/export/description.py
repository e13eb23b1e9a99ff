"""What a run's tasks are, in words and numbers that need nothing of this library."""

from typing import Any, Literal

from mtbert_jax.config import Task
from mtbert_jax.config.schema import finite
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.reads import head_reads, inputs
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.version import __version__

Format = Literal["hf", "stablehlo"]


def describe_export(model: MultitaskModel, run: RunFolder, form: Format) -> dict[str, Any]:
    """What ``tasks.json`` says of an export, but for its files' names; ``parameters`` are student or teacher."""
    config = model.setup.config
    results = run.load_results() or {}
    dev = results.get("dev") if results.get("step") == model.step else None  # of this checkpoint, or of none
    scores = dev if isinstance(dev, dict) else {}
    return {
        "written_by": f"mtbert_jax {__version__}",
        "format": form,
        "run": run.path.resolve().name,
        "step": model.step,
        "parameters": config.evaluate,
        "compute_dtype": config.compute_dtype,
        "tasks": {name: _task(model, task, finite(scores.get(name))) for name, task in labelled_tasks(model).items()},
    }


def labelled_tasks(model: MultitaskModel) -> dict[str, Task]:
    """The tasks that predict labels: those that an export has heads of."""
    return {name: task for name, task in model.setup.tasks.items() if not kind_of(task).auxiliary}


def _task(model: MultitaskModel, task: Task, dev: Any) -> dict[str, Any]:
    """One task: what it reads, how its head is built, what its logits mean, and its scores on dev where known.

    ``classes`` are the labels in the order of the logits; a binary task's single logit is that of the second one.
    ``decision`` says how logits become a label: see `TaskKind`. ``inputs`` are those that the encoder reads of an
    example, each as the places of its texts.
    """
    kind, head = kind_of(task), task.head
    classes = kind.classes(task)
    return {
        "kind": task.kind,
        "text": list(task.text),
        "max_length": task.max_length,
        "classes": [kind.describe(task, n) if kind.one_class_each else name for n, name in enumerate(classes)],
        "decision": kind.decision,
        "label_range": finite(list(task.label_range)),
        "both_orders": task.both_orders,
        "outputs": kind.num_outputs(task),
        "pooling": head_reads(task),
        "inputs": [list(texts) for texts in inputs(task)],
        "hidden_layers": head.hidden_layers,
        "hidden_size": head.hidden_size or model.setup.encoder_config.hidden_size,
        "activation": "relu",
        "dropout": head.dropout,
        "dev": dev if isinstance(dev, dict) else None,
    }
