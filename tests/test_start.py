"""Ctrl-C while imports run: the command ends in one line, a program that imports the library as it always would.

And standard streams that are closed, full or of another encoding.
"""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mtbert_jax import start
from mtbert_jax.cli.main import main
from mtbert_jax.start import leave
from mtbert_jax.training.interrupt import Interruption

SCRIPT = "import sys\nfrom mtbert_jax.cli.main import main\nsys.exit(main())\n"
"""As pip writes it for the command."""
PRESSED = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n"
"""Stands in place of JAX."""


def interrupted(*args: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What becomes of a process in which Ctrl-C is pressed while the library imports JAX."""
    (folder / "jax.py").write_text(PRESSED)
    path = os.pathsep.join([str(folder), str(Path(__file__).parents[1])])
    own = {"env": {**os.environ, "PYTHONPATH": path}, "timeout": 60}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs tests in the background ignores it
    try:
        return subprocess.run([sys.executable, *args], capture_output=True, text=True, **own)  # type: ignore[call-overload]
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("way", ["mtbert", "-m"])
def test_ctrl_c_while_the_command_starts_is_one_line(way: str, tmp_path: Path) -> None:
    (tmp_path / "mtbert").write_text(SCRIPT)
    args = ["-m", "mtbert_jax"] if way == "-m" else [str(tmp_path / "mtbert")]
    done = interrupted(*args, "train", "a.toml", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "mtbert: interrupted\n")


def test_a_program_that_imports_the_library_keeps_its_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("try:\n    import mtbert_jax\nexcept KeyboardInterrupt:\n    print('mine')\n")
    done = interrupted(str(tmp_path / "own.py"), folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "mine\n", "")


def test_once_the_command_runs_ctrl_c_can_be_caught() -> None:
    before = signal.signal(signal.SIGINT, leave)
    try:
        assert main(["no-such-command"]) == 2
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("argv", [["--help"], ["no-such-command"]])
def test_once_the_command_is_done_ctrl_c_is_no_traceback(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "is_command", lambda: True)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main(argv)
        assert signal.getsignal(signal.SIGINT) is leave
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_printed_as_json_escapes_it(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written, text = io.BytesIO(), "é × … 😀 \ud800 ש"
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    assert main(["--help"]) == 0
    before = len(written.getvalue())
    print(json.dumps(text, ensure_ascii=False), flush=True)
    assert json.loads(written.getvalue()[before:].decode(encoding)) == text


def test_output_that_nobody_takes_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["--help"]) == 1
    assert capsys.readouterr().err == "mtbert: standard output or a file: No space left on device\n"


def test_streams_that_were_closed_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    start.open_streams()
    with sys.stdin as given, sys.stdout, sys.stderr:
        assert given.read() == ""
        print("nobody reads this")
        assert not sys.stderr.isatty()


def test_standard_error_that_nobody_reads_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, writes = os.pipe()
    given = os.fdopen(writes, "w", encoding="utf-8")
    monkeypatch.setattr(sys, "__stderr__", given)
    monkeypatch.setattr(sys, "stderr", given)
    start.open_streams()
    print("somebody reads this", file=sys.stderr)
    assert os.read(reads, 100) == b"somebody reads this\n"
    os.close(reads)
    for _ in range(1000):
        print("nobody reads this", file=sys.stderr)
    sys.stderr.flush()
    with pytest.raises(BrokenPipeError):
        given.close()


def test_under_nohup_a_run_does_not_heed_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interruption.status is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
