"""Latest and best, whole or not at all."""

import errno
import json
import logging
import math
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtbert_jax.errors import InputError, TrainingError
from mtbert_jax.optim import pcgrad
from mtbert_jax.training.checkpoint import Checkpoints, Progress
from mtbert_jax.training.state import TrainState

CONFIG = {"lr": 1e-4, "tasks": [{"name": "sst"}]}
TX = optax.chain(pcgrad(seed=3), optax.adam(0.1))


def state(step: int, value: float = 0.0) -> TrainState:
    params = {"encoder": {"w": jnp.full((2, 3), value)}, "heads": {"sst": {"b": jnp.arange(2.0)}}}
    return TrainState.create(params, TX, jax.random.key(5), step=step)


def save(directory: Path, averages: dict[int, float | None]) -> None:
    with Checkpoints(directory, CONFIG) as checkpoints:
        for step, average in averages.items():
            checkpoints.save(state(step, float(step)), Progress(stage=1, best=0.5, average=average))


def test_a_state_comes_back_bit_for_bit_typed_keys_included(tmp_path: Path) -> None:
    before = state(7, 1 / 3)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(before, Progress(2, 4, True, 0.25, 1, average=0.1))
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        after = checkpoints.try_restore(7, jax.eval_shape(lambda: state(0)))
        assert checkpoints.about(7)["config"] == CONFIG
        assert checkpoints.standings == {7: Progress(2, 4, True, 0.25, 1, average=0.1)}
    assert after is not None
    assert jax.tree.structure(after) == jax.tree.structure(before)
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True):
        assert a.dtype == b.dtype
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def test_the_two_latest_and_the_best_are_kept(tmp_path: Path) -> None:
    save(tmp_path, {1: 0.1, 2: 0.9, 3: 0.2, 4: 0.3, 5: 0.4})
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.steps() == [5, 4, 2]
        assert checkpoints.best_step() == 2


@pytest.mark.parametrize("average", [math.nan, None])
def test_a_step_without_a_number_never_becomes_the_best(tmp_path: Path, average: float | None) -> None:
    save(tmp_path, {1: 0.1, 2: average, 3: average})
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.best_step() == 1


def test_a_second_save_of_a_step_changes_nothing(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(state(1, 1.0), Progress(average=0.5))
        checkpoints.save(state(1, 2.0), Progress(average=0.9))
        assert float(checkpoints.restore_params(1, state(0).params)["encoder"]["w"][0, 0]) == 1.0


def test_saving_does_not_see_what_happens_to_the_state_afterwards(tmp_path: Path) -> None:
    """The loop donates its state to the next step while the save is still being written."""
    bump = jax.jit(lambda s: s._replace(params=jax.tree.map(lambda x: x + 1, s.params)), donate_argnums=0)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        current = state(1, 1.0)
        current = current._replace(params={"encoder": {"w": jnp.ones((600, 600))}, "heads": current.params["heads"]})
        checkpoints.save(current, Progress(average=0.5))
        for _ in range(5):
            current = bump(current)
        jax.block_until_ready(current.params)
        target = {"encoder": {"w": jnp.zeros((600, 600))}, "heads": state(0).params["heads"]}
        checkpoints.close()
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert (checkpoints.restore_params(1, target)["encoder"]["w"] == 1.0).all()


def test_damaged_steps_are_passed_over_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, {1: 0.1, 2: 0.2})
    (tmp_path / "9").mkdir()  # an empty step folder counts as the latest for orbax
    with caplog.at_level(logging.WARNING), Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert list(checkpoints.standings) == [2, 1]
    assert "step 9" in caplog.text


def test_a_step_with_broken_arrays_is_named_and_gives_no_state(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, {1: 0.1, 2: 0.2})
    for path in (tmp_path / "2" / "rest").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with caplog.at_level(logging.WARNING), Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.try_restore(2, state(0)) is None
        assert checkpoints.try_restore(1, state(0)) is not None
    assert "step 2 cannot be read" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"commit_timestamp_nsecs": "x"}', '{"item_handlers": 3}'])
def test_what_orbax_notes_of_a_step_is_not_needed(tmp_path: Path, text: str) -> None:
    save(tmp_path, {1: 0.1, 2: 0.2})
    (note,) = (tmp_path / "2").glob("_CHECKPOINT_METADATA")
    note.write_text(text)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.best_step() == 2
        assert checkpoints.try_restore(2, state(0)) is not None
        checkpoints.save(state(3), Progress(average=0.3))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [3, 2]


def test_parameters_of_another_shape_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, {1: 0.1})
    other = {"encoder": {"w": jnp.zeros((5, 3))}, "heads": state(0).params["heads"]}
    with caplog.at_level(logging.WARNING), Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore_params(1, other) is None
    assert "step 1 cannot be read" in caplog.text


def test_a_checkpoint_from_before_time_memory_and_fingerprints_were_kept(tmp_path: Path) -> None:
    save(tmp_path, {1: 0.1})
    (path,) = (tmp_path / "1" / "about").glob("metadata")
    about = json.loads(path.read_text())
    for name in ("seconds", "peak_memory"):
        del about["progress"][name]
    del about["fingerprints"]
    path.write_text(json.dumps(about))
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.standings == {1: Progress(stage=1, best=0.5, seconds=0.0, peak_memory=0, average=0.1)}
        assert checkpoints.restore_params(1, state(0).params) is not None


def data_files(step: Path, item: str) -> list[Path]:
    """The files of a step's item, the largest, which holds the arrays, first."""
    return sorted((p for p in (step / item).rglob("*") if p.is_file()), key=lambda p: -p.stat().st_size)


def test_a_flipped_bit_among_the_numbers_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Orbax's files have no checksum of what arrays hold: without ours the step would restore to other numbers."""
    wide = {"encoder": {"w": jax.random.normal(jax.random.key(0), (64, 64))}, "heads": state(0).params["heads"]}
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(state(1)._replace(params=wide), Progress(average=0.5))
    path = data_files(tmp_path / "1", "params")[0]
    whole, found = path.read_bytes(), 0
    for place in range(len(whole) // 8, len(whole), len(whole) // 8):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with Checkpoints(tmp_path) as checkpoints:
            restored = checkpoints.restore_params(1, wide)  # not all bytes of the file matter
        if restored is not None:
            jax.tree.map(np.testing.assert_array_equal, restored, wide)
        found += "the arrays of 'params' are not those that were saved" in caplog.text
    assert found
    path.write_bytes(whole)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore_params(1, wide) is not None


def test_what_is_damaged_moves_out_of_the_way_of_new_steps(tmp_path: Path) -> None:
    for folder in ("1.0", "1.1"):
        (tmp_path / "aside" / folder).mkdir(parents=True)
    save(tmp_path, {1: 0.1, 3: 0.9})
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.set_aside(1)
        assert (checkpoints.steps(), checkpoints.best_step()) == ([1], 1)
        checkpoints.save(state(2, 2.0), Progress(average=0.2))
        checkpoints.save(state(3, 3.0), Progress(average=0.3))
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.steps(), checkpoints.best_step()) == ([3, 2], 3)
    assert sorted(path.name for path in (tmp_path / "aside").iterdir()) == ["1.0", "1.1", "3.0"]


def test_reading_neither_makes_a_folder_nor_clears_one(tmp_path: Path) -> None:
    save(tmp_path, {1: 0.1})
    unfinished = tmp_path / "2.orbax-checkpoint-tmp"
    unfinished.mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]
    assert unfinished.is_dir()
    save(tmp_path, {3: 0.1})
    assert not unfinished.exists()


def test_a_disk_that_takes_no_more_ends_in_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, {1: 0.1})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints = Checkpoints(tmp_path, CONFIG)
    with pytest.raises(TrainingError, match="No space left on device.*that is complete: step 1"):
        monkeypatch.setattr(Path, "mkdir", full)
        monkeypatch.setattr(os, "mkdir", full)
        checkpoints.save(state(2), Progress())
        checkpoints.close()
    monkeypatch.undo()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [1]


@pytest.mark.parametrize("average", [math.inf, -math.inf])
def test_an_infinite_score_is_none(tmp_path: Path, average: float) -> None:
    save(tmp_path, {1: 0.1, 2: average})
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.best_step() == 1


@pytest.mark.parametrize(("other", "taken"), [("b" * 64, False), ("a" * 64, True), ("", True)])
def test_a_step_of_another_run_is_not_taken_for_this_ones(
    other: str, taken: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step, run in ((1, "a" * 64), (2, other)):
        with Checkpoints(tmp_path, {"out": "runs/b"}, run) as checkpoints:
            checkpoints.save(state(step), Progress(average=step / 10))
    caplog.clear()
    with caplog.at_level(logging.WARNING), Checkpoints(tmp_path, run="a" * 64) as checkpoints:
        assert (list(checkpoints.standings), checkpoints.best_step()) == (([2, 1], 2) if taken else ([1], 1))
    said = "checkpoint of step 2 cannot be read: it is of another run, runs/b; was it copied here?"
    assert caplog.messages == ([] if taken else [said])


def test_a_step_under_another_number_is_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, {1: 0.1})
    shutil.copytree(tmp_path / "1", tmp_path / "5")
    with caplog.at_level(logging.WARNING), Checkpoints(tmp_path) as checkpoints:
        assert list(checkpoints.standings) == [1]
    assert "checkpoint of step 5 cannot be read: it was saved as step 1" in caplog.text


@pytest.mark.parametrize(
    "changes",
    [{"average": "x"}, {"stage": -1}, {"pending": [{}]}, {"pending": 3}, {"seconds": None}],
)
def test_a_description_that_is_damaged_is_not_taken(
    changes: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, {1: 0.1})
    (path,) = (tmp_path / "1" / "about").glob("metadata")
    about = json.loads(path.read_text())
    about["progress"] |= changes
    path.write_text(json.dumps(about))
    with caplog.at_level(logging.WARNING), Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.standings, checkpoints.best_step()) == ({}, None)
    assert "checkpoint of step 1 cannot be read: its description is damaged" in caplog.text


def test_a_config_that_has_lost_a_stage_is_named(tmp_path: Path) -> None:
    assert Progress(stage=1).stage_of(["heads", "all"], tmp_path) == "all"
    with pytest.raises(InputError, match="config.toml: has 1 stages, and a checkpoint of the run is of stage 2"):
        Progress(stage=1).stage_of(["heads"], tmp_path / "config.toml")
