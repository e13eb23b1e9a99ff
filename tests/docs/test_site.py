"""The site, built as `make docs` does: strictly, with every page, and without anything from another host."""

import logging
import re
import sys
from pathlib import Path

import pytest

from tests.docs.test_api import IDENTIFIERS
from tests.docs.test_pages import DOCS, NAMES

pytest.importorskip("mkdocs", reason="make docs installs it")
pytest.importorskip("material", reason="make docs installs it")
pytest.importorskip("mkdocstrings", reason="make docs installs it")


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "path", [str(DOCS / "hooks"), *sys.path])
    import pages

    return pages


@pytest.mark.page
def test_it_builds_and_fetches_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture, hook) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    with caplog.at_level(logging.WARNING, logger="mkdocs"):
        build(load_config(str(DOCS.parent / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    assert [record.getMessage() for record in caplog.records if record.name.startswith("mkdocs.")] == []
    built = {page.relative_to(tmp_path).as_posix() for page in tmp_path.rglob("*.html")}
    assert built == {name.removesuffix(".md") + ".html" for name in NAMES} | {"config.html", "404.html"}
    assert not list(tmp_path.rglob("*.py"))
    surgery = (tmp_path / "concepts" / "surgery.html").read_text(encoding="utf-8")
    assert 'aria-label="PCGrad: two conflicting' in surgery  # a picture inside its page, with the page's colours
    assert "svg:root" not in surgery
    assert "pictures/surgery.svg" not in surgery
    assert '<script src="../style/iframe-worker.js">' in surgery  # search without a server
    assert (tmp_path / "search" / "search_index.js").read_text(encoding="utf-8").startswith("var __index = {")
    api = (tmp_path / "api.html").read_text(encoding="utf-8")
    assert [name for name in IDENTIFIERS.values() if f'id="{name}"' not in api] == []
    for page in tmp_path.rglob("*.html"):
        addresses = [address for _, address in hook.fetched(page.read_text(encoding="utf-8"))]
        assert any("stylesheets" in address for address in addresses)
        assert [address for address in addresses if "//" in address] == []
    for sheet in tmp_path.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"(@import|url\()\s*['\"]?\s*(https?:)?//", text), sheet


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/a.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/a.css">',
        '<img src="http://elsewhere.example/a.png">',
        '<div style="background: url(https://elsewhere.example/a.png)"></div>',
        '<style>@import "https://fonts.example/a.css";</style>',
    ],
)
def test_what_a_page_would_fetch_is_refused(html: str, hook) -> None:
    from mkdocs.exceptions import PluginError

    class Page:
        class file:
            src_uri = "page.md"

    with pytest.raises(PluginError, match=r"page\.md: .* fetches .*example"):
        hook.on_post_page(html, Page, None)


def test_links_may_lead_anywhere(hook) -> None:
    html = '<a href="https://elsewhere.example">there</a><script src="assets/a.js"></script>'
    assert hook.on_post_page(html, None, None) == html


def test_tables_of_words_tell_cells_their_headers(hook) -> None:
    long = "A cell with so many words in it that three columns have no room. " * 2
    head = "<thead><tr><th>field</th><th><code>b</code></th></tr></thead>"
    words = f"<table>{head}<tr><td>x</td><td>{long}</td></tr></table>"
    made = hook.labelled(words)
    assert made.startswith("<table data-words><thead><tr><th>field</th>")
    assert '<td data-label="field">x</td><td data-label="b">A cell' in made
    numbers = words.replace(long, "0.5")
    assert hook.labelled(numbers) == numbers
