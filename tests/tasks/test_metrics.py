"""Metrics against hand values and literal formulas."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbert_jax.config import Kind
from mtbert_jax.tasks.metrics import averages, f1, pearson, predictions, task_metrics

KINDS: dict[str, Kind] = {"sst": "classification", "para": "binary", "sts": "regression"}


def scores(sst: float, para: float, sts: float) -> dict[str, dict[str, float]]:
    return {"sst": {"accuracy": sst, "f1": 0.1}, "para": {"accuracy": para, "f1": 0.2}, "sts": {"pearson": sts}}


@pytest.mark.parametrize(
    ("sst", "para", "sts", "average"), [(0.518, 0.880, 0.886, 0.780), (0.531, 0.880, 0.882, 0.784)]
)
def test_the_papers_averages_are_reproduced(sst: float, para: float, sts: float, average: float) -> None:
    """NUMERICS, section 1, rows "tuned + SMART + PCGrad": mean(SST accuracy, paraphrase accuracy, (r + 1) / 2)."""
    result = averages(scores(sst, para, sts), KINDS)
    assert round(result["average"], 3) == average
    assert result["plain_average"] == pytest.approx((sst + para + sts) / 3)
    assert round(result["plain_average"], 3) != average


def test_an_undefined_metric_makes_the_averages_undefined() -> None:
    result = averages(scores(0.5, 0.5, math.nan), KINDS)
    assert math.isnan(result["average"])
    assert math.isnan(result["plain_average"])


def test_averages_cover_the_named_tasks_alone() -> None:
    assert averages(scores(0.5, 0.9, 0.0), {"sst": "classification"}) == {"average": 0.5, "plain_average": 0.5}


def test_a_binary_logit_of_exactly_0_counts_as_0() -> None:
    """NUMERICS, section 5."""
    logits = np.array([[-0.1], [0.0], [-0.0], [1e-30], [3.0]], np.float32)
    assert predictions("binary", logits).tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]


def test_the_predicted_class_has_the_largest_logit() -> None:
    predicted = predictions("classification", np.array([[0.1, 0.3, 0.2], [5.0, -1.0, 4.0]]))
    assert predicted.tolist() == [1.0, 0.0]
    assert predicted.dtype == np.float64


def test_a_regression_predicts_its_raw_logit_in_float64() -> None:
    predicted = predictions("regression", np.array([[7.5], [-1.25]], np.float32))
    assert predicted.tolist() == [7.5, -1.25]
    assert predicted.dtype == np.float64


def test_binary_metrics_by_hand() -> None:
    """Of 6: two true positives, one false positive, one false negative."""
    metrics = task_metrics("binary", np.array([1.0, 1, 1, 0, 0, 0]), np.array([1.0, 1, 0, 1, 0, 0]))
    assert metrics == {"accuracy": pytest.approx(4 / 6), "f1": pytest.approx(2 / 3)}


def test_classification_f1_is_the_mean_over_classes_that_occur() -> None:
    """Class 0: F1 2·1/(1+2); class 1: 2·1/(2+1); class 3: predicted once, never right: 0."""
    metrics = task_metrics("classification", np.array([0.0, 1, 1, 3]), np.array([0.0, 0, 1, 1]))
    assert metrics["accuracy"] == 0.5
    assert metrics["f1"] == pytest.approx((2 / 3 + 2 / 4 + 0) / 3)


def test_f1_without_any_positive_is_0() -> None:
    assert f1(np.zeros(3, bool), np.zeros(3, bool)) == 0.0


def test_pearson_is_the_literal_formula() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50), rng.normal(size=50)
    dx, dy = x - x.mean(), y - y.mean()
    expected = (dx * dy).sum() / math.sqrt((dx**2).sum() * (dy**2).sum())
    assert pearson(x, y) == pytest.approx(expected, rel=1e-12)


def test_spearman_is_pearson_of_the_ranks_with_ties_shared() -> None:
    predicted, labels = np.array([10.0, 1.0, 1.0, 1000.0]), np.array([2.0, 0.0, 1.0, 5.0])
    expected = np.corrcoef([3.0, 1.5, 1.5, 4.0], [3.0, 1.0, 2.0, 4.0])[0, 1]
    assert task_metrics("regression", predicted, labels)["spearman"] == pytest.approx(expected)


def test_a_monotone_prediction_has_spearman_1() -> None:
    metrics = task_metrics("regression", np.exp(np.arange(6.0)), np.arange(6.0))
    assert metrics["spearman"] == pytest.approx(1.0)
    assert metrics["pearson"] < 0.95


@pytest.mark.parametrize(
    ("predicted", "labels"),
    [([2.0, 2.0, 2.0], [0.0, 1.0, 2.0]), ([0.0, 1.0, 2.0], [3.0, 3.0, 3.0]), ([1.0], [1.0]), ([], [])],
)
def test_a_correlation_with_a_constant_is_nan(predicted: list[float], labels: list[float]) -> None:
    metrics = task_metrics("regression", np.array(predicted), np.array(labels))
    assert math.isnan(metrics["pearson"])
    assert math.isnan(metrics["spearman"])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_prediction_that_is_not_finite_makes_pearson_nan(bad: float) -> None:
    assert math.isnan(task_metrics("regression", np.array([0.0, bad, 2.0]), np.arange(3.0))["pearson"])


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=3, max_size=20), st.integers(1, 9))
def test_pearson_does_not_depend_on_scale_and_shift(pairs: list[tuple[int, int]], scale: int) -> None:
    x, y = np.array(pairs, float).T
    before, after = pearson(x, y), pearson(scale * x + 3, y)
    assert (math.isnan(before) and math.isnan(after)) or before == pytest.approx(after, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
def test_binary_metrics_are_the_literal_counts(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = np.array(pairs, float).T
    metrics = task_metrics("binary", predicted, labels)
    tp = sum(p == 1 and y == 1 for p, y in pairs)
    wrong = sum(p != y for p, y in pairs)
    assert metrics["accuracy"] == pytest.approx(1 - wrong / len(pairs))
    assert metrics["f1"] == pytest.approx(2 * tp / (2 * tp + wrong) if tp else 0.0)


def test_pearson_has_the_same_bits_wherever_the_arrays_lie() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 863))
    shifted = [np.concatenate([np.zeros(offset), x])[offset:] for offset in range(1, 5)]
    assert {pearson(other, y) for other in shifted} == {pearson(x, y)}


def test_a_spread_too_small_for_float64_gives_nan() -> None:
    assert np.isnan(pearson(np.array([1e-200, 2e-200, 0.0]), np.array([1.0, 2.0, 3.0])))
