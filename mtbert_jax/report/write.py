"""The report on runs, from their folders to a file."""

import os
from collections.abc import Sequence
from pathlib import Path

from mtbert_jax.data.readers import data_files
from mtbert_jax.files import must_be_writable, must_spare
from mtbert_jax.report.contents import RunContents, find_runs
from mtbert_jax.report.page import write_page
from mtbert_jax.report.plots import check_packages
from mtbert_jax.version import __version__


def write_report(
    runs: Sequence[str | Path], out: Path | None = None, data_dir: str | None = None, hide_texts: bool = False
) -> Path:
    """Writes one page about a run, or about several beside each other; returns its path.

    Args:
        runs: Run folders, or folders above some.
        out: The page; ``report.html`` in the folder that was given, or here, where several were.
        data_dir: Folder of the data files, in place of the runs'.
        hide_texts: Show the ids of mistakes instead of their texts.

    Raises:
        InputError: A folder holds no run, matplotlib or jinja2 is missing, or the page cannot be written, or would
            stand in place of a data file or of a file of a run.
    """
    check_packages()
    page = out or (Path(runs[0]) if len(runs) == 1 else Path()) / "report.html"
    paths = find_runs([Path(run) for run in runs])
    places = [path.resolve() for path in paths]
    alone = places[0].parents[1 if places[0].name.startswith("seed") else 0]
    root = os.path.commonpath(places) if len(places) > 1 else alone
    names = [str(place.relative_to(root)) for place in places]
    must_be_writable(page.parent, folder=True)
    if page.exists():
        must_be_writable(page)
    contents = [RunContents.read(path, name, data_dir) for path, name in zip(paths, names, strict=True)]
    if hide_texts:
        contents = [one.without_texts() for one in contents]
    for one in contents:
        must_spare("--out", page, [*data_files(one.config), *one.folder.read_again()])
    write_page(page, contents, __version__)
    return page
