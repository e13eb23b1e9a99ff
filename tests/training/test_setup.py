"""What single tasks ask for themselves: their own limit of tokens, and balance between their classes."""

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax.config import Config, HeadConfig
from mtbert_jax.data.balance import epoch_counts, loss_weights
from mtbert_jax.data.lengths import fit_ladder
from mtbert_jax.encoders.hub import load_pretrained
from mtbert_jax.errors import InputError
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.tasks import KINDS
from mtbert_jax.tasks.losses import mean_loss
from mtbert_jax.training.plan import make_plans
from mtbert_jax.training.records import Clock, read_metrics
from mtbert_jax.training.setup import Setup
from mtbert_jax.types import Batch
from tests.conftest import replace_task
from tests.runs import checkpointed
from tests.training.test_fit import Quiet, run
from tests.training.test_regularized_runs import without_dropout

WEIGHTS = (0.02, 0.3, 0.1, 0.05, 0.4)


@pytest.fixture
def limited(config: Config) -> Config:
    """Sentences are cut off at 10 tokens, similarities at 60, paraphrases at the run's 30."""
    config = replace_task(replace_task(config, "sst", max_length=10), "sts", max_length=60)
    return dataclasses.replace(config, max_length=30, lengths=(8, 24, 40, 64))


def test_each_task_has_the_lengths_below_its_own_limit_and_the_limit(limited: Config) -> None:
    setup = Setup.load(limited, Path(limited.encoder))
    lengths = {name: ladder.tolist() for name, ladder in setup.lengths(setup.datasets("train")).items()}
    assert lengths == {"sst": [8, 10], "para": [8, 24, 30], "sts": [8, 24, 40, 60]}


def test_without_lengths_all_tasks_share_those_that_fit_their_examples(limited: Config) -> None:
    setup = Setup.load(dataclasses.replace(limited, lengths=(), max_shapes=3), Path(limited.encoder))
    train = setup.datasets("train")
    plain, alike = setup.lengths(train), setup.lengths(train, alike=True)
    assert len(set(map(tuple, plain.values()))) == len(set(map(tuple, alike.values()))) == 1
    counts = np.bincount(np.concatenate([data.tokens.lengths for data in train.values()]))
    assert plain["sst"].tolist() == fit_ladder(counts, 3, 60).tolist()
    assert plain["sst"][-1] == alike["sst"][-1] == 40  # the longest has 33
    shares = sum(np.bincount(data.tokens.lengths, minlength=61) / len(data.ids) for data in train.values())
    assert alike["sst"].tolist() == fit_ladder(shares, 3, 60).tolist()
    round_robin = setup.batches(0, limited.resolved_stages()[0], train).tasks["sst"].lengths
    assert round_robin.tolist() == alike["sst"].tolist()
    assert setup.lengths(train, setup.datasets("dev"))["sts"][-1] >= plain["sts"][-1]
    assert setup.fixed_lengths("sts").tolist() == [16, 24, 32, 48, 60]


def test_a_stage_that_would_train_uphill_is_refused_before_its_first_step(limited: Config) -> None:
    setup = Setup.load(dataclasses.replace(limited, optimizer=("pcgrad()", "scale_by_adam()")), Path(limited.encoder))
    with pytest.raises(InputError, match=r"^optimizer: the first update of encoder/\S* goes up its gradient"):
        make_plans(setup, setup.datasets("train"))


def test_batches_of_a_short_task_are_padded_no_further_than_its_limit(limited: Config) -> None:
    setup = Setup.load(limited, Path(limited.encoder))
    train = setup.datasets("train")
    batches = setup.batches(0, limited.resolved_stages()[0], train)
    widths = {
        name: {task[index].input_ids.shape[1] for index in range(task.per_epoch)}
        for name, task in batches.tasks.items()
    }
    assert widths["sst"] == {8, 10}
    assert widths["para"] == {24, 30}
    assert {name: data.tokens.lengths.max() for name, data in train.items()} == {"sst": 10, "para": 30, "sts": 33}
    assert widths["sts"] == {24, 40}


@pytest.mark.parametrize(
    ("changes", "head", "message"),
    [
        ({"encoder_dropout": 0.0}, HeadConfig(dropout=0.0), "and encoder and heads have no dropout; set encoder_drop"),
        ({"encoder_dropout": 0.0}, HeadConfig(hidden_layers=0), "and encoder and heads have no dropout; set encoder"),
        ({"freeze": ("encoder",), "cache_features": True}, HeadConfig(dropout=0.0), "and on kept features the heads h"),
        ({"encoder_dropout": 0.1}, HeadConfig(dropout=0.0), ""),
        ({"encoder_dropout": 0.0}, HeadConfig(dropout=0.1), ""),
    ],
)
def test_rdrop_without_any_dropout_is_refused(
    config: Config, changes: dict[str, Any], head: HeadConfig, message: str
) -> None:
    tasks = (dataclasses.replace(config.tasks[0], head=head),)
    config = dataclasses.replace(config, tasks=tasks, regularizers=("rdrop()",), **changes)
    setup = Setup.load(config, Path(config.encoder))
    said = f"^stage train: rdrop compares passes under different dropout masks, {message}"
    with pytest.raises(InputError, match=said) if message else contextlib.nullcontext():
        make_plans(setup, setup.datasets("train"))


def test_a_tasks_limit_beyond_the_encoders_positions_is_refused(config: Config) -> None:
    long = replace_task(config, "para", max_length=65)
    with pytest.raises(InputError, match=r"^task para: max_length = 65, but the encoder has 64 positions$"):
        Setup.load(long, Path(config.encoder))
    with pytest.raises(InputError, match=r"^max_length = 65, but the encoder has 64 positions$"):
        Setup.load(dataclasses.replace(config, max_length=65), Path(config.encoder))


def test_the_runs_limit_may_be_beyond_the_encoders_where_no_task_goes_by_it(config: Config) -> None:
    for task in config.tasks:
        config = replace_task(config, task.name, max_length=20)
    assert Setup.load(dataclasses.replace(config, max_length=512), Path(config.encoder)).fixed_lengths("sst")[-1] == 20


def test_own_text_is_cut_off_where_the_tasks_examples_are(limited: Config, tmp_path: Path) -> None:
    model = MultitaskModel.from_checkpoint(checkpointed(dataclasses.replace(limited, out=str(tmp_path / "own"))).path)
    _, datasets, logits = model.evaluate("dev")
    sst = datasets["sst"]
    assert set(sst.tokens.lengths) >= {10} and max(len(text[0].split()) for text in sst.texts) > 12
    expected = np.asarray(KINDS["classification"].probabilities(jnp.asarray(logits["sst"])))
    predictions = model.predict("sst", [text[0] for text in sst.texts])
    assert list(predictions[0].probabilities) == ["0", "1", "2", "3", "4"]
    got = [list(prediction.probabilities.values()) for prediction in predictions]
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("changes", [{"class_weights": WEIGHTS}, {"loss_balance": 0.7}])
def test_a_tasks_batches_carry_its_class_weights(config: Config, changes: dict) -> None:
    setup = Setup.load(replace_task(config, "sst", **changes), Path(config.encoder))
    train = setup.datasets("train")
    tasks = setup.batches(0, setup.config.resolved_stages()[0], train).tasks
    expected = loss_weights(setup.tasks["sst"], train["sst"].labels)
    assert len(set(expected.tolist())) > 1
    for index in range(tasks["sst"].per_epoch):
        rows = tasks["sst"].rows(index)[0]
        assert tasks["sst"][index].weights[: len(rows)].tolist() == expected[rows].tolist()
        assert set(tasks["para"][index].weights.tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("cached", [False, True])
def test_the_loss_of_a_step_is_the_weighted_mean(config: Config, tmp_path: Path, cached: bool) -> None:
    config = replace_task(without_dropout(config), "sst", class_weights=WEIGHTS)
    config = dataclasses.replace(config, steps=1, log_every_steps=1, freeze=("encoder",), cache_features=cached)
    setup = Setup.load(config, Path(config.encoder))
    batch = make_plans(setup, setup.datasets("train"))[0].batches[0]["sst"]
    assert isinstance(batch, Batch)
    logits = setup.model.logits(setup.initial_params(load_pretrained(config.encoder)[1]), "sst", batch)
    losses = KINDS["classification"].loss(logits, jnp.asarray(batch.labels))
    weighted, plain = mean_loss(losses, jnp.asarray(batch.weights)), mean_loss(losses, jnp.ones(4))
    assert float(batch.weights.sum()) < 1
    assert abs(float(weighted - plain)) > 1e-3
    (record, *_) = read_metrics(run(config, tmp_path / "run").metrics)
    assert record["loss"]["sst"] == pytest.approx(float(weighted), rel=1e-5)


def test_examples_are_counted_whatever_they_weigh(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace_task(config, "sst", class_weights=WEIGHTS)
    config = dataclasses.replace(config, steps=None, epochs=1.0, eval_every_steps=0, log_every_steps=100)
    monkeypatch.setattr(Clock, "rate", property(lambda clock: clock.examples))  # as if in one second
    (record, *_) = read_metrics(run(config, tmp_path / "run").metrics)
    assert record["examples_per_second"] == 3 * 37


def test_an_up_sampled_task_has_longer_epochs_and_says_so(config: Config, tmp_path: Path) -> None:
    config = replace_task(config, "sst", sampling_balance=1.0)
    config = dataclasses.replace(config, steps=None, epochs=1.0, order="sequential", eval_every_steps=0)
    setup = Setup.load(config, Path(config.encoder))
    labels = setup.datasets("train")["sst"].labels
    examples = int(epoch_counts(labels, 1.0).sum())
    assert examples > 37
    display = Quiet()
    records = read_metrics(run(config, tmp_path / "run", display=display).metrics)
    assert records[-1]["step"] == -(-examples // 4) + 10 + 10
    said = [line for line in display.lines if "examples in an epoch" in line]
    assert said == [f"task sst: {examples} examples in an epoch, since those of rare classes repeat"]


@pytest.mark.parametrize("order", ["round_robin", "annealed"])
def test_a_stage_of_more_epochs_than_anybody_waits_for_is_refused(order: str, config: Config) -> None:
    """Drawing the tasks of each would take minutes before the first step."""
    setup = Setup.load(dataclasses.replace(config, order=order, steps=9_999_999), Path(config.encoder))
    with pytest.raises(InputError, match=r"stage train: would take 9999999 steps in \d+ epochs; 10000000 and 100000"):
        make_plans(setup, setup.datasets("train"))


def test_a_tokenizer_whose_ids_go_beyond_the_encoders_table_is_refused(config: Config, tmp_path: Path) -> None:
    """However few they are: an id beyond the table would be looked up at its end."""
    directory = Path(shutil.copytree(config.encoder, tmp_path / "encoder"))
    path = directory / "tokenizer.json"
    description = json.loads(path.read_text())
    description["model"]["vocab"]["song"] = 10**6
    path.write_text(json.dumps(description))
    with pytest.raises(InputError, match="the tokenizer has 1000001 tokens, config.json only"):
        Setup.load(config, directory)
