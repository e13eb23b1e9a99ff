"""What mkdocs calls while it builds the site.

Config fields come from the dataclasses, pictures stand inside their pages, tables of words become lists on narrow
screens, and no page needs a network.
"""

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


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts pictures inside the page, where they have its colours, and tells cells of tables their headers."""
    folder = Path(config.docs_dir) / "pictures"
    html = re.sub(
        r'<img alt="[^"]*" src="[^"]*pictures/(\w+)\.svg" ?/?>',
        lambda found: drawing((folder / f"{found[1]}.svg").read_text(encoding="utf-8")),
        html,
    )
    return re.sub(r"<table>.*?</table>", lambda found: labelled(found[0]), html, flags=re.DOTALL)


def drawing(svg: str) -> str:
    """An SVG file as part of a page, without the style that it has as a file of its own."""
    return re.sub(r"<style>.*?</style>\n", "", svg, flags=re.DOTALL)


WORDS = 45  # characters of a cell, from which on a table is one of words


def labelled(table: str) -> str:
    """A table of words with each cell's header in the cell, as `data-label`; a table of numbers as it is."""
    headers = [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<th[^>]*>(.*?)</th>", table, re.DOTALL)]
    rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]
    if max((len(re.sub(r"<[^>]+>", "", cell)) for row in cells for cell in row), default=0) < WORDS:
        return table

    def with_labels(row: re.Match[str]) -> str:
        labels = iter(headers)
        return re.sub("<td", lambda _: f'<td data-label="{next(labels, "")}"', row[0])

    return re.sub(r"<tr>.*?</tr>", with_labels, table, flags=re.DOTALL).replace("<table>", "<table data-words>")


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
