"""Runs in processes of their own, one after the other."""

import dataclasses
import fcntl
import io
import os
import sys
import textwrap
from pathlib import Path

import pytest
from rich.console import Console

from mtbert_jax.ablation.execute import execute
from mtbert_jax.ablation.planned import plan_runs
from mtbert_jax.ablation.processes import share_cores
from mtbert_jax.config import Config
from tests.ablation.scripted import FINISH, quietly, scripted
from tests.runs import finish


def test_runs_run_in_turn_and_tables_grow(tmp_path: Path) -> None:
    note = "(folder.parents[1] / 'order').open('a').write(folder.parent.name)\n"
    seen = "assert (folder.parents[1] / 'table.md').read_text().count('| 1 |') == 1\n"
    dedented = textwrap.dedent(FINISH)
    runs = [scripted(tmp_path, "a", note + dedented), scripted(tmp_path, "b", note + seen + dedented)]
    outcome, said = quietly(runs, tmp_path)
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


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_runs_at_once_meet_each_on_cores_of_its_own(tmp_path: Path) -> None:
    """Each writes down its cores, and waits for the other to have done so, too."""
    script = """
        (folder / 'cores').write_text(' '.join(map(str, sorted(os.sched_getaffinity(0)))))
        other = folder.parents[1] / {'a': 'b', 'b': 'a'}.get(folder.parent.name, 'a') / 'seed0' / 'cores'
        while not other.exists(): time.sleep(0.01)
    """
    runs = [scripted(tmp_path, name, textwrap.dedent(script) + textwrap.dedent(FINISH)) for name in "abc"]
    outcome, said = quietly(runs, tmp_path, at_once=2)
    assert outcome.failed == []
    assert [line.partition(":")[0] for line in said[:2]] == ["[1/3] a seed 0", "[2/3] b seed 0"]
    a, b, c = (set((run.folder.path / "cores").read_text().split()) for run in runs)
    assert not a & b
    assert c in (a, b)


@pytest.mark.parametrize(("among", "shares"), [(2, [(1, 3), (5, 7, 9)]), (5, [(1,), (3,), (5,), (7,), (9,)])])
def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch, among: int, shares: list[tuple[int, ...]]) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {9, 7, 5, 3, 1})
    assert share_cores(among) == shares
    assert share_cores(1) == [()]


def test_finished_runs_are_not_run_again(tmp_path: Path) -> None:
    quietly([scripted(tmp_path, "a"), scripted(tmp_path, "b")], tmp_path)
    (tmp_path / "b" / "seed0" / "results.json").unlink()
    (tmp_path / "table.md").unlink()
    runs = [scripted(tmp_path, "a", "sys.exit('again')"), scripted(tmp_path, "b")]
    outcome, said = quietly(runs, tmp_path)
    assert outcome.failed == []
    assert said[0] == "1 of 2 runs are finished already"
    assert [line for line in said if "started" in line] == [
        f"[1/1] b seed 0: started, log in {tmp_path}/b/seed0/log.txt"
    ]
    assert (tmp_path / "table.md").read_text().count("| 1 |") == 2
    (tmp_path / "table.md").unlink()
    assert quietly(runs, tmp_path)[1] == ["2 of 2 runs are finished already"]
    assert (tmp_path / "table.md").is_file()


def test_failed_runs_are_named_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    runs = [
        scripted(tmp_path, "a", "print('one'); print('mtbert: no such thing', file=sys.stderr); print(); sys.exit(2)"),
        scripted(tmp_path, "b", "os.kill(os.getpid(), signal.SIGKILL)"),
        scripted(tmp_path, "c", "print('stopped early')"),
        scripted(tmp_path, "d"),
    ]
    outcome, said = quietly(runs, tmp_path)
    logs = [tmp_path / name / "seed0" / "log.txt" for name in "abc"]
    assert outcome.failed == [
        f"a seed 0 failed: exit status 2: mtbert: no such thing (log: {logs[0]})",
        f"b seed 0 failed: killed by SIGKILL: it printed nothing (log: {logs[1]})",
        f"c seed 0 failed: exit status 0: stopped early (log: {logs[2]})",
    ]
    assert "[1/4] a seed 0: failed after a while: exit status 2: mtbert: no such thing" in said
    assert [row.seeds for row in outcome.rows] == [(), (), (), (0,)]
    assert "| a | 0 of 1 |" in (tmp_path / "table.md").read_text()


def test_a_failure_inside_jax_is_named_by_its_message(tmp_path: Path) -> None:
    """By default JAX prints a remark on tracebacks below it."""
    path = [entry for entry in sys.path if "site-packages" in entry]
    script = f"sys.path += {path}\nimport jax\njax.jit(lambda x: x @ x)(jax.numpy.ones((2, 3)))"
    outcome, _ = quietly([scripted(tmp_path, "a", script)], tmp_path)
    assert "exit status 1: TypeError: dot_general requires" in outcome.failed[0]


def test_a_config_that_was_edited_meanwhile_does_not_enter_the_table(tmp_path: Path) -> None:
    edited = scripted(tmp_path, "a", textwrap.dedent(FINISH).replace("text('')", "text('lr = 0.5')"))
    outcome, _ = quietly([edited], tmp_path)
    assert "a seed 0 failed: it was run with another config (lr: 0.5 → 1e-05); has a.toml been" in outcome.failed[0]
    assert "| a | 0 of 1 |" in (tmp_path / "table.md").read_text()


def test_without_any_finished_run_there_is_still_a_table(tmp_path: Path) -> None:
    assert quietly([scripted(tmp_path, "a", "sys.exit(1)")], tmp_path)[0].failed
    assert "| a | 0 of 1 |" in (tmp_path / "table.md").read_text()


def test_a_log_keeps_what_earlier_attempts_printed_and_the_message_does_not(tmp_path: Path) -> None:
    quietly([scripted(tmp_path, "a", "print('first'); sys.exit(1)")], tmp_path)
    outcome, _ = quietly([scripted(tmp_path, "a", "sys.exit(1)")], tmp_path)
    assert "it printed nothing" in outcome.failed[0]
    quietly([scripted(tmp_path, "a", "print('x' * 9000); print('last'); sys.exit(1)")], tmp_path)
    assert (tmp_path / "a" / "seed0" / "log.txt").read_text().split() == ["first", "x" * 9000, "last"]


def test_a_folder_in_which_another_process_still_works_is_left_alone(tmp_path: Path) -> None:
    runs = [scripted(tmp_path, "a"), scripted(tmp_path, "b")]
    runs[0].folder.path.mkdir(parents=True)
    with runs[0].log.open("w") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        outcome, _ = quietly(runs, tmp_path)
    assert "a seed 0 failed: another process is still at work" in outcome.failed[0]
    assert [row.seeds for row in outcome.rows] == [(), (0,)]
    assert quietly(runs, tmp_path)[0].failed == []


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
    (run,) = plan_runs([(Path("a.toml"), config)], (0,), tmp_path)
    finish(dataclasses.replace(run.config, encoder="old/place", cache_dir="x"), run.folder.path)
    (run,) = plan_runs([(Path("a.toml"), config)], (0,), tmp_path)
    console = Console(file=io.StringIO())
    execute([run], tmp_path, console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue().splitlines()
    assert said[1:] == [f"a seed 0: encoder: 'old/place' → {config.encoder!r}; taken for the same, elsewhere"]


def test_a_terminal_shows_the_last_line_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtbert_jax.ablation.processes.POLL", 0.01)
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    execute(
        [scripted(tmp_path, "a", "print('step [red] 7', flush=True); time.sleep(1)" + textwrap.dedent(FINISH))],
        tmp_path,
        console,
    )
    assert isinstance(console.file, io.StringIO)
    assert "step [red] 7" in console.file.getvalue()
