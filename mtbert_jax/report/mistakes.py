"""Where the dev predictions of a task are wrong most."""

import numpy as np

from mtbert_jax.report.contents import Judgement
from mtbert_jax.tasks import kind_of

FEW = 5  # gold labels of a class or band: of fewer nothing is said
BANDS = 4  # of numbers as labels


def where_it_errs(one: Judgement) -> str:
    """The class that is missed most, or the band of gold numbers that predictions are furthest from; a sentence."""
    kind, task = kind_of(one.task), one.task
    labels, count = one.labels, len(one.examples)
    if not count or not np.isfinite(one.predicted).all():
        return f"{task.name}: some dev predictions are not finite." if count else ""
    missed = int(np.count_nonzero(kind.errors(one.predicted, labels) > 0))
    if not missed:
        return f"{task.name}: no dev example is missed."
    if kind.label_shape(task):
        return f"{task.name}: {missed} of {count} dev examples are missed, wholly or in part."
    return _worst_class(one) if kind.one_class_each else _worst_band(one)


def _worst_class(one: Judgement) -> str:
    names = kind_of(one.task).classes(one.task)
    gold, said = one.labels.astype(int), one.predicted.astype(int)
    if len(set(said.tolist())) == 1:
        return f"{one.task.name}: every dev example is predicted to be {names[said[0]]}."
    recalls = recalls_of(one)
    if not recalls:
        return ""
    worst = min(recalls, key=lambda name: recalls[name][0] / recalls[name][1])
    right, total = recalls[worst]
    if right == total:
        return ""
    others = said[(gold == names.index(worst)) & (said != gold)]
    instead = names[int(np.bincount(others).argmax())]
    found = f"{right} of {total} are right, and it is mostly taken for {instead}"
    return f"{one.task.name} errs most on class {worst}: {found}."


def recalls_of(one: Judgement) -> dict[str, tuple[int, int]]:
    """Right predictions and gold labels of every class that has `FEW` labels or more, by its name."""
    names = kind_of(one.task).classes(one.task)
    own = {name: one.labels == place for place, name in enumerate(names)}
    return {
        name: (int(np.count_nonzero(one.predicted[rows] == one.labels[rows])), int(np.count_nonzero(rows)))
        for name, rows in own.items()
        if np.count_nonzero(rows) >= FEW
    }


def _worst_band(one: Judgement) -> str:
    labels = one.labels
    ends = np.linspace(labels.min(), labels.max(), BANDS + 1)
    bands = np.clip(np.searchsorted(ends, labels, side="right") - 1, 0, BANDS - 1)
    errors = one.predicted - labels
    known = [band for band in range(BANDS) if np.count_nonzero(bands == band) >= FEW]
    if not known or ends[0] == ends[-1]:
        return f"{one.task.name}: the mean absolute error on dev is {np.abs(errors).mean():.2f}."
    worst = max(known, key=lambda band: float(np.abs(errors[bands == band]).mean()))
    own = errors[bands == worst]
    bias = float(own.mean())
    return (
        f"{one.task.name} is furthest off for gold values from {ends[worst]:.3g} to {ends[worst + 1]:.3g}: the mean "
        f"absolute error is {np.abs(own).mean():.2f} over {len(own)} examples (all: {np.abs(errors).mean():.2f}), and "
        f"predictions are {abs(bias):.2f} too {'high' if bias > 0 else 'low'} on average."
    )
