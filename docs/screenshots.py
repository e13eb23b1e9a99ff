"""Pictures of a page as a browser shows it, wide and narrow, light and dark; headless Chromium takes them.

    python docs/screenshots.py runs/demo/report.html --out pictures --height 1600

The whole page is in each picture, or its first `--height` pixels. Chromium is Debian's package `chromium`.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

WIDTHS = (1400, 390)
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
TALLEST = 12_000
"""Pixels of a page that are shown at most."""
INSET = '<!doctype html><body style="margin:0"><iframe src="{page}" style="border:0;width:{width}px;height:{height}px">'
MEASURE = """<!doctype html><body><iframe id="page" src="{page}" style="width:{width}px;height:10px"></iframe><script>
document.getElementById("page").onload = e => {{
  document.title = e.target.contentDocument.documentElement.scrollHeight + " "
    + e.target.contentDocument.documentElement.scrollWidth; }}
</script>"""


def main() -> None:
    """Writes a PNG for each width and scheme, and says how large each is and whether something is too wide."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="HTML file")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the pictures (default: here)")
    parser.add_argument("--height", type=int, default=0, help="pixels from the top (default: the whole page)")
    args = parser.parse_args()
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        parser.error("no Chromium is installed (apt-get install chromium)")
    if not args.page.is_file():
        parser.error(f"{args.page} does not exist")
    args.out.mkdir(parents=True, exist_ok=True)
    for width in WIDTHS:
        tall, wide = measured(browser, args.page.resolve(), width)
        for scheme in ("light", "dark"):
            path = args.out / f"{args.page.stem}-{width}-{scheme}.png"
            take(browser, args.page.resolve(), path, (width, min(args.height or tall, TALLEST)), scheme)
            over = f"; the page is {wide} pixels wide" if wide > width else ""
            print(f"{path}: {path.stat().st_size // 1024} KiB{over}")


def measured(browser: str, page: Path, width: int) -> tuple[int, int]:
    """Height and width of what a page of a given width holds, in pixels."""
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.html"
        frame.write_text(MEASURE.format(page=page.as_uri(), width=width), encoding="utf-8")
        flags = ["--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom"]
        text = run(browser, folder, *flags, frame.as_uri())
    found = re.search(r"<title>(\d+) (\d+)</title>", text)
    return (int(found[1]), int(found[2])) if found else (TALLEST, width)


def take(browser: str, page: Path, path: Path, size: tuple[int, int], scheme: str) -> None:
    """Takes one picture. The page lies in a frame, since a window of Chromium has a least width of about 500 pixels."""
    width, height = size
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.html"
        frame.write_text(INSET.format(page=page.as_uri(), width=width, height=height), encoding="utf-8")
        flags = [f"--window-size={width},{height}", "--hide-scrollbars", "--virtual-time-budget=5000"]
        flags += [f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"]
        run(browser, folder, *flags, f"--screenshot={path.resolve()}", frame.as_uri())


def run(browser: str, folder: str, *flags: str) -> str:
    """Runs Chromium with a profile of its own; returns its standard output."""
    always = ["--headless", "--disable-gpu", "--no-sandbox", "--no-first-run", f"--user-data-dir={folder}/profile"]
    command = [browser, *always, *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout  # noqa: S603


if __name__ == "__main__":
    main()
