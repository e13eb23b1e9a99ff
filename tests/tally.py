"""Counts of what tests went through, such as cases and kills: one table at the end of a session, on workers too."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

PROPERTY = "tally"
Tally = Callable[[str, int], None]


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Tally:
    """Adds to a row of the table: ``tally("rows fuzzed", 300)``; rows of one name add up over all tests."""
    return lambda name, count: record_property(PROPERTY, [name, count])


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the table, where any test has counted anything."""
    totals: Counter[str] = Counter()
    tests: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":  # reports of teardown have the same properties once more
                counts = [value for name, value in report.user_properties if name == PROPERTY]
                for name, count in counts:
                    totals[name] += count
                tests.update({name for name, _ in counts})
    if totals:
        terminalreporter.section("tally")
        width = max(map(len, totals))
        for name in sorted(totals):
            plural = "" if tests[name] == 1 else "s"
            terminalreporter.write_line(f"{name:{width}} {totals[name]:8d}   in {tests[name]} test{plural}")
