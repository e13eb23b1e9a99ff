"""Records on disk and on the screen."""

import io
import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from mtbert_jax.config import TaskConfig
from mtbert_jax.config.schema import finite, fits
from mtbert_jax.errors import InputError
from mtbert_jax.training.display import Display, scores_line
from mtbert_jax.training.records import SHAPES, Clock, MetricsFile, Record, pack, read_metrics, step_record, unpack
from mtbert_jax.training.update import StepMetrics


def metrics(sst: float, sts: float, cosine: float, finite: bool = True) -> StepMetrics:
    return StepMetrics(
        {"sst": jnp.float32(sst), "sts": jnp.float32(sts)},
        {"smoothness": {"sst": jnp.float32(sst / 8), "sts": jnp.float32(sts / 8)}},
        {"sst": jnp.asarray(True), "sts": jnp.asarray(finite)},
        jnp.array([[1.0, cosine], [cosine, 1.0]]),
        {"layer_0": jnp.array([[1.0, -cosine], [-cosine, 1.0]])},
        {"weight": jnp.array([1.0, 2.0]), "share": jnp.array([0.25, 0.75])},
    )


def test_a_record_holds_means_and_the_share_of_conflicts() -> None:
    record = step_record([metrics(1.0, 4.0, -0.5), metrics(3.0, 2.0, 0.25)], 12.0, lr=0.1)
    assert record["loss"] == {"sst": 2.0, "sts": 3.0}
    assert record["smoothness"] == {"sst": 0.25, "sts": 0.375}
    assert record["cosine"] == {"sst/sts": -0.125}
    assert record["conflict"] == {"sst/sts": 0.5}
    assert record["layer_conflict"] == {"layer_0": 0.5}
    assert (record["weight"], record["share"]) == ({"sst": 1.0, "sts": 2.0}, {"sst": 0.25, "sts": 0.75})
    assert record["lr"] == 0.1
    assert record["examples_per_second"] == 12.0
    assert "left_out" not in record


def test_a_chain_without_a_rate_has_none_in_its_records() -> None:
    record = step_record([metrics(1.0, 4.0, -0.5)], 12.0, None)
    assert "lr" not in record
    assert fits({"kind": "train", "stage": "a", "step": 1, **record}, SHAPES["train"])


def test_a_task_left_out_is_counted_and_not_averaged() -> None:
    record = step_record([metrics(1.0, float("nan"), 0.0, finite=False), metrics(1.0, 5.0, 0.0)], 1.0, 0.1)
    assert record["loss"] == {"sst": 1.0, "sts": 5.0}
    assert record["smoothness"] == {"sst": 0.125, "sts": 0.625}
    assert record["left_out"] == {"sts": 1}


def test_a_step_of_one_task_has_no_cosine() -> None:
    one = StepMetrics({"sst": jnp.float32(1)}, {}, {"sst": jnp.asarray(True)}, None, {}, {})
    record = step_record([one], 1.0, 0.1)
    assert not {"cosine", "smoothness", "proximal"} & set(record)


def record(step: int) -> Record:
    return {"kind": "stage", "stage": "train", "step": step, "compiled_shapes": 1}


def test_reopening_at_a_step_drops_later_records_and_half_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    for step in (2, 4, 6):
        file.write(record(step))
    file.close()
    path.write_text(path.read_text() + '{"step": 8, "lo')
    file = MetricsFile(path, step=4)
    file.write(record(5))
    file.close()
    assert [one["step"] for one in read_metrics(path)] == [2, 4, 5]


@pytest.mark.parametrize(
    "odd",
    [{"kind": "other"}, {"kind": ["stage"]}, {"step": "3"}, {"step": True}, {"step": 10**400}, {"compiled_shapes": ""}],
)
def test_a_line_that_is_no_record_is_left_out(odd: Record, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (record(1), record(2) | odd, [1], record(3))))
    assert [one["step"] for one in read_metrics(path)] == [1, 3]


def test_records_that_lie_elsewhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(json.dumps(record(1)))
    path = tmp_path / "run" / "metrics.jsonl"
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"metrics\.jsonl leads out of"):
        read_metrics(path)


def test_a_new_run_starts_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    MetricsFile(path).close()
    assert path.read_text() == ""


def test_values_that_json_lacks_become_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    file.write({"step": 1, "scores": {"sts": {"pearson": float("nan")}}, "x": float("inf")})
    file.close()
    record = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert record == {"step": 1, "scores": {"sts": {"pearson": None}}, "x": None}


RECORD = {"loss": {"sst": 1.25}, "examples_per_second": 80.0, "left_out": {"sts": 2}}


@pytest.mark.parametrize("dumb", [False, True])
def test_plain_lines_without_a_terminal(dumb: bool) -> None:
    """And on one that moves no cursor."""
    out = io.StringIO()
    display = Display(Console(file=out, soft_wrap=True, width=160, force_terminal=dumb, _environ={"TERM": "dumb"}))
    display.start("full", 0, 10)
    display.step(1)
    display.show("full", RECORD, 5)
    line = out.getvalue()
    display.stop()
    assert line.startswith("full: step 5/10  80 ex/s")
    assert "sst 1.250" in line
    assert "sts left out 2×" in line
    assert "\x1b" not in line


def test_a_bar_on_a_terminal() -> None:
    out = io.StringIO()
    display = Display(Console(file=out, force_terminal=True, width=160))
    display.start("full", 0, 10)
    display.show("full", RECORD, 5)
    display.say("dev at step 5")
    display.stop()
    assert "step 5/10" in out.getvalue()
    assert "dev at step 5" in out.getvalue()


def test_scores_line_names_the_metrics_of_the_average() -> None:
    scores = {
        "sst": {"accuracy": 0.5, "f1": 0.4},
        "sts": {"pearson": 0.8, "spearman": 0.7},
        "average": 0.7,
        "plain": 0.6,
    }
    sst, sts = TaskConfig("sst", num_classes=5), TaskConfig("sts", "regression")
    assert scores_line(scores, (sst, sts)) == "sst accuracy 0.500  sts pearson 0.800  average 0.7000"
    sst = TaskConfig("sst", num_classes=5, metric="f1")
    assert scores_line(scores, (sst, sts)) == "sst f1 0.400  sts pearson 0.800  average 0.7000"


def test_scores_line_has_the_score_that_the_best_checkpoint_is_chosen_by() -> None:
    sts = TaskConfig("sts", "regression")
    scores = {"sts": {"pearson": 0.8, "rmse": 1.25}, "average": 0.9, "plain_average": 0.8}
    lines = {which: scores_line(scores, (sts,), which) for which in ("sts", "sts.pearson", "sts.rmse", "plain_average")}
    assert lines["sts"] == lines["sts.pearson"] == "sts pearson 0.800  average 0.9000"
    assert lines["sts.rmse"] == "sts pearson 0.800  sts rmse 1.250  average 0.9000"
    assert lines["plain_average"] == "sts pearson 0.800  average 0.9000  plain average 0.8000"
    assert scores_line({"average": 0.9}, (sts,), "sts.rmse") == "average 0.9000"


def test_scores_line_says_where_a_score_is_undefined() -> None:
    sts = TaskConfig("sts", "regression")
    scores = {"sts": {"pearson": float("nan")}, "average": float("nan")}
    assert scores_line(scores, (sts,)) == "sts pearson undefined  average undefined"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pending_metrics_are_strict_json_and_give_the_same_record(value: float) -> None:
    steps = [metrics(value, 1.0, 0.5, finite=False), metrics(2.0, value, -0.5)]
    steps[1].penalties["smoothness"] = {"sst": np.float32(value)}
    text = json.dumps(pack(steps), allow_nan=False)
    again = unpack(tuple(json.loads(text)))
    ours, theirs = (finite(step_record(some, 1.0, 0.1)) for some in (steps, again))
    assert ours == theirs


def test_numbers_too_large_to_be_read_back_are_null(tmp_path: Path) -> None:
    """A diverged regression's loss; else the whole record would be taken for a damaged one."""
    file = MetricsFile(tmp_path / "m.jsonl")
    file.write({"kind": "train", "stage": "s", "step": 1, "lr": 0.1, "examples_per_second": 1.0, "loss": {"sts": 1e30}})
    file.close()
    (record,) = read_metrics(tmp_path / "m.jsonl")
    assert record["loss"] == {"sts": None}


def test_losses_before_the_first_record_without_a_terminal() -> None:
    out = io.StringIO()
    display = Display(Console(file=out, soft_wrap=True))
    display.start("full", 0, 10)
    display.compiling("full")
    display.show_losses("full", {"sst": 1.25, "sts": 0.5}, 1)
    display.stop()
    assert out.getvalue() == "full: compiling …\nfull: step 1/10  loss sst 1.250  sts 0.500\n"


def test_losses_before_the_first_record_on_a_terminal() -> None:
    """The bar says that programs are compiled, until there is a loss."""
    out = io.StringIO()
    display = Display(Console(file=out, force_terminal=True, width=160))
    display.start("full", 0, 10)
    display.compiling("full")
    before = out.getvalue()
    display.show_losses("full", {"sst": 1.25}, 1)
    display.stop()
    assert before.count("compiling …") == 1
    assert "step 1/10  loss sst 1.250" in out.getvalue()[len(before) :]


@pytest.mark.parametrize("width", [40, 60, 80, 130])
def test_a_terminal_of_any_width_shows_what_matters(width: int) -> None:
    """The step, the time left and every loss, none of them cut off."""
    out = io.StringIO()
    display = Display(Console(file=out, force_terminal=True, width=width))
    record = {"loss": {"paraphrase": 0.693, "sentiment": 1.604, "similarity": 5.125}, "examples_per_second": 80.0}
    display.start("full", 0, 12000)
    display.show("full", record, 6000)
    display.stop()
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", out.getvalue().rpartition("compiling")[2])
    for part in ("step 6000/12000", "0:00 left", "paraphrase 0.693", "sentiment 1.604", "similarity 5.125", "80 ex/s"):
        assert part in shown
    assert "…" not in shown.partition("step")[2]
    assert max(map(len, shown.replace("\r", "\n").splitlines())) <= width
    assert ("━" in shown) == (width == 130)


def test_on_a_narrow_terminal_the_rate_comes_last() -> None:
    out = io.StringIO()
    display = Display(Console(file=out, force_terminal=True, width=60))
    display.start("full", 0, 10)
    display.show("full", RECORD, 5)
    display.stop()
    text = out.getvalue()
    assert text.rindex("0:00 left") < text.rindex("sst 1.250") < text.rindex("80 ex/s")


def test_the_rate_leaves_compiling_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now, compiled = [100.0], [7.0]
    monkeypatch.setattr("mtbert_jax.machine.time.monotonic", lambda: now[0])
    monkeypatch.setattr("mtbert_jax.machine.compile_seconds", lambda: compiled[0])
    clock = Clock()
    clock.examples, now[0], compiled[0] = 60.0, 140.0, 37.0  # 40 s, 30 of them spent compiling
    assert clock.rate == pytest.approx(6.0)
