"""The command `submission`, as a person uses it."""

import csv
import dataclasses
from pathlib import Path

import pytest

from mtbert_jax.cli.main import main
from mtbert_jax.config import Config
from mtbert_jax.tasks.regression import Regression
from tests.conftest import replace_task
from tests.runs import checkpointed

SOURCES = {"sst": "ids-sst", "para": "quora", "sts": "sts"}


@pytest.fixture
def run(config: Config) -> Path:
    """A run with a checkpoint of random heads."""
    return checkpointed(dataclasses.replace(config, steps=2)).path


def ids(path: Path) -> list[str]:
    return [line.split("\t")[1] for line in path.read_text().splitlines()[1:]]


def test_a_run_writes_the_six_files(
    run: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a model that says 0.1 less of every pair than it does, so that some similarities are below 0."""
    predict = Regression.predict
    monkeypatch.setattr(Regression, "predict", lambda self, logits: predict(self, logits) - 0.1)
    assert main(["submission", str(run)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert len(out.splitlines()) == 6
    clipped = 0
    for task, source in SOURCES.items():
        for split, name in (("dev", "dev"), ("test", "test-student")):
            path = run / "submission" / f"{task}-{split}-output.csv"
            rows = [line.split(" , ") for line in path.read_text().splitlines()[1:]]
            assert [row[0] for row in rows] == ids(data_dir / f"{source}-{name}.csv")
            assert f"{path}: {len(rows)} predictions, as they must be" in out
            own = list(csv.reader((run / "predictions" / path.name).read_text().splitlines()))[1:]
            if task == "sts":
                assert [float(value) for _, value in rows] == [max(float(v) - 0.1, 0.0) for _, v in own]
                clipped += sum(float(value) < 0.1 for _, value in own)
            else:
                assert [(name, float(value)) for name, value in rows] == [(name, float(value)) for name, value in own]
    told = [
        int(line.split("; ")[1].split()[0]) for line in out.splitlines() if "to the nearer end of the range" in line
    ]
    assert sum(told) == clipped > 0
    header = (run / "submission" / "sts-dev-output.csv").read_text().splitlines()[0]
    assert header == "id \t Predicted_Similiary "  # although the task's own column is not given


def test_rows_without_a_usable_label_are_predicted_too(
    config: Config, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/numerics.md, section 5: the full Quora dev file has two such rows."""
    broken = tmp_path / "broken.csv"
    lines = (data_dir / "quora-dev.csv").read_text().splitlines()
    broken.write_text("\n".join([*lines[:3], "7\tnew\tone\ttwo\t", *lines[3:]]) + "\n")
    config = replace_task(config, "para", dev=str(broken))
    run = checkpointed(dataclasses.replace(config, bad_rows="skip")).path
    assert "new" not in (run / "predictions" / "para-dev-output.csv").read_text()
    assert main(["submission", str(run), "--output", str(tmp_path / "files")]) == 0
    assert (tmp_path / "files" / "para-dev-output.csv").read_text().splitlines()[3].startswith("new , ")
    assert not (run / "submission").exists()
    with broken.open("a") as file:
        file.write("8\tnewer\tone\n")
    capsys.readouterr()
    assert main(["submission", str(run)]) == 2
    err = capsys.readouterr().err
    assert "1 of 6 prediction files are wrong" in err
    assert "1 rows of the data file cannot be read, the first: " in err
    assert f"{broken}:24" in err


def test_a_run_of_fewer_tasks_says_so(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    run = checkpointed(dataclasses.replace(config, tasks=config.tasks[1:2])).path
    assert main(["submission", str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"no task {name}: its two files are not there" for name in ("sst", "sts")]
    assert len(lines) == 4


def test_files_made_elsewhere_are_checked(run: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submission", str(run)]) == 0
    files = [str(run / "submission" / f"{task}-dev-output.csv") for task in SOURCES]
    data = [str(data_dir / f"{source}-dev.csv") for source in SOURCES.values()]
    assert main(["submission", "--check", *files, "--data", *data]) == 0
    path = Path(files[1])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:4], lines[4].replace("0.0", "x").replace("1.0", "x"), *lines[6:]]))
    capsys.readouterr()
    assert main(["submission", "--check", *files, "--data", *data]) == 2
    out, err = capsys.readouterr()
    assert (
        f"{path}: 2 faults\n  {path}:5: prediction 'x' is not a whole number from 0 to 1\n  {path}: 1 of 21 ids" in out
    )
    assert err.count("\n") == 1
    assert err.startswith(f"mtbert: 1 of 3 prediction files are wrong: {path}:5: ")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], "give a run folder, or files to check"),
        (["run", "--check", "a.csv"], "give a run folder, or files to check"),
        (["--check", "a.csv", "b.csv", "--data", "c.csv"], "--check names 2 files and --data 1"),
        (["nowhere", "--data", "c.csv"], "--data goes with --check"),
        (["nowhere"], "nowhere is no run folder"),
    ],
)
def test_what_cannot_be_done_is_one_line(flags: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submission", *flags]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1


def test_a_task_without_a_test_file_is_refused(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    run = checkpointed(replace_task(config, "sts", test="")).path
    assert main(["submission", str(run)]) == 2
    assert 'task sts has no test file to predict; give its name as test = "..."' in capsys.readouterr().err
