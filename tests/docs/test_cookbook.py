"""The cookbook's recipes in TOML, on top of a tiny run in the demo's place. Those in Python run in test_pages.py."""

import re
from pathlib import Path

import pytest

from mtbert_jax.cli.main import main
from tests.docs.test_pages import DOCS, blocks, clone

__all__ = ["clone"]
RECIPES = blocks(DOCS / "cookbook.md", "toml")
TITLES = re.findall(r"^## (.*)$", (DOCS / "cookbook.md").read_text("utf-8"), re.MULTILINE)


def recipe(number: int, folder: Path) -> str:
    """The config of a recipe, in a clone."""
    path = folder / "recipe.toml"
    path.write_text(f'include = ["configs/demo.toml"]\n{RECIPES[number]}', encoding="utf-8")
    return str(path)


def test_there_are_eleven() -> None:
    assert len(TITLES) == 11
    assert len(RECIPES) == 6


@pytest.mark.page
@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_a_recipe_can_be_trained(
    number: int, clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(clone)
    assert main(["train", recipe(number, clone), "--dry-run"]) == 0
    said = capsys.readouterr().out
    expected = ("task para", "encoder/embeddings, encoder/layer_0 frozen", "LoRA of rank 8 on", "stage adapt", "48")
    expected += ("micro_batches = 4",)
    assert expected[number] in said


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_a_recipe_trains(number: int, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)
    steps = [] if "stages" in RECIPES[number] else ["--steps", "2"]
    assert main(["train", recipe(number, clone), *steps]) == 0
    assert (clone / "runs" / "recipe" / "results.json").is_file()
