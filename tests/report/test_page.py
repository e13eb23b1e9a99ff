"""The page about runs, read as text; `report` as a command."""

import dataclasses
import itertools
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, save_config
from mtbert_jax.errors import InputError
from mtbert_jax.report.contents import RunContents, find_runs
from mtbert_jax.report.page import comparison_body, group_runs, page
from mtbert_jax.training.folder import RunFolder
from tests.cli.test_main import fails
from tests.conftest import light
from tests.runs import finish, guesses, labels_of

VOID = ("meta", "br")


class Balanced(HTMLParser):
    """Checks that tags nest, and gathers the text outside of figures."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.figures = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert tag not in ("script", "link", "img", "iframe")
        assert not {"src", "onload", "onerror"} & {name for name, _ in attrs}
        self.figures += tag == "svg"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "svg" not in self.open and "style" not in self.open:
            self.text += data + "\n"


def parsed(text: str) -> Balanced:
    reader = Balanced()
    reader.feed(text)
    assert reader.open == []
    return reader


def record(folder: RunFolder, config: Config, steps: tuple[int, ...] = (5, 10)) -> None:
    """Records as training writes them."""
    names = sorted(task.name for task in config.tasks)
    pairs = ["/".join(pair) for pair in itertools.combinations(names, 2)]
    scores = {task.name: {"pearson" if task.kind == "regression" else "accuracy": 0.5} for task in config.tasks}
    lines: list[dict[str, Any]] = []
    for step in steps:
        numbers = {"loss": dict.fromkeys(names, 1 / step), "smoothness": dict.fromkeys(names, 0.1), "lr": 1e-3}
        numbers |= {"cosine": dict.fromkeys(pairs, 0.125), "conflict": dict.fromkeys(pairs, 0.25)} if pairs else {}
        place = {"stage": "train", "step": step}
        lines.append({"kind": "train", **place, **numbers, "examples_per_second": 50.0})
        lines.append({"kind": "eval", **place, "split": "dev", "scores": {**scores, "average": 0.5 + step / 100}})
    lines.append({"kind": "stage", "stage": "train", "step": steps[-1], "compiled_shapes": 3, "compile_seconds": 61.0})
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))


def run(config: Config, out: Path, **options: Any) -> RunContents:
    folder = finish(config, out, **options)
    record(folder, config)
    return RunContents.read(out, out.name)


def test_a_finished_run(config: Config, tmp_path: Path) -> None:
    contents = run(config, tmp_path / "mine")
    text = page([contents], "1.2")
    read = parsed(text)
    for words in ("Run mine", "Learning curves", "Between tasks", "Predictions on dev", "1:01", "mtbert_jax 1.2"):
        assert words in read.text
    assert f"{contents.scores['sst']['accuracy']:.4f}" in read.text
    assert f"{len(labels_of(config, config.tasks[0]))} dev" in read.text
    assert "25%" in read.text
    assert "not ended" not in read.text
    assert read.figures == 3 + 1 + 2 + 1 + 3 + 1  # curves, average, cosine and conflict, R_s, dev, throughput
    assert text == page([contents], "1.2")


def test_the_pages_ink_is_the_browsers(config: Config, tmp_path: Path) -> None:
    text = page([run(config, tmp_path / "mine")], "1")
    assert "currentColor" in text
    assert "#010203" not in text
    assert "prefers-color-scheme" in text or "color-scheme: light dark" in text
    outside = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert all(address.startswith("http://www.w3.org/") for address in outside)


def test_a_run_that_has_not_ended(config: Config, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "mine")
    record(folder, config)
    save_config(config, folder.config)
    read = parsed(page([RunContents.read(folder.path, "mine")], "1"))
    assert "has not ended: its records reach step 10" in read.text
    assert "0.6000" in read.text
    assert "Predictions on dev" not in read.text
    folder.metrics.unlink()
    assert "There are no dev scores yet" in parsed(page([RunContents.read(folder.path, "mine")], "1")).text


def test_what_stands_in_data_and_names_is_text_only(config: Config, tmp_path: Path) -> None:
    bad = '<script>alert(1)</script> & "$x$" <b>'
    rows = "\n".join(f"{n}\t{bad} {n}\t{n % 3}" for n in range(6))
    (tmp_path / "dev.tsv").write_text(f"id\tsentence\tsentiment\n{rows}\n")
    task = dataclasses.replace(
        config.tasks[0], train="dev.tsv", dev="dev.tsv", test="", num_classes=0, classes=("0", "1", "2"), quotes=False
    )
    config = dataclasses.replace(config, tasks=(task,), data_dir=str(tmp_path), encoder="<i>enc</i>")
    predicted = {task.name: np.zeros(6)}
    contents = run(config, tmp_path / "a<b>&", predicted=predicted)
    read = parsed(page([contents], "1"))
    assert contents.notes == ()
    assert f"{bad} 5" in " ".join(read.text.split())
    assert "<i>enc</i>" in read.text
    assert "Run a<b>&" in read.text
    hidden = parsed(page([contents.without_texts()], "1")).text
    assert "alert(1)" not in hidden
    assert "sst: the 4 worst mistakes" in hidden


def test_the_worst_mistakes_come_first(config: Config, tmp_path: Path) -> None:
    sst, _, sts = config.tasks
    labels = labels_of(config, sst)
    predicted = guesses(config, 0)
    contents = run(config, tmp_path / "mine", predicted=predicted)
    assert contents.judged["sst"].losses is None
    distance = np.abs(predicted["sts"] - labels_of(config, sts))
    assert contents.judged["sts"].worst(3) == np.argsort(-distance, kind="stable")[:3].tolist()
    wrong = np.flatnonzero(predicted["sst"] != labels)
    logits = np.zeros((len(labels), sst.num_classes), np.float32)
    logits[wrong, predicted["sst"][wrong].astype(int)] = np.arange(1, len(wrong) + 1)
    np.savez(contents.folder.logits, sst=logits)
    again = RunContents.read(contents.folder.path, "mine").judged["sst"]
    assert again.losses is not None
    assert again.worst(2) == wrong[::-1][:2].tolist()
    assert set(again.worst(1000)) == set(wrong)


def test_without_its_data_a_run_is_shown_as_far_as_it_goes(config: Config, tmp_path: Path) -> None:
    contents = run(config, tmp_path / "mine")
    contents = RunContents.read(contents.folder.path, "mine", data_dir=str(tmp_path / "nowhere"))
    read = parsed(page([contents], "1"))
    assert "Predictions on dev" not in read.text
    assert "Learning curves" in read.text
    assert read.text.count("nowhere") >= 3


@pytest.mark.parametrize("number", [1, 2, 8])
def test_any_number_of_tasks(config: Config, tmp_path: Path, number: int) -> None:
    tasks = tuple(dataclasses.replace(config.tasks[n % 3], name=f"task{n}") for n in range(number))
    contents = run(dataclasses.replace(config, tasks=tasks), tmp_path / "mine")
    read = parsed(page([contents], "1"))
    assert read.figures == 2 * number + 3 + (2 if number > 1 else 0)
    assert ("Between tasks" in read.text) == (number > 1)
    assert ("task0/task7" in read.text) == (number == 8)


@pytest.mark.slow
def test_several_runs_are_a_table_and_curves_laid_over_each_other(config: Config, tmp_path: Path) -> None:
    runs = []
    for name, lr in (("a", 0.1), ("b", 0.2)):
        for seed in (0, 1):
            own = dataclasses.replace(config, lr=lr, seed=seed)
            record(finish(own, tmp_path / name / f"seed{seed}"), own)
            runs.append(RunContents.read(tmp_path / name / f"seed{seed}", f"{name}/seed{seed}"))
    rows = [row for row, _ in group_runs(runs)]
    assert [(row.name, row.seeds) for row in rows] == [("a", (0, 1)), ("b", (0, 1))]
    read = parsed(page(runs, "1"))
    assert "4 runs" in read.text
    assert "Differences" in read.text
    assert read.text.count("What ran") == 4
    assert f"{rows[1].values['average'].mean:.3f}" in read.text


def test_several_runs_are_compared_on_data_that_have_moved(config: Config, tmp_path: Path) -> None:
    runs = []
    for name, lr in (("a", 0.1), ("b", 0.2)):
        folder = finish(dataclasses.replace(config, lr=lr), tmp_path / name)
        save_config(dataclasses.replace(config, lr=lr, out=str(folder.path), data_dir="gone"), folder.config)
        runs.append(RunContents.read(folder.path, name, config.data_dir))
    assert all(row.note == "" and row.judged for row, _ in group_runs(runs))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lr": 0.2}, "has the highest average on dev"),
        ({"metric": "f1"}, "The averages do not compare: these runs differ in their tasks, metrics or dev examples."),
        ({"dev": "ids-sst-train.csv"}, "The averages do not compare"),
    ],
)
def test_averages_are_compared_where_they_are_of_the_same(
    changes: dict[str, Any], told: str, config: Config, tmp_path: Path
) -> None:
    config = light(config)
    others = {name: value for name, value in changes.items() if name != "lr"}
    tasks = (dataclasses.replace(config.tasks[0], **others),)
    for name, own in (("a", config), ("b", dataclasses.replace(config, tasks=tasks, lr=changes.get("lr", 0.1)))):
        finish(own, tmp_path / name)
    body = comparison_body([RunContents.read(tmp_path / name, name) for name in "ab"])
    assert told in body.verdict
    lead = next(section.lead for section in body.sections if section.title == "Scores")
    assert lead.endswith("tasks of each run." if "metric" in changes else "plain average: without such maps.")


def test_runs_are_found_below_a_folder(config: Config, tmp_path: Path) -> None:
    for name in ("b/seed1", "b/seed0", "a"):
        finish(config, tmp_path / name)
    below = [tmp_path / name for name in ("a", "b/seed0", "b/seed1")]
    assert find_runs([tmp_path]) == below
    assert find_runs([tmp_path / "a", tmp_path]) == below
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no run"):
        find_runs([tmp_path / "empty"])


def test_the_command(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = run(config, tmp_path / "a" / "seed0")
    assert main(["report", str(contents.folder.path)]) == 0
    assert capsys.readouterr().out == f"report: {contents.folder.path}/report.html\n"
    assert "Run a/seed0" in (contents.folder.path / "report.html").read_text()
    run(dataclasses.replace(config, lr=0.5), tmp_path / "b")
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "new" / "all.html")]) == 0
    assert "2 runs" in (tmp_path / "new" / "all.html").read_text()


def test_what_is_wrong_is_said(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(capsys, ["report"], "give one or more run folders")
    fails(capsys, ["report", str(tmp_path)], "holds no run")
    run(config, tmp_path / "a")
    (tmp_path / "file").touch()
    with monkeypatch.context() as patch:  # it is said before the runs are read
        patch.setattr("mtbert_jax.report.write.RunContents.read", None)
        for out, reason in ((tmp_path / "file" / "x.html", "file is no folder"), (tmp_path / "a", "it is a folder")):
            fails(capsys, ["report", str(tmp_path / "a"), "--out", str(out)], reason)
    data = Path(config.data_dir) / config.tasks[0].dev
    before = data.read_bytes()
    fails(capsys, ["report", str(tmp_path / "a"), "--out", str(data)], f"--out {data} is the dev file of task")
    assert data.read_bytes() == before
    for package in ("matplotlib", "jinja2"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            fails(capsys, ["report", str(tmp_path / "a")], "pip install matplotlib jinja2")


def test_the_verdict_has_the_interval_that_tables_have(config: Config, tmp_path: Path) -> None:
    contents = run(config, tmp_path / "mine")
    ((row, _),) = group_runs([contents])
    low, high = row.values["average"].interval or (0, 0)
    text = page([contents], "1")
    assert f"(95% interval over the dev examples {low:.3f} to {high:.3f})" in text
    assert text.index('class="verdict"') < text.index("<svg")
    assert "average: the mean over tasks of sst accuracy" in text
    assert "sts (pearson + 1) / 2" in text


def test_seeds_are_laid_over_each_other_with_their_mean(config: Config, tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1):
        own = dataclasses.replace(config, seed=seed)
        record(finish(own, tmp_path / f"seed{seed}"), own)
        runs.append(RunContents.read(tmp_path / f"seed{seed}", f"seed{seed}"))
    text = page(runs, "1")
    assert "Thin lines are single seeds; the thick one is their mean." in text
    assert text.partition("Each run")[0].count("<svg") == 4 + 3
    (name,) = [row.name for row, _ in group_runs(runs)]
    assert name == tmp_path.name
