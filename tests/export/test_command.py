"""The command `export` as a person uses it, in this process."""

import shutil
from pathlib import Path

import pytest

from mtbert_jax.cli.main import main
from tests.cli.test_main import fails


@pytest.mark.parametrize(("form", "file"), [("hf", "model.safetensors"), ("stablehlo", "load.py")])
def test_export_prints_its_folder_in_the_run(
    mixed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, file: str
) -> None:
    run = shutil.copytree(mixed_run, tmp_path / "run")
    assert main(["export", str(run), "--format", form]) == 0
    out = run / "export" / form
    assert capsys.readouterr().out == f"export: {out}\n"
    assert (out / file).is_file()
    fails(capsys, ["export", str(run), "--format", form], f"{out} holds an export already (step 2)", "--overwrite")
    assert main(["export", str(run), "--format", form, "--overwrite", "--checkpoint", "latest"]) == 0
    assert [path.name for path in out.parent.iterdir()] == [form]


def test_an_export_may_be_of_one_format_and_then_of_the_other(mixed_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["export", str(mixed_run), "--format", "stablehlo", "--out", str(out)]) == 0
    assert main(["export", str(mixed_run), "--format", "hf", "--out", str(out), "--overwrite"]) == 0
    assert not (out / "load.py").exists()


def test_what_cannot_be_exported_or_written_is_named(
    mixed_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(mixed_run), "--format", "hf"]
    (tmp_path / "file").write_text("mine")
    fails(capsys, [*command, "--out", str(tmp_path / "file")], f"--out {tmp_path}/file is a file")
    fails(capsys, [*command, "--out", str(tmp_path / "file" / "out")], "cannot write the export")
    fails(capsys, [*command, "--out", str(mixed_run), "--overwrite"], "holds something that is no export")
    shutil.copytree(mixed_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    fails(capsys, ["export", str(tmp_path / "run"), "--format", "hf"], "its checkpoints/ is gone")
    assert not (tmp_path / "run" / "export").exists()


def test_a_format_must_be_one_of_those_there_are(mixed_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, ["export", str(mixed_run), "--format", "onnx"], "--format = 'onnx' is none of 'hf', 'stablehlo'")
    fails(capsys, ["export", str(mixed_run)], "--format is missing (see mtbert export --help)")
