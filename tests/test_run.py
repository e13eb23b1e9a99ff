"""Training from Python: the same run as by the command line, and what the run object says of it."""

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.cli.main import main
from mtbert_jax.config import save_config
from mtbert_jax.data import dataset
from mtbert_jax.run import write_results
from mtbert_jax.training import active, evaluate
from mtbert_jax.training.active import load_logits
from mtbert_jax.training.display import Display
from mtbert_jax.training.folder import RunFolder
from tests.conftest import replace_task, tiny_run

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
    load, split = dataset.read_split, evaluate.over_split
    monkeypatch.setattr(dataset, "read_split", lambda task, name, *rest: read.append(name) or load(task, name, *rest))

    def over_split(step: Any, params: Any, which: str, data: Any, *rest: Any) -> Any:
        scored.append(len(data.labels))
        return split(step, params, which, data, *rest)

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
    active.save_logits(folder, 3, {"sst": np.ones((2, 5), np.float32)})
    assert load_logits(folder, 4) is None
    assert load_logits(folder, 3) is not None
    folder.logits.write_bytes(folder.logits.read_bytes()[:-30])
    assert load_logits(folder, 3) is None
    again = write_results(run.folder, run.config)  # without kept logits: computed again
    assert without_cost(again)["dev"] == run.scores


def test_resume_goes_on_and_overwrite_begins_anew(config: mt.Config, tmp_path: Path) -> None:
    first = mt.train(config, out=tmp_path / "run")
    with pytest.raises(mt.InputError, match="holds a run already"):
        mt.train(config, out=tmp_path / "run")
    assert isinstance(first, mt.Run)
    step = first.results["step"]
    again = mt.train(config, out=tmp_path / "run", resume=True)
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
    seeds = mt.train(config, out=tmp_path / "all", seeds=(3, 1), steps=2)
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
