"""Cases of a product, of which some are quick."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but_for(quick: Iterable[Any], values: Iterable[Any]) -> list[Any]:
    """The values as parameters of a test; those that are not in `quick` carry `@pytest.mark.slow`."""
    kept = [*quick]
    return [value if value in kept else pytest.param(value, marks=pytest.mark.slow) for value in values]
