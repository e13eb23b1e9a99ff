"""One encoder and a head per task."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax.config import HeadConfig, TaskConfig
from mtbert_jax.model import EncoderWithHeads
from mtbert_jax.types import Batch, FeatureBatch, Params
from tests.conftest import TINY, course_tasks

IDS = np.array([[2, 5, 9, 3, 11, 3], [2, 7, 3, 0, 0, 0]], np.int32)
MASK = (IDS > 0).astype(np.int32)
TYPES = np.array([[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]], np.int32)
ONE = dataclasses.replace(TINY, num_hidden_layers=1)
BATCH = Batch(IDS, MASK, TYPES, np.zeros(2, np.float32), np.ones(2, np.float32))


class Bench(NamedTuple):
    model: EncoderWithHeads
    params: Params
    logits: Callable[..., np.ndarray]


@functools.cache
def build(pooling: Any = "cls", dropout: float = 0.2) -> Bench:
    """A model, its parameters and its jitted `logits`."""
    model = EncoderWithHeads.build(ONE, course_tasks(HeadConfig(pooling=pooling, dropout=dropout)))
    encoder = jax.jit(model.encoder.init)(jax.random.key(0), jnp.asarray(IDS))["params"]
    params = {"encoder": encoder, "heads": init_heads(model, 1)}
    return Bench(model, params, jax.jit(model.logits, static_argnames="task"))


def init_heads(model: EncoderWithHeads, seed: int) -> Params:
    return jax.jit(model.init_heads)(jax.random.key(seed))


def equal(a: object, b: object) -> bool:
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


@pytest.mark.parametrize(("task", "outputs"), [("sst", 5), ("para", 1), ("sts", 1)])
def test_logits_have_one_row_per_example_and_the_tasks_width(task: str, outputs: int) -> None:
    """docs/numerics.md, section 1.1: 5 logits for sentiment, 1 for pairs."""
    _, params, logits = build()
    values = logits(params, task, BATCH)
    assert values.shape == (2, outputs)
    assert values.dtype == jnp.float32


def test_a_tasks_own_head_settings_reach_its_head() -> None:
    task = TaskConfig("a", num_classes=3, head=HeadConfig(hidden_layers=2, hidden_size=7, dropout=0.4, pooling="mean"))
    head = EncoderWithHeads.build(ONE, (task,)).heads["a"]
    assert (head.num_outputs, head.hidden_layers, head.hidden_size) == (3, 2, 7)
    assert (head.dropout, head.pooling) == (0.4, "mean")


@pytest.mark.parametrize("pooling", ["cls", "mean", "pair"])
def test_hidden_layers_are_as_wide_as_the_encoder_unless_told_otherwise(pooling: Any) -> None:
    _, params, _ = build(pooling)
    width = 4 * ONE.hidden_size if pooling == "pair" else ONE.hidden_size
    assert params["heads"]["para"]["hidden_0"]["kernel"].shape == (width, ONE.hidden_size)


def test_initial_heads_depend_on_their_name_and_not_on_their_neighbours() -> None:
    tasks = course_tasks(HeadConfig())
    alone, backwards, together = (
        init_heads(EncoderWithHeads.build(ONE, some), 1) for some in (tasks[1:2], tasks[::-1], tasks)
    )
    assert equal(alone["para"], together["para"])
    assert equal(backwards, together)


def test_initial_heads_differ_between_names_and_keys() -> None:
    tasks = course_tasks(HeadConfig())
    model = EncoderWithHeads.build(ONE, (*tasks, dataclasses.replace(tasks[1], name="qqp")))
    first, second = (init_heads(model, seed) for seed in (1, 2))
    kernels = [head["hidden_0"]["kernel"] for head in (first["para"], first["sts"], first["qqp"], second["para"])]
    assert not any(equal(kernels[0], other) for other in kernels[1:])


def test_another_tasks_head_changes_nothing() -> None:
    _, params, logits = build()
    changed = {**params, "heads": {**params["heads"], "sts": jax.tree.map(lambda x: x + 1, params["heads"]["sts"])}}
    assert equal(logits(changed, "sst", BATCH), logits(params, "sst", BATCH))
    assert not equal(logits(changed, "sts", BATCH), logits(params, "sts", BATCH))


def test_only_the_encoder_and_the_tasks_own_head_get_a_gradient() -> None:
    model, params, _ = build()
    grads = jax.jit(jax.grad(lambda p: model.logits(p, "sst", BATCH).sum()))(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((grads["heads"]["para"], grads["heads"]["sts"])))
    assert grads["heads"]["sst"]["output"]["kernel"].any()
    assert grads["encoder"]["layer_0"]["attention"]["query"]["kernel"].any()


@pytest.mark.parametrize("pooling", ["cls", "mean", "pair"])
def test_padding_changes_no_logits(pooling: str) -> None:
    _, params, logits = build(pooling)
    wide = [np.pad(array, ((0, 0), (0, 4))) for array in (IDS, MASK, TYPES)]
    longer = logits(params, "para", Batch(*wide, BATCH.labels, BATCH.weights))
    np.testing.assert_allclose(longer, logits(params, "para", BATCH), atol=1e-6)


def test_mean_pooling_reads_every_token_and_no_padding() -> None:
    model, params, logits = build("mean")
    before = logits(params, "para", BATCH)
    other_padding = IDS.copy()
    other_padding[1, 3:] = 9
    assert equal(logits(params, "para", BATCH._replace(input_ids=other_padding)), before)
    output = jax.jit(model.encoder.apply)({"params": params["encoder"]}, IDS, MASK, TYPES)
    states = np.asarray(output.hidden_states)
    means = np.stack([states[0].mean(0), states[1, :3].mean(0)])
    head = jax.tree.map(np.asarray, params["heads"]["para"])
    hidden = np.maximum(means @ head["hidden_0"]["kernel"] + head["hidden_0"]["bias"], 0)
    np.testing.assert_allclose(before, hidden @ head["output"]["kernel"] + head["output"]["bias"], atol=1e-5)


def test_without_a_key_dropout_is_off() -> None:
    heavy, light = build(dropout=0.9), build(dropout=0.2)
    assert equal(heavy.logits(heavy.params, "sst", BATCH), light.logits(light.params, "sst", BATCH))


def test_with_a_key_dropout_is_drawn_from_it() -> None:
    _, params, logits = build()
    dropped = [logits(params, "sst", BATCH, jax.random.key(seed)) for seed in (0, 0, 1)]
    assert equal(dropped[0], dropped[1])
    assert not equal(dropped[0], dropped[2])
    assert not equal(dropped[0], logits(params, "sst", BATCH))


@pytest.mark.parametrize("pooling", ["cls", "mean", "pair"])
@pytest.mark.parametrize("key", [None, 3])
def test_embedding_and_the_rest_of_the_way_are_the_logits(pooling: Any, key: int | None) -> None:
    model, params, logits = build(pooling)
    dropout = None if key is None else jax.random.key(key)
    embeddings = model.embed(params, BATCH, dropout)
    found = jax.jit(model.logits_of_embeddings, static_argnums=1)(params, "para", embeddings, BATCH, dropout)
    np.testing.assert_allclose(found, logits(params, "para", BATCH, dropout), atol=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "mean", "pair"])
def test_a_head_on_kept_features_gives_the_logits(pooling: Any) -> None:
    model, params, logits = build(pooling)
    features = jax.jit(model.features, static_argnums=1)(params, pooling, BATCH)
    assert features.shape == (2, model.num_features("para"))
    kept = FeatureBatch(features, BATCH.labels, BATCH.weights)
    np.testing.assert_allclose(logits(params, "para", kept), logits(params, "para", BATCH), atol=1e-6)


def test_kept_features_leave_the_heads_dropout_on() -> None:
    _, params, logits = build()
    kept = FeatureBatch(jnp.ones((2, ONE.hidden_size)), BATCH.labels, BATCH.weights)
    dropped = [logits(params, "sst", kept, jax.random.key(seed)) for seed in (0, 0, 1)]
    assert equal(dropped[0], dropped[1])
    assert not equal(dropped[0], dropped[2])
