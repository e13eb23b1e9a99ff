"""Scores of what is not finite: undefined, and never an ordinary value."""

import math
from typing import Any

import numpy as np
import pytest

from mtbert_jax.config import TaskConfig
from mtbert_jax.tasks import kind_of, score, task_scores
from mtbert_jax.tasks.arrays import predictions
from mtbert_jax.tasks.metrics import Metric
from mtbert_jax.tasks.scores import chosen_score, deciding

SST = TaskConfig("sst", num_classes=3, dev="x")
PARA = TaskConfig("para", "binary", dev="x")
STS = TaskConfig("sts", "regression", dev="x")
TASKS = {task.name: task for task in (SST, PARA, STS)}
LOGITS = {
    "sst": np.array([[2.0, 0, 0], [0, 2, 0], [0, 0, 2]]),
    "para": np.array([[1.0], [-1], [1]]),
    "sts": np.array([[0.5], [1.5], [4.0]]),
}
LABELS = {"sst": np.array([0.0, 1, 1]), "para": np.array([1.0, 0, 0]), "sts": np.array([0.0, 2, 3])}


@pytest.mark.parametrize("name", list(TASKS))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_logit_that_is_not_finite_leaves_all_metrics_of_its_task_undefined(name: str, value: float) -> None:
    logits = {task: values.copy() for task, values in LOGITS.items()}
    logits[name][1, -1] = value
    sound, found = score(TASKS, LOGITS, LABELS), score(TASKS, logits, LABELS)
    assert all(math.isnan(number) for number in found[name].values())
    assert len(found[name]) == len(kind_of(TASKS[name]).metrics)
    for other in TASKS.keys() - {name}:
        assert found[other] == sound[other]
    assert math.isnan(found["average"])
    assert math.isnan(found["plain_average"])
    predicted = predictions(TASKS[name], logits[name])
    assert np.isnan(predicted).tolist() == [False, True, False]
    np.testing.assert_array_equal(predicted[[0, 2]], kind_of(TASKS[name]).predict(LOGITS[name])[[0, 2]])


def test_a_metric_never_sees_what_is_not_finite() -> None:
    """Not even one that makes numbers of it: its scores of such sets are undefined, those of the others as ever."""
    seen = []

    def share(predicted: Any, labels: Any) -> Any:
        seen.append(np.isfinite(predicted).all())
        return np.mean(predicted.astype(int) == labels, axis=-1)

    metric, labels = Metric("share", share), np.array([1.0, 0.0])
    sets = np.array([[1.0, 1.0], [np.nan, 0.0], [1.0, np.inf], [1.0, 0.0]])
    np.testing.assert_array_equal(metric.of_resamples(sets, np.tile(labels, (4, 1))), [0.5, np.nan, np.nan, 1.0])
    assert math.isnan(metric(sets[1], labels))
    assert all(seen)


def test_predictions_from_elsewhere_are_scored_likewise() -> None:
    assert all(math.isnan(value) for value in task_scores(PARA, np.array([1.0, np.nan]), np.array([1.0, 0.0])).values())


def test_a_task_whose_labels_leave_its_score_undefined_has_no_part_in_the_choice() -> None:
    """Two STS labels that are equal, or a single one: Pearson's r has no value, whatever is predicted."""
    tasks = tuple(TASKS.values())
    for labels in ({**LABELS, "sts": np.full(3, 2.5)}, {**LABELS, "sts": np.array([1.0])}):
        logits = {**LOGITS, "sts": LOGITS["sts"][: len(labels["sts"])]}
        scores = score(TASKS, logits, labels)
        able = deciding(tasks, labels, "average")
        assert [task.name for task in able] == ["sst", "para"]
        accuracies = [scores[name]["accuracy"] for name in ("sst", "para")]
        assert chosen_score(scores, able, "average") == pytest.approx(sum(accuracies) / 2)
        assert math.isnan(scores["average"])
        assert deciding(tasks, labels, "sts") == ()
        assert math.isnan(chosen_score(scores, (), "sts"))
        assert [task.name for task in deciding(tasks, labels, "sts.mae")] == ["sts"]
        assert chosen_score(scores, deciding(tasks, labels, "sts.mae"), "sts.mae") == -scores["sts"]["mae"]


@pytest.mark.parametrize("which", ["average", "mlm", "mlm.perplexity"])
def test_numbers_of_tokens_are_no_losses(which: str) -> None:
    """exp(30000) has no value, and a perplexity has one in every vocabulary."""
    task = TaskConfig("mlm", "masked_lm", metric="perplexity", dev="x")
    assert deciding((task,), {"mlm": np.array([[29_000.0, 30_000], [28_000, -1]], np.float32)}, which) == (task,)


def test_predictions_that_are_all_equal_are_worse_than_any_number() -> None:
    """The task can have a score, and has none here: so has the average none."""
    logits = {**LOGITS, "sts": np.ones((3, 1))}
    able = deciding(tuple(TASKS.values()), LABELS, "average")
    assert len(able) == 3
    assert math.isnan(chosen_score(score(TASKS, logits, LABELS), able, "average"))


def test_tasks_without_dev_labels_have_no_part_in_it() -> None:
    del_sst = {name: labels for name, labels in LABELS.items() if name != "sst"}
    assert [task.name for task in deciding(tuple(TASKS.values()), del_sst, "plain_average")] == ["para", "sts"]


@pytest.mark.parametrize("text", ["1e39", "-1e300", "1e999", "nan", "inf"])
def test_a_label_that_float32_cannot_hold_is_none(text: str) -> None:
    """It would be an infinity in the arrays that are trained on."""
    with pytest.raises(ValueError, match=text):
        kind_of(STS).parse(STS, text)
    assert kind_of(STS).parse(STS, "3e38") == 3e38
