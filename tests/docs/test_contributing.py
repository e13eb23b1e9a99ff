"""CONTRIBUTING.md names targets, files and folders that exist."""

import re

from tests.docs.test_pages import DOCS

ROOT = DOCS.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def phony_targets() -> list[str]:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return phony.split()


def test_targets_exist() -> None:
    named = {word for words in re.findall(r"`make ([a-z -]+)`", TEXT) for word in words.split()}
    assert named <= set(phony_targets())
    assert len(named) >= 8


def test_ci_runs_what_the_page_says() -> None:
    lines = re.findall(r"^make ([^#\n]*)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    targets = [word for line in lines for word in line.split() if word in phony_targets()]
    assert f"CI runs {', '.join(targets[:-1])} and {targets[-1]} " in TEXT


def test_paths_exist() -> None:
    paths = re.findall(r"`((?:mtbert_jax|tests|docs|benchmarks|\.ci)/[\w./]*|\w+\.(?:toml|md))`", TEXT)
    paths += re.findall(r"\]\(([\w./]+)\)", TEXT)
    assert len(paths) > 12
    assert [path for path in paths if not (ROOT / path).exists()] == []
