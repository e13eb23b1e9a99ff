"""The estimate of memory against arrays that are really there, and against what it must follow from."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import pytest

from mtbert_jax.config import Config, HeadConfig, ProximalConfig, SmartConfig
from mtbert_jax.encoders.hub import load_pretrained
from mtbert_jax.errors import InputError
from mtbert_jax.machine import free_memory
from mtbert_jax.parallel import ALONE
from mtbert_jax.training.active import first_state
from mtbert_jax.training.fit import fit
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.memory import Memory, estimate
from mtbert_jax.training.plan import make_plans
from mtbert_jax.training.setup import Setup


def of(config: Config) -> tuple[Memory, Setup]:
    setup = Setup.load(config, Path(config.encoder))
    (plan,) = make_plans(setup, setup.datasets("train"))
    return estimate(setup, plan, ALONE), setup


def test_state_and_gradients_are_counted_to_the_byte(config: Config) -> None:
    config = dataclasses.replace(config, proximal=ProximalConfig(weight=1.0))
    memory, setup = of(config)
    params = setup.initial_params(load_pretrained(config.encoder)[1])
    state = first_state(setup, make_plans(setup, setup.datasets("train"))[0], params, 0)
    keys = sum(8 for leaf in jax.tree.leaves(state) if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key))
    arrays = [leaf for leaf in jax.tree.leaves(state) if not jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
    assert memory.state == sum(leaf.nbytes for leaf in arrays) + keys
    assert memory.gradients == 6 * sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert memory.total == sum(memory)


def test_activations_grow_with_batch_and_smart_and_shrink_with_remat_and_micro_batches(config: Config) -> None:
    plain = of(config)[0].activations
    assert plain > 0
    assert of(dataclasses.replace(config, batch_size=8))[0].activations == pytest.approx(2 * plain, rel=0.1)
    assert of(dataclasses.replace(config, batch_size=8, micro_batches=2))[0].activations == pytest.approx(
        plain, rel=0.1
    )
    assert of(dataclasses.replace(config, smart=SmartConfig(weight=1.0)))[0].activations > 1.4 * plain
    assert of(dataclasses.replace(config, remat=True))[0].activations < 0.8 * plain


def test_a_frozen_encoder_needs_no_gradients(config: Config) -> None:
    frozen = of(dataclasses.replace(config, freeze=("encoder",)))[0]
    whole = of(config)[0]
    assert frozen.gradients < whole.gradients
    assert frozen.activations < whole.activations


@pytest.mark.parametrize(
    "changes",
    [
        {"head": HeadConfig(hidden_layers=100, hidden_size=10**5)},
        {"optimizer": ("sum_tasks()", "scale_by_lbfgs(memory_size=1000000000)")},
    ],
)
def test_what_cannot_fit_is_refused_before_anything_is_allocated(changes: dict[str, Any], config: Config) -> None:
    changes |= {"tasks": tuple(dataclasses.replace(task, head=None) for task in config.tasks)}
    with pytest.raises(InputError, match=r"stage train: parameters and optimizer state take \d+\.\d GiB on a device"):
        fit(dataclasses.replace(config, **changes), RunFolder(Path(config.out)))
    assert not Path(config.out).exists()


def test_this_machine_has_memory() -> None:
    room = free_memory()
    assert room is None or room > 2**20
