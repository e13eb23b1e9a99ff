"""Contrastive learning (docs/numerics.md, section 13): loss, head and metrics against literal formulas, and runs."""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.checks import check_config
from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, HeadConfig, SmartConfig, StageConfig, TaskConfig, save_config
from mtbert_jax.data.readers import read_for_run
from mtbert_jax.nn.heads import VectorHead
from mtbert_jax.results.write import write_results
from mtbert_jax.tasks import KINDS, metrics
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.training.plan import make_plans
from mtbert_jax.training.records import read_metrics
from mtbert_jax.training.setup import Setup
from tests.runs import lively_params
from tests.training.test_fit import Quiet, assert_same_run, run

KIND = KINDS["contrastive"]
RNG = np.random.default_rng(0)


def vectors(count: int, width: int = 5) -> np.ndarray:
    return RNG.normal(size=(count, 2, width))


def cosine(u: np.ndarray, v: np.ndarray) -> float:
    return float(u @ v / math.sqrt(u @ u) / math.sqrt(v @ v))


def simcse(pairs: np.ndarray, temperature: float) -> list[float]:
    """-log of exp(cos(u_i, v_i) / τ) over the sum of exp(cos(u_i, v_j) / τ) (SimCSE, equation 1)."""
    losses = []
    for i, (u, _) in enumerate(pairs):
        terms = [math.exp(cosine(u, v) / temperature) for _, v in pairs]
        losses.append(-math.log(terms[i] / sum(terms)))
    return losses


def through_head(pairs: np.ndarray, temperature: float = 0.05) -> np.ndarray:
    """What evaluation makes of vectors: no dense layer."""
    head = VectorHead(pairs.shape[-1], temperature, 0.02, "mean_each")
    params = head.init(jax.random.key(0), jnp.zeros((1, pairs.shape[-1])))["params"]
    return np.asarray(head.apply({"params": params}, jnp.asarray(pairs, jnp.float32)))


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_loss_is_simcses(temperature: float) -> None:
    """Rows of weight 0 are no negatives, and weights are those of a mean; zeros behind the vectors change nothing."""
    pairs = vectors(6)
    wanted = simcse(pairs[:4], temperature)
    outputs = through_head(pairs, temperature)
    padded = np.pad(outputs, ((0, 0), (0, 0), (0, 3)))
    weights = jnp.array([1.0, 2.0, 0.5, 1.0, 0.0, 0.0])
    for logits in (outputs, padded):
        found, gradient = jax.value_and_grad(lambda x: KIND.batch_loss(x, jnp.zeros((6, 2, 1)), weights))(logits)
        assert float(found) == pytest.approx(np.dot(wanted, weights[:4]) / 4.5, rel=2e-4)
        assert np.isfinite(gradient).all() and (np.asarray(gradient)[4:] == 0).all()
    np.testing.assert_allclose(KIND.loss(outputs[:4], np.zeros((4, 2, 1))), wanted, rtol=2e-4, atol=1e-6)


def test_the_head_has_dense_and_tanh_in_training_alone() -> None:
    head = VectorHead(3, 0.1, 0.02, "cls_each")
    params = head.init(jax.random.key(1), jnp.zeros((1, 3)))["params"]
    params = {"dense": {"kernel": 50 * params["dense"]["kernel"], "bias": params["dense"]["bias"] + 0.1}}
    x = vectors(2, 3)
    inner = np.tanh(x @ np.asarray(params["dense"]["kernel"]) + np.asarray(params["dense"]["bias"]))
    for deterministic, wanted in ((False, inner), (True, x)):
        found = head.apply({"params": params}, jnp.asarray(x, jnp.float32), deterministic=deterministic)
        wanted = wanted / np.linalg.norm(wanted, axis=-1, keepdims=True) / math.sqrt(0.1)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    zeros = jax.grad(lambda x: head.apply({"params": params}, x).sum())(jnp.zeros((1, 2, 3)))  # type: ignore[union-attr]
    assert np.isfinite(zeros).all()


def test_the_comparison_is_the_squared_distance_of_unit_vectors() -> None:
    one, other = vectors(3), vectors(3)
    wanted = [sum(2 - 2 * cosine(a, b) for a, b in zip(x, y, strict=True)) for x, y in zip(one, other, strict=True)]
    np.testing.assert_allclose(KIND.divergence(7 * one, other), wanted, rtol=1e-5)
    assert float(KIND.divergence(one, one).max()) < 1e-6


def test_alignment_and_uniformity_are_wang_and_isolas(monkeypatch: pytest.MonkeyPatch) -> None:
    """E ‖f(x) - f(y)‖² of positive pairs, and log E exp(-2 ‖f(x) - f(y)‖²) of two texts."""
    monkeypatch.setattr(metrics, "NEIGHBOURS", 4)
    pairs = vectors(7)
    units = [[v / math.sqrt(v @ v) for v in pair] for pair in pairs]
    squared = lambda x, y: sum((a - b) ** 2 for a, b in zip(x, y, strict=True))  # noqa: E731
    alignment = sum(squared(u, v) for u, v in units) / 7
    terms = [
        math.exp(-2 * squared(a[side], b[side]))
        for group in (units[:4], units[4:])
        for side in (0, 1)
        for a, b in itertools.combinations(group, 2)
    ]
    uniformity = math.log(sum(terms) / len(terms))
    labels = np.zeros((7, 2, 1))
    assert metrics.ALIGNMENT(3 * pairs, labels) == pytest.approx(alignment, rel=1e-12)
    assert metrics.UNIFORMITY(3 * pairs, labels) == pytest.approx(uniformity, rel=1e-12)
    assert math.isnan(metrics.UNIFORMITY(pairs[:1], labels[:1]))
    both = metrics.ALIGNMENT.of_resamples(np.stack([pairs, pairs[::-1]]), np.stack([labels] * 2))
    np.testing.assert_allclose(both, alignment)
    assert 0 <= metrics.UNIFORMITY.to_unit(np.float64(uniformity)) <= 1


def test_the_loss_on_dev_is_of_groups_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "GROUP", 3)
    pairs = vectors(7)
    wanted = [loss for group in (pairs[:3], pairs[3:5], pairs[5:]) for loss in simcse(group, 0.05)]
    kept = KIND.kept(through_head(pairs), np.zeros((7, 2, 1)))
    found = metrics.CONTRASTIVE_LOSS(KIND.predict(np.asarray(kept)), np.zeros((7, 2, 1)))
    assert found == pytest.approx(np.mean(wanted), rel=1e-4)


# Runs


@pytest.fixture
def near(config: Config, tmp_path: Path) -> Config:
    """Sentences of a plain text file, encoded twice; paraphrases as positive pairs; and sentiment beside them."""
    rows = (Path(config.data_dir) / "ids-sst-train.csv").read_text().splitlines()[1:]
    for name, count in (("text-train", 24), ("text-dev", 9)):
        (tmp_path / f"{name}.txt").write_text("".join(f"{row.split(chr(9))[2]}\n" for row in rows[:count]))
    files = {"train": str(tmp_path / "text-train.txt"), "dev": str(tmp_path / "text-dev.txt")}
    pair, para = ("sentence1", "sentence2"), {"train": "quora-train.csv", "dev": "quora-dev.csv"}
    tasks = (
        TaskConfig("near", "contrastive", id="", **files),  # type: ignore[arg-type]
        TaskConfig("alike", "contrastive", pair, "is_duplicate", min_label=1, **para),  # type: ignore[arg-type]
        config.tasks[0],
    )
    return dataclasses.replace(config, tasks=tasks, head=HeadConfig(pooling="mean"))


@pytest.mark.slow
def test_both_train_before_and_beside_other_tasks_and_go_on_to_the_bit(near: Config, tmp_path: Path) -> None:
    """A first stage of their own, then all with PCGrad and SMART; interrupted, and gone on with."""
    first = StageConfig(name="text", tasks=("near", "alike"), steps=2, optimizer=("pcgrad()", "adam(lr)"))
    last = StageConfig(name="all", steps=2, smart=SmartConfig(weight=1.0))
    config = dataclasses.replace(near, stages=(first, last), steps=None, eval_every_steps=2, log_every_steps=1)
    whole = run(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(config, tmp_path / "parts", display=Quiet(at=1))
    assert_same_run(config, whole, run(config, tmp_path / "parts", resume=True), 4)
    write_results(whole, whole.load_config())
    made = mt.load_run(whole.path)
    for name in ("near", "alike"):
        assert list(made.scores[name]) == ["loss", "alignment", "uniformity"]
        assert 0 <= made.scores[name]["loss"] < 5
        assert -8 < made.scores[name]["uniformity"] < 0
    assert made.scores["near"]["alignment"] == pytest.approx(0, abs=1e-9)  # one text, and no dropout
    assert made.scores["alike"]["alignment"] > 1e-4
    assert made.scores["plain_average"] == made.scores["sst"]["accuracy"]
    smooth = [record["smoothness"] for record in read_metrics(whole.metrics) if "smoothness" in record]
    assert len(smooth) == 2 and all(min(one[name] for name in ("near", "alike", "sst")) > 0 for one in smooth)
    page = made.report().read_text(encoding="utf-8")
    assert "uniformity" in page and "alignment" in page
    assert "heads.safetensors" in {path.name for path in made.export("hf").iterdir()}
    assert list(json.loads((whole.path / "export" / "hf" / "tasks.json").read_text())["tasks"]) == ["sst"]


@pytest.mark.slow
def test_a_run_of_several_seeds_and_of_contrastive_tasks_alone(near: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(near, tasks=near.tasks[:2], regularizers=("rdrop()",), steps=2, eval_every_steps=2)
    made = mt.train(config, out=tmp_path / "run", seeds=(0, 1))
    assert isinstance(made, mt.SeedsOfRun)
    scores = made.runs[0].scores
    wanted = np.mean([math.exp(-scores[name]["loss"]) for name in ("near", "alike")])
    assert scores["average"] == pytest.approx(wanted)


def test_masks_of_dropout_tell_the_two_encodings_apart_in_training_alone(near: Config) -> None:
    setup = Setup.load(near, Path(near.encoder))
    (plan,) = make_plans(setup, setup.datasets("train"))
    params, batch = lively_params(setup), plan.batches[0]["near"]
    assert batch.input_ids.shape[:2] == (4, 2)  # type: ignore[union-attr]
    still = np.asarray(setup.model.logits(params, "near", batch))
    np.testing.assert_array_equal(still[:, 0], still[:, 1])
    np.testing.assert_allclose(np.linalg.norm(still, axis=-1), 1 / math.sqrt(0.05), rtol=1e-5)
    moved = np.asarray(setup.model.logits(params, "near", batch, jax.random.key(0)))
    assert np.abs(moved[:, 0] - moved[:, 1]).max() > 0.1


def test_predictions_are_cosines_of_encodings(near: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of any two texts, also where training had one text column; from Python and from the command line."""
    from tests.runs import checkpointed

    folder = checkpointed(dataclasses.replace(near, out=str(tmp_path / "run")))
    model = mt.MultitaskModel.from_checkpoint(folder.path)
    pairs = [("the film was good .", "a song"), ("a", "the book is not lovely ?"), ("a", "a")]
    u, v = (model.encode([pair[side] for pair in pairs]) for side in (0, 1))
    wanted = [cosine(a, b) for a, b in zip(u, v, strict=True)]
    for task in ("near", "alike"):
        found = model.predict(task, pairs)  # type: ignore[arg-type]
        assert [one.label for one in found] == pytest.approx(wanted, abs=1e-5)
        assert found[0].probabilities == {}
    with pytest.raises(mt.InputError, match="text 1: task near takes two texts, got 1"):
        model.predict("near", ["the film"])
    (tmp_path / "texts").write_text("".join("\t".join(pair) + "\n" for pair in pairs))
    assert main(["predict", str(folder.path), "--task", "near", "--input", str(tmp_path / "texts")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["label"] for line in lines] == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(mt.InputError, match="whose outputs are no distribution over classes"):
        model.soft_labels("near", pairs)  # type: ignore[arg-type]


def test_min_label_takes_the_positive_pairs(near: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = near.resolved_tasks()[1]
    read = read_for_run(near, task, "train")
    rows = [row.split("\t") for row in (Path(near.data_dir) / "quora-train.csv").read_text().splitlines()[1:]]
    positive = [row for row in rows if float(row[4]) >= 1]
    assert 0 < len(positive) < len(rows)
    assert [example.texts for example in read.examples] == [(row[2], row[3]) for row in positive]
    assert len(read.unlabelled) == len(rows) - len(positive)
    save_config(near, tmp_path / "run.toml")
    assert main(["train", str(tmp_path / "run.toml"), "--dry-run"]) == 0
    told = f"task alike: {len(rows) - len(positive)} rows of quora-train.csv have a label below min_label = 1 for it"
    assert told in capsys.readouterr().out
    assert main(["check-data", str(tmp_path / "run.toml")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"task alike, train: {len(rows) - len(positive)} rows with a label below min_label = 1 are left out" in out
    assert "task near, train: 24 rows" not in out
    with pytest.raises(mt.InputError, match="every row has a label below min_label = 2, in 'is_duplicate'$"):
        read_for_run(near, dataclasses.replace(task, min_label=2), "train")
    whole = read_for_run(near, dataclasses.replace(task, min_label=None, label="no such column"), "train")
    assert len(whole.examples) == len(rows)


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ({"head": HeadConfig(pooling="pair")}, {}, r"head.pooling = 'pair' must be 'cls' or 'mean'$"),
        ({"temperature": 0.0}, {}, r"temperature = 0.0: must be above 0$"),
        ({"min_label": math.nan}, {}, r"min_label = nan: must be a finite number$"),
        ({"text": ("sentence1",)}, {}, "min_label tells which rows are positive pairs, and this task reads one text$"),
        ({"swap_pairs": 0.5}, {}, "swap_pairs is for labelled pairs of texts, not for kind = 'contrastive'"),
        ({"num_classes": 2}, {}, "num_classes and classes do not belong to kind = 'contrastive'$"),
        ({}, {"micro_batches": 2}, "task near of kind = 'contrastive' compares all examples of a batch"),
        (
            {},
            {"freeze": ("encoder",), "cache_features": True},
            "task near of kind = 'contrastive' reads two, under dropout; set cache_features = false$",
        ),
        ({"kind": "binary", "min_label": 1.0}, {}, "min_label is for kind = 'contrastive', not for kind = 'binary'$"),
        (
            {"kind": "binary", "min_label": None, "temperature": 0.1},
            {},
            "temperature is for kind = 'contrastive', not for kind = 'binary'$",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    near: Config, task: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    tasks = (near.tasks[0], dataclasses.replace(near.tasks[1], **task), near.tasks[2])
    with pytest.raises(mt.InputError, match=message):
        check_config(dataclasses.replace(near, tasks=tasks, **changes))


def test_one_text_needs_dropout(near: Config) -> None:
    message = (
        "^task near: .* other dropout masks, and the encoder has no dropout; set encoder_dropout = 0.1, or give two"
    )
    with pytest.raises(mt.InputError, match=message):
        Setup.load(dataclasses.replace(near, encoder_dropout=0.0), Path(near.encoder))
    alone = dataclasses.replace(near, encoder_dropout=0.0, tasks=near.tasks[1:])
    assert set(Setup.load(alone, Path(near.encoder)).tasks) == {"alike", "sst"}


def test_a_pair_of_texts_is_no_plain_text_file(near: Config) -> None:
    wrong = dataclasses.replace(near.tasks[1], train=near.tasks[0].train, min_label=None)
    with pytest.raises(mt.InputError, match="a plain text file has one text a line, and task alike reads 2$"):
        mt.read_task(wrong, "train")


def test_a_wrong_label_is_a_bad_row(near: Config, tmp_path: Path) -> None:
    (tmp_path / "bad.tsv").write_text("id\tsentence1\tsentence2\tis_duplicate\n0\ta\tb\tmaybe\n")
    wrong = dataclasses.replace(near.tasks[1], train=str(tmp_path / "bad.tsv"))
    with pytest.raises(mt.InputError, match=r"bad.tsv:2: column 'is_duplicate' is 'maybe', not a number"):
        mt.read_task(wrong, "train")
