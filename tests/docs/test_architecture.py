"""The map is of this library: its rooms, floors, paths and names exist, and none is missing."""

import re
import tomllib
from pathlib import Path
from pkgutil import resolve_name

import pytest

from tests.docs.test_pages import DOCS, NAMES, PAGES, blocks

ROOT, PAGE = DOCS.parent, DOCS / "architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")


def dotted(page: Path) -> list[str]:
    return re.findall(r"`(mtbert_jax(?:\.\w+)+)`", page.read_text(encoding="utf-8"))


def test_every_room_is_on_the_map() -> None:
    package = ROOT / "mtbert_jax"
    folders = [f"{path.parent.name}/" for path in package.glob("*/__init__.py")]
    files = [path.name for path in package.glob("*.py") if path.name not in ("__init__.py", "__main__.py")]
    rooms = re.findall(r"^\| `mtbert_jax/(\S+)` \| \S", TEXT, re.MULTILINE)
    assert sorted(rooms) == sorted([*folders, *files])


def test_floors_are_those_of_the_contracts() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (floors,) = [one["layers"] for one in settings["contracts"] if one["containers"] == ["mtbert_jax"]]
    (shown,) = blocks(PAGE, "text")
    assert shown.splitlines() == floors


def test_paths_exist() -> None:
    places = re.findall(r"`((?:mtbert_jax|configs|examples|benchmarks|tests|docs)/[\w./]*|\w+\.toml)`", TEXT)
    assert len(places) > 30
    assert [place for place in places if not (ROOT / place).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_names_exist(page: Path) -> None:
    for name in dotted(page):
        resolve_name(name)


def test_the_way_names_functions_of_many_rooms() -> None:
    assert {name.split(".")[1] for name in dotted(PAGE)} >= {"config", "data", "model", "optim", "tasks", "training"}
    assert len(set(dotted(PAGE))) > 20
