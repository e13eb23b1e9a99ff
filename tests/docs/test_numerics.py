"""Sections of docs/numerics.md have numbers, and whatever cites one cites one that is there."""

import re
from pathlib import Path

from tests.docs.test_pages import DOCS

ROOT = DOCS.parent
NUMBER = r"\d+(?:\.\d+)?"
CITATION = re.compile(rf"docs/numerics\.md,\s+sections?\s+({NUMBER}(?:(?:,\s+|\s+and\s+){NUMBER})*)")
SECTIONS = re.findall(rf"^##+ ({NUMBER})\.? ", (DOCS / "numerics.md").read_text(encoding="utf-8"), re.MULTILINE)


def cited(text: str) -> list[str]:
    return [number for numbers in CITATION.findall(text) for number in re.findall(NUMBER, numbers)]


def sources() -> list[Path]:
    folders = ("mtbert_jax", "tests", "benchmarks", "configs", "docs", "examples")
    inside = [path for folder in folders for end in ("py", "toml", "md") for path in (ROOT / folder).rglob(f"*.{end}")]
    return [*inside, *ROOT.glob("*.md"), *ROOT.glob("*.toml")]


def test_every_section_has_a_number_in_order() -> None:
    headings = re.findall(r"^##+ .*$", (DOCS / "numerics.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(headings) == len(SECTIONS) > 8
    main, below = 0, 0
    for section in SECTIONS:
        main, below = (main, below + 1) if "." in section else (main + 1, 0)
        assert section == (f"{main}.{below}" if below else f"{main}")


def test_cited_sections_exist() -> None:
    found = [(path, number) for path in sources() for number in cited(path.read_text(encoding="utf-8"))]
    assert len(found) > 40
    assert [(str(path), number) for path, number in found if number not in SECTIONS] == []


def test_nothing_cites_a_file_that_does_not_exist() -> None:
    missing = re.compile(rf"\b{'numerics'.upper()}\b")
    assert [str(path) for path in sources() if missing.search(path.read_text(encoding="utf-8"))] == []


def test_citations_are_found_across_lines_and_in_lists() -> None:
    page = "docs/numerics" + ".md"  # so that these are no citations of this file's
    assert cited(f"({page},\n    section 2.1). And {page}, sections 1, 3 and 7.2: more") == ["2.1", "1", "3", "7.2"]
    assert cited(f"as {page} has it, in section 2") == []
