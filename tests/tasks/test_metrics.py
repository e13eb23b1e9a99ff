"""Metrics against hand values and literal formulas."""

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtbert_jax.config import TaskConfig
from mtbert_jax.errors import InputError
from mtbert_jax.tasks import KINDS, Metric, averages, task_scores
from mtbert_jax.tasks.metrics import PEARSON, accuracy, binary_f1, macro_f1, pearson, spearman

TASKS = (TaskConfig("sst", "classification"), TaskConfig("para", "binary"), TaskConfig("sts", "regression"))
METRICS = [
    pytest.param(metric, id=f"{kind}-{metric.name}")
    for kind in KINDS
    for metric in KINDS[kind].metrics
    if not KINDS[kind].label_shape(TaskConfig(classes=("a", "b")))
]
"""Of labels that are one number; those of vectors are in test_more_kinds.py."""


def metrics_of(kind: str, predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return task_scores(TaskConfig(kind=kind), predicted, labels)


def scores(sst: float, para: float, sts: float) -> dict[str, dict[str, float]]:
    return {"sst": {"accuracy": sst, "f1": 0.1}, "para": {"accuracy": para, "f1": 0.2}, "sts": {"pearson": sts}}


@pytest.mark.parametrize(
    ("sst", "para", "sts", "average"), [(0.518, 0.880, 0.886, 0.780), (0.531, 0.880, 0.882, 0.784)]
)
def test_the_papers_averages_are_reproduced(sst: float, para: float, sts: float, average: float) -> None:
    """docs/numerics.md, section 1.3, "tuned + SMART + PCGrad": mean(SST accuracy, paraphrase accuracy, (r + 1) / 2)."""
    result = averages(scores(sst, para, sts), TASKS)
    assert round(result["average"], 3) == average
    assert result["plain_average"] == pytest.approx((sst + para + sts) / 3)
    assert round(result["plain_average"], 3) != average


def test_an_undefined_metric_makes_the_averages_undefined() -> None:
    result = averages(scores(0.5, 0.5, math.nan), TASKS)
    assert math.isnan(result["average"])
    assert math.isnan(result["plain_average"])


def test_averages_cover_the_named_tasks_alone() -> None:
    assert averages(scores(0.5, 0.9, 0.0), TASKS[:1]) == {"average": 0.5, "plain_average": 0.5}


def test_a_binary_logit_of_exactly_0_counts_as_0() -> None:
    """docs/numerics.md, section 5."""
    logits = np.array([[-0.1], [0.0], [-0.0], [1e-30], [3.0]], np.float32)
    assert KINDS["binary"].predict(logits).tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]


def test_the_predicted_class_has_the_largest_logit() -> None:
    predicted = KINDS["classification"].predict(np.array([[0.1, 0.3, 0.2], [5.0, -1.0, 4.0]]))
    assert predicted.tolist() == [1.0, 0.0]
    assert predicted.dtype == np.float64


def test_a_regression_predicts_its_raw_logit_in_float64() -> None:
    predicted = KINDS["regression"].predict(np.array([[7.5], [-1.25]], np.float32))
    assert predicted.tolist() == [7.5, -1.25]
    assert predicted.dtype == np.float64


def test_binary_metrics_by_hand() -> None:
    """Of 6: two true positives, one false positive, one false negative."""
    metrics = metrics_of("binary", np.array([1.0, 1, 1, 0, 0, 0]), np.array([1.0, 1, 0, 1, 0, 0]))
    assert metrics == {"accuracy": pytest.approx(4 / 6), "f1": pytest.approx(2 / 3)}


def test_classification_f1_is_the_mean_over_classes_that_occur() -> None:
    """Class 0: F1 2·1/(1+2); class 1: 2·1/(2+1); class 3: predicted once, never right: 0."""
    metrics = metrics_of("classification", np.array([0.0, 1, 1, 3]), np.array([0.0, 0, 1, 1]))
    assert metrics["accuracy"] == 0.5
    assert metrics["f1"] == pytest.approx((2 / 3 + 2 / 4 + 0) / 3)


def test_f1_without_any_positive_is_0() -> None:
    assert binary_f1(np.zeros(3), np.zeros(3)) == 0.0


def test_pearson_is_the_literal_formula() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50), rng.normal(size=50)
    dx, dy = x - x.mean(), y - y.mean()
    expected = (dx * dy).sum() / math.sqrt((dx**2).sum() * (dy**2).sum())
    assert pearson(x, y) == pytest.approx(expected, rel=1e-12)


def test_spearman_is_pearson_of_the_ranks_with_ties_shared() -> None:
    predicted, labels = np.array([10.0, 1.0, 1.0, 1000.0]), np.array([2.0, 0.0, 1.0, 5.0])
    expected = np.corrcoef([3.0, 1.5, 1.5, 4.0], [3.0, 1.0, 2.0, 4.0])[0, 1]
    assert metrics_of("regression", predicted, labels)["spearman"] == pytest.approx(expected)


def test_a_monotone_prediction_has_spearman_1() -> None:
    metrics = metrics_of("regression", np.exp(np.arange(6.0)), np.arange(6.0))
    assert metrics["spearman"] == pytest.approx(1.0)
    assert metrics["pearson"] < 0.95


@pytest.mark.parametrize(
    ("predicted", "labels"),
    [([2.0, 2.0, 2.0], [0.0, 1.0, 2.0]), ([0.0, 1.0, 2.0], [3.0, 3.0, 3.0]), ([1.0], [1.0]), ([], [])],
)
def test_a_correlation_with_a_constant_is_nan(predicted: list[float], labels: list[float]) -> None:
    metrics = metrics_of("regression", np.array(predicted), np.array(labels))
    assert math.isnan(metrics["pearson"])
    assert math.isnan(metrics["spearman"])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_prediction_that_is_not_finite_makes_pearson_nan(bad: float) -> None:
    assert math.isnan(metrics_of("regression", np.array([0.0, bad, 2.0]), np.arange(3.0))["pearson"])


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=3, max_size=20), st.integers(1, 9))
def test_pearson_does_not_depend_on_scale_and_shift(pairs: list[tuple[int, int]], scale: int) -> None:
    x, y = np.array(pairs, float).T
    before, after = pearson(x, y), pearson(scale * x + 3, y)
    assert (math.isnan(before) and math.isnan(after)) or before == pytest.approx(after, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
def test_binary_metrics_are_the_literal_counts(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = np.array(pairs, float).T
    metrics = metrics_of("binary", predicted, labels)
    tp = sum(p == 1 and y == 1 for p, y in pairs)
    wrong = sum(p != y for p, y in pairs)
    assert metrics["accuracy"] == pytest.approx(1 - wrong / len(pairs))
    assert metrics["f1"] == pytest.approx(2 * tp / (2 * tp + wrong) if tp else 0.0)


def test_pearson_has_the_same_bits_wherever_the_arrays_lie() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 863))
    shifted = [np.concatenate([np.zeros(offset), x])[offset:] for offset in range(1, 5)]
    assert {PEARSON(other, y) for other in shifted} == {PEARSON(x, y)}


def test_a_spread_too_small_for_float64_gives_nan() -> None:
    assert np.isnan(pearson(np.array([1e-200, 2e-200, 0.0]), np.array([1.0, 2.0, 3.0])))


def test_errors_of_a_regression_by_hand() -> None:
    scores = metrics_of("regression", np.array([1.0, 2.0, 6.0]), np.array([1.0, 4.0, 2.0]))
    assert scores["mae"] == 2.0
    assert scores["rmse"] == pytest.approx(math.sqrt(20 / 3))


def drawn(metric: Metric, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Predictions, or labels, of a kind that has the metric: few values, so that there are ties and absent classes."""
    return rng.integers(0, 2 if metric.name == "f1" and metric.function is binary_f1 else 4, shape).astype(float)


@pytest.mark.parametrize("metric", METRICS)
def test_many_resamples_at_once_have_the_scores_of_each_alone(metric: Metric) -> None:
    rng = np.random.default_rng(0)
    predicted, labels = drawn(metric, rng, (7, 9)), drawn(metric, rng, (7, 9))
    alone = [metric(*pair) for pair in zip(predicted, labels, strict=True)]
    np.testing.assert_array_equal(metric.of_resamples(predicted, labels), alone)


@pytest.mark.parametrize("metric", METRICS)
def test_a_better_score_is_nearer_to_1_on_the_unit_interval(metric: Metric) -> None:
    labels = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    right, wrong = metric(labels, labels), metric(1 - labels, labels)
    assert metric.gain(right) > metric.gain(wrong)
    assert 1 == metric.to_unit(right) > metric.to_unit(wrong) >= 0


def test_standard_metrics_are_those_of_scikit_learn_and_scipy() -> None:
    from scipy import stats
    from sklearn import metrics as sklearn

    rng = np.random.default_rng(1)
    for _ in range(50):
        x, y = rng.integers(0, 4, (2, 12)).astype(float)
        a, b = x > 1, y > 1
        assert metrics_of("classification", x, y)["accuracy"] == sklearn.accuracy_score(y, x)
        assert macro_f1(x, y) == pytest.approx(sklearn.f1_score(y, x, average="macro"), abs=1e-15)
        assert binary_f1(a, b) == pytest.approx(sklearn.f1_score(b, a, zero_division=0.0), abs=1e-15)
        x, y = rng.normal(size=(2, 12)).round(1)
        scores = metrics_of("regression", x, y)
        assert scores["pearson"] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-14)
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-14)
        assert scores["mae"] == pytest.approx(sklearn.mean_absolute_error(y, x), abs=1e-15)
        assert scores["rmse"] == pytest.approx(sklearn.root_mean_squared_error(y, x), abs=1e-15)


def test_a_task_may_name_its_primary_metric() -> None:
    """It comes first, and enters the averages: an error as 1 / (1 + error), also in the plain one."""
    task = TaskConfig("sts", "regression", metric="mae")
    scores = task_scores(task, np.array([1.0, 2.0]), np.array([4.0, 2.0]))
    assert next(iter(scores)) == "mae"
    assert set(scores) == {"mae", "pearson", "spearman", "rmse"}
    assert averages({"sts": scores}, [task]) == {"average": 0.4, "plain_average": 0.4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"best": "higher"}, "metric 'hits': best = 'higher': must be 'max' or 'min'"),
        ({"function": 5}, "metric 'hits': its function and to_unit must be functions"),
        ({"to_unit": None}, "metric 'hits': its function and to_unit must be functions"),
    ],
)
def test_a_metric_that_can_be_none_is_refused_where_it_is_made(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Metric(**{"name": "hits", "function": accuracy, **changes})


def test_a_metric_that_fails_for_some_examples_alone_is_named() -> None:
    """Whoever asks for scores, in training, in intervals or in a report, gets one line."""
    lists = Metric("hits", lambda predicted, labels: [1.0, 2.0][int(predicted.sum())])
    assert lists(np.array([0.0]), np.array([1.0])) == 1.0
    with pytest.raises(InputError, match=re.escape("metric 'hits': IndexError: list index out of range")):
        lists(np.array([2.0]), np.array([1.0]))
