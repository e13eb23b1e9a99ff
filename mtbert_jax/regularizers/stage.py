"""The regularisers of a stage: those of its tables, then those of its call strings."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

from mtbert_jax.calls import Vocabulary, read_call
from mtbert_jax.config import Stage
from mtbert_jax.config.schema import describe, from_dict
from mtbert_jax.errors import InputError, failures_of
from mtbert_jax.regularizers.base import REGULARIZERS, Regularizer


def stage_regularizers(stage: Stage) -> tuple[Regularizer, ...]:
    """The regularisers that are on, in the order in which their terms are added.

    Raises:
        InputError: A call string names none (the nearest known one is named), or its options do not fit.
    """
    tables = [REGULARIZERS[field.name] for field in dataclasses.fields(stage) if field.name in REGULARIZERS]
    own = [cls(getattr(stage, cls.name)) for cls in tables if cls.table and getattr(stage, cls.name).weight]  # type: ignore[call-arg]
    free = sorted(name for name, cls in REGULARIZERS.items() if not cls.table)
    vocabulary = Vocabulary(
        unknown="unknown regularizer",
        example="my_regularizer(weight=1.0)",
        calls={name: functools.partial(_make, cls) for name, cls in REGULARIZERS.items()},
        accept=lambda value: value if isinstance(value, Regularizer) else None,
        wanted="a regularizer",
        known=f"known: {', '.join(free) or 'none'}; --plugins FILE can add one",
    )
    calls = [read_call(text, f"regularizers[{n}]", vocabulary) for n, text in enumerate(stage.regularizers)]
    names = [regularizer.name for regularizer in calls]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"regularizers: {name} stands there more than once, and its records would be one")
    if len(replacing := [one.name for one in calls if one.loss_share != 1]) > 1:
        raise InputError(f"regularizers: {' and '.join(replacing)} each replace the task's loss; take one of them")
    return (*own, *calls)


def check_regularizers(stage: Stage) -> None:
    """Refuses regularisers that do not exist, have no words, or need embeddings in a stage that keeps features."""
    for regularizer in stage_regularizers(stage):
        with failures_of(f"regularizer {regularizer.name}: describe"):
            told = regularizer.describe()
        if not isinstance(told, str):
            raise InputError(f"regularizer {regularizer.name}: describe returns {describe(told)}; it must be a string")
        if stage.cache_features and regularizer.needs_embeddings:
            raise InputError(
                f"stage {stage.name}: cache_features leaves no embeddings for {regularizer.name} to perturb; turn one "
                "of them off in this stage"
            )


def _make(cls: Callable[..., Regularizer], *values: Any, **named: Any) -> Regularizer:
    """A regulariser with options of the types that its fields have."""
    name = cls.name  # type: ignore[attr-defined]
    if cls.table:  # type: ignore[attr-defined]
        raise InputError(f"{name} is no call: its options are the table [{name}]")
    by_position = inspect.signature(cls).bind_partial(*values).arguments
    if doubled := by_position.keys() & named:
        raise InputError(f"{doubled.pop()} is given twice")
    return from_dict(cls, {**by_position, **named}, name)  # type: ignore[arg-type]
