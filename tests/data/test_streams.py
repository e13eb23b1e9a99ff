"""The shapes of an epoch."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mtbert_jax.config import Config
from mtbert_jax.data.streams import epoch_shapes, padded_lengths, stage_batches
from mtbert_jax.training.setup import Setup
from mtbert_jax.types import Batch


@pytest.mark.parametrize("order", ["round_robin", "sequential"])
def test_shapes_are_those_of_the_batches_themselves(config: Config, order: str) -> None:
    config = dataclasses.replace(config, steps=None, epochs=3.0, lengths=(), max_shapes=3, order=order)  # type: ignore[arg-type]
    train = Setup.load(config, Path(config.encoder)).datasets("train")
    (stage,) = config.resolved_stages()
    batches = stage_batches(config, 0, stage, train, lambda size: size + 1)
    made = [batch for step in range(batches.steps_per_epoch) for batch in batches[step].values()]
    assert all(isinstance(batch, Batch) for batch in made)
    shapes = epoch_shapes(batches)
    assert shapes.batches == Counter(batch.input_ids.shape for batch in made)  # type: ignore[union-attr]
    assert {rows for rows, _ in shapes.batches} == {5}
    assert shapes.computed == sum(batch.input_ids.size for batch in made)  # type: ignore[union-attr]
    real = sum(int(np.sum(batch.attention_mask * (batch.weights[:, None] > 0))) for batch in made)  # type: ignore[union-attr]
    assert shapes.real == real
    lengths = padded_lengths(config, train, alike=order == "round_robin")["sst"]
    assert {length for _, length in shapes.batches} <= set(lengths.tolist())


def test_a_stage_shorter_than_an_epoch_has_its_own_shapes(config: Config) -> None:
    train = Setup.load(config, Path(config.encoder)).datasets("train")
    (stage,) = dataclasses.replace(config, steps=2).resolved_stages()
    assert epoch_shapes(stage_batches(config, 0, stage, train, lambda size: size)).batches == {(4, 48): 6}
