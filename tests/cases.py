"""Cases of a product, of which some are quick."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but_for(quick: Iterable[Any], values: Iterable[Any]) -> list[Any]:
    """The values as parameters of a test; those that are not in `quick` carry `@pytest.mark.slow`."""
    return rows_slow_but_for([(value,) for value in quick], [(value,) for value in values])


def rows_slow_but_for(quick: Iterable[tuple[Any, ...]], rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    """The same for tests of several parameters, of which each row has one value."""
    kept = [*quick]
    return [pytest.param(*row, marks=() if row in kept else pytest.mark.slow) for row in rows]
