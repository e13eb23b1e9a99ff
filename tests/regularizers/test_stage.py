"""Tables and call strings of a stage → its regularisers."""

import dataclasses
from typing import Any

import pytest

from mtbert_jax.config import Config, ProximalConfig, SmartConfig, Stage, StageConfig
from mtbert_jax.errors import InputError
from mtbert_jax.regularizers import Proximal, RDrop, Smart, check_regularizers, stage_regularizers


def stage(**changes: Any) -> Stage:
    return dataclasses.replace(Config().resolved_stages()[0], **changes)


def test_nothing_is_on_by_default() -> None:
    assert stage_regularizers(stage()) == ()


def test_tables_come_first_then_call_strings() -> None:
    smart, proximal = SmartConfig(weight=1.0), ProximalConfig(weight=0.5)
    found = stage_regularizers(stage(regularizers=("rdrop(weight=0.25)",), smart=smart, proximal=proximal))
    assert found == (Smart(smart), Proximal(proximal), RDrop(0.25))
    lines = [regularizer.describe() for regularizer in found]
    assert lines == ["SMART ball × 1", "proximal point to a momentum teacher × 0.5", "rdrop(weight=0.25)"]


def test_a_stage_takes_the_runs_call_strings_unless_it_has_its_own() -> None:
    stages = (StageConfig("heads", regularizers=()), StageConfig("full"))
    config = Config(regularizers=("rdrop()",), stages=stages)
    assert [stage_regularizers(one) for one in config.resolved_stages()] == [(), (RDrop(),)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            "rdropp()",
            "unknown regularizer 'rdropp'; did you mean 'rdrop'? (known: freelb, rdrop; --plugins FILE can add one)",
        ),
        ("rdrop(wieght=1.0)", "rdrop: unknown key 'wieght'; did you mean 'weight'?"),
        ("rdrop(weight='much')", "rdrop: weight: expected a number, got 'much'"),
        ("rdrop(1.0, 2.0)", "rdrop refuses its arguments: too many positional arguments"),
        ("rdrop(1.0, weight=2.0)", "weight is given twice"),
        ("rdrop", 'is not a regularizer; write "rdrop()"'),
        ("smart(weight=1.0)", "smart is no call: its options are the table [smart]"),
        ("rdrop(", 'is no call such as "my_regularizer(weight=1.0)"'),
    ],
)
def test_wrong_call_strings_are_named(call: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        stage_regularizers(stage(regularizers=(call,)))
    assert str(caught.value).startswith(f"regularizers[0] = {call!r}: {message}")


def test_one_regularizer_cannot_stand_there_twice() -> None:
    with pytest.raises(InputError, match="regularizers: rdrop stands there more than once"):
        stage_regularizers(stage(regularizers=("rdrop()", "rdrop(weight=2.0)")))


@pytest.mark.parametrize(
    ("describe", "message"),
    [
        (lambda self: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda self: None, "returns None; it must be a str"),
    ],
)
def test_a_regularizer_that_cannot_describe_itself_is_named(
    describe: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RDrop, "describe", describe)
    with pytest.raises(InputError, match=f"regularizer rdrop: describe:? {message}"):
        check_regularizers(stage(regularizers=("rdrop()",)))


def test_kept_features_leave_nothing_to_perturb() -> None:
    kept = stage(name="heads", regularizers=("rdrop()",), cache_features=True)
    check_regularizers(kept)
    with pytest.raises(InputError, match="stage heads: cache_features leaves no embeddings for freelb to perturb"):
        check_regularizers(dataclasses.replace(kept, regularizers=("freelb()",)))
