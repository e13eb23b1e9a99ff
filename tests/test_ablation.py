"""Cells: planned, run in processes of their own, stopped, gone on with."""

import dataclasses
import fcntl
import io
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from mtbert_jax.ablation import Cell, Outcome, plan, run, table
from mtbert_jax.config import Config, load_config, save_config
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.types import InputError
from tests.runs import finish

ROOT = Path(__file__).parents[1]
FINISH = """
    (folder / 'config.toml').write_text('')
    (folder / 'results.json').write_text('{"seed": 0, "seconds": 5.0}')
"""


@dataclass(frozen=True)
class Scripted(Cell):
    """A cell that runs a little script instead of training; `folder` is its folder there."""

    script: str = ""

    @property
    def command(self) -> list[str]:
        start = f"import os, pathlib, signal, sys, time\nfolder = pathlib.Path({self.config.out!r})\n"
        return [sys.executable, "-S", "-c", start + textwrap.dedent(self.script)]


def scripted(out: Path, name: str, script: str = FINISH, seed: int = 0) -> Scripted:
    config = Config(seed=seed, out=str(out / name / f"seed{seed}"))
    return Scripted(Path(f"{name}.toml"), config, script=script)


def quietly(cells: list[Scripted], out: Path) -> tuple[Outcome, list[str]]:
    """Runs the cells; also what was said."""
    console = Console(file=io.StringIO(), width=10)  # lines are not cut, however narrow
    outcome = run(cells, out, console)
    assert isinstance(console.file, io.StringIO)
    return outcome, re.sub(r"\d+:\d\d\b", "a while", console.file.getvalue()).splitlines()


@pytest.fixture
def strangers() -> Iterator[list[int]]:
    """Processes that must be gone at the end."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def when(path: Path, then: object) -> None:
    """Calls `then` from a thread, once a file is there."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        then()  # type: ignore[operator]

    threading.Thread(target=watch, daemon=True).start()


# Planning


def test_every_config_with_every_seed_in_a_folder_of_its_own(config: Config, tmp_path: Path) -> None:
    configs = [(tmp_path / "b.toml", config), (tmp_path / "a.toml", dataclasses.replace(config, lr=0.5, seed=9))]
    cells = plan(configs, (4, 1), tmp_path / "out", ["--steps", "2"])
    names = [(cell.source.stem, cell.config.seed) for cell in cells]
    assert names == [("b", 4), ("a", 4), ("b", 1), ("a", 1)]
    assert cells[3].folder.path == tmp_path / "out" / "a" / "seed1"
    assert cells[3].config == dataclasses.replace(config, lr=0.5, seed=1, out=str(tmp_path / "out" / "a" / "seed1"))
    flags = ["--seed", "1", "--out", str(tmp_path / "out" / "a" / "seed1"), "--resume", "--steps", "2"]
    assert cells[3].command == [sys.executable, "-m", "mtbert_jax", "train", str(tmp_path / "a.toml"), *flags]
    assert not (tmp_path / "out").exists()


def test_rows_follow_the_configs_and_count_what_is_finished(config: Config, tmp_path: Path) -> None:
    cells = plan([(Path("b.toml"), config), (Path("a.toml"), config)], (4, 1), tmp_path)
    finish(cells[1].config, cells[1].folder.path)
    rows = table(cells)
    assert [(row.name, row.planned, row.seeds) for row in rows] == [("b", (4, 1), ()), ("a", (4, 1), (4,))]


@pytest.mark.parametrize(
    ("names", "seeds", "message"),
    [
        (["x/a.toml", "y/a.toml"], (0,), "config name a is given twice"),
        (["a.toml", "a.toml"], (0,), "config name a is given twice"),
        (["a.toml"], (0, 1, 0), "seed 0 is given twice"),
        (["a.toml"], (), "give one or more seeds"),
        (["a.toml"], (0, -1), r"^a\.toml: seed = -1"),
    ],
)
def test_cells_that_cannot_be_are_refused(
    config: Config, tmp_path: Path, names: list[str], seeds: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan([(Path(name), config) for name in names], seeds, tmp_path)


def test_a_wrong_config_is_named_before_anything_is_there(config: Config, tmp_path: Path) -> None:
    wrong = dataclasses.replace(config, log_every_steps=0)
    with pytest.raises(InputError, match=r"^b\.toml: log_every_steps = 0"):
        plan([(Path("a.toml"), config), (Path("b.toml"), wrong)], (0,), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_with_another_run_is_refused(config: Config, tmp_path: Path, finished: bool) -> None:
    (cell,) = plan([(Path("a.toml"), config)], (0,), tmp_path)
    finish(cell.config, cell.folder.path)
    if not finished:
        cell.folder.results.unlink()
    other = dataclasses.replace(config, lr=0.5, log_every_steps=9)
    with pytest.raises(InputError, match=r"a/seed0 holds .* \(lr: 0\.001 → 0\.5\); give another --out, or delete"):
        plan([(Path("a.toml"), other)], (0,), tmp_path)
    plan([(Path("a.toml"), other)], (1,), tmp_path)
    plan([(Path("a.toml"), dataclasses.replace(config, log_every_steps=9))], (0,), tmp_path)


# Running


def test_cells_run_in_turn_and_tables_grow(tmp_path: Path) -> None:
    note = "(folder.parents[1] / 'order').open('a').write(folder.parent.name)\n"
    seen = "assert (folder.parents[1] / 'table.md').read_text().count('| 1 |') == 1\n"
    dedented = textwrap.dedent(FINISH)
    cells = [scripted(tmp_path, "a", note + dedented), scripted(tmp_path, "b", note + seen + dedented)]
    outcome, said = quietly(cells, tmp_path)
    assert (tmp_path / "order").read_text() == "ab"
    assert outcome.failed == []
    assert [row.seeds for row in outcome.rows] == [(0,), (0,)]
    assert (tmp_path / "table.md").read_text().count("| 1 |") == 2
    assert said == [
        f"[1/2] a seed 0: started, log in {tmp_path}/a/seed0/log.txt",
        "[1/2] a seed 0: finished after a while",
        f"[2/2] b seed 0: started, log in {tmp_path}/b/seed0/log.txt",
        "[2/2] b seed 0: finished after a while",
    ]


def test_finished_cells_are_not_run_again(tmp_path: Path) -> None:
    quietly([scripted(tmp_path, "a"), scripted(tmp_path, "b")], tmp_path)
    (tmp_path / "b" / "seed0" / "results.json").unlink()
    (tmp_path / "table.md").unlink()
    cells = [scripted(tmp_path, "a", "sys.exit('again')"), scripted(tmp_path, "b")]
    outcome, said = quietly(cells, tmp_path)
    assert outcome.failed == []
    assert said[0] == "1 of 2 runs are finished already"
    assert [line for line in said if "started" in line] == [
        f"[1/1] b seed 0: started, log in {tmp_path}/b/seed0/log.txt"
    ]
    assert (tmp_path / "table.md").read_text().count("| 1 |") == 2
    (tmp_path / "table.md").unlink()
    assert quietly(cells, tmp_path)[1] == ["2 of 2 runs are finished already"]
    assert (tmp_path / "table.md").is_file()


def test_failed_cells_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    cells = [
        scripted(tmp_path, "a", "print('one'); print('mtbert: no such thing', file=sys.stderr); print(); sys.exit(2)"),
        scripted(tmp_path, "b", "os.kill(os.getpid(), signal.SIGKILL)"),
        scripted(tmp_path, "c", "print('stopped early')"),
        scripted(tmp_path, "d"),
    ]
    outcome, said = quietly(cells, tmp_path)
    logs = [tmp_path / name / "seed0" / "log.txt" for name in "abc"]
    assert outcome.failed == [
        f"a seed 0 failed: exit status 2: mtbert: no such thing (log: {logs[0]})",
        f"b seed 0 failed: killed by SIGKILL: it printed nothing (log: {logs[1]})",
        f"c seed 0 failed: exit status 0: stopped early (log: {logs[2]})",
    ]
    assert "[1/4] a seed 0: failed after a while: exit status 2: mtbert: no such thing" in said
    assert [row.seeds for row in outcome.rows] == [(), (), (), (0,)]
    assert "| a | 0 of 1 |" in (tmp_path / "table.md").read_text()


def test_without_any_finished_cell_there_is_still_a_table(tmp_path: Path) -> None:
    assert quietly([scripted(tmp_path, "a", "sys.exit(1)")], tmp_path)[0].failed
    assert "| a | 0 of 1 |" in (tmp_path / "table.md").read_text()


def test_a_log_keeps_what_earlier_attempts_printed_and_the_message_does_not(tmp_path: Path) -> None:
    quietly([scripted(tmp_path, "a", "print('first'); sys.exit(1)")], tmp_path)
    outcome, _ = quietly([scripted(tmp_path, "a", "sys.exit(1)")], tmp_path)
    assert "it printed nothing" in outcome.failed[0]
    quietly([scripted(tmp_path, "a", "print('x' * 9000); print('last'); sys.exit(1)")], tmp_path)
    assert (tmp_path / "a" / "seed0" / "log.txt").read_text().split() == ["first", "x" * 9000, "last"]


def test_a_folder_in_which_another_process_still_works_is_left_alone(tmp_path: Path) -> None:
    cells = [scripted(tmp_path, "a"), scripted(tmp_path, "b")]
    cells[0].folder.path.mkdir(parents=True)
    with cells[0].log.open("w") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        outcome, _ = quietly(cells, tmp_path)
    assert "a seed 0 failed: another process is still at work" in outcome.failed[0]
    assert [row.seeds for row in outcome.rows] == [(), (0,)]
    assert quietly(cells, tmp_path)[0].failed == []


def test_the_process_itself_holds_the_lock(tmp_path: Path) -> None:
    """So that a run outliving its ablation, killed by force, keeps its folder."""
    held = """
    import fcntl
    with (folder / 'log.txt').open() as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(1, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its standard output is what holds it
            print('held')
    sys.exit(1)
    """
    outcome, _ = quietly([scripted(tmp_path, "a", textwrap.dedent(held))], tmp_path)
    assert "exit status 1: held" in outcome.failed[0]


def test_files_elsewhere_are_pointed_out(config: Config, tmp_path: Path) -> None:
    (cell,) = plan([(Path("a.toml"), config)], (0,), tmp_path)
    finish(dataclasses.replace(cell.config, encoder="old/place", cache_dir="x"), cell.folder.path)
    (cell,) = plan([(Path("a.toml"), config)], (0,), tmp_path)
    console = Console(file=io.StringIO())
    run([cell], tmp_path, console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue().splitlines()
    assert said[1:] == [f"a seed 0: encoder: 'old/place' → {config.encoder!r}; taken for the same, elsewhere"]


def test_a_terminal_shows_the_last_line_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtbert_jax.ablation.POLL", 0.01)
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    run(
        [scripted(tmp_path, "a", "print('step [7/9]', flush=True); time.sleep(1)" + textwrap.dedent(FINISH))],
        tmp_path,
        console,
    )
    assert isinstance(console.file, io.StringIO)
    assert "step [7/9]" in console.file.getvalue()


# Signals

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
    cells = [scripted(tmp_path, "a", WAIT), scripted(tmp_path, "b")]
    ready = tmp_path / "a" / "seed0" / "ready"
    when(ready, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted) as interrupted:
        quietly(cells, tmp_path)
    assert interrupted.value.status == status
    assert cells[0].log.read_text().split() == ["got", number.name]
    assert not cells[1].folder.path.exists()
    strangers.append(int(ready.read_text()))


def test_a_cell_that_finishes_despite_the_signal_is_kept(tmp_path: Path) -> None:
    script = "signal.signal(signal.SIGTERM, lambda *_: None)\nos.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(0.6)"
    cells = [scripted(tmp_path, "a", script + textwrap.dedent(FINISH)), scripted(tmp_path, "b")]
    with pytest.raises(Interrupted):
        quietly(cells, tmp_path)
    assert "| a | 1 |" in (tmp_path / "table.md").read_text()
    assert not cells[1].folder.path.exists()
    (tmp_path / "a" / "seed0" / "results.json").unlink()
    assert quietly(cells[:1], tmp_path)[0].failed == []  # the last one: nothing is left to stop


def test_a_second_ctrl_c_ends_a_cell_that_does_not_stop(tmp_path: Path, strangers: list[int]) -> None:
    deaf = "signal.signal(signal.SIGINT, lambda *_: (folder / 'deaf').touch())\n"
    deaf += "(folder / 'ready').write_text(str(os.getpid()))\nfor _ in range(600): time.sleep(0.1)\n"
    cell = scripted(tmp_path, "a", deaf)
    ready = cell.folder.path / "ready"
    when(ready, lambda: os.kill(os.getpid(), signal.SIGINT))
    when(cell.folder.path / "deaf", lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        quietly([cell], tmp_path)
    strangers.append(int(ready.read_text()))


def test_a_terminals_ctrl_c_reaches_a_cell_once(tmp_path: Path) -> None:
    """A terminal sends it to the whole process group, a cell in which would get it twice."""
    driver = f"""
        import sys
        from pathlib import Path
        from mtbert_jax.ablation import run
        from mtbert_jax.training.interrupt import Interrupted
        from tests.test_ablation import WAIT, scripted
        try:
            run([scripted(Path({str(tmp_path)!r}), 'a', WAIT)], Path({str(tmp_path)!r}))
        except Interrupted as interrupted:
            sys.exit(interrupted.status)
    """
    command = [sys.executable, "-c", textwrap.dedent(driver)]
    ablation = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE)
    when(tmp_path / "a" / "seed0" / "ready", lambda: os.killpg(ablation.pid, signal.SIGINT))
    assert ablation.wait(60) == 130
    assert (tmp_path / "a" / "seed0" / "log.txt").read_text().split() == ["got", "SIGINT"]


# For real


def test_stopped_in_the_middle_and_started_again_only_the_rest_is_run(config: Config, tmp_path: Path) -> None:
    import jax

    cache = str(jax.config.jax_compilation_cache_dir)  # type: ignore[attr-defined]
    limits = {f"JAX_PERSISTENT_CACHE_MIN_{name}": "0" for name in ("COMPILE_TIME_SECS", "ENTRY_SIZE_BYTES")}
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache, **limits}
    config = dataclasses.replace(config, tasks=config.tasks[:1], log_every_steps=1, eval_every_steps=1000)
    for name, steps in (("quick", 2), ("slow", 200)):
        save_config(dataclasses.replace(config, steps=steps), tmp_path / f"{name}.toml")
    out = tmp_path / "out"
    configs = [str(tmp_path / name) for name in ("slow.toml", "quick.toml")]
    command = [sys.executable, "-m", "mtbert_jax", "ablate", *configs[::-1], "--seeds", "7", "--out", str(out)]
    command += ["--", "--lr", "0.002"]

    def start(**more: str) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env={**env, **more}, stdout=pipe, stderr=pipe, text=True)

    def steps(name: str) -> list[int]:
        from mtbert_jax.training.records import read_metrics

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
    assert 1 <= done < 200
    assert "interrupted and saved" in (out / "slow" / "seed7" / "log.txt").read_text()

    second = start()
    printed, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert "1 of 2 runs are finished already" in err
    assert files("quick") == before
    assert steps("slow") == list(range(1, 201))
    for name in ("quick", "slow"):
        saved = load_config(out / name / "seed7" / "config.toml")
        assert (saved.seed, saved.lr) == (7, 0.002)
        (line,) = [line for line in printed.splitlines() if name in line]
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        assert cells[:2] == [name, "1"]
        assert all(cells)
        assert 0 <= float(cells[2]) <= 1
    assert (out / "table.md").read_text().count("| 1 |") == 2

    third = start(JAX_PLATFORMS="nonsense")  # all is finished: no device is asked for
    again, err = third.communicate(timeout=60)
    assert (third.returncode, again) == (0, printed), err
