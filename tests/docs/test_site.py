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


def test_it_builds_and_fetches_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture, hook) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    with caplog.at_level(logging.WARNING, logger="mkdocs"):
        build(load_config(str(DOCS.parent / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    assert [record.getMessage() for record in caplog.records if record.name.startswith("mkdocs.")] == []
    built = {page.relative_to(tmp_path).as_posix() for page in tmp_path.rglob("*.html")}
    assert built == {name.removesuffix(".md") + ".html" for name in NAMES} | {"config.html", "404.html"}
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
