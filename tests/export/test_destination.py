"""The folder of an export: free, or an earlier export's, and written whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mtbert_jax.errors import InputError, TrainingError
from mtbert_jax.export.destination import check_destination, read_about, whole_folder

ABOUT = {"written_by": "mtbert_jax 0.1.0", "step": 6}


def write(out: Path, text: str = "a", about: dict[str, Any] = ABOUT) -> None:
    with whole_folder(out, about) as folder:
        (folder / "README.md").write_text(text)


def refusal(out: Path, overwrite: bool = False) -> str:
    with pytest.raises(InputError) as error:
        check_destination(out, overwrite)
    assert "\n" not in str(error.value)
    return str(error.value)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_export_says_what_it_is_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "some" / "where")
    assert names(tmp_path / "some") == ["where"]
    assert json.loads((tmp_path / "some" / "where" / "tasks.json").read_text()) == {
        **ABOUT,
        "files": ["README.md", "tasks.json"],
    }
    assert (tmp_path / "some" / "where").stat().st_mode == (tmp_path / "some").stat().st_mode


def test_an_empty_folder_is_free(tmp_path: Path) -> None:
    check_destination(tmp_path / "new", False)
    (tmp_path / "empty").mkdir()
    check_destination(tmp_path / "empty", False)
    write(tmp_path / "empty")
    assert names(tmp_path / "empty") == ["README.md", "tasks.json"]


def test_an_earlier_export_goes_only_where_that_was_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "old", {**ABOUT, "step": 4})
    assert refusal(out) == f"{out} holds an export already (step 4); --overwrite replaces it"
    check_destination(out, True)
    write(out, "new")
    assert (out / "README.md").read_text() == "new"
    assert names(tmp_path) == ["out"]


def test_what_somebody_laid_into_an_export_is_never_deleted(tmp_path: Path) -> None:
    write(tmp_path / "out")
    (tmp_path / "out" / ".git").mkdir()
    message = refusal(tmp_path / "out", overwrite=True)
    assert message.startswith(f"--overwrite would delete {tmp_path}/out/.git, which no export wrote")


OTHERS = [
    *("", "{", "[]", "{}", "[" * 100_000, '{"written_by": 1}', '{"written_by": "mtbert_jax 1", "files": []}'),
    '{"written_by": "mtbert_jax 1", "files": [1], "step": 1}',
    '{"written_by": "another program 1", "files": ["notes.txt"], "step": 1}',
]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("text", [None, *OTHERS], ids=range(len(OTHERS) + 1))
def test_anything_else_in_a_folder_stays(tmp_path: Path, overwrite: bool, text: str | None) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    if text is not None:
        (tmp_path / "tasks.json").write_text(text)
    assert (
        refusal(tmp_path, overwrite) == f"{tmp_path} holds something that is no export; name another folder with --out"
    )


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert refusal(tmp_path / "file", True) == f"--out {tmp_path}/file is a file; name a folder"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"cannot write the export .*/file/out: (Not a directory|File exists)"):
        write(tmp_path / "file" / "out")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_parent_is_named(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="cannot write the export .*: Permission denied"):
        write(tmp_path / "locked" / "out")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_export_that_fails_on_its_way_leaves_the_old_one(tmp_path: Path, error: BaseException) -> None:
    write(tmp_path / "out", "old")
    with pytest.raises((TrainingError, KeyboardInterrupt)) as raised, whole_folder(tmp_path / "out", ABOUT) as folder:
        (folder / "README.md").write_text("half")
        raise error
    if isinstance(error, OSError):
        assert str(raised.value) == f"cannot write the export {tmp_path}/out: No space left on device"
    assert (tmp_path / "out" / "README.md").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_an_export_that_fails_at_the_last_moment_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "out", "old")
    rename = Path.rename

    def once(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", once)
    with pytest.raises(TrainingError, match="Input/output error"):
        write(tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert read_about(tmp_path / "disk") is not None
    with pytest.raises(InputError, match="cannot write the export"):
        write(tmp_path / "loop")
