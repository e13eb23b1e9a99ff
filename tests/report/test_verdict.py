"""What a page says in words follows from the run."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtbert_jax.config import Config, TaskConfig, save_config
from mtbert_jax.report.contents import Judgement, RunContents
from mtbert_jax.report.mistakes import where_it_errs
from mtbert_jax.report.verdict import beyond_half, comparison, suggestions, verdict
from mtbert_jax.results.differences import Difference
from mtbert_jax.results.rows import Row, Value
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.types import Example

SST, STS = TaskConfig("sst", num_classes=3, dev="a.csv"), TaskConfig("sts", "regression", dev="b.csv")


def told(
    tmp_path: Path,
    scores: list[dict[str, Any]],
    step: int | None = None,
    losses: list[float] | None = None,
    conflict: float | None = None,
    **fields: Any,
) -> RunContents:
    """A run with an evaluation and a training record every 10 steps; finished, if it has a best step."""
    config = Config(encoder="e", **{"tasks": (SST, STS), "optimizer": ("sum_tasks()", "adamw(lr)"), **fields})
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    save_config(config, folder.config)
    lines: list[dict[str, Any]] = []
    for number in range(max(len(scores), len(losses or []))):
        place = {"stage": "all", "step": 10 * number + 10}
        if losses:
            pairs = {} if conflict is None else {"cosine": {"sst/sts": -0.2}, "conflict": {"sst/sts": conflict}}
            train = {"loss": {"sst": losses[number]}, "lr": 0.1, "examples_per_second": 1.0, **pairs}
            lines.append({"kind": "train", **place, **train})
        if number < len(scores):
            lines.append({"kind": "eval", **place, "split": "dev", "scores": scores[number]})
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if step is not None:
        dev = scores[step // 10 - 1] if scores else {}
        folder.results.write_text(json.dumps({"config": {}, "seed": 0, "step": step, **({"dev": dev} if dev else {})}))
    return RunContents.read_records(folder.path, "mine")


def dev(sst: float, sts: float | None = 0.5) -> dict[str, Any]:
    average = None if sts is None else (sst + (sts + 1) / 2) / 2
    return {"sst": {"accuracy": sst, "f1": 0.1}, "sts": {"pearson": sts}, "average": average}


def test_the_best_step_its_average_and_that_it_was_still_rising(tmp_path: Path) -> None:
    text = verdict(told(tmp_path, [dev(0.5), dev(0.6)], step=20, losses=[2.0, 1.0]))
    assert "The best checkpoint is that of step 20 of 20: average 0.675 on dev." in text
    assert "That is the last of 2 evaluations; it was still improving, by 0.050 since the one before." in text
    assert "sst: training loss 2.000 → 1.000, dev accuracy 0.500 → 0.600; sts: dev pearson 0.500 → 0.500." in text
    assert "To try: more epochs, since the score was still improving." in text


def test_a_faultless_score_needs_no_more_epochs(tmp_path: Path) -> None:
    run = told(tmp_path, [dev(0.5), dev(1.0, 1.0)], step=20)
    assert "it was still improving, by 0.375 since the one before" in verdict(run)
    assert suggestions(run) == []


def test_a_score_that_fell_while_the_loss_fell_speaks_for_fewer_epochs(tmp_path: Path) -> None:
    scores = [dev(0.5), dev(0.7), dev(0.6), dev(0.5)]
    run = told(tmp_path, scores, step=20, losses=[4.0, 3.0, 2.0, 1.0])
    assert "step 20 of 40: average 0.725 on dev. The last of 4 evaluations, at step 40, is 0.100 worse." in verdict(run)
    assert suggestions(run) == [
        "patience = 2 or fewer epochs, since the training loss of sst kept falling after step 20 and no later "
        "evaluation was better"
    ]


@pytest.mark.parametrize(("scores", "losses"), [([0.5, 0.7, 0.6], [3.0, 2.0, 1.0]), ([0.5, 0.7, 0.6, 0.5], [1.0] * 4)])
def test_one_worse_evaluation_or_a_loss_that_stays_is_no_reason(
    scores: list[float], losses: list[float], tmp_path: Path
) -> None:
    assert suggestions(told(tmp_path, [dev(score) for score in scores], step=20, losses=losses)) == []


def test_a_single_evaluation_does_not_tell_a_course(tmp_path: Path) -> None:
    run = told(tmp_path, [dev(0.5)], step=10, losses=[1.0])
    assert "It is the only evaluation, so it cannot be told whether the score was still rising." in verdict(run)
    assert suggestions(run) == ["eval_every_steps, to see how the score moves within an epoch"]


def test_a_run_that_has_not_ended_has_a_best_evaluation_so_far(tmp_path: Path) -> None:
    run = told(tmp_path, [dev(0.5), dev(0.7), dev(0.6)], losses=[3.0, 2.0, 1.0, 1.0])
    assert "The best evaluation so far is that of step 20 of 40" in verdict(run)
    assert suggestions(run) == []


def test_without_dev_files_or_records_there_is_little_to_say(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    done = verdict(told(tmp_path / "a", [], step=20, losses=[2.0, 1.0], tasks=(TaskConfig("sst", num_classes=3),)))
    assert done.startswith("No task has a dev file, so nothing is scored. The checkpoint is that of step 20, the last.")
    assert verdict(told(tmp_path / "b", [])) == "There is no evaluation yet; the records reach step 0."


def test_a_task_that_is_never_defined_is_left_out_as_in_training(tmp_path: Path) -> None:
    text = verdict(told(tmp_path, [dev(0.5, None), dev(0.4, None)], step=10, losses=[2.0, 1.0]))
    assert "step 10 of 20: average 0.500 on dev" in text
    assert "sts: dev pearson undefined" in text


def test_nothing_defined_is_said_to_be_so(tmp_path: Path) -> None:
    text = verdict(told(tmp_path, [{"sts": {"pearson": None}, "average": None}] * 2, tasks=(STS,)))
    assert text.startswith("The average on dev was never defined, so no checkpoint is known to be the best.")


def test_a_named_metric_whose_least_value_is_best_keeps_its_sign(tmp_path: Path) -> None:
    scores = [{"sts": {"pearson": None, "mae": mae}, "average": None} for mae in (2.0, 1.25, 1.5)]
    text = verdict(told(tmp_path, scores, step=20, tasks=(STS,), checkpoint_metric="sts.mae"))
    assert "step 20 of 30: sts mae 1.250 on dev. The last of 3 evaluations, at step 30, is 0.250 worse." in text


@pytest.mark.parametrize(
    ("conflict", "seen", "surgery"),
    [
        (0.55, "no pair is clearly above or below that", False),
        (0.8, "sst/sts is above that", True),
        (0.1, "sst/sts is below it", False),
    ],
)
def test_conflicts_are_held_against_one_half(conflict: float, seen: str, surgery: bool, tmp_path: Path) -> None:
    run = told(tmp_path, [], losses=[1.0] * 10, conflict=conflict)
    text = verdict(run)
    assert f"sst/sts in {conflict:.0%} of 100 steps (mean cosine -0.200)" in text
    assert f"about half of the steps; {seen}. A conflict alone does not say that a task is harmed." in text
    assert any("pcgrad()" in one for one in suggestions(run)) == surgery


def test_with_surgery_none_is_suggested(tmp_path: Path) -> None:
    run = told(tmp_path, [], losses=[1.0] * 10, conflict=0.8, optimizer=("pcgrad()", "adamw(lr)"))
    assert suggestions(run) == []


def test_the_spread_of_a_share_is_the_binomials() -> None:
    draws = np.random.default_rng(0).binomial(400, 0.5, size=20_000) / 400
    assert beyond_half(0.5 + draws.std(), 400) == pytest.approx(1.0, abs=0.02)


def judged(task: TaskConfig, gold: list[float], predicted: list[float]) -> Judgement:
    examples = [Example(str(n), ("text",), label) for n, label in enumerate(gold)]
    return Judgement(task, examples, np.array(predicted), None)


def test_where_a_classification_errs() -> None:
    gold = [0.0] * 5 + [1.0] * 6 + [2.0] * 2
    said = [0.0] * 5 + [1.0, 2.0, 2.0, 2.0, 0.0, 0.0] + [0.0] * 2  # class 2 has too few labels to be spoken of
    assert where_it_errs(judged(SST, gold, said)) == (
        "sst errs most on class 1: 1 of 6 are right, and it is mostly taken for 2."
    )
    assert where_it_errs(judged(SST, gold, [1.0] * 13)) == "sst: every dev example is predicted to be 1."
    assert where_it_errs(judged(SST, gold, gold)) == "sst: no dev example is missed."
    assert where_it_errs(judged(SST, gold, [np.nan, *gold[1:]])) == "sst: some dev predictions are not finite."


def test_where_a_regression_errs() -> None:
    gold = [0.0, 0.1, 0.2, 0.3, 0.4, 3.6, 3.7, 3.8, 3.9, 4.0]
    said = [value + (1.0 if value < 1 else -0.5) for value in gold]
    assert where_it_errs(judged(STS, gold, said)) == (
        "sts is furthest off for gold values from 0 to 1: the mean absolute error is 1.00 over 5 examples "
        "(all: 0.75), and predictions are 1.00 too high on average."
    )
    assert where_it_errs(judged(STS, [2.0] * 9, [1.0] * 9)) == "sts: the mean absolute error on dev is 1.00."


def test_a_class_that_is_never_found_is_named_unless_classes_are_balanced(tmp_path: Path) -> None:
    run = told(tmp_path, [])
    gold, said = [0.0] * 10 + [1.0] * 10, [0.0] * 19 + [2.0]
    for balance, count in ((0.0, 1), (1.0, 0)):
        task = dataclasses.replace(SST, loss_balance=balance)
        found = suggestions(dataclasses.replace(run, judged={"sst": judged(task, gold, said)}))
        assert len(found) == count
        assert all("loss_balance for sst if class 1 matters" in one for one in found)


def test_steps_left_out_speak_for_a_lower_rate(tmp_path: Path) -> None:
    run = told(tmp_path, [], losses=[1.0, 1.0])
    lines = [json.loads(line) for line in run.folder.metrics.read_text().splitlines()]
    run.folder.metrics.write_text("".join(json.dumps({**line, "left_out": {"sst": 2}}) + "\n" for line in lines))
    (found,) = suggestions(RunContents.read_records(run.folder.path, "mine"))
    assert found.startswith("a lower lr, since a loss or gradient was not finite and left out (sst 4 times)")


def test_several_rows_are_told_apart_by_the_interval_of_their_difference() -> None:
    def row(name: str, average: float) -> Row:
        return Row(name, (0,), (0,), {}, {"average": Value(average, None, None)}, None, None, "", ())

    rows = [row("plain", 0.7), row("smart", 0.72)]

    def gain(low: float, high: float) -> Difference:
        return Difference("smart", "plain", (0,), {}, {"average": Value(0.02, None, (low, high))})

    assert comparison(rows, [gain(-0.01, 0.05)]) == (
        "smart has the highest average on dev, 0.720. It is +0.020 beside plain over 1 shared seed, 95% interval over "
        "dev examples -0.010 to +0.050, with zero in it. One seed each does not show what other seeds would change."
    )
    assert "without zero in it" in comparison(rows, [gain(0.01, 0.05)])
    assert comparison(rows, []) == "smart has the highest average on dev, 0.720."
    assert comparison(rows[:1], []) == ""
    seeds = rows[0]._replace(seeds=(0, 1), values={"average": Value(0.7, 0.02, None)})
    assert comparison([seeds], []) == (
        "plain: the average on dev is 0.700 over 2 seeds, with a standard deviation of 0.020 between them."
    )
