"""Classification, labels of words and masked language modelling on one encoder, with PCGrad."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.config import Config, HeadConfig, SmartConfig, TaskConfig
from mtbert_jax.optim.aggregators import cosines, gramian
from mtbert_jax.training.active import ActiveRun, first_state, stage_step
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.origin import from_directory
from mtbert_jax.training.plan import make_plans
from mtbert_jax.training.setup import Setup
from tests.conftest import BAD, GOOD, THINGS, tiny_run


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, small_encoder_dir: Path, data_dir: Path) -> Config:
    """Three tasks of one file: a row's sentiment, the things in it, and its text."""
    folder = tmp_path_factory.mktemp("together")
    rows = []
    for number in range(24):
        good, thing = number % 2, THINGS[number % 8]
        said = [*((GOOD if good else BAD)[: 1 + number % 4])]
        words = ["the", thing, "was", *said, "."]
        tags = ["O", "B-THING", "O", *["O"] * len(said), "O"]
        rows.append({"id": str(number), "text": " ".join(words), "mood": ("bad", "good")[good], "tags": " ".join(tags)})
    for split in ("train", "dev"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"text": ("text",), "train": "train.jsonl", "dev": "dev.jsonl"}
    tasks = (
        TaskConfig("mood", "classification", label="mood", classes=("bad", "good"), **files),  # type: ignore[arg-type]
        TaskConfig("things", "tokens", label="tags", classes=("THING",), **files),  # type: ignore[arg-type]
        TaskConfig("text", "masked_lm", **files),  # type: ignore[arg-type]
    )
    tiny = tiny_run(small_encoder_dir, data_dir, folder)
    head = HeadConfig(pooling="mean")
    return dataclasses.replace(tiny, data_dir=str(folder), tasks=tasks, head=head, steps=4, eval_every_steps=2)


def projected(gradients: list[np.ndarray], orders: Sequence[Sequence[int]]) -> np.ndarray:
    """PCGrad (Yu et al. 2020, algorithm 1), literally: each gradient meets the others in an order of its own."""
    total = np.zeros_like(gradients[0])
    for own, order in zip(gradients, orders, strict=True):
        left = own.copy()
        for other in order:
            dot = left @ gradients[other]
            left -= min(dot, 0) / (gradients[other] @ gradients[other]) * gradients[other]
        total += left
    return total


@pytest.mark.slow
def test_a_step_with_pcgrad_is_the_sum_of_projected_gradients(config: Config, tmp_path: Path) -> None:
    """The step's update beside the rule applied to each task's own gradient, and what it tells beside their cosines."""
    config = dataclasses.replace(config, optimizer=("pcgrad()", "sgd(1.0)"), encoder_dropout=0.0)
    setup = Setup.load(config, Path(config.encoder))
    train = setup.datasets("train")
    (plan,) = make_plans(setup, train)
    run = ActiveRun(setup, RunFolder(tmp_path), [plan], train, {}, None, None, batches=plan.batches)  # type: ignore[arg-type]
    origin = from_directory(Path(config.encoder), setup)
    assert origin.told == ("task text: a fresh head",)
    params = setup.initial_params(origin.encoder)
    state = setup.layout.place(first_state(setup, plan, params, 0))
    step = stage_step(setup, plan, 0)
    batches = run.gather(0)
    assert set(batches) == {"mood", "things", "text"}
    own = {n: step.gradients[n](state.params, None, b, state.key, state.step)[0] for n, b in batches.items()}
    grads = [jax.device_get(tree["encoder"]) for tree in own.values()]
    flat = [np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)]) for tree in grads]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *grads)
    np.testing.assert_allclose(
        gramian(jax.tree.leaves(stacked)), np.array(flat) @ np.array(flat).T, rtol=1e-3, atol=1e-6
    )
    before = jax.device_get(state.params)
    after, told = step(state, batches)
    for name in ("mood", "things", "text"):  # each head takes its own gradient, whatever surgery does
        for old, new, grad in zip(
            *(jax.tree.leaves(jax.device_get(tree)) for tree in (before["heads"][name], after.params["heads"][name])),
            jax.tree.leaves(own[name]["heads"][name]),
            strict=True,
        ):
            np.testing.assert_allclose(new, old - np.asarray(grad), rtol=1e-4, atol=1e-6)
    of = dict(zip(own, flat, strict=True))
    ordered = np.array([of[name] for name in told.losses])
    np.testing.assert_allclose(told.cosines, cosines(ordered @ ordered.T), atol=1e-4)  # type: ignore[arg-type]
    moved = [
        np.ravel(old).astype(np.float64) - np.ravel(new)
        for old, new in zip(
            jax.tree.leaves(before["encoder"]), jax.tree.leaves(jax.device_get(after.params["encoder"])), strict=True
        )
    ]
    update = np.concatenate(moved)
    sums = [
        projected(flat, orders) for orders in itertools.product(*([(1, 2), (2, 1)], [(0, 2), (2, 0)], [(0, 1), (1, 0)]))
    ]
    assert min(np.abs(update - one).max() for one in sums) < 1e-4 * np.abs(update).max()
    table = own["text"]["encoder"]["embeddings"]["word"]["embedding"]
    assert np.abs(np.asarray(table)).sum(axis=1).min() > 0  # by the tied output layer every word gets a gradient


@pytest.mark.slow
@pytest.mark.parametrize("smart", [SmartConfig(), SmartConfig(1.0)], ids=["plain", "smart"])
def test_all_three_are_trained_scored_and_gone_on_from(config: Config, tmp_path: Path, smart: SmartConfig) -> None:
    run = mt.train(dataclasses.replace(config, out=str(tmp_path / "run"), smart=smart))
    assert isinstance(run, mt.Run)
    scores = run.scores
    assert list(scores["text"]) == ["loss", "perplexity"]
    assert scores["text"]["perplexity"] == pytest.approx(np.exp(scores["text"]["loss"]))
    # Near the logarithm of the vocabulary, as a fresh head guesses; averages are of tasks that predict something.
    assert 2 < scores["text"]["loss"] < 5
    assert scores["plain_average"] == pytest.approx((scores["mood"]["accuracy"] + scores["things"]["f1"]) / 2)
    smoothness = [value for value in run.history.get("train/smoothness/text", []) if value is not None]
    assert bool(smoothness) == bool(smart.weight)
    assert all(value > 0 for value in smoothness)
    (said,) = run.model.predict("things", ["the film was  good"])
    assert len(said.label) == 4 and {*said.label} <= {"O", "B-THING", "I-THING"}
    with pytest.raises(mt.InputError, match="task text is of kind = 'masked_lm', which trains the encoder"):
        run.model.predict("text", ["the film"])
    assert {path.name for path in (run.path / "predictions").iterdir() if path.suffix == ".csv"} == {
        "mood-dev-output.csv",
        "things-dev-output.csv",
    }
    # The encoder of a stage of text alone begins another run.
    text = dataclasses.replace(config, tasks=config.tasks[2:], out=str(tmp_path / "text"), optimizer=("adam(lr)",))
    before = mt.train(text)
    assert isinstance(before, mt.Run)
    assert before.scores["average"] == pytest.approx(np.exp(-before.scores["text"]["loss"]))
    then = mt.train(
        dataclasses.replace(config, tasks=config.tasks[:2], encoder="", init_from=str(before.path)),
        out=tmp_path / "then",
    )
    assert isinstance(then, mt.Run)
    assert 0 <= then.scores["average"] <= 1
    exported = before.export("hf")
    assert (exported / "model.safetensors").is_file() and not (exported / "heads.safetensors").exists()
    assert "AutoModel.from_pretrained" in (exported / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"seeds": (0, 1)}, {"micro_batches": 2}])
def test_whatever_else_a_run_does_it_does_with_rows_of_places(
    config: Config, tmp_path: Path, changes: dict[str, Any]
) -> None:
    run = mt.train(config, out=tmp_path / "run", steps=2, **changes)
    assert np.isfinite(run.scores["text"] if isinstance(run, mt.SeedsOfRun) else run.scores["text"]["loss"])


@pytest.mark.slow
def test_micro_batches_add_up_to_the_whole_batch(config: Config, tmp_path: Path) -> None:
    """Without dropout the losses of the first step are the same in one part and in two."""
    head = HeadConfig(pooling="mean", dropout=0.0)
    losses = []
    for parts in (1, 2):
        run = mt.train(
            dataclasses.replace(
                config, head=head, encoder_dropout=0.0, steps=1, log_every_steps=1, micro_batches=parts
            ),
            out=tmp_path / str(parts),
        )
        assert isinstance(run, mt.Run)
        losses.append([run.history[f"train/loss/{task.name}"][0] for task in config.tasks])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
