"""Pairs that are scored in both orders: everywhere the mean of the logits of two runs that read one order each.

docs/numerics.md, section 10. A task that names its text columns the other way round reads (b, a).
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, HeadConfig, StageConfig, TaskConfig
from mtbert_jax.data.predictions import read_predictions
from mtbert_jax.export.write import export_run
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.submission.hand_in import write_submission
from mtbert_jax.tasks import KINDS, kind_of, task_scores
from mtbert_jax.training.checkpoint import Checkpoints
from mtbert_jax.training.describe import rehearse
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.logits import load_logits
from mtbert_jax.training.records import read_metrics
from mtbert_jax.training.setup import Setup
from tests.conftest import replace_task, tiny_run
from tests.runs import checkpointed
from tests.training.test_fit import leaves, run

PAIRS = ("para", "sts", "same", "near")
"""A binary task, a regression, a classification and a ranking."""


def with_orders(config: Config, both: bool, turned: bool = False) -> Config:
    """The config with its tasks over pairs scored so, or with their columns the other way round."""
    pairs = (task for task in config.tasks if len(task.text) == 2)
    for task in pairs:
        config = replace_task(config, task.name, both_orders=both, text=task.text[::-1] if turned else task.text)
    return config


def one_order(folder: Path, split: Any = "dev", which: str = "best", turned: bool = False) -> dict[str, np.ndarray]:
    """Logits of a run that scores one order."""
    config = with_orders(RunFolder(folder).load_config(), False, turned)
    return MultitaskModel.from_checkpoint(folder, which, config=config).evaluate(split, labels=False)[2]


def means(folder: Path, split: Any = "dev", which: str = "best") -> dict[str, np.ndarray]:
    """What must come of pairs in both orders; single texts as they are."""
    one, other = (one_order(folder, split, which, turned) for turned in (False, True))
    return {name: np.mean([one[name], other[name]], axis=0) for name in one}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path, data_dir: Path) -> Path:
    """A finished run of the four kinds and a task of single texts; limits cut many pairs off, other in either order."""
    config = tiny_run(encoder_dir, data_dir, tmp_path_factory.mktemp("orders"))
    sst, para, sts = config.tasks
    pair = HeadConfig(pooling="pair", hidden_layers=0)
    tasks = (
        sst,
        dataclasses.replace(para, head=pair),
        dataclasses.replace(sts, max_length=14),
        TaskConfig(**{**vars(para), "name": "same", "kind": "classification", "classes": ("0.0", "1.0")}),
        TaskConfig(**{**vars(sts), "name": "near", "kind": "ranking", "label_range": ()}),
    )
    config = dataclasses.replace(config, tasks=tasks, max_length=20, lengths=(12, 20))
    return checkpointed(with_orders(config, True)).path


def test_dev_logits_scores_and_predictions_are_of_both_orders(folder: Path) -> None:
    kept, one, wanted = load_logits(RunFolder(folder)), one_order(folder), means(folder)
    model = MultitaskModel.from_checkpoint(folder)
    results = json.loads((folder / "results.json").read_text())["dev"]
    assert kept is not None
    np.testing.assert_array_equal(kept["sst"], one["sst"])
    for name in PAIRS:
        np.testing.assert_allclose(kept[name], wanted[name], rtol=1e-4, atol=1e-5)
        assert np.abs(one[name] - wanted[name]).max() > 1e-2
        task = model.setup.tasks[name]
        labels = np.array([example.label for example in mt.read_task(task, "dev", model.setup.config.data_dir)])
        predicted = kind_of(task).predict(kept[name])
        assert results[name] == pytest.approx(task_scores(task, predicted, labels.astype(np.float32)))
        ids, written = read_predictions(folder / "predictions" / f"{name}-dev-output.csv", task)
        assert len(ids) == 21
        np.testing.assert_allclose(written, predicted, rtol=1e-6)
        tested = read_predictions(folder / "predictions" / f"{name}-test-output.csv", task)[1]
        np.testing.assert_allclose(tested, kind_of(task).predict(means(folder, "test")[name]), rtol=1e-4, atol=1e-5)


def test_a_submission_and_a_dry_run_know_of_both_orders(folder: Path, tmp_path: Path) -> None:
    model = MultitaskModel.from_checkpoint(folder)
    write_submission(model, tmp_path)
    for split in ("dev", "test"):
        predicted = read_predictions(tmp_path / f"sts-{split}-output.csv", model.setup.tasks["sts"])[1]
        wanted = np.clip(means(folder, split)["sts"][:, 0], 0, 5)
        np.testing.assert_allclose(predicted, wanted, rtol=1e-4, atol=1e-5)
    config = dataclasses.replace(model.setup.config, out=str(tmp_path / "none"))
    assert "dev and test pairs scored in both orders: para, sts, same, near" in list(rehearse(config))


def test_a_training_file_is_scored_so_too(folder: Path) -> None:
    found = MultitaskModel.from_checkpoint(folder).evaluate("train")[2]
    for name, wanted in means(folder, "train").items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-5)


def test_own_pairs_are_scored_alike_in_either_order(folder: Path) -> None:
    model = MultitaskModel.from_checkpoint(folder)
    pairs = [("the film was good .", "a bad book"), ("very " * 30, "not dull"), ("", "the song")]
    alone = model.with_both_orders(())
    for name in PAIRS:
        one, other = (model.predict(name, some) for some in (pairs, [pair[::-1] for pair in pairs]))
        parts = [alone.predict(name, some) for some in (pairs, [pair[::-1] for pair in pairs])]
        for found, again, first, second in zip(one, other, *parts, strict=True):
            if name in ("sts", "near"):
                assert found.label == pytest.approx(again.label, abs=1e-5)
                assert found.label == pytest.approx((first.label + second.label) / 2, abs=1e-5)
                continue
            assert found.probabilities == pytest.approx(again.probabilities, abs=1e-6)
            p, a, b = (np.array([*said.probabilities.values()], float) for said in (found, first, second))
            geometric = np.sqrt(a * b)
            np.testing.assert_allclose(p, geometric / geometric.sum(), atol=1e-5)
    rows = model.soft_labels("para", pairs)
    shares = [list(said.probabilities.values()) for said in model.predict("para", pairs)]
    np.testing.assert_allclose([row["is_duplicate"] for row in rows], shares, atol=1e-6)
    assert rows[0]["sentence1"] == pairs[0][0]


def test_commands_score_tasks_in_both_orders_when_told_to(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = shutil.copytree(folder, tmp_path / "plain")
    config = plain / "config.toml"
    config.write_text(config.read_text().replace("both_orders = true", "both_orders = false"))

    def scores(run: Path, *flags: str) -> dict[str, Any]:
        assert main(["evaluate", str(run), "--json", *flags]) == 0
        return json.loads(capsys.readouterr().out)

    both, one = scores(folder), scores(plain)
    assert {name: both[name] == one[name] for name in ("sst", "sts", "near")} == {
        "sst": True, "sts": False, "near": False
    }  # fmt: skip
    assert scores(plain, "--both-orders", *PAIRS) == both
    assert scores(folder, "--both-orders") == one
    some = scores(folder, "--both-orders", "near")
    assert (some["near"], some["sts"]) == (both["near"], one["sts"])

    texts = tmp_path / "texts.txt"
    texts.write_text("the film was good\ta bad book\n")
    said = []
    for flags in ([], ["--both-orders", "sts"]):
        assert main(["predict", str(plain), "--task", "sts", "--input", str(texts), *flags]) == 0
        said.append(json.loads(capsys.readouterr().out)["label"])
    wanted = [MultitaskModel.from_checkpoint(run).predict("sts", [("the film was good", "a bad book")]) for run in
              (plain, folder)]  # fmt: skip
    assert said == pytest.approx([own[0].label for own in wanted], abs=1e-5)
    assert abs(said[0] - said[1]) > 1e-3

    assert main(["evaluate", str(plain), "--both-orders", "para", "sst"]) == 2
    assert "both_orders is for labelled pairs of texts" in capsys.readouterr().err
    assert main(["evaluate", str(plain), "--both-orders", "stz"]) == 2
    assert "no task 'stz' in this run; did you mean 'sts'?" in capsys.readouterr().err


@pytest.mark.slow
def test_the_loader_of_an_export_scores_both_orders(folder: Path, tmp_path: Path) -> None:
    from tests.export.test_stablehlo import load

    out = export_run(folder, "stablehlo", tmp_path / "out")
    kept = load_logits(RunFolder(folder))
    config = RunFolder(folder).load_config()
    assert kept is not None
    for task in (task for task in config.tasks if task.name in ("sst", "sts")):
        texts = [example.texts for example in mt.read_task(task, "dev", config.data_dir)]
        rows = load(out, task.name, texts, tmp_path)
        assert [tuple(row["text"]) for row in rows] == texts  # type: ignore[arg-type]
        np.testing.assert_allclose([row["logits"] for row in rows], kept[task.name], rtol=0, atol=1e-5)
    told = (
        "The run scored the pairs of para, sts, same, near in both orders, (a, b) and (b, a), and took the mean of the"
    )
    assert told in (out / "README.md").read_text()


STAGES = (
    StageConfig(name="heads", steps=1, freeze=("encoder",), cache_features=True, lr=1e-2),
    StageConfig(name="full", steps=1),
)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [(), (3, 0)])
def test_training_is_scored_in_both_orders_and_does_not_change(
    config: Config, tmp_path: Path, seeds: tuple[int, ...]
) -> None:
    """Of kept features and of tokens, alone and for several seeds in one program: records, best checkpoint, results."""
    (sts,) = config.tasks[2:]
    config = dataclasses.replace(config, tasks=(sts,), optimizer=("adamw(lr)",), max_length=16, lengths=(16,))
    config = dataclasses.replace(config, stages=STAGES, seeds=seeds, eval_every_steps=1, log_every_steps=1)
    both = run(with_orders(config, True), tmp_path / "both")
    if not seeds:
        plain = run(with_orders(config, False), tmp_path / "plain")
        states = [leaves(config, own, 2) for own in (plain, both)]
        for name, leaf in states[0].items():
            np.testing.assert_array_equal(leaf, states[1][name])
    for folder in [both.path / f"seed{seed}" for seed in seeds] or [both.path]:
        own = RunFolder(folder)
        records = {record["step"]: record["scores"] for record in read_metrics(own.metrics) if record["kind"] == "eval"}
        setups = [Setup.load(with_orders(config, False, turned), own.encoder) for turned in (False, True)]
        with Checkpoints(own.checkpoints) as checkpoints:
            best = checkpoints.best_step()
            params = {step: checkpoints.restore_params(step, setups[0].abstract_params()) for step in records}
        kept, labels = load_logits(own, best), setups[0].datasets("dev")["sts"].labels
        assert kept is not None and [*records] == [1, 2]  # the first of kept features
        for step, told in records.items():
            one, other = (MultitaskModel(setup, params[step], step).evaluate("dev")[2]["sts"] for setup in setups)
            assert np.abs(one - other).max() > 1e-6
            if step == best:
                np.testing.assert_allclose(kept["sts"], (one + other) / 2, rtol=1e-4, atol=1e-5)
            scores = task_scores(sts, (one + other)[:, 0] / 2, labels)
            assert told["sts"] == pytest.approx(scores, abs=1e-4)
            assert told["sts"] != pytest.approx(task_scores(sts, one[:, 0], labels), abs=1e-4)
        assert records[best]["average"] == max(scores["average"] for scores in records.values())


@pytest.mark.parametrize("kind", ["classification", "binary", "regression", "multilabel", "distribution", "ranking"])
def test_the_loss_of_the_mean_is_at_most_the_mean_of_the_losses(kind: str) -> None:
    """Every loss is convex in the logits: what docs/numerics.md, section 10 promises."""
    rng = np.random.default_rng(0)
    width = 1 if kind in ("binary", "regression", "ranking") else 3
    labels = {
        "classification": rng.integers(0, 3, 50),
        "binary": rng.integers(0, 2, 50),
        "multilabel": rng.integers(0, 2, (50, 3)),
        "distribution": rng.dirichlet(np.ones(3), 50),
    }.get(kind, rng.uniform(0, 5, 50)).astype(np.float32)
    one, other = rng.normal(size=(2, 50, width)).astype(np.float32) * 3

    def loss(logits: np.ndarray) -> np.ndarray:
        if KINDS[kind].of_batch:
            return np.asarray(KINDS[kind].batch_loss(logits, labels, np.ones(50, np.float32)))  # type: ignore[arg-type]
        return np.asarray(KINDS[kind].loss(logits, labels))  # type: ignore[arg-type]

    gain = (loss(one) + loss(other)) / 2 - loss((one + other) / 2)
    assert (gain >= -1e-4).all()
    assert gain.mean() > 1e-2
