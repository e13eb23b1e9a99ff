"""What steps on one task do to the losses of the others: means over a run's looks, and sentences about them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mtbert_jax.training.records import Record

SIGMAS = 3.0
"""Standard errors by which a mean effect must differ from zero to be spoken of."""
FEWEST_LOOKS = 5


class Effect(NamedTuple):
    """The mean share by which a loss falls, its standard error, and the number of looks."""

    mean: float
    error: float
    looks: int

    @property
    def is_clear(self) -> bool:
        """Whether it differs from zero by more than chance would have it."""
        return self.looks >= FEWEST_LOOKS and abs(self.mean) > SIGMAS * self.error


def mean_effects(looks: Sequence[Record]) -> dict[str, dict[str, Effect]]:
    """The mean effects on record, by the task that was stepped on and the task whose loss was looked at."""
    tasks = list(dict.fromkeys(task for record in looks for task in record["effect"]))
    found: dict[str, dict[str, Effect]] = {one: {} for one in tasks}
    for one in tasks:
        for other in tasks:
            values = [record["effect"].get(one, {}).get(other) for record in looks]
            known = np.array([value for value in values if value is not None])
            error = known.std(ddof=1) / math.sqrt(len(known)) if len(known) > 1 else math.nan
            mean = known.mean() if len(known) else math.nan
            found[one][other] = Effect(float(mean), float(error), len(known))
    return found


def sentences(effects: dict[str, dict[str, Effect]]) -> list[str]:
    """Which tasks help which, and which are better apart, as far as the looks tell."""
    if len(effects) < 2:
        return []
    others = [(one, other, effects[one][other]) for one in effects for other in effects if one != other]
    helps = [pair for pair in others if pair[2].is_clear and pair[2].mean > 0]
    hurts = [pair for pair in others if pair[2].is_clear and pair[2].mean < 0]
    looks = max(effect.looks for _, _, effect in others)
    told = []
    if helps:
        told.append(f"A step on one task alone lowers another's loss on its next batch: {_listed(helps)}.")
    if hurts:
        told.append(f"It raises the loss: {_listed(hurts)}. These tasks may be better apart.")
    if not told:
        told.append("No step on one task alone moves another's loss by more than chance would have it.")
    return [" ".join([*told, f"({looks} looks; an effect counts from {SIGMAS:g} standard errors on.)"])]


def _listed(pairs: Sequence[tuple[str, str, Effect]]) -> str:
    ordered = sorted(pairs, key=lambda pair: -abs(pair[2].mean))
    return ", ".join(
        f"{one} → {other} by {abs(effect.mean):.2%} ± {effect.error:.2%}" for one, other, effect in ordered
    )
