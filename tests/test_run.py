"""Training from Python: the same run as by the command line, and what the run object says of it."""

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtbert_jax as mt
from mtbert_jax.ablation.planned import PlannedRun
from mtbert_jax.cli.main import main
from mtbert_jax.config import save_config
from mtbert_jax.data import dataset
from mtbert_jax.data.predictions import write_predictions
from mtbert_jax.report.contents import RunContents
from mtbert_jax.results.rows import make_row
from mtbert_jax.results.write import write_results
from mtbert_jax.training import evaluate
from mtbert_jax.training.checkpoint import Checkpoints, Progress
from mtbert_jax.training.display import Display
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.logits import load_logits, save_logits
from mtbert_jax.training.state import TrainState
from tests.conftest import light, replace_task, tiny_run

OWN = ("seconds", "peak_memory_bytes")
"""What two runs of one config differ in."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, small_encoder_dir: Path, data_dir: Path) -> mt.Config:
    return tiny_run(small_encoder_dir, data_dir, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def toml(config: mt.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toml") / "tiny.toml"
    save_config(config, path)
    return path


@pytest.fixture(scope="module")
def run(toml: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[mt.Run]:
    """A run of 6 steps with another rate than the file's, trained from Python."""
    trained = mt.train(toml, out=tmp_path_factory.mktemp("trained") / "run", lr=2e-3, head={"dropout": 0.1})
    assert isinstance(trained, mt.Run)
    yield trained


def without_cost(results: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in results.items() if name not in OWN}
    return {**kept, "config": {**kept["config"], "out": ""}}


def test_python_and_the_command_line_give_the_same_results(run: mt.Run, toml: Path, tmp_path: Path) -> None:
    flags = ["--lr", "0.002", "--head.dropout", "0.1", "--out", str(tmp_path / "run")]
    assert main(["train", str(toml), *flags]) == 0
    other = mt.load_run(tmp_path / "run")
    assert isinstance(other, mt.Run)
    assert without_cost(other.results) == without_cost(run.results)


def test_scores_are_those_of_the_results_file(run: mt.Run) -> None:
    written = json.loads((run.path / "results.json").read_text())
    assert run.scores == written["dev"]
    assert set(run.scores) == {"sst", "para", "sts", "average", "plain_average"}
    assert set(run.scores["sts"]) == {"pearson", "spearman", "mae", "rmse"}
    assert type(run.scores["average"]) is float


def test_the_history_is_a_table(run: mt.Run) -> None:
    history = run.history
    assert list(history)[:4] == ["kind", "stage", "step", "epoch"]
    assert len({len(column) for column in history.values()}) == 1
    rows = [dict(zip(history, row, strict=True)) for row in zip(*history.values(), strict=True)]
    assert [row["step"] for row in rows if row["kind"] == "train"] == [2, 4, 6]
    for row in rows:
        assert (row["train/loss/sst"] is None) == (row["kind"] != "train")
        assert (row["dev/average"] is None) == (row["kind"] != "eval")


def test_predictions_name_label_and_probabilities(run: mt.Run) -> None:
    (sst,) = run.model.predict("sst", ["the film was good ."])
    assert sst.label in range(5)
    assert list(sst.probabilities) == ["0", "1", "2", "3", "4"]
    assert max(sst.probabilities, key=lambda name: sst.probabilities[name]) == str(sst.label)
    (para,) = run.model.predict("para", [("the film", "the song")])
    assert math.isclose(sum(para.probabilities.values()), 1, abs_tol=1e-6)
    assert para.label == (para.probabilities["1"] > 0.5)
    (sts,) = run.model.predict("sts", [("the film", "the song")])
    assert isinstance(sts.label, float)
    assert sts.probabilities == {}


def test_a_run_writes_its_page_and_its_exports(run: mt.Run, tmp_path: Path) -> None:
    assert run.report(tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert (run.export("hf", tmp_path / "hf") / "model.safetensors").is_file()
    assert run.evaluate("dev") == run.scores


def test_dev_is_read_once_and_scored_while_training_only(
    config: mt.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best step's logits are kept; the end of the run reads and computes the test split alone."""
    read: list[str] = []
    scored: list[int] = []
    load, split = dataset.read_for_run, evaluate.over_split

    def read_for_run(given: mt.Config, task: mt.TaskConfig, name: str, **how: Any) -> Any:
        read.append(name)
        return load(given, task, name, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset, "read_for_run", read_for_run)

    def over_split(setup: Any, compute: Any, data: Any, *rest: Any) -> Any:
        scored.append(len(data.labels))
        return split(setup, compute, data, *rest)

    monkeypatch.setattr(evaluate, "over_split", over_split)
    trained = mt.train(dataclasses.replace(config, steps=4, eval_every_steps=2), out=tmp_path / "run")
    assert sorted(read) == ["dev"] * 3 + ["test"] * 3 + ["train"] * 3
    assert scored == [21] * 6 + [11] * 3  # three dev sets at two steps, then three test sets
    assert isinstance(trained, mt.Run)
    kept = load_logits(trained.folder, trained.results["step"])
    assert kept is not None
    model = mt.MultitaskModel.from_checkpoint(trained.path)
    for name, logits in model.evaluate("dev")[2].items():
        np.testing.assert_array_equal(kept[name], logits)


def test_kept_logits_of_another_step_or_damaged_ones_are_not_taken(run: mt.Run, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    save_logits(folder, 3, {"sst": np.ones((2, 5), np.float32)})
    assert load_logits(folder, 4) is None
    assert load_logits(folder, 3) is not None
    folder.logits.write_bytes(folder.logits.read_bytes()[:-30])
    assert load_logits(folder, 3) is None
    again = write_results(run.folder, run.config)  # without kept logits: computed again
    assert without_cost(again)["dev"] == run.scores


def test_files_of_another_run_are_not_taken_for_its_own(
    run: mt.Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(Path(shutil.copytree(run.path, tmp_path / "run")))
    step = folder.load_results()["step"]  # type: ignore[index]
    assert load_logits(folder, step) is not None
    folder.results.write_text(folder.results.read_text().replace(folder.load_identity(), "f" * 64))
    assert folder.load_results() is None
    assert "results.json: is of another run" in caplog.text
    data = json.loads(folder.data.read_text())
    data[".run"]["digest"] = "e" * 64
    folder.data.write_text(json.dumps(data))
    assert load_logits(folder, step) is None
    settings = folder.encoder / "tokenizer.json"
    folder.check_encoder()
    settings.write_text(settings.read_text() + " ")
    for act in (folder.check_encoder, lambda: mt.load_run(folder.path).model):  # type: ignore[union-attr]
        with pytest.raises(mt.InputError, match=f"^{folder.encoder} is not as the run has written it"):
            act()


def test_resume_goes_on_and_overwrite_begins_anew(config: mt.Config, tmp_path: Path) -> None:
    first = mt.train(config, out=tmp_path / "run")
    with pytest.raises(mt.InputError, match="holds a run already"):
        mt.train(config, out=tmp_path / "run")
    assert isinstance(first, mt.Run)
    step = first.results["step"]
    for same in (config, tmp_path / "run"):
        again = mt.train(same, out=tmp_path / "run", resume=True)
        assert isinstance(again, mt.Run)
        assert again.results["step"] == step
    with pytest.raises(mt.InputError, match="resume and overwrite exclude each other"):
        mt.train(config, out=tmp_path / "run", resume=True, overwrite=True)
    anew = mt.train(config, out=tmp_path / "run", overwrite=True, steps=2)
    assert isinstance(anew, mt.Run)
    assert anew.config.steps == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lrr": 1e-3}, "train(): unknown key 'lrr'; did you mean 'lr'?"),
        ({"head": {"layers": 2}}, "train(): head: unknown key 'layers'"),
        ({"head": None}, "train(): head: expected a table, got None"),
        ({"lr": "fast"}, "train(): lr: expected a number, got 'fast'"),
        ({"tasks": {"sst": {}}}, "train(): tasks: expected a list, got a table"),
        ({"tasks": "sst"}, "train(): tasks: expected a list, got 'sst'"),
        ({"tasks": None}, "train(): tasks: expected a list, got None"),
        ({"tasks": ["sst"]}, "train(): tasks[0]: expected a table, got 'sst'"),
        (
            {"tasks": [{"name": "sst", "text": 5, "train": [{"a": "b"}]}]},
            "train(): tasks[0] (sst): text: expected a list, got 5",
        ),
        ({"tasks": [{"name": "sst", "kind": "clasification"}]}, "did you mean 'classification'?"),
        ({"checkpoint_metric": "sst.pearson"}, "task sst has the metrics accuracy, f1"),
        ({"checkpoint_metric": "stss"}, "checkpoint_metric = 'stss' is none of"),
        (
            {"tasks": [{"name": "sts", "metric": "accuracy"}]},
            "metric = 'accuracy' is none of pearson, spearman, mae, rmse",
        ),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_there(
    config: mt.Config, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(mt.InputError) as error:
        mt.train(config, out=tmp_path / "run", **fields)
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": "sst"}, "train(): tasks: expected a list, got 'sst'"),
        ({"tasks": 5}, "train(): tasks: expected a list, got 5"),
        ({"out": 5}, "train(): out: expected a string, got 5"),
        ({"head": 0.5}, "train(): head: expected a table, got 0.5"),
    ],
)
def test_a_config_of_wrong_types_is_named_by_its_field(
    config: mt.Config, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(mt.InputError, match=f"^{re.escape(message)}$"):
        mt.train(dataclasses.replace(config, **changes))
    with pytest.raises(mt.InputError, match="out: expected a string, got 5$"):
        mt.train(config, out=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda config: mt.train(config, out="x", resume="runs/a"), "train(): resume: expected true or false, got 'r"),
        (lambda config: mt.train(config, out="x", overwrite=1), "train(): overwrite: expected true or false, got 1"),
        (lambda _: mt.train({"lr": 1e-3}), "train(): expected a config's file, a run folder or a Config, got a table"),
        (lambda _: mt.load_run(None), "load_run(): expected the path of a run folder, got None"),
        (lambda _: mt.load_config({}), "load_config(): expected the path of a TOML file, got a table"),
    ],
)
def test_arguments_of_wrong_types_are_named(config: mt.Config, act: Any, message: str) -> None:
    with pytest.raises(mt.InputError, match=f"^{re.escape(message)}"):
        act(config)


def test_a_config_without_a_folder_needs_one(config: mt.Config) -> None:
    with pytest.raises(mt.InputError, match="out: name the run folder"):
        mt.train(dataclasses.replace(config, out=""))


def test_the_best_checkpoint_goes_by_the_metric_that_the_config_names(config: mt.Config, tmp_path: Path) -> None:
    """By an error, the smallest is the best; what is said of the run goes by it, too."""
    config = replace_task(config, "sts", metric="mae")
    config = dataclasses.replace(config, checkpoint_metric="sts", steps=8, eval_every_steps=1, lr=1e-2)
    lines: list[str] = []

    class Noted(Display):
        def say(self, text: str) -> None:
            lines.append(text)

    run = mt.train(config, out=tmp_path / "run", display=Noted())
    assert isinstance(run, mt.Run)
    rows = zip(run.history["kind"], run.history["step"], run.history.get("dev/sts/mae", []), strict=True)
    errors = {step: value for kind, step, value in rows if kind == "eval"}
    best = min(errors, key=lambda step: errors[step])
    assert run.results["step"] == best
    assert next(iter(run.scores["sts"])) == "mae"
    said = [line for line in lines if line.startswith("dev at step")]
    assert all(f"sts mae {errors[step]:.3f}" in line for step, line in zip(errors, said, strict=True))
    assert [line.endswith("(best so far)") for line in said] == [
        errors[step] == min(value for other, value in errors.items() if other <= step) for step in errors
    ]


def test_several_seeds_are_runs_of_their_own(config: mt.Config, tmp_path: Path) -> None:
    seeds = mt.train(light(config), out=tmp_path / "all", seeds=(3, 1), steps=2)
    assert isinstance(seeds, mt.SeedsOfRun)
    assert list(seeds.runs) == [3, 1]
    accuracies = [run.scores["sst"]["accuracy"] for run in seeds.runs.values()]
    assert seeds.scores["sst"] == pytest.approx(sum(accuracies) / 2)
    loaded = mt.load_run(tmp_path / "all")
    assert isinstance(loaded, mt.SeedsOfRun)
    assert {seed: run.results for seed, run in loaded.runs.items()} == {s: r.results for s, r in seeds.runs.items()}


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(mt.InputError, match="is no run folder: it has no config.toml"):
        mt.load_run(tmp_path)


def test_an_unfinished_run_has_a_history_and_no_results(run: mt.Run, tmp_path: Path) -> None:
    save_config(run.config, tmp_path / "config.toml")
    (tmp_path / "metrics.jsonl").write_bytes((run.path / "metrics.jsonl").read_bytes())
    unfinished = mt.load_run(tmp_path)
    assert isinstance(unfinished, mt.Run)
    assert unfinished.history == run.history
    with pytest.raises(mt.InputError, match="holds no results yet"):
        _ = unfinished.scores


def test_a_run_begins_with_another_ones_heads(run: mt.Run, config: mt.Config, tmp_path: Path) -> None:
    """By the same field as in a config; a path will do."""
    new = mt.train(config, init_from=run.path, encoder="", out=tmp_path / "new", steps=1)
    assert isinstance(new, mt.Run)
    assert (new.config.init_from, new.config.encoder) == (str(run.path), config.encoder)
    assert new.results["config"]["encoder"] == config.encoder
    with pytest.raises(mt.InputError, match="init_from = 'nowhere' is no run folder"):
        mt.train(config, init_from="nowhere", out=tmp_path / "other")


def test_dev_scores_are_on_disk_before_test_files_are_scored(
    config: mt.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails after that loses nothing, and the run does not count as one that has ended."""
    kept = mt.MultitaskModel.score

    def failing(self: mt.MultitaskModel, datasets: Any) -> Any:
        if len(datasets["sst"].ids) == 11:
            raise OSError("no test today")
        return kept(self, datasets)

    monkeypatch.setattr(mt.MultitaskModel, "score", failing)
    with pytest.raises(OSError, match="no test today"):
        mt.train(dataclasses.replace(config, steps=2, eval_every_steps=1), out=tmp_path / "run")
    run = mt.load_run(tmp_path / "run")
    assert isinstance(run, mt.Run)
    assert set(run.scores) == {"sst", "para", "sts", "average", "plain_average"}
    assert run.results["pending"] == ["test"]
    assert len(list((run.path / "predictions").glob("*-dev-output.csv"))) == 3
    planned = PlannedRun(Path("tiny.toml"), run.config)
    assert not planned.finished
    monkeypatch.undo()
    again = mt.train(dataclasses.replace(config, steps=2, eval_every_steps=1), out=run.path, resume=True)
    assert isinstance(again, mt.Run)
    assert "pending" not in again.results
    assert again.scores == run.scores
    assert planned.finished


@pytest.fixture(scope="module")
def diverged(run: mt.Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run whose only checkpoint has a head for STS of infinities."""
    path = Path(shutil.copytree(run.path, tmp_path_factory.mktemp("diverged") / "run"))
    folder = RunFolder(path)
    shutil.rmtree(folder.checkpoints)
    params = mt.MultitaskModel.from_checkpoint(run.path).params
    params["heads"]["sts"]["output"]["bias"] = jnp.full((1,), jnp.inf)
    state = TrainState.create(params, optax.identity(), jax.random.key(0), step=6)
    with Checkpoints(folder.checkpoints, {}) as checkpoints:
        checkpoints.save(state, Progress(stage_done=True))
    return path


def strict(text: str) -> Any:
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_results_of_a_diverged_head_are_null_and_have_no_prediction_file(
    diverged: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(diverged)
    folder.logits.unlink(missing_ok=True)
    write_results(folder, folder.load_config())
    dev = strict(folder.results.read_text())["dev"]
    assert dev["sts"] == dict.fromkeys(("pearson", "spearman", "mae", "rmse"))
    assert dev["average"] is None
    assert dev["sst"]["accuracy"] is not None
    written = {path.name for path in folder.predictions.glob("*.csv")}
    assert written == {f"{task}-{split}-output.csv" for task in ("sst", "para") for split in ("dev", "test")}
    said = [record.getMessage() for record in caplog.records]
    for split, count, first in (("dev", 21, "dev000"), ("test", 11, "test-student000")):
        line = f"task sts: the logits of {count} of {count} {split} examples are not finite"
        assert (
            f"{line}, the first those of id {first!r}; its scores are undefined, and no prediction file is written"
            in said
        )
    run = mt.load_run(diverged)
    assert isinstance(run, mt.Run)
    assert math.isnan(run.scores["sts"]["pearson"])
    row = make_row("x", run.config, {0: folder})
    assert "no interval of sts, average, plain_average" in row.note
    assert row.values["sst"].interval is not None


def test_nothing_is_predicted_by_a_diverged_head(diverged: Path, run: mt.Run, tmp_path: Path) -> None:
    model = mt.MultitaskModel.from_checkpoint(diverged)
    pairs = [("the film", "the song"), ("a film", "x" * 100)]
    with pytest.raises(
        mt.InputError, match=r"text 1 \('the film \| the song'\): the output of task sts has values that"
    ):
        model.predict("sts", pairs)
    assert len(model.predict("para", pairs)) == 2
    with pytest.raises(mt.InputError, match="heads/sts/output/bias at step 6 are not finite"):
        mt.Run(RunFolder(diverged)).export("hf", tmp_path / "hf")
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, model.params)
    broken = mt.MultitaskModel(model.setup, params, 6)
    for task, texts in (("sst", ["a film", "the song"]), ("para", pairs)):
        with pytest.raises(mt.InputError, match=f"text 1 .* the output of task {task} .* so for 2 of 2 texts"):
            broken.predict(task, texts)
    with pytest.raises(mt.InputError, match="text 1 .*: its embedding has values that are not finite"):
        broken.encode(["a film"])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ["predict"],
            "no prediction file is written where predictions would be made up: task sts: the logits of 21 of",
        ),
        (["submission"], "task sts: the logits of 21 of 21 dev examples are not finite"),
        (["export", "--format", "stablehlo"], "heads/sts/output/bias at step 6 are not finite"),
        (
            ["predict", "--output", "nodir/x", "--task", "sts"],
            "cannot write nodir/x: there is no folder nodir",
        ),
    ],
)
def test_commands_name_what_is_not_finite(
    diverged: Path, command: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command[0], str(diverged), *command[1:]]) == 2
    err = capsys.readouterr().err
    assert err.startswith("mtbert: ")
    assert err.count("\n") == 1
    assert message in err
    if command == ["predict"]:  # files of before are gone
        assert not list((diverged / "predictions").glob("sts*"))


def test_evaluate_prints_strict_json_and_says_what_is_undefined(
    diverged: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["evaluate", str(diverged), "--json"]) == 0
    assert strict(capsys.readouterr().out)["sts"]["pearson"] is None
    assert "task sts: the logits of 21 of 21 dev examples are not finite" in caplog.text
    assert main(["evaluate", str(diverged)]) == 0
    assert "undefined" in capsys.readouterr().out


def test_a_prediction_file_without_predictions_is_refused_whoever_asks(tmp_path: Path) -> None:
    task = mt.TaskConfig("sts", "regression")
    with pytest.raises(mt.InputError, match="1 of 2 predictions of task sts are not finite, the first that of id 'b'"):
        write_predictions(tmp_path / "x.csv", task, ["a", "b"], np.array([1.0, np.nan]))
    assert not (tmp_path / "x.csv").exists()


def test_plots_are_the_reports(run: mt.Run) -> None:
    pytest.importorskip("matplotlib")
    losses = run.plot("losses")
    titled = {axes.get_title(loc="left"): axes for axes in losses.axes if axes.get_title(loc="left")}
    assert list(titled) == ["sst", "para", "sts"]
    drawn = titled["sst"].lines[0]
    contents = RunContents.read_records(run.path, "run")
    assert (drawn.get_xdata().tolist(), drawn.get_ydata().tolist()) == contents.means("loss", "sst")
    assert [axes.get_ylabel() for axes in losses.axes].count("training loss") == 3
    assert len(run.plot("scores").axes) == 4
    assert len(run.plot("conflicts").axes) == 2
    (axes,) = run.plot("dev/average").axes
    kept = [value for value in run.history["dev/average"] if value is not None]
    assert axes.lines[0].get_ydata().tolist() == kept


def test_a_plot_that_there_is_not_is_refused(run: mt.Run) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(mt.InputError, match=r"plot\('loses'\): choose one of .*; did you mean 'losses'"):
        run.plot("loses")
    with pytest.raises(mt.InputError, match=r"train/loss/sst.*did you mean"):
        run.plot("train/loss/sts2")
    with pytest.raises(mt.InputError, match="hold no penalties"):
        run.plot("penalties")
