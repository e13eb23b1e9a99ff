"""The table of counts, in sessions of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TESTS = """
import pytest

@pytest.mark.parametrize("count", [1, 20, 300])
def test_adds(tally, count):
    tally("cases fuzzed", count)

def test_adds_twice_to_one_row_and_once_to_another(tally):
    tally("cases fuzzed", 4000)
    tally("kills survived", 5)
    tally("cases fuzzed", 50000)

def test_counts_nothing():
    pass
"""


def session(folder: Path, tests: str, *flags: str) -> list[list[str]]:
    """The words of what a session prints."""
    (folder / "test_some.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "tests.tally", "-p", "no:cacheprovider", "-q", *flags]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_counts_add_up_over_tests_and_workers(workers: int, tmp_path: Path) -> None:
    lines = session(tmp_path, TESTS, "-n", str(workers))
    assert ["cases", "fuzzed", "54321", "in", "4", "tests"] in lines
    assert ["kills", "survived", "5", "in", "1", "test"] in lines


def test_without_counts_there_is_no_table(tmp_path: Path) -> None:
    assert not [line for line in session(tmp_path, "def test_some():\n    pass\n") if "tally" in line]
