"""Text of labels → numbers and lists, and the names of classes."""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtbert_jax.errors import InputError
from mtbert_jax.limits import MOST_CLASSES

LARGEST_LABEL = float(np.finfo(np.float32).max)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def check_classes(names: Sequence[str]) -> None:
    """Refuses too many classes, two of one name, and names that no label can have."""
    if len(names) > MOST_CLASSES:
        raise InputError(f"{len(names)} classes: there may be {MOST_CLASSES} at most")
    if len(set(names)) < len(names):
        raise InputError("classes: each may stand there once")
    for name in names:
        if not name or name != name.strip():  # blanks around a label are passed over
            raise InputError(
                f"classes: {name!r} is the name of no label; names are not empty, and have no blanks around"
            )


def parse_list(text: str) -> list[Any]:
    """A JSON list; `ValueError` for anything else."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError(text) from None
    if not isinstance(found, list):
        raise ValueError(text)
    return found


def parse_number(text: str) -> float:
    """A decimal number, as files write it; `ValueError` for ``1_000``, ``nan``, and what float32 cannot hold."""
    if not NUMBER.fullmatch(text) or not abs(float(text)) <= LARGEST_LABEL:
        raise ValueError(text)
    return float(text)
