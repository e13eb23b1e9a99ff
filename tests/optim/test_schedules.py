"""Warm-up and decay as fractions of a stage."""

import numpy as np
import pytest

from mtbert_jax.optim.schedules import learning_rate


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [2.0, 2.0, 2.0]), ("linear", [2.0, 1.0, 0.0]), ("cosine", [2.0, 1.0, 0.0])],
)
def test_decay_without_warmup(schedule: str, expected: list[float]) -> None:
    rate = learning_rate(2.0, schedule, 0.0, 100)  # type: ignore[arg-type]
    np.testing.assert_allclose([rate(0), rate(50), rate(100)], expected, atol=1e-6)


def test_warmup_rises_from_zero_to_the_peak() -> None:
    rate = learning_rate(1.0, "constant", 0.25, 40)
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(39)], [0.0, 0.5, 1.0, 1.0], atol=1e-6)


def test_warmup_over_the_whole_stage() -> None:
    rate = learning_rate(1.0, "linear", 1.0, 4)
    np.testing.assert_allclose([rate(0), rate(2), rate(3)], [0.0, 0.5, 0.75], atol=1e-6)
