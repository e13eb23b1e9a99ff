"""Files that are named by files: they stay where they belong, and are files of a sensible size."""

import errno
import os
from pathlib import Path

import pytest

from mtbert_jax.config import TaskConfig
from mtbert_jax.data.readers import read_task
from mtbert_jax.errors import InputError, TrainingError
from mtbert_jax.files import input_errors, must_be_writable, must_hold_files, must_spare, read_text, written_whole
from mtbert_jax.limits import LARGEST_JSON, MEBIBYTE

ROWS = "id\tsentence\tlabel\na\tone\t1\n"


def rows(data: Path, name: str) -> int:
    """How many rows a task reads from the file of that name."""
    return len(read_task(TaskConfig("t", "binary", train=name), "train", data))


@pytest.mark.parametrize("name", ["../b.csv", "deeper/../../b.csv", "link.csv", "deeper/link.csv", "up/b.csv"])
def test_a_relative_name_does_not_leave_the_data_folder(name: str, tmp_path: Path) -> None:
    """Neither by .. nor by a link; a whole path says openly where it leads."""
    data = tmp_path / "data"
    (data / "deeper").mkdir(parents=True)
    (tmp_path / "b.csv").write_text(ROWS)
    (data / "link.csv").symlink_to("../b.csv")
    (data / "deeper" / "link.csv").symlink_to(tmp_path / "b.csv")
    (data / "up").symlink_to("..")
    with pytest.raises(InputError) as error:
        rows(data, name)
    end = f"leads out of {data}, to {tmp_path}/b.csv; give its whole path if that is meant"
    assert str(error.value) == f"{data}/{name} {end}"
    assert rows(data, str(tmp_path / "b.csv")) == 1


def test_links_that_stay_in_the_data_folder_and_a_link_to_it_are_fine(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "deeper").mkdir(parents=True)
    (data / "a.csv").write_text(ROWS)
    (data / "deeper" / "link.csv").symlink_to("../a.csv")
    (tmp_path / "elsewhere").symlink_to(data)
    for name in ("deeper/link.csv", "deeper/../a.csv", "./a.csv"):
        assert rows(tmp_path / "elsewhere", name) == 1


@pytest.mark.parametrize("name", ["a.csv", "deeper/../a.csv", "link.csv"])
def test_a_file_that_is_read_is_spared_whatever_it_is_called(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deeper").mkdir()
    (tmp_path / "link.csv").symlink_to("a.csv")
    monkeypatch.chdir(tmp_path)
    read = [(tmp_path / "b.csv", "the other"), (tmp_path / "a.csv", "the input")]
    with pytest.raises(InputError) as caught:
        must_spare("--output", Path(name), read)
    assert str(caught.value) == f"--output {name} is the input; name another file"
    must_spare("--output", Path("c.csv"), read)


@pytest.mark.parametrize(
    "name", ["pipe.csv", "zero.jsonl", "/dev/zero", "folder.csv", "circle.csv", "a\0b.csv", "x" * 300]
)
def test_what_is_no_file_is_refused_at_once(name: str, tmp_path: Path) -> None:
    """Neither is a pipe waited for, nor a device read that never ends."""
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "circle.csv").symlink_to("circle.csv")
    with pytest.raises(InputError, match=r"is no file|is no path|cannot read|leads out of|is a link to"):
        rows(tmp_path, name)


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("é" * (MEBIBYTE // 2))
    assert len(read_text(tmp_path / "text", MEBIBYTE)) == MEBIBYTE // 2
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="zero is larger than 1 MiB"):
        read_text(tmp_path / "zero", MEBIBYTE)


def test_text_of_another_encoding_is_named_by_its_line_and_a_byte_order_mark_is_none_of_it(tmp_path: Path) -> None:
    """A ``vocab.txt`` in latin-1, a ``config.json`` that Windows' Notepad has saved."""
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\r\nthe\ncaf\xe9\n")
    with pytest.raises(InputError, match=r"vocab\.txt:3: is not UTF-8 text \(byte 14\)"):
        read_text(tmp_path / "vocab.txt", MEBIBYTE)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8-sig")
    assert read_text(tmp_path / "config.json", MEBIBYTE) == "{}"


def test_a_folder_of_files_and_folders_holds_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a" / "d").mkdir(parents=True)
    (tmp_path / "a" / "d" / "arrays").touch()
    os.truncate(tmp_path / "a" / "d" / "arrays", LARGEST_JSON + 1)
    (tmp_path / "link").symlink_to("a")
    must_hold_files(tmp_path / "link", arrays="d")
    must_hold_files(tmp_path / "none")
    with pytest.raises(InputError, match="a/d/arrays is larger than 32 MiB"):
        must_hold_files(tmp_path / "a")
    for make in (os.mkfifo, lambda path: path.symlink_to("/etc/passwd"), lambda path: path.symlink_to("..")):
        make(tmp_path / "a" / "d" / "other")
        with pytest.raises(InputError, match="a/d/other is neither a file nor a folder"):
            must_hold_files(tmp_path / "a", arrays="d")
        (tmp_path / "a" / "d" / "other").unlink()


def test_places_that_cannot_be_written_are_refused_before_anything_is(tmp_path: Path) -> None:
    (tmp_path / "there.txt").write_text("kept")
    (tmp_path / "pipe").symlink_to("/dev/null")
    for path in (tmp_path / "new.txt", tmp_path / "there.txt", tmp_path / "pipe"):
        must_be_writable(path)
    must_be_writable(tmp_path / "a" / "b", folder=True)
    assert (tmp_path / "there.txt").read_text() == "kept"
    assert {path.name for path in tmp_path.iterdir()} == {"there.txt", "pipe"}
    for path, folder, why in (
        (tmp_path / "nodir" / "x", False, "there is no folder"),
        (tmp_path, False, "it is a folder"),
        (tmp_path / "there.txt" / "x", False, "is no folder"),
        (tmp_path / "there.txt" / "x" / "y", True, "is no folder"),
        (tmp_path / ("x" * 300), False, "File name too long"),
    ):
        with pytest.raises(InputError, match=why) as error:
            must_be_writable(path, folder)
        assert str(error.value).startswith(f"cannot write {path}: ")


def test_a_file_that_is_written_line_by_line_is_there_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    with pytest.raises(RuntimeError), written_whole(path) as file:
        file.write("new\n" * 10_000)
        raise RuntimeError
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("out.jsonl", "old")]
    with written_whole(path) as file:
        file.write("new")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("out.jsonl", "new")]


def test_a_link_stays_a_link_and_a_file_keeps_its_mode(tmp_path: Path) -> None:
    """And a file whose name ends in .part is somebody's own."""
    (tmp_path / "there").mkdir()
    real, link, own = tmp_path / "there" / "real.jsonl", tmp_path / "link.jsonl", tmp_path / "link.jsonl.part"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(real)
    own.write_text("mine")
    with written_whole(link) as file:
        file.write("new")
    assert link.readlink() == real
    assert (real.read_text(), own.read_text(), real.stat().st_mode & 0o777) == ("new", "mine", 0o600)
    assert [one.name for one in real.parent.iterdir()] == ["real.jsonl"]
    (link := tmp_path / "dangling").symlink_to(tmp_path / "there" / "other")
    with written_whole(link) as file:
        file.write("new")
    assert (tmp_path / "there" / "other").read_text() == "new"


def test_what_has_a_name_among_devices_is_written_and_not_replaced(tmp_path: Path) -> None:
    """As ``/dev/stdout`` is where it leads to a file."""
    with (tmp_path / "out").open("w+") as out:
        with written_whole(Path(f"/dev/fd/{out.fileno()}")) as file:
            file.write("new")
        assert (out.read(), (tmp_path / "out").stat().st_ino) == ("new", os.fstat(out.fileno()).st_ino)
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def test_a_pipe_is_written_as_it_is_and_stays_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with written_whole(path) as file:
        file.write("new")
    assert os.read(reader, 10) == b"new"
    assert path.is_fifo()
    assert list(tmp_path.iterdir()) == [path]
    os.close(reader)


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, TrainingError), (errno.EACCES, InputError)])
def test_a_full_disk_is_no_fault_of_the_input(number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"^cannot write x: {os.strerror(number)}$"), input_errors("cannot write x"):
        raise OSError(number, os.strerror(number))
