"""What mkdocs calls while it builds the site: config fields come from the dataclasses, and no page needs a network."""

import importlib.util
import re
from html.parser import HTMLParser
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated page."""
    spec = importlib.util.spec_from_file_location("reference", Path(__file__).with_name("reference.py"))
    if spec is None or spec.loader is None:
        raise FileNotFoundError("reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    files.append(File.generated(config, "config.md", content=reference.page()))
    return files


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuses a page that a browser would fetch anything for from another host; links may lead anywhere.

    Raises:
        PluginError: A tag other than a link names another host.
    """
    for tag, address in fetched(output):
        if re.match(r"\s*(\w+:)?//", address):
            raise PluginError(f"{page.file.src_uri}: <{tag}> fetches {address}; a page needs no network")
    return output


def fetched(html: str) -> list[tuple[str, str]]:
    """Tags and addresses of all that a browser fetches by itself to show a page."""
    found: list[tuple[str, str]] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            named = dict(attrs)
            if tag == "a" or (tag == "link" and named.get("rel") in ("canonical", "prev", "next")):
                return
            found.extend(
                (tag, named[name] or "") for name in ("src", "srcset", "href", "data", "poster") if name in named
            )
            found.extend((tag, address) for address in re.findall(r"url\(['\"]?([^)'\"]+)", named.get("style") or ""))

        def handle_data(self, data: str) -> None:
            if self.cdata_elem == "style":
                found.extend(
                    ("style", address) for address in re.findall(r"(?:@import|url\()\s*['\"]?([^)'\";]+)", data)
                )

    Tags().feed(html)
    return found
