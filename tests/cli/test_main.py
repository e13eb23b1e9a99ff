"""The command line as a person uses it, in this process."""

import csv
import dataclasses
import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

import mtbert_jax as mt
from mtbert_jax.cli.main import COMMANDS, main
from mtbert_jax.config import Config, save_config
from mtbert_jax.errors import TrainingError
from mtbert_jax.machine import commit
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.training.records import read_metrics
from mtbert_jax.training.seeds import load_run_config
from tests.conftest import light


@pytest.fixture
def toml(config: Config, tmp_path: Path) -> Path:
    """The tiny config as a file."""
    path = tmp_path / "tiny.toml"
    save_config(config, path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path, data_dir: Path) -> Path:
    """A finished run folder."""
    from tests.conftest import course_tasks

    out = tmp_path_factory.mktemp("trained") / "run"
    sst, *others = course_tasks(mt.HeadConfig(hidden_layers=0))
    tasks = (dataclasses.replace(sst, output_column="Predicted_Sentiment"), *others)
    config = Config(encoder=str(encoder_dir), data_dir=str(data_dir), out=str(out), tasks=tasks, max_length=48)
    path = out.parent / "config.toml"
    save_config(config, path)
    flags = ["--steps", "2", "--lengths", "48", "--batch-size", "4", "--cache-dir", str(out.parent / "cache")]
    assert main(["train", str(path), *flags]) == 0
    return out


def fails(capsys: pytest.CaptureFixture[str], argv: list[str], *expected: str) -> str:
    """Runs `argv`; checks for exit status 2 and one line on standard error, and returns the line."""
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("mtbert: ")
    for words in expected:
        assert words in err
    return err


def test_train_leaves_the_run_folder_of_the_contract(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "config.toml", "metrics.jsonl", "checkpoints", "predictions", "results.json", "data.json", "encoder", ".lock"
    }  # fmt: skip
    results = json.loads((trained / "results.json").read_text())
    costs = {"seconds", "peak_memory_bytes", "device", "versions"}
    assert set(results) == {"config", "seed", "step", "run", "dev", *costs}  # test files have no labels
    assert set(results["dev"]) == {"sst", "para", "sts", "average", "plain_average"}
    assert results["step"] == 2
    assert results["config"]["steps"] == 2
    assert 0 < results["seconds"] < 600
    assert 50 * 2**20 < results["peak_memory_bytes"] < 64 * 2**30
    assert results["device"].endswith(" CPU cores")
    made = {"commit": commit()} if commit() else {}
    assert results["versions"] == {"jax": jax.__version__, "mtbert_jax": mt.__version__, **made}


def test_prediction_files_have_every_id_once_and_the_courses_format_where_the_config_says_so(
    trained: Path, data_dir: Path
) -> None:
    """docs/numerics.md, section 5: header `id \\t … \\n`, rows `{id} , {prediction} \\n`; otherwise plain CSV."""
    sources = {"sst": "ids-sst", "para": "quora", "sts": "sts"}
    for task, source in sources.items():
        for split, name in (("dev", "dev"), ("test", "test-student")):
            path = trained / "predictions" / f"{task}-{split}-output.csv"
            lines = path.read_text().splitlines(keepends=True)
            if task == "sst":
                assert lines[0] == "id \t Predicted_Sentiment \n"
                rows = [line.split(" , ") for line in lines[1:]]
                assert all(value.endswith(" \n") for _, value in rows)
            else:
                assert lines[0] == "id,prediction\n"
                rows = list(csv.reader(lines))[1:]
            values = {value.strip() for _, value in rows}
            if task == "sst":
                assert values <= {"0", "1", "2", "3", "4"}
            elif task == "para":
                assert values <= {"0", "1"}
            else:
                assert all(float(value) == float(value) for value in values)
            ids = [row.split("\t")[1] for row in (data_dir / f"{source}-{name}.csv").read_text().splitlines()[1:]]
            assert [row[0] for row in rows] == ids


def test_evaluate_repeats_the_results(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores == json.loads((trained / "results.json").read_text())["dev"]
    assert main(["evaluate", str(trained), "--split", "train"]) == 0
    out = capsys.readouterr().out
    assert "plain_average" in out
    assert "train, step 2" in out


def test_evaluate_refuses_a_split_without_labels(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, ["evaluate", str(trained), "--split", "test"], "no task has labels for the split 'test'")


def test_predict_reads_standard_input(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "the film was good .\nthe book was [SEP] dull .\n\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["predict", str(trained), "--task", "sst"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == ["the film was good .", "the book was [SEP] dull .", ""]
    assert all(row["label"] in range(5) and len(row["probabilities"]) == 5 for row in rows)
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-5 for row in rows)


def test_predict_says_how_many_texts_are_cut_off(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The warning comes before the first prediction, and only for texts that are longer than what is read."""
    limit = mt.MultitaskModel.from_checkpoint(trained).task("sst").max_length
    fits, longer = (" ".join(["film"] * words) for words in (limit - 2, limit - 1))  # two are special tokens
    path = tmp_path / "texts.txt"
    argv = ["predict", str(trained), "--task", "sst", "--input", str(path)]
    path.write_text(f"{fits}\n{longer}\na film\n")
    assert main(argv) == 0
    same, cut, _ = (json.loads(line)["probabilities"] for line in capsys.readouterr().out.splitlines())
    assert cut == pytest.approx(same, rel=1e-5)
    told = "1 of 3 texts have more tokens than max_length of task sst, and what is beyond is cut off"
    assert caplog.text.count(told) == 1
    caplog.clear()
    path.write_text(f"{fits}\n")
    assert main(argv) == 0
    assert "max_length" not in caplog.text
    assert main([*argv, "--soft-labels", str(tmp_path / "soft.jsonl")]) == 0
    assert "max_length" not in caplog.text
    path.write_text(f"{longer}\n")
    assert main([*argv, "--soft-labels", str(tmp_path / "soft.jsonl")]) == 0
    assert "the text has more tokens than max_length of task sst" in caplog.text


def test_predict_reads_pairs_from_a_file_and_writes_one(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("a film\tthe film\r\na song\ta meal")
    flags = ["--task", "sts", "--input", str(tmp_path / "pairs.txt"), "--output", str(tmp_path / "out.jsonl")]
    assert main(["predict", str(trained), *flags]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == [["a film", "the film"], ["a song", "a meal"]]
    assert all(isinstance(row["label"], float) and row["probabilities"] == {} for row in rows)


@pytest.mark.parametrize("flag", ["--output", "--soft-labels"])
def test_what_predict_reads_is_not_written_over(
    flag: str, trained: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("a film\n")
    (tmp_path / "link").symlink_to("texts.txt")
    argv = ["predict", str(trained), "--task", "sst", "--input", str(tmp_path / "texts.txt"), flag]
    fails(capsys, [*argv, str(tmp_path / "link")], f"{flag} {tmp_path / 'link'} is the --input; name another file")
    assert (tmp_path / "texts.txt").read_text() == "a film\n"
    data = data_dir / "quora-dev.csv"
    before = data.read_bytes()
    fails(capsys, [*argv, str(data)], f"{flag} {data} is the dev file of task para; name another file")
    assert data.read_bytes() == before


@pytest.mark.parametrize("name", ["config.toml", "predictions/sst-dev-output.csv", "encoder/config.json"])
@pytest.mark.parametrize("command", ["predict", "report"])
def test_a_runs_own_files_are_not_written_over(
    command: str, name: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, told = trained / name, "lies in encoder" if name.startswith("encoder") else f"is {name}"
    before = path.read_bytes()
    flags = ["--task", "sst", "--output"] if command == "predict" else ["--out"]
    fails(
        capsys, [command, str(trained), *flags, str(path)], f"{flags[-1]} {path} {told} of the run {trained}; name ano"
    )
    assert path.read_bytes() == before


@pytest.mark.parametrize("command", ["predict", "submission"])
def test_a_folder_of_files_is_known_to_be_fit_before_they_are_computed(
    command: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtbert_jax.inference.ensemble.MultitaskModel", None)  # nothing is loaded
    own, other = ("predictions", "submission") if command == "predict" else ("submission", "predictions")
    path = trained / other
    fails(
        capsys, [command, str(trained), "--output", str(path)], f"is {other} of the run {trained}; name another folder"
    )
    two = ["predict", str(trained), str(trained), "--output", str(trained / "predictions")]
    fails(capsys, two, f"is predictions of the run {trained}; name another folder")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").touch()
    (run / own).touch()
    fails(capsys, [command, str(run)], f"cannot write {run / own}: {run / own} is no folder")


def test_predict_without_a_task_writes_all_files(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(trained), "--output", str(tmp_path / "files")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    for path in (tmp_path / "files").iterdir():
        assert path.read_bytes() == (trained / "predictions" / path.name).read_bytes()


def test_own_text_in_python_agrees_with_the_prediction_files(trained: Path, data_dir: Path) -> None:
    model = mt.MultitaskModel.from_checkpoint(trained)
    rows = [line.split("\t") for line in (data_dir / "quora-dev.csv").read_text().splitlines()[1:]]
    labels = [prediction.label for prediction in model.predict("para", [(row[2], row[3]) for row in rows])]
    lines = (trained / "predictions" / "para-dev-output.csv").read_text().splitlines()[1:]
    assert labels == [int(line.split(",")[1]) for line in lines]


def test_own_text_that_the_task_does_not_take_is_refused(trained: Path) -> None:
    model = mt.MultitaskModel.from_checkpoint(trained)
    assert model.predict("sst", []) == []
    with pytest.raises(mt.InputError, match="task para takes two texts, got 1"):
        model.predict("para", ["one"])
    with pytest.raises(mt.InputError, match=r"no task 'parra' in this run; did you mean 'para'\?"):
        model.predict("parra", ["one"])


def test_any_field_can_be_given_and_the_chain_swapped(config: Config, toml: Path, tmp_path: Path) -> None:
    save_config(light(config), toml)
    flags = ["--optimizer", "mean_tasks()", "adafactor(lr)", "--steps", "1", "--tasks.0.head.hidden-layers", "2"]
    assert main(["train", str(toml), *flags]) == 0
    saved = mt.load_config(tmp_path / "run" / "config.toml")
    assert saved.optimizer == ("mean_tasks()", "adafactor(lr)")
    assert saved.tasks[0].head is not None
    assert saved.tasks[0].head.hidden_layers == 2


def test_the_run_folder_is_named_after_the_config(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    import dataclasses

    save_config(dataclasses.replace(light(config), out="", steps=1), tmp_path / "nice_name.toml")
    assert main(["train", "nice_name.toml"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("run folder: runs/nice_name")
    assert (tmp_path / "runs" / "nice_name" / "results.json").is_file()


def test_train_again_needs_a_word(toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(toml), "--steps", "1"]) == 0
    capsys.readouterr()
    fails(capsys, ["train", str(toml), "--steps", "1"], "--resume goes on with it")
    fails(capsys, ["train", str(toml), "--resume", "--overwrite"], "exclude each other")
    assert main(["train", str(toml), "--steps", "2", "--overwrite"]) == 0
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["step"] == 2


def test_a_run_folder_stands_for_its_own_config(toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever it lies by now."""
    assert main(["train", str(toml), "--steps", "1", "--lr", "0.5"]) == 0
    run = str((tmp_path / "run").rename(tmp_path / "moved"))
    capsys.readouterr()
    assert main(["train", run, "--resume"]) == 0
    assert capsys.readouterr().out.rstrip().endswith(f"run folder: {run}")
    fails(capsys, ["train", run], f"{run} holds a run already; --resume goes on with it")
    fails(capsys, ["train", run, "--resume", "--steps", "8"], "steps: 1 → 8", f"--init-from {run} with another --out")
    fails(capsys, ["train", str(tmp_path), "--resume"], "is no run folder: it has no config.toml")
    assert main(["train", run, "--dry-run"]) == 0
    assert "lr = 0.5" in capsys.readouterr().out


def test_a_folder_of_several_seeds_goes_on_as_a_whole(
    config: Config, toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_config(light(config), toml)
    assert main(["train", str(toml), "--steps", "1", "--seeds", "4", "2"]) == 0
    run = tmp_path / "run"
    before = (run / "table.csv").read_text()
    assert load_run_config(run).seeds == (2, 4)
    capsys.readouterr()
    assert main(["train", str(run), "--resume"]) == 0
    assert before.splitlines()[0] == (run / "table.csv").read_text().splitlines()[0]
    assert "runs: seed2, seed4" in capsys.readouterr().out
    other = run / "seed4" / "config.toml"
    other.write_text(other.read_text().replace("lr = 0.001", "lr = 0.002", 1))
    fails(capsys, ["train", str(run), "--resume"], "runs of several configs (seed4: lr: 0.001 → 0.002)")


def test_overwrite_spares_the_old_run_when_the_new_one_cannot_start(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(toml), "--steps", "1"]) == 0
    capsys.readouterr()
    fails(capsys, ["train", str(toml), "--overwrite", "--data-dir", "nowhere"], "data folder nowhere does not exist")
    assert (tmp_path / "run" / "results.json").is_file()


def test_an_override_that_every_stage_hides_is_refused(
    toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    staged = tmp_path / "staged.toml"
    staged.write_text(
        toml.read_text().replace("stages = []\n", "") + '\n[[stages]]\nname = "full"\nsteps = 1\nlr = 1e-3\n'
    )
    fails(capsys, ["train", str(staged), "--lr", "0.1"], "--lr has no effect", "--stages.0.lr")
    fails(capsys, ["train", str(toml), "--epochs", "2"], "--epochs has no effect, steps = 6", "add --steps None")
    assert main(["train", str(staged), "--stages.0.lr", "0.1"]) == 0
    assert mt.load_config(tmp_path / "run" / "config.toml").resolved_stages()[0].lr == 0.1


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda text: text.replace("batch_size = 4", "batch_sise = 4", 1), ["unknown key 'batch_sise'", "batch_size"]),
        (lambda text: text.replace("lr = 0.001", 'lr = "high"'), ["lr: expected a number, got 'high'"]),
        (lambda text: text + "\n[[", ["is not a TOML file"]),
    ],
)
def test_a_wrong_config_is_named_with_file_and_key(
    toml: Path, capsys: pytest.CaptureFixture[str], edit: Any, expected: list[str]
) -> None:
    toml.write_text(edit(toml.read_text()))
    fails(capsys, ["train", str(toml)], str(toml), *expected)


def test_an_unknown_kind_is_named_with_its_task(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml.write_text(toml.read_text().replace('kind = "binary"', 'kind = "binery"'))
    fails(capsys, ["train", str(toml)], "(para): kind = 'binery' is none of", "did you mean 'binary'?")


def test_wrong_data_names_file_and_line(
    toml: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fails(capsys, ["train", str(toml), "--data-dir", "missing"], "data folder missing does not exist")
    lines = (data_dir / "ids-sst-train.csv").read_text().splitlines()
    short = tmp_path / "short.csv"
    short.write_text("\n".join([*lines[:5], "4\tabc\tthe film", *lines[5:]]))
    fails(capsys, ["train", str(toml), "--tasks.0.train", str(short)], f"{short}:6: has 3 columns", "header has 4")
    high = tmp_path / "high.csv"
    high.write_text("\n".join([*lines[:5], "4\tabc\tthe film\t7", *lines[5:]]))
    fails(capsys, ["train", str(toml), "--tasks.0.train", str(high)], f"{high}:6: column 'sentiment' is '7'", "0 to 4")


def test_a_wrong_encoder_is_named(
    toml: Path, encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    fails(capsys, ["train", str(toml), "--encoder", str(tmp_path)], "is no encoder directory")
    broken = tmp_path / "broken"
    shutil.copytree(encoder_dir, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    fails(capsys, ["train", str(toml), "--encoder", str(broken)], str(weights), "broken or cut off")
    (broken / "config.json").write_text('{"model_type": "t5"}')
    fails(capsys, ["train", str(toml), "--encoder", str(broken)], "model_type is 't5'", "bert, deberta-v2, distilbert")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["train"], "give a config"),
        (["train", "nowhere.toml"], "cannot read the config nowhere.toml"),
        (["evaluate", "nowhere"], "nowhere is no run folder"),
        (["predict", "nowhere"], "nowhere is no run folder"),
        (["export", "nowhere", "--format", "hf"], "nowhere is no run folder"),
        (["exprot", "nowhere"], "unknown command 'exprot'; did you mean 'export'?"),
    ],
)
def test_wrong_commands_are_named(argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, argv, expected)


def test_predict_refuses_what_it_cannot_read(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails(capsys, ["predict", str(trained), "--task", "sst", "--input", "nowhere.txt"], "cannot read nowhere.txt")
    fails(capsys, ["predict", str(trained), "--input", "x"], "--input needs --task")


@pytest.mark.parametrize(
    ("flags", "text", "expected"),
    [
        (["--task", "sst", "--output", "nodir/x"], b"film\n", "cannot write nodir/x: there is no folder nodir"),
        (["--task", "sst", "--output", "."], b"film\n", "cannot write .: it is a folder"),
        (["--output", "there.txt"], b"", "cannot write there.txt: there.txt is no folder"),
        (["--task", "sst"], b"film\n\xe9t\xe9\n", "standard input:2: is not UTF-8 text (byte 5)"),
        (["--task", "para"], b"film\tsong\nfilm\n", "standard input:2: has 1 texts, separated by tabs; task para"),
        (["--task", "sst"], b'{"text": "film"}\n', "standard input:1: has no field 'sentence'"),
        (["--task", "ssst"], b"film\n", "no task 'ssst' in this run; did you mean 'sst'?"),
    ],
)  # fmt: skip
def test_predict_names_what_is_wrong_with_its_texts_and_places(
    flags: list[str], text: bytes, expected: str,
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("there.txt").write_text("kept")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    fails(capsys, ["predict", str(trained), *flags], expected)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["kept"]


def test_predict_reads_columns_by_their_names(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (
        ("a.txt", "\ufeffa film\tthe film\na song\ta meal\n"),
        ("a.tsv", "\ufeffid\tsentence2\tsentence1\n0\tthe film\ta film\n1\ta meal\ta song\n"),
        ("a.jsonl", '{"sentence1": "a film", "sentence2": "the film"}\n{"sentence2": "a meal", "sentence1": "a song"}'),
    ):
        (tmp_path / name).write_text(text)
        assert main(["predict", str(trained), "--task", "sts", "--input", str(tmp_path / name)]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["text"] for row in rows] == [["a film", "the film"], ["a song", "a meal"]]


def test_test_rows_without_a_label_are_predicted_and_the_others_scored_with_a_note(
    trained: Path, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Scores are those of a file of the labelled rows alone; the run's test files are in a copied folder."""
    data = shutil.copytree(data_dir, tmp_path / "data")
    header, *rows = (data / "ids-sst-dev.csv").read_text().splitlines()
    path = data / "ids-sst-test-student.csv"
    path.write_text("\n".join([header, *rows[:9]]) + "\n")
    assert main(["evaluate", str(trained), "--split", "test", "--data-dir", str(data), "--json"]) == 0
    wanted = json.loads(capsys.readouterr().out)
    secret = [f"{number}\ts{number}\tthe song\t{label}" for number, label in enumerate(["-1", "", "-1"])]
    path.write_text("\n".join([header, secret[0], *rows[:4], secret[1], *rows[4:9], secret[2]]) + "\n")
    assert main(["evaluate", str(trained), "--split", "test", "--data-dir", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == wanted
    assert "task sst: 3 of 12 rows have no label; its scores are over the other 9" in caplog.text
    flags = ["--data-dir", str(data), "--output", str(tmp_path / "files")]
    assert main(["predict", str(trained), *flags]) == 0
    lines = (tmp_path / "files" / "sst-test-output.csv").read_text().splitlines()
    assert [line.split(" , ")[0] for line in lines[1:]][:6:5] == ["s0", "s1"]
    assert len(lines) == 13


def test_a_run_folder_without_checkpoints_is_named(trained: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    with pytest.raises(mt.InputError, match="holds no checkpoint: the run has ended, and its checkpoints/ is gone"):
        mt.MultitaskModel.from_checkpoint(tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(mt.InputError, match="holds no checkpoint yet"):
        mt.MultitaskModel.from_checkpoint(tmp_path / "run")
    (tmp_path / "run" / "checkpoints").mkdir()
    with pytest.raises(mt.InputError, match="no checkpoint that can be read"):
        mt.MultitaskModel.from_checkpoint(tmp_path / "run")


def test_help_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "evaluate RUN" in capsys.readouterr().out
    assert main([]) == 2
    for command in ("train", "evaluate", "export", "predict"):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
    assert "prediction files" in capsys.readouterr().out


def test_help_documents_every_command_and_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n  {name} " not in out] == []
    assert "Exit status: 0 done; 1 failed; 2 what was given is wrong" in out


def test_version_names_this_program_jax_and_the_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    device = jax.devices()[0].device_kind
    expected = rf"mtbert_jax {mt.__version__}, jax {jax.__version__}, \d+ × {device}, (\d+ of )?\d+ CPU cores\n"
    assert re.fullmatch(expected, capsys.readouterr().out)


@pytest.mark.parametrize("error", [RuntimeError("Unable to initialize backend"), AssertionError()])
def test_where_jax_finds_no_device_that_is_said(
    config: Config, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*_: object) -> list[jax.Device]:
        raise error

    path = Path(config.out).with_suffix(".toml")
    save_config(config, path)
    monkeypatch.setattr(jax, "devices", none)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.endswith("no device (JAX_PLATFORMS=cuda)\n")
    assert main(["train", str(path)]) == 2
    assert capsys.readouterr().err.startswith("mtbert: JAX_PLATFORMS=cuda: JAX finds no such device here")


@pytest.mark.parametrize(
    ("out", "err", "no_color", "coloured"),
    [
        (True, True, "", True),
        (True, True, "1", False),
        (True, False, "", False),
        (False, True, "", False),
    ],
)
def test_help_is_coloured_on_a_terminal_that_wants_it_only(
    out: bool, err: bool, no_color: str, coloured: bool,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys.stdout, "isatty", lambda: out)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: err)
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert ("\x1b[" in capsys.readouterr().out) == coloured


def test_an_interrupted_run_says_how_to_go_on(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that was given on the command line, but for what would delete the run."""

    def interrupt(*_: Any, **__: Any) -> None:
        raise Interrupted(130)

    monkeypatch.setattr("mtbert_jax.run.fit", interrupt)
    save_config(config, tmp_path / "a b.toml")
    assert main(["train", str(tmp_path / "a b.toml"), "--overwrite", "--seeds", "1", "2", "--out", "x"]) == 130
    command = f"mtbert train '{tmp_path}/a b.toml' --seeds 1 2 --out x --resume"
    assert capsys.readouterr().err == f"interrupted and saved; go on with: {command}\n"


def test_training_that_cannot_go_on_is_one_line_and_status_1(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise TrainingError("task sts: no more")

    monkeypatch.setattr("mtbert_jax.run.fit", fail)
    save_config(config, tmp_path / "a.toml")
    assert main(["train", str(tmp_path / "a.toml"), "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == "mtbert: task sts: no more\n"


@pytest.mark.parametrize("remat", [False, True])
def test_freed_memory_is_kept_unless_layers_are_computed_again(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remat: bool
) -> None:
    """`remat` asks for less memory: then what is freed goes back at once."""
    said: list[bool] = []
    monkeypatch.setattr("mtbert_jax.cli.main.keep_freed_memory", lambda keep=True: said.append(keep))
    monkeypatch.setattr("mtbert_jax.cli.main.train_in", lambda *_: mt.load_run(config.out))
    save_config(config, tmp_path / "config.toml")
    assert main(["train", str(tmp_path / "config.toml"), *(["--remat"] if remat else [])]) == 2
    assert said == [True, not remat]


@pytest.mark.parametrize(
    "argv", [["report", "run", "--out=~/page.html"], ["predict", "run", "--output=~/x"], ["evaluate", "~/run"]]
)
def test_a_home_folder_that_the_shell_has_left_as_it_is_is_named(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    fails(capsys, argv, ": ~ does not stand for the home folder here; write the whole path")
