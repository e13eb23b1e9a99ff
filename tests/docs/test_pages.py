"""What the pages say is so: code runs, configs are read, commands exist, messages are in the source."""

import dataclasses
import re
import shutil
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

import mtbert_jax
from mtbert_jax.cli.main import COMMANDS
from mtbert_jax.config import Config, save_config
from mtbert_jax.config.schema import from_dict
from tests.cases import slow_but_for
from tests.conftest import tiny_run
from tests.plugins import forgetting

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
NAMES = [page.relative_to(DOCS).as_posix() for page in PAGES]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def clone(tmp_path: Path, small_encoder_dir: Path, data_dir: Path) -> Path:
    """What code on the pages finds in a clone: a tiny encoder, and a tiny run in place of the demo's."""
    encoder = shutil.copytree(small_encoder_dir, tmp_path / "weights" / "minilm")
    config = dataclasses.replace(tiny_run(encoder, data_dir, tmp_path), out="", eval_every_steps=0)
    (tmp_path / "configs").mkdir()
    save_config(config, tmp_path / "configs" / "demo.toml")
    return tmp_path


LONG = "cookbook.md"
"""Its Python trains four runs."""
WITH_README = {**dict(zip(NAMES, PAGES, strict=True)), "README.md": DOCS.parent / "README.md"}


@pytest.mark.page
@pytest.mark.parametrize("name", slow_but_for(set(WITH_README) - {LONG}, WITH_README))
def test_python_runs(name: str, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)
    names: dict[str, object] = {"__name__": "a_page"}
    with forgetting():
        for number, code in enumerate(blocks(WITH_README[name], "python")):
            exec(compile(code, f"{name}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_toml_is_a_config(page: Path) -> None:
    for text in blocks(page, "toml"):
        assert isinstance(from_dict(Config, tomllib.loads(text), page.name), Config)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_exist(page: Path) -> None:
    for text in blocks(page, "sh"):
        for command in re.findall(r"^(?:\.venv/bin/)?mtbert (\S+)", text, re.MULTILINE):
            assert command in COMMANDS


def test_there_is_code_of_every_kind() -> None:
    for language, least in (("python", 3), ("toml", 4), ("sh", 3)):
        assert sum(len(blocks(page, language)) for page in PAGES) >= least, language


def test_messages_are_in_the_source() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in Path(mtbert_jax.__file__).parent.rglob("*.py"))
    quoted = re.findall(r"^### `(.*)`$", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(quoted) > 20
    assert [text for text in quoted if text not in source] == []


def test_the_page_of_fields_tells_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(DOCS / "hooks"), *sys.path])
    import reference

    page = reference.page()
    for table in reference.TABLES:
        section = page.partition(reference.TABLES[table][0])[2].partition("\n## ")[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [field.name for field in fields(table)]
    assert "| `epochs` | `3.0` (epochs) | Length in epochs;" in page
    assert "| `steps` | `1` (steps of ascent) | K, steps" in page
    monkeypatch.setattr(reference, "descriptions", lambda _: {})
    with pytest.raises(ValueError, match=r"Config\.encoder has no description"):
        reference.page()


def test_every_number_has_a_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(DOCS / "hooks"), *sys.path])
    import reference

    tables = [reference.typing.get_type_hints(table) for table in reference.TABLES]
    numbers = {name for kinds in tables for name, kind in kinds.items() if reference.is_number(kind)}
    assert numbers == {name for names in reference.UNITS.values() for name in names}
    monkeypatch.setitem(reference.UNITS, "tokens", ())
    with pytest.raises(ValueError, match=r"Config\.max_length has no unit"):
        reference.page()
