"""A guard on work: operations of a step, counted by XLA and never timed, and the programs that a run compiles.

One forward pass is the unit. A gradient costs three (forward, and backward for inputs and for parameters), SMART eight:
a clean pass, the ascent's forward and input-only backward, the perturbed pass, and the backward of the two outer ones.
"""

import dataclasses
import functools
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

from mtbert_jax.config import Config, HeadConfig, ProximalConfig, SmartConfig, TaskConfig
from mtbert_jax.encoders.bert import BertConfig
from mtbert_jax.model import EncoderWithHeads, TaskIndex
from mtbert_jax.optim import pcgrad
from mtbert_jax.optim.headwise import chain
from mtbert_jax.regularizers import Proximal, Smart
from mtbert_jax.training.objective import StageSpec
from mtbert_jax.training.records import read_metrics
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.step import make_train_step
from mtbert_jax.types import Batch
from tests.training.test_fit import run

BATCH, LENGTH, HIDDEN, LAYERS, VOCAB = 4, 32, 128, 4, 100
BERT = BertConfig(VOCAB, HIDDEN, LAYERS, 4, 4 * HIDDEN)
TOKENS = BATCH * LENGTH


def batch() -> Batch:
    ids = np.ones((BATCH, LENGTH), np.int32)
    return Batch(ids, ids, 0 * ids, np.zeros(BATCH, np.float32), np.ones(BATCH, np.float32))  # type: ignore[arg-type]


def tasks(pooling: Any) -> dict[str, TaskConfig]:
    head = HeadConfig(pooling=pooling)
    return {
        "sst": TaskConfig("sst", "classification", num_classes=5, head=head),
        "para": TaskConfig("para", "binary", head=head),
        "sts": TaskConfig("sts", "regression", head=head),
    }


def flops(fn: Any, *arguments: Any) -> float:
    return float(fn.lower(*arguments).compile().cost_analysis()["flops"])


def gradient_flops(pooling: str, stage: StageSpec) -> float:
    model = EncoderWithHeads.build(BERT, tuple(tasks(pooling).values()))
    state = jax.eval_shape(make_state, jax.random.key(0))
    step = make_train_step(model, tasks(pooling), pcgrad(), stage)
    teacher = state.params if any(one.needs_teacher for one in stage.regularizers) else None
    gradient = step.programs[0]
    return flops(gradient, np.int32(0), state.params, teacher, batch(), jax.random.key(0), np.int32(0))


def make_state(key: jax.Array) -> TrainState:
    model = EncoderWithHeads.build(BERT, tuple(tasks("mean").values()))
    encoder = model.encoder.init(key, batch().input_ids)["params"]
    return TrainState.create({"encoder": encoder, "heads": model.init_heads(key)}, optax.adam(1e-3), key)


@functools.cache
def forward_flops(pooling: str) -> float:
    """A forward pass with dropout on."""
    model = EncoderWithHeads.build(BERT, tuple(tasks(pooling).values()))
    forward = jax.jit(
        lambda params, key: model.logits(params, TaskIndex(("sst", "para", "sts"), np.int32(0)), batch(), key)
    )
    return flops(forward, jax.eval_shape(make_state, jax.random.key(0)).params, jax.random.key(0))


def matrix_products() -> float:
    """Operations of the encoder's matrix products in one forward pass, two a multiply-add."""
    return 2 * LAYERS * TOKENS * (12 * HIDDEN**2 + 2 * LENGTH * HIDDEN)


def test_a_forward_pass_is_hardly_more_than_its_matrix_products() -> None:
    assert matrix_products() < forward_flops("mean") < 1.15 * matrix_products()


SMART, PROXIMAL = Smart(SmartConfig(weight=0.1)), Proximal(ProximalConfig(weight=0.1))


@pytest.mark.parametrize(
    ("pooling", "regularizers", "passes"),
    [
        pytest.param("mean", (), 3, id="mean-plain"),
        pytest.param("cls", (SMART,), 8, id="cls-smart"),
        pytest.param("mean", (PROXIMAL,), 4, id="mean-proximal", marks=pytest.mark.slow),
        pytest.param("cls", (), 3, id="cls-plain", marks=pytest.mark.slow),
        pytest.param("mean", (SMART,), 8, id="mean-smart", marks=pytest.mark.slow),
        pytest.param("cls", (PROXIMAL,), 4, id="cls-proximal", marks=pytest.mark.slow),
    ],
)
def test_a_gradient_takes_as_many_passes_as_the_method_needs(pooling: str, regularizers: Any, passes: int) -> None:
    assert gradient_flops(pooling, StageSpec(regularizers=regularizers)) < 1.03 * passes * forward_flops(pooling)


def test_the_last_layer_is_computed_at_cls_alone_where_nothing_else_is_read() -> None:
    # Of the last layer keys and values stay whole: 4 of its 24 hidden² operations a token.
    saved = 2 * TOKENS * 10 * HIDDEN**2 * (1 - 1 / LENGTH)
    assert forward_flops("cls") < forward_flops("mean") - 0.95 * saved


def test_a_frozen_encoder_has_no_backward_pass() -> None:
    assert gradient_flops("mean", StageSpec(("encoder",))) < 1.05 * forward_flops("mean")


def test_the_update_costs_little_beside_a_gradient() -> None:
    """PCGrad, Adam and what guards them: a few operations a parameter, and no products of long vectors but the dots.

    Nor a copy of moments, or of gradients with zeros for tasks that are left out.
    """
    tx = chain(pcgrad(), optax.adam(1e-3))
    model = EncoderWithHeads.build(BERT, tuple(tasks("mean").values()))
    state = jax.eval_shape(lambda key: TrainState.create(make_state(key).params, tx, key), jax.random.key(0))
    step = make_train_step(model, tasks("mean"), tx)
    arguments = (np.int32(0), state.params, None, batch(), jax.random.key(0), np.int32(0))
    results = {name: jax.eval_shape(step.gradients[name], *arguments[1:]) for name in tasks("mean")}
    grads, terms = ({name: result[place] for name, result in results.items()} for place in (0, 1))
    size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    program = step.update.lower(*state.parted(), grads, terms).compile()  # type: ignore[attr-defined]
    assert program.cost_analysis()["flops"] < 65 * size
    assert program.memory_analysis().temp_size_in_bytes < 0.1 * 4 * size


@pytest.mark.usefixtures("fresh_programs")
@pytest.mark.parametrize("seeds", [(), pytest.param((0, 1), marks=pytest.mark.slow)])
def test_a_run_compiles_no_more_than_its_shapes(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture, seeds: tuple[int, ...]
) -> None:
    """One gradient for each length of all tasks together, and one update; eval lengths are counted apart.

    JAX makes each of them once.
    """
    fitted = dataclasses.replace(config, lengths=(), max_shapes=2, steps=12, eval_every_steps=12, seeds=seeds)
    with caplog.at_level(logging.DEBUG, "jax._src.dispatch"):
        folder = run(fitted, tmp_path / "run")
    ended = folder.path / "seed0" / "metrics.jsonl" if seeds else folder.metrics
    stages = [record for record in read_metrics(ended) if record["kind"] == "stage"]
    assert [record["compiled_shapes"] for record in stages] == [3]
    assert 0 < stages[0]["compile_seconds"] < 600
    made = re.findall(r"Finished XLA compilation of jit\((compute|apply_gradients)\)", caplog.text)
    assert Counter(made) == {"compute": 2, "apply_gradients": 1}
