"""Rows against NumPy."""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtbert_jax.config import Config
from mtbert_jax.data.examples import digest
from mtbert_jax.data.predictions import prediction_file, write_predictions
from mtbert_jax.data.readers import read_for_run
from mtbert_jax.results.intervals import Judged, bootstrap
from mtbert_jax.results.rows import AVERAGES, Row, dev_predictions, make_row, read_results
from mtbert_jax.training.folder import RunFolder
from tests.conftest import replace_task
from tests.runs import finish, guesses, labels_of

SEEDS = (0, 3, 1)


def runs(config: Config, out: Path, seeds: tuple[int, ...] = SEEDS) -> dict[int, RunFolder]:
    return {seed: finish(dataclasses.replace(config, seed=seed), out / f"seed{seed}") for seed in seeds}


def scores(row: Row) -> dict[str, list[float]]:
    dev = [result["dev"] for result in row.results]
    columns = {task: [score[task][metric] for score in dev] for task, metric in row.metrics.items()}
    return {**columns, **{name: [score[name] for score in dev] for name in AVERAGES}}


def test_means_and_sample_standard_deviations_are_numpys(config: Config, tmp_path: Path) -> None:
    row = make_row("tiny", config, runs(config, tmp_path))
    assert row.metrics == {"sst": "accuracy", "para": "accuracy", "sts": "pearson"}
    assert list(row.metrics) == ["sst", "para", "sts"]
    assert set(row.values) == {"sst", "para", "sts", "average", "plain_average"}
    for name, values in scores(row).items():
        a, b, c = values
        mean = (a + b + c) / 3
        assert row.values[name].mean == pytest.approx(mean)
        assert row.values[name].sd == pytest.approx(math.sqrt(sum((x - mean) ** 2 for x in values) / 2))
    assert (row.name, row.planned, row.seeds, row.note) == ("tiny", SEEDS, SEEDS, "")


def test_the_median_of_the_times_and_the_largest_of_the_peaks(config: Config, tmp_path: Path) -> None:
    row = make_row("tiny", config, runs(config, tmp_path))
    assert (row.seconds, row.peak_memory) == (62.0, 2**30 + 3)  # 61, 64, 62


def test_the_rate_is_that_of_the_last_stage(config: Config, tmp_path: Path) -> None:
    folders = runs(config, tmp_path)
    assert make_row("tiny", config, folders).rate is None
    for number, folder in enumerate(folders.values()):
        rates = [("heads", 900.0), ("full", 1.0), ("full", 20.0 + number), ("full", 50.0)]  # compiling, first
        own = {"kind": "train", "loss": {}, "lr": 0.1}
        lines = [{**own, "stage": name, "step": n, "examples_per_second": rate} for n, (name, rate) in enumerate(rates)]
        folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert make_row("tiny", config, folders).rate == 21.0


def test_intervals_are_those_of_the_predictions(config: Config, tmp_path: Path) -> None:
    row = make_row("tiny", config, runs(config, tmp_path))
    predicted = [guesses(config, seed) for seed in SEEDS]
    judged = {
        task.name: Judged(task, np.stack([p[task.name] for p in predicted]), labels_of(config, task))
        for task in config.tasks
    }
    assert {name: value.interval for name, value in row.values.items()} == bootstrap(judged)
    for value in row.values.values():
        assert value.interval is not None
        assert value.interval[0] < value.mean < value.interval[1]


def test_runs_that_are_not_finished_are_left_out(config: Config, tmp_path: Path) -> None:
    folders = runs(config, tmp_path)
    folders[0].results.write_text('{"dev": ')  # cut off
    folders[3].config.unlink()  # whose results are these?
    other = finish(dataclasses.replace(config, seed=9, lr=0.5), tmp_path / "seed9")
    row = make_row("tiny", config, {**folders, 8: RunFolder(tmp_path / "nowhere"), 9: other})
    assert (row.planned, row.seeds, len(row.results)) == ((0, 3, 1, 8, 9), (1,), 1)
    assert all(value.sd is None for value in row.values.values())
    assert row.seconds == 62.0
    assert read_results(folders[0], config) is None


def test_without_any_finished_run_a_row_is_empty(config: Config, tmp_path: Path) -> None:
    row = make_row("tiny", config, {0: RunFolder(tmp_path)})
    assert row == Row("tiny", (0,), (), {}, {}, None, None, "", ())


def test_a_task_without_dev_file_has_no_column(config: Config, tmp_path: Path) -> None:
    config = replace_task(config, "para", dev="")
    row = make_row("tiny", config, {0: finish(config, tmp_path)})
    assert list(row.values) == ["sst", "sts", "average", "plain_average"]
    assert row.note == ""


def test_runs_of_a_version_that_did_not_tell_time_and_memory(config: Config, tmp_path: Path) -> None:
    folders = runs(config, tmp_path)
    results = json.loads(folders[3].results.read_text())
    del results["seconds"], results["peak_memory_bytes"]
    folders[3].results.write_text(json.dumps(results))
    row = make_row("tiny", config, folders)
    assert (row.seconds, row.peak_memory) == (None, None)
    assert row.values["average"].interval


def no_predictions(folder: RunFolder, config: Config) -> Config:
    (folder.predictions / "sst-dev-output.csv").unlink()
    return config


def other_ids(folder: RunFolder, config: Config) -> Config:
    path = folder.predictions / "para-dev-output.csv"
    path.write_text(path.read_text().replace("dev004", "dev999"))
    return config


def other_labels(folder: RunFolder, config: Config) -> Config:
    moved = folder.path.with_name("data")
    shutil.copytree(config.data_dir, moved)
    path = moved / config.tasks[0].dev
    lines = path.read_text().splitlines()
    lines[1] = lines[1][:-1] + str((int(lines[1][-1]) + 1) % 5)
    path.write_text("\n".join(lines) + "\n")
    return dataclasses.replace(config, data_dir=str(moved))


def other_texts(folder: RunFolder, config: Config) -> Config:
    """Ids and labels are as before, so that scores are, too."""
    before = digest(read_for_run(config, config.resolved_tasks()[0], "dev").examples)
    folder.data.write_text(json.dumps({"sst": {"dev": before}}))
    assert dev_predictions(folder, config.tasks[0], read_for_run(config, config.resolved_tasks()[0], "dev").examples)
    moved = folder.path.with_name("data")
    shutil.copytree(config.data_dir, moved)
    path = moved / config.tasks[0].dev
    path.write_text(path.read_text().replace("the film", "a film"))
    return dataclasses.replace(config, data_dir=str(moved))


def no_data(folder: RunFolder, config: Config) -> Config:
    return dataclasses.replace(config, data_dir="nowhere")


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (no_predictions, "cannot read the prediction file"),
        (other_ids, "has other ids than quora-dev.csv"),
        (other_labels, "does not give the accuracy in results.json"),
        (other_texts, "ids-sst-dev.csv holds other examples than when the run was scored"),
        (no_data, "data folder nowhere does not exist"),
    ],
)
def test_without_labels_and_predictions_that_fit_there_is_a_note(
    config: Config, tmp_path: Path, harm: Any, why: str
) -> None:
    folders = runs(config, tmp_path)
    row = make_row("tiny", harm(folders[0], config), folders)
    assert row.note.startswith("no interval: ")
    assert why in row.note
    assert all(value.interval is None for value in row.values.values())
    assert row.values["average"].mean == pytest.approx(np.mean(scores(row)["average"]))


def test_an_undefined_score_stays_undefined_and_has_no_interval(config: Config, tmp_path: Path) -> None:
    predicted = guesses(config, 0)
    predicted["sts"] = np.ones_like(predicted["sts"])
    row = make_row("tiny", config, {0: finish(config, tmp_path / "a", predicted), 1: finish(config, tmp_path / "b")})
    assert math.isnan(row.values["sts"].mean)
    assert math.isnan(row.values["average"].mean)
    assert not math.isnan(row.values["sst"].mean)
    assert row.note == "no interval of sts, average, plain_average: undefined in some resample"
    assert row.values["sts"].interval is row.values["average"].interval is None
    assert row.values["sst"].interval


def test_one_dev_example_is_too_few_to_resample(config: Config, data_dir: Path, tmp_path: Path) -> None:
    lines = (data_dir / "ids-sst-dev.csv").read_text().splitlines(keepends=True)
    (tmp_path / "one.csv").write_text("".join(lines[:2]))
    config = replace_task(config, "sst", dev=str(tmp_path / "one.csv"))
    row = make_row("tiny", config, {0: finish(config, tmp_path / "run")})
    assert "task sst has one dev example only" in row.note


def test_named_classes_are_read_back(config: Config, tmp_path: Path) -> None:
    task = dataclasses.replace(config.tasks[0], num_classes=0, classes=("0", "1", "2", "3", "4"))
    config = dataclasses.replace(config, tasks=(task, *config.tasks[1:]))
    row = make_row("tiny", config, {0: finish(config, tmp_path)})
    assert row.note == ""
    path = tmp_path / "predictions" / prediction_file(task, "dev")
    ids = [line.split(" , ")[0] for line in path.read_text().splitlines()[1:]]
    write_predictions(path, dataclasses.replace(task, classes=("a", "b", "c", "d", "e")), ids, np.zeros(len(ids)))
    assert "'a' is no prediction of task sst" in make_row("tiny", config, {0: RunFolder(tmp_path)}).note
