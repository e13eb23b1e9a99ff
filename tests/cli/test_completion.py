"""What shells read to complete `mtbert`."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mtbert_jax.cli.completion import completion_script
from mtbert_jax.cli.main import COMMANDS, main

TAKES = {name: command.arguments for name, command in COMMANDS.items()}
bash = pytest.mark.skipif(not shutil.which("bash"), reason="no bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "mtbert.bash"
    path.write_text(completion_script("bash", TAKES))
    return path


def completed(script: Path, folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    listed = " ".join(f"'{word}'" for word in words)
    commands = f"source '{script}'; COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; _tyro_mtbert"
    commands += '; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", commands], cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return sorted(done.stdout.split())


@bash
def test_bash_completes_commands(script: Path, tmp_path: Path) -> None:
    assert completed(script, tmp_path, "mtbert", "") == sorted([*COMMANDS, "-h", "--help"])
    assert completed(script, tmp_path, "mtbert", "ex") == ["export"]


@bash
def test_bash_completes_flags_and_their_values(script: Path, tmp_path: Path) -> None:
    assert completed(script, tmp_path, "mtbert", "train", "a.toml", "--smart.st") == [
        "--smart.step-size",
        "--smart.steps",
    ]
    assert completed(script, tmp_path, "mtbert", "export", "run", "--format", "") == ["hf", "stablehlo"]


@bash
def test_bash_completes_files_where_they_may_stand(script: Path, tmp_path: Path) -> None:
    for name in ("config.toml", "code.py", "other"):
        (tmp_path / name).write_text("")
    assert completed(script, tmp_path, "mtbert", "train", "co") == ["code.py", "config.toml"]
    assert completed(script, tmp_path, "mtbert", "check-data", "a.toml", "--json", "ot") == ["other"]
    assert completed(script, tmp_path, "mtbert", "evaluate", "zz") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_offers_files_where_there_is_nothing_else(shell: str) -> None:
    """Tyro's scripts are changed in places that they must have."""
    script = completion_script(shell, TAKES)  # type: ignore[arg-type]
    assert len(re.findall(r"completions = completions or \['__TYRO_COMPLETE_FILES__'\]", script)) == 1
    assert script.count("__TYRO_COMPLETE_FILES__") >= 3
    assert ("complete -o filenames -F _tyro_mtbert mtbert\n" in script) == (shell == "bash")


def test_the_command_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (completion_script("zsh", TAKES), "")
    assert out.startswith("#compdef mtbert")
    assert main(["completion", "csh"]) == 2
    assert capsys.readouterr().err == "mtbert: shell = 'csh' is none of 'bash', 'zsh', 'fish'; did you mean 'zsh'?\n"
