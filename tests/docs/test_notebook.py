"""The notebook in examples/, cell by cell, on a tiny run in the demo's place."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from tests.docs.test_pages import DOCS, clone
from tests.plugins import forgetting

__all__ = ["clone"]
NOTEBOOK = DOCS.parent / "examples" / "first_run.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def shown(code: str, names: dict[str, Any]) -> Any:
    """Runs a cell; what its last line is worth is what a notebook shows."""
    body = ast.parse(code).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # type: ignore[attr-defined]


@pytest.mark.page
def test_every_cell_runs_and_shows_something_short(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)
    names: dict[str, Any] = {"__name__": "a_notebook"}
    values = []
    with forgetting():
        for cell in CELLS:
            if cell["cell_type"] == "code":
                values.append(shown("".join(cell["source"]), names))
    assert repr(values[0]) == "Run('runs/notebook')"
    assert values[1]["average"] == names["run"].scores["average"]
    assert len(values[2]) >= 2
    assert [type(value).__name__ for value in values[3:5]] == ["Figure", "Figure"]
    assert 0 <= values[6] <= 1
    assert values[7] in ("sport", "music")
    assert values[8].is_file()
    assert all(len(repr(value)) < 2000 for value in values)


def test_it_is_kept_without_outputs() -> None:
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None for cell in CELLS if cell["cell_type"] == "code"
    )
