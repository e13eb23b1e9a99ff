"""Texts that the encoder reads apart: the poolings `towers` and `both`, from a data file to an export."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.checks import check_config
from mtbert_jax.config import Config, HeadConfig, SmartConfig, StageConfig, Task
from mtbert_jax.data.batches import make_batch
from mtbert_jax.data.dataset import load_dataset
from mtbert_jax.data.streams import epoch_shapes
from mtbert_jax.data.tokens import Tokens, tokenize_inputs, tokenize_texts
from mtbert_jax.encoders.family import FAMILIES
from mtbert_jax.model import EncoderWithHeads
from mtbert_jax.regularizers.freelb import FreeLB
from mtbert_jax.regularizers.smart import CleanPass, adversarial_noise
from mtbert_jax.tasks import KINDS
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.training.objective import Objective, Place, StageSpec
from mtbert_jax.training.plan import make_plans
from mtbert_jax.training.records import read_metrics
from mtbert_jax.training.setup import Setup
from mtbert_jax.types import Batch
from tests.cases import slow_but_for
from tests.conftest import replace_task
from tests.encoders.modern import OWN, save_modern
from tests.encoders.tiny import save_encoder
from tests.runs import checkpointed, lively_params
from tests.training.test_fit import Quiet, assert_same_run, run

PAIRS = [("the film was very good .", "a song"), ("a", "the book is not lovely ?"), ("the city", "the city")]
INPUTS = {"towers": ((0,), (1,)), "both": ((0, 1), (0,), (1,))}


def apart(config: Config) -> Config:
    """Paraphrases by `towers`, similarity by `both`, both over other texts than sentiment."""
    config = replace_task(config, "para", head=HeadConfig(pooling="towers"))
    return replace_task(config, "sts", head=HeadConfig(pooling="both", hidden_layers=0), max_length=14)


def joined(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """InferSent, section 3.1: [u, v, |u - v|, u v]."""
    return np.concatenate([u, v, np.abs(u - v), u * v])


def towers(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.append(joined(u, v), u @ v / np.linalg.norm(u) / np.linalg.norm(v))


@pytest.mark.parametrize("name", slow_but_for(("bert", "roberta", "modernbert"), FAMILIES))
def test_features_are_made_of_what_the_encoder_says_of_each_text_alone(name: str, tmp_path: Path) -> None:
    """docs/numerics.md, section 12: a batch with a filler against NumPy, from single texts, BERT's without padding."""
    padded = 0 if name == "bert" else 40
    save = save_modern if name in OWN else save_encoder
    encoder = save(name, tmp_path / "encoder")
    config, params = mt.load_pretrained(encoder)
    tokenizer = mt.load_tokenizer(encoder)
    apply = jax.jit(mt.encoder(config).apply)

    def states(*texts: str) -> tuple[np.ndarray, np.ndarray]:
        """States of the tokens of an input alone, and which of them are of the second text's segment."""
        tokens = tokenize_texts(tokenizer, [texts], 40)
        count = len(tokens.ids)
        batch = make_batch(tokens, np.zeros(1, np.float32), np.arange(1), padded or count, 1)
        found = np.asarray(apply({"params": params}, *batch[:3]).hidden_states[0], np.float64)
        return found[:count], np.arange(count) >= tokens.first[0]

    expected = []
    for pair in PAIRS[:2]:
        u, v = (states(text)[0].mean(0) for text in pair)
        both, second = states(*pair)
        expected.append(np.append(joined(both[~second].mean(0), both[second].mean(0)), towers(u, v)))
    for pooling in ("both", "towers") if name == "bert" else ("both",):
        task = Task(name="t", kind="binary", text=("a", "b"), head=HeadConfig(pooling=pooling))  # type: ignore[arg-type]
        model = EncoderWithHeads.build(config, (task,))
        tokens = tokenize_inputs(PAIRS[:2], INPUTS[pooling], lambda texts: tokenize_texts(tokenizer, texts, 40))
        batch = make_batch(tokens, np.zeros(2, np.float32), np.array([1, 0]), 40, 3)
        assert batch.input_ids.shape == (3, len(INPUTS[pooling]), 40)
        found = np.asarray(jax.jit(model.features, static_argnums=1)({"encoder": params}, pooling, batch))
        assert found.shape == (3, model.num_features("t"))
        wanted = np.array(expected)[:, -found.shape[1] :]
        np.testing.assert_allclose(found[[1, 0]], wanted, atol=2e-5, rtol=1e-4)
        assert np.isfinite(found[2]).all()


def test_a_text_is_encoded_once_and_inputs_of_an_example_follow_each_other(encoder_dir: Path) -> None:
    tokenizer = mt.load_tokenizer(encoder_dir)
    asked: list[list[tuple[str, ...]]] = []

    def tokenize(texts: Any) -> Tokens:
        asked.append(list(texts))
        return tokenize_texts(tokenizer, texts, 8)

    pairs = [("a film", "the song"), ("the song", "a film"), ("the song", "the song was very very very very good")]
    tokens = tokenize_inputs(pairs, INPUTS["both"], tokenize)
    singles, together = sorted(asked, key=lambda texts: len(texts[0]))
    assert singles == [("a film",), ("the song",), ("the song was very very very very good",)]
    assert together == pairs
    words = [[tokenizer.id_to_token(int(n)) for n in tokens.ids[a:b]] for a, b in zip(tokens.starts, tokens.starts[1:])]  # noqa: B905
    assert words[:3] == [
        ["[CLS]", "a", "film", "[SEP]", "the", "song", "[SEP]"],
        ["[CLS]", "a", "film", "[SEP]"],
        ["[CLS]", "the", "song", "[SEP]"],
    ]
    assert words[4:6] == [words[2], words[1]]
    assert tokens.lengths.tolist() == [7, 7, 8]  # of the longest input, cut off after 8
    assert tokens.first.tolist()[:3] == [4, 4, 4]
    taken = tokens.take([2, 0])
    assert taken.lengths.tolist() == [8, 7]
    np.testing.assert_array_equal(taken.ids[taken.starts[3] :], tokens.ids[: tokens.starts[3]])
    asked.clear()
    tokenize_inputs([pair[::-1] for pair in pairs], INPUTS["towers"], tokenize)
    assert asked == [singles]  # in the same order, so that a cache of texts serves pairs the other way round


def test_symmetric_features_stay_when_the_texts_change_places(encoder_dir: Path) -> None:
    config, params = mt.load_pretrained(encoder_dir)
    tokenizer = mt.load_tokenizer(encoder_dir)
    task = Task(name="t", kind="binary", text=("a", "b"), head=HeadConfig(pooling="towers"))
    model = EncoderWithHeads.build(config, (task,))

    def features(pairs: list[tuple[str, str]]) -> np.ndarray:
        tokens = tokenize_inputs(pairs, INPUTS["towers"], lambda texts: tokenize_texts(tokenizer, texts, 48))
        batch = make_batch(tokens, np.zeros(3, np.float32), np.arange(3), 16, 3)
        return np.asarray(model.features({"encoder": params}, "towers", batch))

    one, other = features(PAIRS), features([(b, a) for a, b in PAIRS])
    h = config.hidden_size
    np.testing.assert_array_equal(one[:, :h], other[:, h : 2 * h])
    np.testing.assert_array_equal(one[:, 2 * h :], other[:, 2 * h :])
    assert one[2, 4 * h] == pytest.approx(1, abs=1e-6)
    assert (one[2, 2 * h : 3 * h] == 0).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, small_encoder_dir: Path, data_dir: Path) -> Path:
    """A run folder with a checkpoint of heads that read texts apart."""
    from tests.conftest import tiny_run

    return checkpointed(apart(tiny_run(small_encoder_dir, data_dir, tmp_path_factory.mktemp("towers")))).path


def test_predictions_of_ones_own_texts_are_those_of_a_data_file(folder: Path) -> None:
    model = mt.MultitaskModel.from_checkpoint(folder)
    scores, datasets, logits = model.evaluate("dev")
    assert set(scores) >= {"sst", "para", "sts"}
    for task in ("para", "sts"):
        assert np.std(logits[task]) > 1e-3
        own = model.logits(task, datasets[task].texts)
        np.testing.assert_allclose(own, logits[task], atol=1e-5)
        labels = [one.label for one in model.predict(task, datasets[task].texts)]  # type: ignore[arg-type]
        wanted = logits[task][:, 0] if task == "sts" else logits[task][:, 0] > 0
        np.testing.assert_allclose(labels, wanted, atol=1e-5)


@pytest.mark.slow
def test_an_export_for_plain_jax_gives_the_same_numbers(folder: Path, tmp_path: Path) -> None:
    out = mt.load_run(folder).export("stablehlo", out=tmp_path / "out")
    texts = [("a film", "the song was bad"), ("the film was good and the book was not", "a")]
    model = mt.MultitaskModel.from_checkpoint(folder)
    assert json.loads((out / "tasks.json").read_text())["tasks"]["sts"]["inputs"] == [[0, 1], [0], [1]]
    for task in ("para", "sts"):
        lines = "".join("\t".join(text) + "\n" for text in texts)
        command = [sys.executable, str(out / "load.py"), task]
        done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=300, check=True)
        found = [json.loads(line)["logits"] for line in done.stdout.splitlines()]
        np.testing.assert_allclose(found, model.logits(task, list(texts)), atol=1e-5)


@pytest.mark.slow
def test_what_is_resumed_is_the_same_to_the_bit(config: Config, tmp_path: Path) -> None:
    """With swapped pairs, SMART and a second stage, and each text cut off at its own limit."""
    config = dataclasses.replace(replace_task(apart(config), "para", swap_pairs=0.5), smart=SmartConfig(weight=1.0))
    config = dataclasses.replace(config, stages=(StageConfig(steps=3), StageConfig(steps=3)), steps=None)
    whole = run(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(config, tmp_path / "parts", display=Quiet(at=2))
    parts = run(config, tmp_path / "parts", resume=True)
    assert_same_run(config, whole, parts, 6)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"seeds": (0, 1), "smart": SmartConfig(weight=1.0)}, marks=pytest.mark.slow),
        pytest.param({"micro_batches": 2, "regularizers": ("freelb()",)}, marks=pytest.mark.slow),
        {"freeze": ("encoder",), "cache_features": True, "regularizers": ("rdrop()",)},
    ],
)
def test_whatever_else_a_run_does_it_does_with_texts_apart(
    config: Config, tmp_path: Path, changes: dict[str, Any]
) -> None:
    made = mt.train(apart(config), out=tmp_path / "run", steps=2, eval_every_steps=2, log_every_steps=1, **changes)
    first = made.runs[0] if isinstance(made, mt.SeedsOfRun) else made
    losses = [first.history[f"train/loss/{task}"][0] for task in ("para", "sts")]
    assert np.isfinite(losses).all()


def test_kept_features_are_those_of_every_step(config: Config, tmp_path: Path) -> None:
    losses = []
    for cached in (False, True):
        head = HeadConfig(pooling="both", dropout=0.0)
        own = dataclasses.replace(config, tasks=config.tasks[2:], encoder_dropout=0.0, optimizer=("sgd(lr)",))
        own = dataclasses.replace(replace_task(own, "sts", head=head), freeze=("encoder",), cache_features=cached)
        made = run(dataclasses.replace(own, steps=2, log_every_steps=1), tmp_path / str(cached))
        losses.append([record["loss"]["sts"] for record in read_metrics(made.metrics) if record["kind"] == "train"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def objective_of(config: Config, parts: int = 1) -> tuple[Any, Batch, Any]:
    """The model of similarity by `both`, a batch of 4 with a filler, and parameters."""
    config = dataclasses.replace(apart(config), tasks=apart(config).tasks[2:])
    setup = Setup.load(config, Path(config.encoder))
    data = load_dataset(setup.config, setup.tasks["sts"], "train", setup.tokenizer)
    return setup, make_batch(data.tokens, data.labels, np.arange(3 * parts), 20, 4 * parts), lively_params(setup)


def test_smart_moves_every_input_within_the_ball(config: Config) -> None:
    """Each input's gradient is divided by its own ∞-norm, so one step of size η reaches ±η somewhere in every input."""
    setup, batch, params = objective_of(config)
    flat = batch.flat()
    x = setup.model.embed(params, batch)
    assert x.shape[:2] == (12, 20)

    def logits(x: jax.Array) -> jax.Array:
        return setup.model.logits_of_embeddings(params, "sts", x, flat)

    at = CleanPass(logits, logits(x), x, flat.attention_mask, KINDS["regression"], jnp.asarray(batch.weights))
    options = SmartConfig(weight=1.0, radius=0.1, step_size=0.05, noise_std=1e-3)
    noise = np.asarray(adversarial_noise(at, jax.random.key(1), options))
    largest = np.abs(noise).max(axis=(1, 2))
    np.testing.assert_allclose(largest[:9], 0.05, atol=5e-3)
    assert (noise * (1 - np.asarray(flat.attention_mask))[:, :, None] == 0).all()
    assert largest[9:].max() < 0.02  # a filler has no part in the ascent


@pytest.mark.slow
@pytest.mark.parametrize("regularizer", [FreeLB(step_size=0.1, start_size=0.0, steps=2)])
def test_freelb_ascends_for_each_input(config: Config, regularizer: FreeLB) -> None:
    """Two passes from no noise: the second one's loss is at x + α g / ‖g‖, the norm being over an input."""
    setup, batch, params = objective_of(config)
    flat, model = batch.flat(), setup.model
    stage = StageSpec(regularizers=(regularizer,))
    place = Place(jnp.int32(0), jax.random.key(0), jnp.int32(0))
    task = setup.tasks["sts"]
    silent = EncoderWithHeads.build(
        dataclasses.replace(setup.encoder_config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), (task,)
    )
    _, terms = Objective(silent, (task,), stage)(params, None, jax.tree.map(jnp.asarray, batch), place)

    def loss(x: jax.Array) -> jax.Array:
        logits = model.logits_of_embeddings(params, "sts", x, flat)
        return jnp.sum(jnp.square(logits[:, 0] - batch.labels) * batch.weights) / batch.weights.sum()

    x = model.embed(params, batch)
    first, gradient = jax.value_and_grad(loss)(x)
    gradient = gradient * flat.attention_mask[:, :, None]
    norms = jnp.sqrt(jnp.sum(jnp.square(gradient), axis=(1, 2), keepdims=True))
    second = loss(x + 0.1 * gradient / jnp.where(norms > 0, norms, 1))
    assert float(second) > float(first)
    assert float(terms.penalties["freelb"]) == pytest.approx(float(first + second) / 2, rel=1e-4)


def test_a_task_with_one_text_refuses_both_by_name(config: Config) -> None:
    for pooling in ("towers", "both"):
        wrong = replace_task(config, "sst", head=HeadConfig(pooling=pooling))  # type: ignore[arg-type]
        message = rf"^tasks\[0\] \(sst\): head.pooling = '{pooling}' needs two texts; take 'mean' or 'cls' for one$"
        with pytest.raises(mt.InputError, match=message):
            check_config(wrong)


def test_encode_says_that_they_are_of_two_texts(folder: Path) -> None:
    model = mt.MultitaskModel.from_checkpoint(folder)
    with pytest.raises(mt.InputError, match="pooling = 'towers' is none of mean, cls; towers is of two texts$"):
        model.encode(["one"], "towers")  # type: ignore[arg-type]


def test_shapes_count_every_input(config: Config) -> None:
    config = apart(config)
    setup = Setup.load(config, Path(config.encoder))
    train = setup.datasets("train")
    (plan,) = make_plans(setup, train)
    shapes, steps = epoch_shapes(plan.batches), plan.batches.num_steps
    assert shapes.batches == {(4, 48): steps, (8, 48): steps, (12, 14): steps}
    rows = {name: [row for n in range(steps) for row in plan.batches.tasks[name].rows(n)[0]] for name in train}
    real = sum(
        int(np.diff(data.tokens.starts).reshape(len(data.ids), -1)[rows[name]].sum()) for name, data in train.items()
    )
    assert shapes.real == real
