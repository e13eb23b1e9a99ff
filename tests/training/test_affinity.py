"""Task affinity: literal lookahead, records, what is refused; and the weights and shares on record."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax.cli.main import main
from mtbert_jax.config import Config, StageConfig, save_config
from mtbert_jax.optim import aggregator_weights
from mtbert_jax.optim.aggregators import Combined, gramian, shares_of_update
from mtbert_jax.report.effects import Effect, mean_effects, sentences
from mtbert_jax.tasks import kind_of
from mtbert_jax.training.affinity import Affinity
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.plan import make_plans
from mtbert_jax.training.records import pack, read_metrics, step_record, unpack
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import make_train_step
from tests.conftest import tiny_run
from tests.training.test_fit import assert_same_run, run
from tests.training.test_objective import Bench


@pytest.fixture(scope="module")
def sgd(tmp_path_factory: pytest.TempPathFactory, small_encoder_dir: Path, data_dir: Path) -> Any:
    """A run without dropout whose update is plain gradient descent, and the state at its first step."""
    config = tiny_run(small_encoder_dir, data_dir, tmp_path_factory.mktemp("affinity"))
    config = dataclasses.replace(config, encoder_dropout=0.0, optimizer=("cagrad(c=0.4)", "sgd(lr)"), lr=0.05)
    bench = Bench(config)
    train = bench.setup.datasets("train")
    (plan,) = make_plans(bench.setup, train)
    step = make_train_step(bench.model, bench.setup.tasks, plan.tx, plan.spec(0))
    state = TrainState.create(jax.tree.map(jnp.copy, bench.params), plan.tx, jax.random.key(0))
    return bench, plan, step, state


def test_an_effect_is_the_literal_lookahead(sgd: Any) -> None:
    """1 - L_j(θ - lr w g_i) / L_j(θ), dropout off, on the next batch, with the heads as they were.

    Of a single gradient CAGrad makes (1 + c) times itself.
    """
    bench, plan, step, state = sgd
    now, following = plan.batches[0], plan.batches[1]
    found = Affinity(bench.setup, plan, 0, step).effects(state, now, following)

    def loss(encoder: Any, batch: Any, name: str) -> Any:
        logits = bench.model.logits({**state.params, "encoder": encoder}, name, batch)
        return kind_of(bench.setup.tasks[name]).batch_loss(logits, batch.labels, batch.weights)

    losses = {name: jax.jit(partial(loss, name=name)) for name in following}
    for one in now:
        grads, _ = step.gradients[one](state.params, None, now[one], state.key, state.step)
        weight = float(aggregator_weights("cagrad", jnp.ones((1, 1)), c=0.4)[0])
        moved = jax.tree.map(lambda p, g, w=weight: p - 0.05 * w * g, state.params["encoder"], grads["encoder"])
        for other, batch in following.items():
            expected = 1 - float(losses[other](moved, batch) / losses[other](state.params["encoder"], batch))
            assert found[one][other] == pytest.approx(expected, abs=2e-5), (one, other)
    assert max(abs(share) for of in found.values() for share in of.values()) > 1e-3


def test_weights_and_shares_are_those_of_the_update(sgd: Any) -> None:
    """Each task's weight, and w_i g_i · u / ‖u‖² of the update u; conflicts of a layer are by its own gradients."""
    _, plan, step, state = sgd
    batches = plan.batches[0]
    encoders = {
        name: step.gradients[name](state.params, None, batches[name], state.key, state.step)[0]["encoder"]
        for name in sorted(batches)
    }

    def flat(tree: Any) -> jax.Array:
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])

    stacked = jnp.stack([flat(encoder) for encoder in encoders.values()])
    weights = aggregator_weights("cagrad", stacked @ stacked.T, c=0.4)
    update = weights @ stacked
    shares = weights * (stacked @ update) / (update @ update)
    _, metrics = step(jax.tree.map(jnp.copy, state), batches)
    assert list(metrics.losses) == list(encoders)
    np.testing.assert_allclose(metrics.combined["weight"], weights, rtol=1e-3)
    np.testing.assert_allclose(metrics.combined["share"], shares, rtol=1e-3)
    assert float(metrics.combined["share"].sum()) == pytest.approx(1, abs=1e-4)
    layers = {name for name in state.params["encoder"] if name.startswith("layer_")}
    assert set(metrics.layers) == layers | {"embeddings", "rest"}
    own = jnp.stack([flat(encoder["layer_0"]) for encoder in encoders.values()])
    norms = jnp.linalg.norm(own, axis=1)
    np.testing.assert_allclose(metrics.layers["layer_0"], own @ own.T / norms[:, None] / norms, atol=1e-4)
    record = step_record([metrics], 1.0, 0.1)
    assert record["weight"] == pytest.approx(dict(zip(encoders, weights.tolist(), strict=True)), rel=1e-3)
    assert set(record["share"]) == set(batches)
    assert set(record["layer_conflict"]) == set(metrics.layers)
    assert step_record(unpack(pack([metrics])), 1.0, 0.1) == record


def test_shares_of_nothing_are_zero() -> None:
    grams, weights = jnp.zeros((2, 3, 3)), jnp.ones((2, 3))
    assert shares_of_update(Combined(grams, weights)).tolist() == [0, 0, 0]
    stacked = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    assert shares_of_update(Combined(gramian([stacked])[None], jnp.ones((1, 2)))).tolist() == pytest.approx([0.2, 0.8])


@pytest.fixture(scope="module")
def looked(
    tmp_path_factory: pytest.TempPathFactory, small_encoder_dir: Path, data_dir: Path
) -> tuple[Config, RunFolder]:
    """A run of fourteen steps that looks every second step, and its config but for that."""
    config = tiny_run(small_encoder_dir, data_dir, tmp_path_factory.mktemp("looking"))
    config = dataclasses.replace(config, steps=14, eval_every_steps=7, lr=1e-2)
    looking, path = dataclasses.replace(config, affinity_every_steps=2), Path(config.out).with_name("a.toml")
    save_config(looking, path)
    assert main(["train", str(path)]) == 0
    return config, RunFolder(Path(config.out))


@pytest.mark.slow
def test_a_run_that_looks_is_the_run_that_does_not(looked: tuple[Config, RunFolder], tmp_path: Path) -> None:
    config, folder = looked
    plain, copy = run(config, tmp_path / "plain"), RunFolder(shutil.copytree(folder.path, tmp_path / "looked"))
    records = read_metrics(copy.metrics)
    looks = [record for record in records if record["kind"] == "affinity"]
    assert [record["step"] for record in looks] == [2, 4, 6, 8, 10, 12]  # behind the last there is no next batch
    names = {"sst", "para", "sts"}
    assert all(set(record["effect"]) == names == set(record["effect"]["sst"]) for record in looks)
    others = [record for record in records if record["kind"] != "affinity"]
    copy.metrics.write_text("".join(json.dumps(record) + "\n" for record in others))
    assert_same_run(config, plain, copy, 14)


def test_the_report_shows_and_says_it(looked: tuple[Config, RunFolder]) -> None:
    _, folder = looked
    assert main(["report", str(folder.path)]) == 0
    page = (folder.path / "report.html").read_text(encoding="utf-8")
    assert "loss lowered, in %" in page
    assert "weight of a gradient" in page
    assert "steps in conflict, by layer" in page
    assert "(6 looks;" in page


def test_means_and_sentences() -> None:
    rng = np.random.default_rng(0)
    looks = [
        {"effect": {"a": {"a": 0.1, "b": 0.02 + 0.001 * x}, "b": {"a": -0.03 + 0.001 * x, "b": None}}}
        for x in rng.normal(size=10)
    ]
    effects = mean_effects(looks)
    values = np.array([look["effect"]["a"]["b"] for look in looks])
    assert effects["a"]["b"] == pytest.approx(Effect(values.mean(), values.std(ddof=1) / np.sqrt(10), 10))
    assert effects["b"]["b"].looks == 0
    (said,) = sentences(effects)
    assert "lowers another's loss on its next batch: a → b by 2.0" in said
    assert "It raises the loss: b → a by 2.99%" in said
    noise = [{"effect": {"a": {"b": x}, "b": {"a": -x}}} for x in (-0.1, 0.1, -0.1, 0.1, -0.1, 0.1)]
    assert "by more than chance" in sentences(mean_effects(noise))[0]
    assert sentences(mean_effects(looks[:0])) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"affinity_every_steps": -1}, "affinity_every_steps = -1: must be at least 0"),
        (
            {"affinity_every_steps": 2, "order": "proportional"},
            "affinity_every_steps: no stage has several tasks in a step",
        ),
        (
            {"affinity_every_steps": 2, "stages": (StageConfig(freeze=("encoder",)),)},
            "trains the encoder that they share",
        ),
        ({"affinity_every_steps": 2, "seeds": (0, 1)}, "affinity_every_steps looks at a single run"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(
    changes: dict[str, Any], message: str, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_config(dataclasses.replace(config, **changes), tmp_path / "a.toml")
    assert main(["train", str(tmp_path / "a.toml")]) == 2
    assert message in capsys.readouterr().err
