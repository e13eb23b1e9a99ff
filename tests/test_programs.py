"""Functions that are jitted once in a process, and when they must not be."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import pytest

from mtbert_jax.config import Config
from mtbert_jax.optim import register_aggregator
from mtbert_jax.optim.registry import unregister
from mtbert_jax.programs import MOST_KEPT, forget_programs, made_once, programs_apart
from mtbert_jax.run import load_run
from mtbert_jax.tasks import KINDS, register_kind
from mtbert_jax.tasks.regression import Regression
from mtbert_jax.training import evaluate
from mtbert_jax.training.records import read_metrics
from tests.conftest import replace_task
from tests.training.test_fit import run


def test_equal_arguments_give_the_same_function_until_it_is_forgotten() -> None:
    @made_once
    def make(number: float, *, name: str = "") -> object:
        return object()

    first = make(1, name="a")
    assert make(1, name="a") is first
    assert make(2, name="a") is not first
    assert make(1) is not first
    assert make(1.0, name="a") is not first
    forget_programs()
    assert make(1, name="a") is not first


def test_apart_is_nothing_from_before_and_afterwards_nothing_from_inside() -> None:
    @made_once
    def make(number: int) -> object:
        return object()

    before = make(1)
    with pytest.raises(ZeroDivisionError), programs_apart():
        inside = make(1)
        assert make(1) is inside is not before
        raise ZeroDivisionError
    assert make(1) is before


def test_what_has_no_hash_is_made_anew() -> None:
    @made_once
    def make(values: list[int]) -> object:
        return object()

    assert make([1]) is not make([1])


def test_few_are_kept() -> None:
    made = []

    @made_once
    def make(number: int) -> object:
        made.append(number)
        return object()

    for number in (*range(MOST_KEPT + 1), MOST_KEPT, 0):
        make(number)
    assert made == [*range(MOST_KEPT + 1), 0]


def compiled(folder: Path) -> list[int]:
    return [record["compiled_shapes"] for record in read_metrics(folder / "metrics.jsonl") if record["kind"] == "stage"]


@pytest.mark.usefixtures("fresh_programs")
def test_a_second_run_compiles_what_differs_alone(config: Config, tmp_path: Path) -> None:
    """Another learning rate is another update; another seed is nothing new."""
    config = dataclasses.replace(config, steps=2, eval_every_steps=2)
    first, again, faster = (tmp_path / name for name in ("first", "again", "faster"))
    run(config, first)
    run(dataclasses.replace(config, seed=1), again)
    run(dataclasses.replace(config, lr=0.5), faster)
    assert [compiled(folder) for folder in (first, again, faster)] == [[2], [0], [1]]
    scores = [load_run(folder).history["train/loss/sst"] for folder in (first, again, faster)]
    assert len({tuple(map(str, column)) for column in scores}) == 3


def test_prediction_after_training_has_its_programs(config: Config, tmp_path: Path) -> None:
    run(config, tmp_path / "run")
    setup = load_run(tmp_path / "run").model.setup
    own = evaluate.make_eval_step(setup.model, setup.layout, setup.kinds)
    assert load_run(tmp_path / "run").model._eval_step is own
    (program,) = {cell.cell_contents for cell in own.__closure__ if hasattr(cell.cell_contents, "_cache_size")}
    assert program._cache_size() == 1  # what training scored dev with


@pytest.fixture
def loose_ends() -> object:
    yield
    KINDS.pop("stretched", None)
    unregister("leaning")


def test_a_kind_or_an_aggregator_that_is_registered_anew_counts(
    config: Config, tmp_path: Path, loose_ends: object
) -> None:
    """In a notebook a cell is edited and run again: what it defines must not be an earlier program."""
    config = dataclasses.replace(config, steps=2, eval_every_steps=2, optimizer=("leaning()", "sgd(lr)"))
    config = replace_task(dataclasses.replace(config, tasks=config.tasks[1:]), "sts", kind="stretched")
    losses, programs = [], []
    for factor in (1.0, 10.0):

        @register_kind("stretched")
        class Stretched(Regression):
            scale = factor

            def loss(self, logits, labels):  # type: ignore[no-untyped-def]
                return self.scale * super().loss(logits, labels)

        @register_aggregator("leaning")
        def leaning(gramian, state, key, losses, slant=factor):  # type: ignore[no-untyped-def]
            return slant * jnp.ones(len(gramian)), state

        run(config, tmp_path / f"{factor}")
        history = load_run(tmp_path / f"{factor}").history
        losses.append(next(value for value in history["train/loss/sts"] if value is not None))
        programs.append(compiled(tmp_path / f"{factor}"))
    assert losses[1] > 5 * losses[0]
    assert programs[1] == [2]  # the gradient, which serves all tasks of a group, and the update
