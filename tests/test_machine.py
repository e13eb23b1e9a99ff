"""Memory and files of this process."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mtbert_jax import machine
from mtbert_jax.files import user_cache, write_whole
from mtbert_jax.machine import commit, free_memory, machine_summary, peak_memory

MIB = 2**20


def printed(*lines: str) -> list[int]:
    """The numbers that a process prints which has loaded the file, but not JAX: it would take memory, and seconds."""
    code = [
        "import os, runpy, sys, types; stub = types.SimpleNamespace(user_cache=None)",
        "sys.modules.update({'jax': stub, 'mtbert_jax': stub, 'mtbert_jax.files': stub})",
        "machine = runpy.run_path(sys.argv[1])",
        *lines,
    ]
    source = Path(__file__).parents[1] / "mtbert_jax" / "machine.py"
    command = [sys.executable, "-c", "\n".join(code), str(source)]
    return [int(word) for word in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]


def test_the_peak_stays_after_the_memory_has_gone() -> None:
    before, after = printed(
        "print(machine['_peak_resident']()); block = b'x' * (400 * 2**20)",
        "del block; print(machine['_peak_resident']())",
    )
    assert 400 * MIB <= after < before + 450 * MIB
    seen = peak_memory()  # on a CPU, which does not count: this process's
    assert before < seen <= machine._peak_resident()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel counts otherwise")
def test_the_peak_is_not_the_parents() -> None:
    """Linux hands a parent's ru_maxrss on to its children."""
    block = np.ones(700 * MIB // 8)
    (peak,) = printed("bytearray(500 * 2**20).count(1); print(machine['_peak_resident']())")
    assert 500 * MIB < peak < 550 * MIB < block.nbytes


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_is_kept_until_it_is_returned() -> None:
    kept, left = printed(
        "resident = lambda: int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE')",
        "machine['keep_freed_memory']()",
        "blocks = [b'x' * 2**20 for _ in range(300)]; del blocks[:-1]; print(resident())",  # the last one stays in use
        "machine['return_freed_memory'](); print(resident())",
    )
    assert kept > 300 * MIB
    assert left < kept - 250 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_is_no_longer_kept() -> None:
    """From then on; what had been freed before is still there."""
    before, used, left = printed(
        "resident = lambda: int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE')",
        "machine['keep_freed_memory'](); machine['keep_freed_memory'](False); print(resident())",
        "blocks = [b'x' * 2**26 for _ in range(5)]; print(resident())",
        "del blocks[:-1]; print(resident())",
    )
    assert used > before + 300 * MIB
    assert left < before + 100 * MIB


def test_a_device_that_counts_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 7}, device_kind="abacus")
    for name in ("devices", "local_devices"):
        monkeypatch.setattr(jax, name, lambda: [device])
    assert peak_memory() == 7
    monkeypatch.setattr("mtbert_jax.machine.own_cores", lambda: range(os.cpu_count() or 0))
    assert machine_summary() == f"{jax.device_count()} × abacus, {os.cpu_count()} CPU cores"


def test_free_memory_is_the_devices_where_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(memory_stats=lambda: {"bytes_limit": 900, "bytes_in_use": 200})
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert free_memory() == 700
    device.memory_stats = lambda: None
    room = free_memory()
    assert room is None or room > MIB


def test_a_device_that_does_not_count_leaves_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for stats in (None, {}, {"bytes_in_use": 7}):
        device = SimpleNamespace(memory_stats=lambda stats=stats: stats)
        monkeypatch.setattr(jax, "local_devices", lambda device=device: [device])
        assert peak_memory() > 50 * MIB


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    write_whole(path, "old ±")
    assert path.read_text(encoding="utf-8") == "old ±"

    def die(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", die)  # the new text is written, and not yet at its place
        write_whole(path, "new")
    assert path.read_text(encoding="utf-8") == "old ±"
    write_whole(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_caches_lie_in_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache("programs") == tmp_path / "mtbert_jax" / "programs"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert user_cache("programs") == tmp_path / "home" / ".cache" / "mtbert_jax" / "programs"


KEEP = """
import jax
from mtbert_jax.machine import keep_compiled_programs

keep_compiled_programs()
print(jax.config.jax_compilation_cache_dir)
jax.jit(lambda x: x + 1)(1.0).block_until_ready()
"""


def kept(**env: str) -> str:
    names = ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run([sys.executable, "-c", KEEP], env=inherited | env, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.strip()


def test_compiled_programs_are_kept_where_the_user_or_jax_says(tmp_path: Path) -> None:
    assert kept(XDG_CACHE_HOME=str(tmp_path)) == str(tmp_path / "mtbert_jax" / "programs")
    assert list((tmp_path / "mtbert_jax" / "programs").glob("jit__lambda*-cache"))
    own = str(tmp_path / "own")
    assert kept(XDG_CACHE_HOME=str(tmp_path / "other"), JAX_COMPILATION_CACHE_DIR=own) == own
    assert not (tmp_path / "other").exists()


def test_a_cache_folder_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert kept(XDG_CACHE_HOME=str(tmp_path / "file")) == "None"


def test_the_commit_of_a_checkout(tmp_path: Path) -> None:
    assert commit(tmp_path) == ""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "one"], ["tag", "v9"]):
        subprocess.run([*git, *words], check=True)
    whole = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert commit(tmp_path) == whole[:12]
    (tmp_path / "file").write_text("1")
    assert commit(tmp_path) == whole[:12]  # git does not know that file
    subprocess.run([*git, "add", "file"], check=True)
    assert commit(tmp_path) == whole[:12] + "-dirty"


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    assert commit(tmp_path) == ""  # git finds it broken
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit(tmp_path) == ""


@pytest.mark.parametrize(
    ("flags", "units"),
    [("avx512f avx512_bf16 amx_bf16", "amx_bf16"), ("fpu avx512_bf16", "avx512_bf16"), ("fpu avx2", ""), (None, "")],
)
def test_a_processors_bfloat16_units_go_by_its_flags(
    flags: str | None, units: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [] if flags is None else ["processor : 0", f"flags\t\t: {flags}"]
    monkeypatch.setattr(machine, "_lines", lambda file: lines)
    assert machine.bfloat16_units() == units


@pytest.mark.parametrize(
    ("capability", "units"), [("7.5", ""), ("8.0", "compute capability 8.0"), ("10.0", "compute capability 10.0")]
)
def test_a_gpus_bfloat16_units_go_by_its_generation(
    capability: str, units: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = SimpleNamespace(platform="gpu", compute_capability=capability)
    monkeypatch.setattr(machine.jax, "local_devices", lambda: [device])
    assert machine.bfloat16_units() == units
