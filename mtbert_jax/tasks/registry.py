"""All task kinds by name: how one is registered, how a metric is added, and which one a task is of."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, get_args

from mtbert_jax.config import TaskConfig
from mtbert_jax.config.schema import nearest
from mtbert_jax.errors import InputError
from mtbert_jax.protocols import must_be_name, must_extend, origin
from mtbert_jax.tasks.kind import Decision, Reads, TaskKind
from mtbert_jax.tasks.metrics import Metric, as_it_is

K = TypeVar("K", bound=type[TaskKind])
T = TypeVar("T", bound=TaskConfig)
M = TypeVar("M", bound=Callable[..., Any])

KINDS: dict[str, TaskKind] = {}
"""All kinds by name: this library's, and those that plugins register."""


def register_kind(name: str) -> Callable[[K], K]:
    """A decorator that makes a `TaskKind` known to configs.

    Args:
        name: What a config's `kind` calls it.

    Raises:
        InputError: The name is taken, or is none, or something in the class is missing or wrong.
    """
    must_be_name(name, "register_kind", "task kind ")

    def register(kind: K) -> K:
        must_extend(kind, TaskKind, f"task kind {name!r}")
        taken = KINDS.get(name)
        if taken is not None and origin(type(taken)) != origin(kind):
            raise InputError(f"task kind {name!r} cannot be registered: a kind of that name exists")
        if missing := [needed for needed in ("metrics", "decision") if not getattr(kind, needed, None)]:
            raise InputError(f"task kind {name!r} cannot be registered: the class lacks {', '.join(missing)}")
        if not isinstance(kind.metrics, tuple) or not all(isinstance(metric, Metric) for metric in kind.metrics):
            raise InputError(f"task kind {name!r} cannot be registered: metrics must be a tuple of mt.Metric")
        names = [metric.name for metric in kind.metrics]
        if len(set(names)) < len(names):
            raise InputError(f"task kind {name!r} cannot be registered: two metrics have one name: {', '.join(names)}")
        if kind.batch_loss is not TaskKind.batch_loss and not kind.of_batch:
            raise InputError(f"task kind {name!r} cannot be registered: a class with a batch_loss sets of_batch = True")
        for attribute, words in (("decision", get_args(Decision)), ("reads", get_args(Reads))):
            if (word := getattr(kind, attribute)) not in words:
                raise InputError(
                    f"task kind {name!r} cannot be registered: {attribute} = {word!r} is none of {', '.join(words)}"
                    f"{nearest(word, words)}"
                )
        kind.name = name
        KINDS[name] = kind()
        return kind

    return register


def register_metric(
    name: str,
    kinds: Sequence[str],
    *,
    best: Literal["max", "min"] = "max",
    to_unit: Callable[[Any], Any] = as_it_is,
) -> Callable[[M], M]:
    """A decorator that gives task kinds one metric more, which tables, records and a task's `metric` then know.

    The function takes predictions and labels, ``[... example]`` (and the axes of a label behind it), and returns a
    score for each of the leading axes: intervals call it with a thousand resamples at once.

    Args:
        name: Name of the metric.
        kinds: Names of the kinds.
        best: Whether a larger or a smaller value is better.
        to_unit: Map onto the unit interval, larger being better: how the metric enters the paper's average. If
            left out, the score itself, or 1 / (1 + e) of an error e.

    Raises:
        InputError: There is no such kind, it has another metric of that name, the name is none, or `best` is neither.
    """
    must_be_name(name, "register_metric", "metric ")
    if isinstance(kinds, str) or not isinstance(kinds, Sequence) or not kinds:
        raise InputError(f'metric {name!r}: kinds = {kinds!r}: give a list of names, such as ["binary"]')
    for kind_name in kinds:
        if not isinstance(kind_name, str) or kind_name not in KINDS:
            raise InputError(f"metric {name!r}: no task kind {kind_name!r}{nearest(kind_name, KINDS)}")

    def register(function: M) -> M:
        metric = Metric(name, function, best, to_unit)
        for kind_name in kinds:
            taken = next((metric for metric in KINDS[kind_name].metrics if metric.name == name), None)
            if taken is not None and origin(taken.function) != origin(function):
                raise InputError(f"metric {name!r} cannot be registered: kind {kind_name!r} has one of that name")
        for kind in [type(KINDS[kind_name]) for kind_name in kinds]:
            kind.metrics = (*(other for other in kind.metrics if other.name != name), metric)
        return function

    return register


def kind_of(task: TaskConfig) -> TaskKind:
    """The kind of a task; the `InputError` where there is none names the nearest known one."""
    if task.kind not in KINDS:
        known = ", ".join(KINDS)
        raise InputError(
            f"kind = {task.kind!r} is none of {known}{nearest(task.kind, KINDS)}; --plugins FILE can add one"
        )
    return KINDS[task.kind]


def primary_metric(task: TaskConfig) -> Metric:
    """The metric by which a task enters averages and tables: the task's own `metric`, or its kind's first."""
    metrics = kind_of(task).metrics
    if not task.metric:
        return metrics[0]
    named = {metric.name: metric for metric in metrics}
    if task.metric not in named:
        hint = nearest(task.metric, named)
        raise InputError(
            f"metric = {task.metric!r} is none of {', '.join(named)}, which kind = {task.kind!r} has{hint}"
        )
    return named[task.metric]


def counted(tasks: Sequence[T]) -> tuple[T, ...]:
    """The tasks that averages are of: those that predict something, or all where none does."""
    return tuple(task for task in tasks if not kind_of(task).auxiliary) or tuple(tasks)
