"""The tutorial, followed word for word, with a tiny encoder in place of the one that is downloaded."""

import dataclasses
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import TINY, save_encoder
from tests.docs.test_pages import DOCS, blocks
from tests.tally import Tally

PAGE, EXAMPLE = DOCS / "tutorial.md", DOCS.parent / "examples" / "tutorial"


def test_the_files_are_what_the_page_shows() -> None:
    (config,) = blocks(PAGE, "toml")
    assert tomllib.loads(config) == tomllib.loads((EXAMPLE / "desk.toml").read_text(encoding="utf-8"))
    (code,) = blocks(PAGE, "python")
    assert (EXAMPLE / "evened.py").read_text(encoding="utf-8").endswith(code)


@pytest.mark.slow
def test_every_command_does_what_it_should(tmp_path: Path, tally: Tally) -> None:
    shutil.copytree(EXAMPLE, tmp_path / "examples" / "tutorial")
    encoder = tmp_path / "weights" / "minilm"
    encoder.mkdir(parents=True)
    save_encoder(encoder, dataclasses.replace(TINY, max_position_embeddings=512))
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in {"mtbert": "-m mtbert_jax", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(DOCS.parent)}
    install, *commands = blocks(PAGE, "sh")
    assert install.startswith("make weights\n")
    said = ""
    for block in commands:
        done = subprocess.run(
            ["bash", "-e", "-c", block], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        said += done.stdout
    shown = "\n".join(blocks(PAGE, "text")).splitlines()
    of_data = [line for line in shown if line.startswith(("verdict:", "- task", '{"id"', "task ", "stage train: 60"))]
    assert len(of_data) == 9
    for text in of_data:  # what does not depend on the encoder
        assert text.partition(" examples; ")[0] in said, text
    for text in ("friendly", '"label": ', "report: runs/desk/report.html", "report: desk.html"):
        assert text in said
    assert (tmp_path / "runs" / "desk" / "export").is_dir()
    tally("commands of the tutorial", sum(block.count("\n") for block in commands))
