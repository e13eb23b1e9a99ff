"""Latest and best, whole or not at all."""

import json
import logging
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtbert_jax.optim import pcgrad
from mtbert_jax.training.checkpoint import Checkpoints, Progress
from mtbert_jax.training.state import TrainState
from mtbert_jax.types import InputError

CONFIG = {"lr": 1e-4, "tasks": [{"name": "sst"}]}
TX = optax.chain(pcgrad(seed=3), optax.adam(0.1))


def state(step: int, value: float = 0.0) -> TrainState:
    params = {"encoder": {"w": jnp.full((2, 3), value)}, "heads": {"sst": {"b": jnp.arange(2.0)}}}
    return TrainState.create(params, TX, jax.random.key(5), step=step)


def save(directory: Path, averages: dict[int, float | None]) -> None:
    with Checkpoints(directory, CONFIG) as checkpoints:
        for step, average in averages.items():
            checkpoints.save(state(step, float(step)), Progress(stage=1, best=0.5), average)


def test_a_state_comes_back_bit_for_bit_typed_keys_included(tmp_path: Path) -> None:
    before = state(7, 1 / 3)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        checkpoints.save(before, Progress(2, 4, True, 0.25, 1), 0.1)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        after = checkpoints.try_restore(7, jax.eval_shape(lambda: state(0)))
        assert checkpoints.about(7) == (CONFIG, Progress(2, 4, True, 0.25, 1))
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
        checkpoints.save(state(1, 1.0), Progress(), 0.5)
        checkpoints.save(state(1, 2.0), Progress(), 0.9)
        assert float(checkpoints.restore_params(1, state(0).params)["encoder"]["w"][0, 0]) == 1.0


def test_saving_does_not_see_what_happens_to_the_state_afterwards(tmp_path: Path) -> None:
    """The loop donates its state to the next step while the save is still being written."""
    bump = jax.jit(lambda s: s._replace(params=jax.tree.map(lambda x: x + 1, s.params)), donate_argnums=0)
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        current = state(1, 1.0)
        current = current._replace(params={"encoder": {"w": jnp.ones((600, 600))}, "heads": current.params["heads"]})
        checkpoints.save(current, Progress(), 0.5)
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
        assert [step for step, _ in checkpoints.sound_steps()] == [2, 1]
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
    assert "step 2 cannot be restored" in caplog.text


def test_parameters_of_another_shape_are_refused(tmp_path: Path) -> None:
    save(tmp_path, {1: 0.1})
    other = {"encoder": {"w": jnp.zeros((5, 3))}, "heads": state(0).params["heads"]}
    with Checkpoints(tmp_path, CONFIG) as checkpoints, pytest.raises(InputError, match="step 1 cannot be restored"):
        checkpoints.restore_params(1, other)


def test_a_checkpoint_from_before_time_and_memory_were_kept(tmp_path: Path) -> None:
    save(tmp_path, {1: 0.1})
    (path,) = (tmp_path / "1" / "about").glob("metadata")
    about = json.loads(path.read_text())
    for name in ("seconds", "peak_memory"):
        del about["progress"][name]
    path.write_text(json.dumps(about))
    with Checkpoints(tmp_path, CONFIG) as checkpoints:
        assert checkpoints.about(1) == (CONFIG, Progress(stage=1, best=0.5, seconds=0.0, peak_memory=0))
