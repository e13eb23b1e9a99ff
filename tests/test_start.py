"""Ctrl-C while imports run: the command ends in one line, a program that imports the library as it always would."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mtbert_jax.cli.main import main
from mtbert_jax.start import leave

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
