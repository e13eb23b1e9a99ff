"""Bootstrap intervals against literal resampling."""

import dataclasses
import math
import warnings

import numpy as np
import pytest

from mtbert_jax.config import TaskConfig
from mtbert_jax.results.intervals import Judged, bootstrap, seed_mean
from mtbert_jax.tasks import averages, primary_metric, task_scores

TASKS = {
    "sst": TaskConfig("sst", "classification", num_classes=5),
    "para": TaskConfig("para", "binary"),
    "sts": TaskConfig("sts", "regression"),
}


def judged(sizes: tuple[int, int, int] = (60, 80, 50), seeds: int = 3) -> dict[str, Judged]:
    """Three tasks, each seed with predictions of its own."""
    rng = np.random.default_rng(7)
    sst, para, sts = rng.integers(0, 5, sizes[0]), rng.integers(0, 2, sizes[1]), rng.uniform(0, 5, sizes[2])

    def mostly(labels: np.ndarray, classes: int) -> np.ndarray:
        shape = (seeds, len(labels))
        return np.where(rng.random(shape) < 0.6, labels, rng.integers(0, classes, shape)).astype(float)

    return {
        "sst": Judged(TASKS["sst"], mostly(sst, 5), sst.astype(float)),
        "para": Judged(TASKS["para"], mostly(para, 2), para.astype(float)),
        "sts": Judged(TASKS["sts"], sts + rng.normal(size=(seeds, len(sts))), sts),
    }


def literal(tasks: dict[str, Judged], rng: np.random.Generator) -> dict[str, float]:
    """One resample: the same examples for every seed, scored as a run is."""
    rows = {name: rng.integers(0, len(task.labels), len(task.labels)) for name, task in tasks.items()}
    seeds = []
    for seed in range(len(tasks["sst"].predicted)):
        scores = {
            name: task_scores(task.task, task.predicted[seed][rows[name]], task.labels[rows[name]])
            for name, task in tasks.items()
        }
        main = {name: scores[name][primary_metric(task.task).name] for name, task in tasks.items()}
        seeds.append({**main, **averages(scores, [task.task for task in tasks.values()])})
    return {name: float(np.mean([scores[name] for scores in seeds])) for name in seeds[0]}


def test_intervals_are_those_of_a_literal_loop() -> None:
    """The ends of two independent bootstraps differ by their Monte-Carlo error: a few hundredths of a width."""
    tasks, rng = judged(), np.random.default_rng(1)
    drawn = [literal(tasks, rng) for _ in range(1500)]
    for name, (low, high) in bootstrap(tasks).items():
        expected = np.quantile([scores[name] for scores in drawn], [0.025, 0.975])
        width = expected[1] - expected[0]
        np.testing.assert_allclose([low, high], expected, atol=0.06 * width, rtol=0, err_msg=name)


def test_every_resample_has_the_same_examples_for_all_seeds() -> None:
    """Seeds that predict alike are as good as one seed; with examples of their own they would narrow the interval."""
    tasks = judged(seeds=1)
    thrice = {name: task._replace(predicted=np.repeat(task.predicted, 3, axis=0)) for name, task in tasks.items()}
    once = bootstrap(tasks)
    for name, ends in bootstrap(thrice).items():
        assert ends == pytest.approx(once[name], abs=1e-12)


def test_tasks_are_resampled_apart_from_each_other() -> None:
    """Two tasks that are right on the same examples: resampled together, their mean would vary as one of them does."""
    task = judged(sizes=(60, 200, 50))["para"]
    intervals = bootstrap({"one": task, "two": task})
    one, mean = (intervals[name][1] - intervals[name][0] for name in ("one", "average"))
    assert mean == pytest.approx(one / math.sqrt(2), rel=0.1)


@pytest.mark.slow
def test_a_difference_is_taken_in_every_resample() -> None:
    """Beside itself a model gains nothing whatever is drawn; beside another, a literal loop draws the same ends."""
    one = judged()
    other = {name: task._replace(predicted=np.roll(task.predicted, 1, axis=1)) for name, task in one.items()}
    assert set(bootstrap(one, one).values()) == {(0.0, 0.0)}
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(2000):
        again = np.random.default_rng(rng.integers(2**32))
        state = again.bit_generator.state
        first = literal(one, again)
        again.bit_generator.state = state  # the same examples
        second = literal(other, again)
        drawn.append({name: first[name] - second[name] for name in first})
    for name, (low, high) in bootstrap(one, other).items():
        expected = np.quantile([gain[name] for gain in drawn], [0.025, 0.975])
        width = expected[1] - expected[0]
        np.testing.assert_allclose([low, high], expected, atol=0.08 * width, rtol=0, err_msg=name)


def test_the_same_numbers_every_time() -> None:
    assert bootstrap(judged()) == bootstrap(judged())
    np.random.seed(3)
    assert bootstrap(judged()) == bootstrap(judged())


def test_all_examples_once_give_the_runs_own_score() -> None:
    for task in judged().values():
        metric = primary_metric(task.task)
        expected = np.mean([metric(p, task.labels) for p in task.predicted])
        assert seed_mean(task, np.arange(len(task.labels))[None])[0] == pytest.approx(expected, abs=1e-12)


def test_an_undefined_correlation_makes_its_interval_nan_and_says_nothing() -> None:
    tasks = judged()
    tasks["sts"] = tasks["sts"]._replace(predicted=np.full((3, 50), 0.1))  # its float mean is not quite 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        intervals = bootstrap(tasks)
    assert math.isnan(intervals["sts"][0])
    assert math.isnan(intervals["average"][1])
    assert not math.isnan(intervals["sst"][0])


@pytest.mark.parametrize(("task", "metric"), [("sst", "f1"), ("para", "f1"), ("sts", "spearman"), ("sts", "rmse")])
def test_an_interval_is_of_the_tasks_own_metric(task: str, metric: str) -> None:
    """Resampled literally, one resample after the other."""
    one = judged()[task]
    one = one._replace(task=dataclasses.replace(one.task, metric=metric))
    rng, score = np.random.default_rng(1), primary_metric(one.task)
    assert score.name == metric
    rows = rng.integers(0, len(one.labels), (3000, len(one.labels)))
    drawn = [np.mean([score(p[chosen], one.labels[chosen]) for p in one.predicted]) for chosen in rows]
    expected = np.quantile(drawn, [0.025, 0.975])
    np.testing.assert_allclose(bootstrap({task: one})[task], expected, atol=0.08 * np.ptp(expected), rtol=0)
