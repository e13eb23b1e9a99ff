"""Who may train in a run folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mtbert_jax.config import Config
from mtbert_jax.errors import InputError
from mtbert_jax.training.checkpoint import Checkpoints
from mtbert_jax.training.fit import fit
from mtbert_jax.training.folder import RunFolder
from tests.training.test_fit import Quiet

fcntl = pytest.importorskip("fcntl")

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_EX)
file.write("process 7 on elsewhere")
file.flush()
print("held", flush=True)
time.sleep(60)
"""


def test_a_folder_has_one_process_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new" / "run")
    busy = rf"new/run: another process trains here \(process {os.getpid()} on "
    with folder.hold(), pytest.raises(InputError, match=busy):
        folder.hold()
    folder.hold().close()


def test_the_lock_of_a_process_that_was_killed_is_taken_over(config: Config, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    holder = subprocess.Popen([sys.executable, "-S", "-c", HOLD, str(folder.lock)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=r"another process trains here \(process 7 on elsewhere\)"):
            fit(config, folder, "overwrite", Quiet())
        assert not folder.config.exists()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with folder.hold():
            assert folder.lock.read_text().startswith(f"process {os.getpid()} on ")
    finally:
        holder.kill()
        holder.wait()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write the run folder .*file/run: Not a directory"):
        RunFolder(tmp_path / "file" / "run").hold()


def test_where_files_cannot_be_locked_nobody_is_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = RunFolder(tmp_path)
    with folder.hold(), folder.hold():
        pass


def test_the_config_of_a_run_includes_nothing_from_outside_its_folder(tmp_path: Path) -> None:
    """Nobody's run folder makes others read what lies beside it."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    (tmp_path / "beside.toml").write_text("lr = 1.0\n")
    folder.config.write_text('include = "../beside.toml"\n')
    with pytest.raises(InputError, match=f"leads out of {folder.path}, to {tmp_path}/beside.toml"):
        folder.load_config()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"[" * 100_000, b"\xff"])
def test_results_that_are_damaged_are_none(data: bytes, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.results.write_bytes(data)
    assert folder.load_results() is None


def test_neither_links_nor_pipes_in_a_run_folder_are_followed(tmp_path: Path) -> None:
    """Whoever made it: reading it reads nothing beside it, and waits for nothing."""
    folder = RunFolder(tmp_path / "run")
    folder.encoder.mkdir(parents=True)
    folder.checkpoints.mkdir()
    os.mkfifo(folder.results)
    assert folder.load_results() is None
    (tmp_path / "beside.toml").write_text("lr = 1.0\n")
    folder.config.symlink_to("../beside.toml")
    with pytest.raises(InputError, match="config.toml leads out of"):
        folder.load_config()
    folder.config.unlink()
    folder.config.write_text("lr = 1.0\n")
    (folder.encoder / "config.json").symlink_to("/etc/passwd")
    os.mkfifo(folder.checkpoints / "pipe")
    for door in (folder.load_config, lambda: Checkpoints(folder.checkpoints)):
        with pytest.raises(InputError, match="is neither a file nor a folder"):
            door()


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    RunFolder(tmp_path / "a" / "b").check_writable()
    assert everything(tmp_path) == []
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.toml").touch()
    RunFolder(tmp_path).check_writable()
    assert everything(tmp_path) == ["checkpoints", "config.toml"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("run", r"cannot write the run folder .*/run: Not a directory"),
        ("run/predictions", r"cannot write the run folder .*/run \(.*/run/predictions\): Not a directory"),
        ("run/checkpoints", r"cannot write the run folder .*/run \(.*/run/checkpoints\): Not a directory"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, place: str, message: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    with pytest.raises(InputError, match=message):
        RunFolder(tmp_path / "run").check_writable()


@pytest.mark.parametrize("name", ["results.json", "predictions/dev-logits.npz"])
def test_a_folder_where_a_file_is_to_be_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(InputError, match=rf"{name} is no file"):
        RunFolder(tmp_path).check_writable()


def test_a_link_to_nowhere_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(tmp_path / "gone" / "away")
    with pytest.raises(InputError, match="cannot write the run folder .*/run: No such file or directory"):
        RunFolder(tmp_path / "run").check_writable()
    assert everything(tmp_path) == ["run"]


def test_that_another_process_trains_there_is_seen_without_taking_its_place(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.hold(), pytest.raises(InputError, match="another process trains here"):
        folder.check_writable()
    folder.check_writable()
    folder.hold().close()
