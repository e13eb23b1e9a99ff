"""What the loop shows of its first steps."""

import dataclasses
import gc
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from mtbert_jax.config import Config, StageConfig
from mtbert_jax.encoders.hub import load_pretrained
from mtbert_jax.training.interrupt import Interrupted
from mtbert_jax.training.records import read_metrics
from tests.cases import slow_but_for
from tests.conftest import light
from tests.training.test_fit import Quiet, leaves, run


def told(display: Quiet) -> list[str]:
    """What was said of compiling and of steps, without the numbers of those that a record was made at."""
    lines = [line for line in display.lines if re.match(r"\w+: (compiling|step)", line)]
    return [re.sub(r"  \d+ ex/s .*", r" recorded", line) for line in lines]


def test_losses_are_shown_long_before_the_first_record(config: Config, tmp_path: Path) -> None:
    """Where compiling begins, and after 1, 2, 4 and 8 steps of each stage; records and states stay."""
    stages = (StageConfig("first", steps=9), StageConfig("second", steps=3))
    config = dataclasses.replace(config, steps=None, stages=stages, eval_every_steps=5, log_every_steps=100)
    display = Quiet()
    shown = run(config, tmp_path / "shown", display=display)
    assert [line.partition("  loss")[0] for line in told(display)] == [
        "first: compiling …",
        *(f"first: step {n}/9" for n in (1, 2, 4, 8)),
        "first: step 9/9 recorded",
        "second: compiling …",
        *(f"second: step {n}/3" for n in (1, 2)),
        "second: step 3/3 recorded",
    ]
    logged = run(dataclasses.replace(config, log_every_steps=1), tmp_path / "logged")
    records = [record for record in read_metrics(logged.metrics) if record["kind"] == "train"]
    for line, record in zip(told(display)[1:5], (records[n - 1] for n in (1, 2, 4, 8)), strict=True):
        losses = "  ".join(f"{name} {loss:.3f}" for name, loss in record["loss"].items())
        assert line == f"first: step {record['step']}/9  loss {losses}"
    assert [record["step"] for record in read_metrics(shown.metrics) if record["kind"] == "train"] == [9, 12]
    for one, other in zip(leaves(config, shown, 12).values(), leaves(config, logged, 12).values(), strict=True):
        np.testing.assert_array_equal(one, other)


class Counting(Quiet):
    """Counts after every step how many arrays there are of the shape of the table of words."""

    def __init__(self, shape: tuple[int, ...], at: int | None = None) -> None:
        super().__init__(at)
        self.counts: list[int] = []
        self._shape = shape

    def step(self, step: int) -> None:
        gc.collect()  # what tracing has left in cycles
        self.counts.append(sum(array.shape == self._shape for array in jax.live_arrays()))
        super().step(step)


@pytest.fixture
def only_new_objects() -> Iterator[None]:
    """Collections look at what is made from here on alone: at all that a worker holds, they would take seconds."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("teacher", slow_but_for([False], [False, True]))
@pytest.mark.usefixtures("only_new_objects")
def test_a_state_that_a_step_has_replaced_is_let_go_of(config: Config, tmp_path: Path, teacher: bool) -> None:
    """Parameters, two moments, and a teacher where there is one: from the first step, over stages, when resumed."""
    chain = ("sum_tasks()", "adam(lr)")
    stages = (StageConfig("first", steps=2), StageConfig("second", steps=3))
    config = dataclasses.replace(config, steps=None, stages=stages, eval_every_steps=0, optimizer=chain)
    config = dataclasses.replace(config, evaluate="teacher" if teacher else "student")
    shape = load_pretrained(config.encoder)[1]["embeddings"]["word"]["embedding"].shape
    gc.collect()
    before = sum(array.shape == shape for array in jax.live_arrays())
    first, rest = Counting(shape, at=2), Counting(shape)
    with pytest.raises(Interrupted):
        run(config, tmp_path / "run", display=first)
    run(config, tmp_path / "run", resume=True, display=rest)
    assert [[count - before for count in one.counts] for one in (first, rest)] == [[3 + teacher] * 2, [3 + teacher] * 3]


@pytest.mark.parametrize("order", ["round_robin", "proportional"])
def test_only_the_steps_before_the_first_record_are_waited_for(config: Config, tmp_path: Path, order: str) -> None:
    """Where one task a step is drawn, its loss is shown; a resumed run compiles anew, and shows its own first steps."""
    config = dataclasses.replace(config, order=order, steps=6, log_every_steps=3, eval_every_steps=4)
    display = Quiet(at=4)
    with pytest.raises(Interrupted):
        run(config, tmp_path / "run", display=display)
    assert [line.partition("  loss")[0].partition(": ")[2] for line in told(display)] == [
        "compiling …",
        "step 1/6",
        "step 2/6",
        "step 3/6 recorded",
    ]
    again = Quiet()
    run(config, tmp_path / "run", resume=True, display=again)
    lines = [line.partition(": ")[2] for line in told(again)]
    assert [line.partition("  loss")[0] for line in lines] == ["compiling …", "step 5/6", "step 6/6 recorded"]
    assert len(re.findall(r"(sst|para|sts) \d\.\d{3}", lines[1])) == (3 if order == "round_robin" else 1)


def test_the_mean_over_seeds_is_shown(config: Config, tmp_path: Path) -> None:
    config = dataclasses.replace(light(config), steps=2, log_every_steps=10, seeds=(0, 5))
    display = Quiet()
    run(config, tmp_path / "run", display=display)
    firsts = []
    for seed in config.seeds:
        own = dataclasses.replace(config, steps=2, log_every_steps=1, seed=seed, seeds=())
        records = read_metrics(run(own, tmp_path / f"own{seed}").metrics)
        firsts.append(records[0]["loss"]["sst"])
    (shown,) = re.findall(r"step 1/2  loss .*sst (\d\.\d{3})", "\n".join(display.lines))
    assert float(shown) == pytest.approx(sum(firsts) / 2, abs=6e-4)
