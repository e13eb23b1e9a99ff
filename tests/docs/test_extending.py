"""docs/extending.md, followed word for word: its files, configs and commands; and what its methods compute."""

import contextlib
import csv
import dataclasses
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.metrics import matthews_corrcoef

import mtbert_jax as mt
from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, save_config
from mtbert_jax.regularizers import REGULARIZERS
from mtbert_jax.tasks import KINDS
from mtbert_jax.tasks.metrics import Metric
from tests.conftest import tiny_run
from tests.docs.test_pages import DOCS
from tests.encoders.tiny import save_encoder
from tests.plugins import forgetting, registered, shown

pytestmark = pytest.mark.page
PAGE = DOCS / "extending.md"
CLASSES = ("low", "middle", "high")


class Section(NamedTuple):
    """One section of the page: the file that it shows, a config that uses it, and commands."""

    plugin: str
    config: str
    commands: list[str]


def sections() -> dict[str, Section]:
    found = {}
    for text in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        of = {
            language: re.findall(rf"^```{language}.*\n((?:.*\n)*?)```$", text, re.MULTILINE)
            for language in ("toml", "sh")
        }
        (plugin,) = re.findall(r'^```python title="(.*)"$', text, re.MULTILINE)
        (config,), (commands,) = of["toml"], of["sh"]
        found[plugin] = Section(plugin, config, commands.splitlines())
    return found


SECTIONS = sections()


class Followed(NamedTuple):
    """What came of a section's commands: the folder that they ran in, and what each of them printed."""

    folder: Path
    printed: list[str]

    @property
    def run(self) -> Path:
        (run,) = (self.folder / "runs").iterdir()
        return run

    def records(self) -> list[dict[str, Any]]:
        lines = (self.run / "metrics.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, lines) if record["kind"] == "train"]

    def scores(self) -> dict[str, Any]:
        return json.loads((self.run / "results.json").read_text())["dev"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, small_encoder_dir: Path, data_dir: Path) -> Config:
    """Two steps of a tiny encoder over two of the course's tasks, beside which lie files of levels."""
    folder = tmp_path_factory.mktemp("extending")
    data = Path(shutil.copytree(data_dir, folder / "data"))
    for split, size in {"train": 17, "dev": 12, "test": 5}.items():
        rows = ["id\treport" + ("\tlevel" if split != "test" else "")]
        for number in range(size):
            words = ["game", "city", "song"][number % 3]
            level = f"\t{CLASSES[number % 3]}" if split != "test" else ""
            rows.append(f"{split}{number}\tthe {words} was good .{level}")
        (data / f"level-{split}.tsv").write_text("\n".join(rows) + "\n")
    config = tiny_run(small_encoder_dir, data, folder)
    return dataclasses.replace(config, tasks=config.tasks[:2], out="", steps=2, log_every_steps=1, eval_every_steps=2)


@pytest.fixture(scope="module")
def three(base: Config, small_encoder_dir: Path) -> Config:
    """The same with the third task."""
    return dataclasses.replace(base, tasks=tiny_run(small_encoder_dir, Path(base.data_dir), Path()).tasks)


def follow(section: Section, base: Config, folder: Path) -> Followed:
    """Writes the section's file and its config, on top of a tiny one, and runs its commands one by one."""
    (folder / section.plugin).write_text(shown()[section.plugin], encoding="utf-8")
    save_config(base, folder / "base.toml")
    (folder / "CONFIG.toml").write_text(f'include = ["base.toml"]\n{section.config}')
    printed = []
    for command in section.commands:
        program, *args = shlex.split(command)
        assert program == "mtbert"
        out = io.StringIO()
        # Every command knows no more than what it is given.
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), forgetting():
            assert main(args) == 0, command
        printed.append(out.getvalue())
    return Followed(folder, printed)


def test_the_library_knows_none_of_them() -> None:
    known = re.compile(r"krum|\br3f\b|ordinal|coral|matthews|\bernie", re.IGNORECASE)
    sources = (DOCS.parent / "mtbert_jax").rglob("*.py")
    assert [str(path) for path in sources if known.search(path.read_text(encoding="utf-8"))] == []


def test_the_page_shows_five_files() -> None:
    assert list(shown()) == list(SECTIONS) == ["krum.py", "r3f.py", "ordinal.py", "matthews.py", "ernie.py"]


# Krum


def test_an_aggregator_is_trained_with(three: Config, tmp_path: Path) -> None:
    """Its weights are compared in tests/optim/test_own_rules.py. Of two tasks neither is nearer to the other."""
    done = follow(SECTIONS["krum.py"], three, tmp_path)
    assert 'optimizer = ["krum(faulty=0)", ' in (done.run / "config.toml").read_text()
    assert [record["step"] for record in done.records()] == [1, 2]
    assert "sst" in done.printed[1]


def test_a_regulariser_is_trained_with_and_reported(base: Config, tmp_path: Path) -> None:
    done = follow(SECTIONS["r3f.py"], base, tmp_path)
    for record in done.records():
        assert set(record["r3f"]) == {"sst", "para"}
        assert min(record["r3f"].values()) > 0
    assert "R3F: distance under random noise" in (done.run / "report.html").read_text()


def test_r3fs_records_are_its_formula(base: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KL(P ‖ Q) + KL(Q ‖ P), by scipy and in float64, from the logits with and without noise."""
    seen: list[tuple[np.ndarray, ...]] = []
    base = dataclasses.replace(base, tasks=base.tasks[:1], regularizers=("r3f(size=0.1)",), optimizer=("sgd(lr)",))
    with registered("r3f.py", tmp_path):
        plain = REGULARIZERS["r3f"].penalty

        def penalty(self: Any, forward: mt.Forward, key: jax.Array) -> dict[str, mt.Penalty]:
            x = forward.embeddings.astype(jnp.float32)  # type: ignore[union-attr]
            noise = jax.random.uniform(key, x.shape, minval=-0.1, maxval=0.1)
            arrays = (forward.logits, forward.logits_of(x + noise, forward.key), forward.batch.weights)
            jax.debug.callback(lambda *values: seen.append(tuple(np.asarray(v, np.float64) for v in values)), *arrays)
            return plain(self, forward, key)

        monkeypatch.setattr(REGULARIZERS["r3f"], "penalty", penalty)
        run = mt.train(base, out=tmp_path / "run")
    assert isinstance(run, mt.Run)
    recorded = [value for value in run.history["train/r3f/sst"] if value is not None]
    assert len(seen) == 2
    for step, (clean, moved, weights) in enumerate(seen):
        p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (clean, moved))
        distance = (entropy(p, q, axis=1) + entropy(q, p, axis=1))[weights > 0].mean()
        assert np.abs(clean - moved).max() > 1e-3
        assert recorded[step] == pytest.approx(distance, rel=2e-3)


# The ordinal kind


@pytest.fixture(scope="module")
def levels(base: Config, tmp_path_factory: pytest.TempPathFactory) -> Followed:
    folder = tmp_path_factory.mktemp("levels")
    (folder / "reports.txt").write_text("the game was good .\nthe city is dull .\n")
    return follow(SECTIONS["ordinal.py"], dataclasses.replace(base, lr=1e-2), folder)


@pytest.fixture
def kind(tmp_path: Path) -> Iterator[mt.TaskKind]:
    with registered("ordinal.py", tmp_path):
        yield KINDS["ordinal"]


def printed(done: Followed, command: str) -> str:
    (found,) = [
        text
        for line, text in zip(SECTIONS["ordinal.py"].commands, done.printed, strict=True)
        if line.startswith(f"mtbert {command}")
    ]
    return found


def test_check_data_counts_each_class(levels: Followed) -> None:
    counts = r"level\W+train\W+low: 6 \(35.3%\), middle: 6 \(35.3%\), high: 5 \(29.4%\)"
    assert re.search(counts, printed(levels, "check-data"))


def test_a_bad_label_is_named(
    levels: Followed, base: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(base.data_dir, tmp_path / "data"))
    (data / "level-dev.tsv").write_text("id\treport\tlevel\na\tthe game\ttop\n")
    with contextlib.chdir(levels.folder), forgetting():
        assert main(["train", "CONFIG.toml", "--plugins", "ordinal.py", "--data-dir", str(data)]) == 2
    assert "level-dev.tsv:2: column 'level' is 'top', not one of low, middle, high" in capsys.readouterr().err


def predicted(path: Path) -> dict[str, list[str]]:
    with path.open(newline="") as file:
        return {name: text.split("|") if text else [] for name, text in list(csv.reader(file))[1:]}


def test_scores_are_the_distance_of_the_prediction_file(levels: Followed, base: Config) -> None:
    rows = [line.split("\t") for line in (Path(base.data_dir) / "level-dev.tsv").read_text().splitlines()[1:]]
    found = predicted(levels.run / "predictions" / "level-dev-output.csv")
    assert list(found) == [row[0] for row in rows]
    gold, said = ([CLASSES.index(name) for name in of] for of in ([r[2] for r in rows], [x for (x,) in found.values()]))
    distances = np.abs(np.array(gold) - np.array(said))
    expected = {"distance": pytest.approx(distances.mean()), "accuracy": pytest.approx((distances == 0).mean())}
    assert levels.scores()["level"] == expected
    assert distances.max() > 0
    assert f"{distances.mean():.3f}" in printed(levels, "evaluate")


def test_texts_get_a_level_and_probabilities_of_all(levels: Followed) -> None:
    rows = [json.loads(line) for line in printed(levels, "predict runs/level --task").splitlines()]
    assert [row["text"] for row in rows] == ["the game was good .", "the city is dull ."]
    for row in rows:
        assert list(row["probabilities"]) == list(CLASSES)
        assert row["label"] in CLASSES
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        assert min(row["probabilities"].values()) >= 0


def test_test_files_are_predicted_and_checked(levels: Followed) -> None:
    assert "level-test-output.csv: 5 predictions, as they must be" in printed(levels, "submission")
    lines = (levels.run / "submission" / "level-test-output.csv").read_text().splitlines()[1:]
    assert {line.split(" , ")[0] for line in lines} == {f"test{n}" for n in range(5)}


def test_the_report_names_labels(levels: Followed) -> None:
    page = (levels.run / "report.html").read_text()
    mistakes = page.partition("level: the ")[2].partition("</table>")[0]
    rows = [re.findall(r"<td[^>]*>\s*(.*?)\s*</td>", row, re.DOTALL) for row in mistakes.split("<tr>")[2:]]
    labels = {label for _, gold, predicted, *_ in rows for label in (gold, predicted)}
    assert labels
    assert labels <= {*CLASSES}


def test_exports_know_the_labels_without_the_plugin(levels: Followed) -> None:
    exports = levels.run / "export"
    for form in ("hf", "stablehlo"):
        about = json.loads((exports / form / "tasks.json").read_text())["tasks"]["level"]
        assert (about["classes"], about["decision"], about["outputs"]) == (list(CLASSES), "count", 2)
        assert "| level | ordinal | `report` | `low`, `middle`, `high` |" in (exports / form / "README.md").read_text()
    lines = (levels.folder / "reports.txt").read_text()
    command = [sys.executable, "-I", str(exports / "stablehlo" / "load.py"), "level"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=300, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    ours = [json.loads(line) for line in printed(levels, "predict runs/level --task").splitlines()]
    assert [row["label"] for row in rows] == [row["label"] for row in ours]
    tops = [1 / (1 + np.exp(-min(row["logits"]))) for row in rows]
    np.testing.assert_allclose(tops, [row["probabilities"]["high"] for row in ours], atol=1e-5)


def test_the_loss_and_the_divergence_are_their_formulas(kind: mt.TaskKind) -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 4, 3)).astype(np.float32)
    p, q = (1 / (1 + np.exp(-x.astype(np.float64))) for x in (one, other))
    cross = [-sum(np.log(share if y > k else 1 - share) for k, share in enumerate(row)) for y, row in enumerate(p)]
    np.testing.assert_allclose(kind.loss(jnp.array(one), jnp.arange(4.0)), cross, rtol=1e-5)
    pairs = [np.stack([x, 1 - x], axis=-1) for x in (p, q)]
    symmetric = (entropy(*pairs, axis=-1) + entropy(*pairs[::-1], axis=-1)).sum(1)
    np.testing.assert_allclose(kind.divergence(jnp.array(one), jnp.array(other)), symmetric, rtol=1e-4)


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"smart": {"weight": 1.0}, "micro_batches": 2}, id="smart", marks=pytest.mark.slow),
        pytest.param({"freeze": ("encoder",), "cache_features": True}, id="kept features"),
        pytest.param({"seeds": (0, 1)}, id="seeds", marks=pytest.mark.slow),
    ],
)
def test_whatever_else_a_run_does_it_does_with_fewer_outputs_than_classes(
    base: Config, levels: Followed, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = mt.load_config(levels.folder / "CONFIG.toml")
    config = dataclasses.replace(config, tasks=(config.tasks[0], config.tasks[-1]))
    run = mt.train(config, out=tmp_path / "run", **changes)
    assert 0 <= run.scores["level" if isinstance(run, mt.SeedsOfRun) else "average"] <= 2


def test_a_kind_without_its_plugin_is_named(levels: Followed, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(levels.run)]) == 2
    known = ", ".join(sorted(KINDS))
    assert f"kind = 'ordinal' is none of {known}; --plugins FILE can add one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        (
            "above).sum(-1)",
            "above)",
            "kind 'ordinal': loss returns shape (2, 2) for 2 examples; it must be (2,)",
        ),
        ("optax.sig", "optics.sig", "kind 'ordinal': loss: NameError: name 'optics' is not defined"),
        (
            "return (logits > 0)",
            "return (logits[0] > 0)",
            "predict returns shape () for 2 examples; it must be (2,)",
        ),
        ("def loss", "def lose", "wrong.py:20: task kind 'ordinal' cannot be registered: the class lacks loss"),
        ("metrics = ", "metric = ", "task kind 'ordinal' cannot be registered: the class lacks metrics"),
    ],
)
def test_a_mistake_in_a_kind_is_named_before_any_step(
    levels: Followed, capsys: pytest.CaptureFixture[str], right: str, wrong: str, message: str
) -> None:
    (levels.folder / "wrong.py").write_text(shown()["ordinal.py"].replace(right, wrong))
    with contextlib.chdir(levels.folder), forgetting():
        assert main(["train", "CONFIG.toml", "--plugins", "wrong.py", "--out", "runs_wrong"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (levels.folder / "runs_wrong").exists()


# Matthews' correlation


def test_a_metric_is_computed_averaged_and_chosen_by(base: Config, tmp_path: Path) -> None:
    done = follow(SECTIONS["matthews.py"], base, tmp_path)
    scores = done.scores()
    assert list(scores["para"]) == ["matthews", "accuracy", "f1"]
    primary = [scores["sst"]["accuracy"], (scores["para"]["matthews"] + 1) / 2]
    assert scores["average"] == pytest.approx(np.mean(primary))
    assert "dev matthews" in (done.run / "report.html").read_text()
    rows = (Path(base.data_dir) / "quora-dev.csv").read_text().splitlines()[1:]
    labels = [float(row.split("\t")[-1]) for row in rows]
    found = [float(only) for (only,) in predicted(done.run / "predictions" / "para-dev-output.csv").values()]
    assert scores["para"]["matthews"] == pytest.approx(matthews_corrcoef(labels, found))


def test_matthews_correlation_is_scikit_learns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = [rng.integers(0, 2, (2, 11)) for _ in range(20)]
    cases += [np.array([[1] * 6, [0, 1] * 3]), np.array([[0, 1] * 3, [0] * 6]), np.array([[0, 1] * 3, [0, 1] * 3])]
    with registered("matthews.py", tmp_path):
        metric: Metric = KINDS["binary"].metrics[-1]
    for predictions, labels in cases:
        found = metric(predictions.astype(float), labels.astype(float))
        assert found == pytest.approx(matthews_corrcoef(labels, predictions), abs=1e-12)


# ERNIE


def test_a_family_is_trained(base: Config, tmp_path: Path) -> None:
    """Its numbers are compared in tests/parity/test_families.py."""
    (tmp_path / "weights").mkdir()
    with registered("ernie.py", tmp_path):
        save_encoder("ernie", tmp_path / "weights" / "ernie")
    done = follow(SECTIONS["ernie.py"], base, tmp_path)
    assert json.loads((done.run / "encoder" / "config.json").read_text())["model_type"] == "ernie"
    assert 0 <= done.scores()["average"] <= 1
