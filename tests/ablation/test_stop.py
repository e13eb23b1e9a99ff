"""Stopped, and gone on with."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mtbert_jax.config import Config, load_config, save_config
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.training.records import read_metrics
from tests.ablation.scripted import FINISH, ROOT, quietly, scripted
from tests.conftest import environment


@pytest.fixture
def strangers() -> Iterator[list[int]]:
    """Processes that must be gone at the end."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def when(path: Path, then: Callable[[], None]) -> None:
    """Calls `then` from a thread, once a file is there."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        if path.exists():
            then()

    threading.Thread(target=watch, daemon=True).start()


WAIT = """
    def note(number, frame):
        print('got', signal.Signals(number).name)
        time.sleep(0.5)  # another one would show
        sys.exit(0)
    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)
    (folder / 'ready').write_text(str(os.getpid()))
    time.sleep(60)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_is_passed_on_and_ends_the_ablation(
    tmp_path: Path, number: signal.Signals, status: int, strangers: list[int]
) -> None:
    runs = [scripted(tmp_path, "a", WAIT), scripted(tmp_path, "b")]
    ready = tmp_path / "a" / "seed0" / "ready"
    when(ready, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted) as interrupted:
        quietly(runs, tmp_path)
    assert interrupted.value.status == status
    assert runs[0].log.read_text().split() == ["got", number.name]
    assert not runs[1].folder.path.exists()
    strangers.append(int(ready.read_text()))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_a_signal_ends_all_that_are_at_work(tmp_path: Path, strangers: list[int]) -> None:
    runs = [scripted(tmp_path, name, WAIT) for name in "abc"]
    ready = [run.folder.path / "ready" for run in runs]
    when(ready[0], lambda: when(ready[1], lambda: os.kill(os.getpid(), signal.SIGTERM)))
    with pytest.raises(Interrupted):
        quietly(runs, tmp_path, at_once=2)
    assert [run.log.read_text().split() for run in runs[:2]] == [["got", "SIGTERM"]] * 2
    assert not runs[2].folder.path.exists()
    strangers.extend(int(path.read_text()) for path in ready[:2])


def test_a_run_that_finishes_despite_the_signal_is_kept(tmp_path: Path) -> None:
    script = "signal.signal(signal.SIGTERM, lambda *_: None)\nos.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(0.6)"
    runs = [scripted(tmp_path, "a", script + textwrap.dedent(FINISH)), scripted(tmp_path, "b")]
    with pytest.raises(Interrupted):
        quietly(runs, tmp_path)
    assert "| a | 1 |" in (tmp_path / "table.md").read_text()
    assert not runs[1].folder.path.exists()
    (tmp_path / "a" / "seed0" / "results.json").unlink()
    assert quietly(runs[:1], tmp_path)[0].failed == []  # the last one: nothing is left to stop


def test_a_second_ctrl_c_ends_a_run_that_does_not_stop(tmp_path: Path, strangers: list[int]) -> None:
    deaf = "signal.signal(signal.SIGINT, lambda *_: (folder / 'deaf').touch())\n"
    deaf += "(folder / 'ready').write_text(str(os.getpid()))\nfor _ in range(600): time.sleep(0.1)\n"
    run = scripted(tmp_path, "a", deaf)
    ready = run.folder.path / "ready"
    when(ready, lambda: os.kill(os.getpid(), signal.SIGINT))
    when(run.folder.path / "deaf", lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        quietly([run], tmp_path)
    strangers.append(int(ready.read_text()))


def test_a_terminals_ctrl_c_reaches_a_run_once(tmp_path: Path) -> None:
    """A terminal sends it to the whole process group, a run in which would get it twice."""
    driver = f"""
        import sys
        from pathlib import Path
        from mtbert_jax.ablation.execute import execute
        from mtbert_jax.training.interrupt import Interrupted
        from tests.ablation.scripted import scripted
        from tests.ablation.test_stop import WAIT
        try:
            execute([scripted(Path({str(tmp_path)!r}), 'a', WAIT)], Path({str(tmp_path)!r}))
        except Interrupted as interrupted:
            sys.exit(interrupted.status)
    """
    command = [sys.executable, "-c", textwrap.dedent(driver)]
    ablation = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE)
    when(tmp_path / "a" / "seed0" / "ready", lambda: os.killpg(ablation.pid, signal.SIGINT))
    assert ablation.wait(60) == 130
    assert (tmp_path / "a" / "seed0" / "log.txt").read_text().split() == ["got", "SIGINT"]


@pytest.mark.slow
def test_stopped_in_the_middle_and_started_again_only_the_rest_is_run(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(config, tasks=config.tasks[:1], log_every_steps=1, eval_every_steps=1000)
    for name, steps in (("quick", 2), ("slow", 500)):
        save_config(dataclasses.replace(config, steps=steps), tmp_path / f"{name}.toml")
    out = tmp_path / "out"
    configs = [str(tmp_path / name) for name in ("slow.toml", "quick.toml")]
    command = [sys.executable, "-m", "mtbert_jax", "ablate", *configs[::-1], "--seeds", "7", "--out", str(out)]
    command += ["--", "--lr", "0.002"]

    def start(**more: str) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=environment(**more), stdout=pipe, stderr=pipe, text=True)

    def steps(name: str) -> list[int]:
        return [r["step"] for r in read_metrics(out / name / "seed7" / "metrics.jsonl") if r["kind"] == "train"]

    def files(name: str) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (out / name).rglob("*")}

    first = start()
    deadline = time.monotonic() + 120
    while not steps("slow") and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.01)
    first.terminate()
    err = first.communicate(timeout=60)[1]
    assert first.returncode == 0, err
    assert f"go on with the same command: mtbert ablate {' '.join(command[4:])}" in err
    assert "| quick | 1 |" in (out / "table.md").read_text()
    assert "| slow | 0 of 1 |" in (out / "table.md").read_text()
    before, done = files("quick"), len(steps("slow"))
    assert 1 <= done < 500
    assert "interrupted and saved" in (out / "slow" / "seed7" / "log.txt").read_text()

    second = start()
    printed, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert "1 of 2 runs are finished already" in err
    assert files("quick") == before
    assert steps("slow") == list(range(1, 501))
    for name in ("quick", "slow"):
        saved = load_config(out / name / "seed7" / "config.toml")
        assert (saved.seed, saved.lr) == (7, 0.002)
        line = next(line for line in printed.splitlines() if name in line)  # a second table has differences
        runs = [run.strip() for run in line.strip("│").split("│")]
        assert runs[:2] == [name, "1"]
        assert all(runs)
        assert 0 <= float(runs[2]) <= 1
    assert (out / "table.md").read_text().count("| 1 |") == 3  # two rows and a difference

    third = start(JAX_PLATFORMS="nonsense")  # all is finished: no device is asked for
    again, err = third.communicate(timeout=60)
    assert (third.returncode, again) == (0, printed), err
