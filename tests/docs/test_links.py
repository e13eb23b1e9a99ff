"""No link in the repository leads nowhere: files and headings of all Markdown files, those of the site and others."""

import re
import unicodedata
from pathlib import Path

import pytest

from tests.docs.test_pages import DOCS

ROOT = DOCS.parent
FOLDERS = ("docs", "benchmarks", "configs", "examples", "tests", ".ci")
FILES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
NAMES = [page.relative_to(ROOT).as_posix() for page in FILES]
GENERATED = {DOCS / "config.md"}


def prose(page: Path) -> str:
    """A file without its code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda code: code[0].replace("[", "").replace("]", ""), text)


def links(page: Path) -> list[str]:
    """Addresses of links and pictures that are no addresses of the net."""
    text = prose(page)
    found = re.findall(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)", text) + re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, re.MULTILINE)
    found += re.findall(r'(?:src|href)="([^"]+)"', text)
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """What headings of a file are called, as mkdocs and as GitHub spell them; and what docstrings are, in api.md."""
    found = set(re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE))
    for title in re.findall(r"^#+ +(.+?)\s*$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower().replace("`", "")
        ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
        found.add(re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", ascii_only).strip()))
        found.add(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain)))
    return found


def dead(page: Path) -> list[str]:
    found = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        known = target.exists() or target in GENERATED
        inside = anchor and target.suffix == ".md" and target not in GENERATED
        if not known or not target.is_relative_to(ROOT) or (inside and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", FILES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    assert dead(page) == []


def test_dead_links_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "a.md").write_text("# One `two`, 3\n\n[x](b.md) ![y](c.svg) [z](#one-two-3) [w](#one) `[v](d.md)`\n")
    (tmp_path / "b.md").write_text(
        "# Other\n\n[up](a.md#one-two-3) [out](../e.md) <img src='f.png'> [net](https://g.h)\n"
    )
    assert dead(tmp_path / "a.md") == ["c.svg", "#one"]
    assert dead(tmp_path / "b.md") == ["../e.md"]
    assert sum(len(links(page)) for page in FILES) > 50
