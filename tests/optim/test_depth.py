"""Layer-wise decay."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtbert_jax import trees
from mtbert_jax.errors import InputError
from mtbert_jax.optim.chain import build_chain, chain_context
from mtbert_jax.optim.depth import layerwise_decay
from mtbert_jax.parallel import ALONE
from mtbert_jax.training.objective import StageSpec, Terms
from mtbert_jax.training.state import TrainState
from mtbert_jax.training.update import Update

PARAMS: dict[str, Any] = {
    "encoder": {
        "embeddings": {"word": {"embedding": jnp.ones(2)}},
        **{f"layer_{n}": {"attention": {"kernel": jnp.ones(3)}} for n in range(12)},
        "pooler": {"kernel": jnp.ones(1)},
    },
    "heads": {"layer_0": {"output": {"kernel": jnp.ones(4)}}},  # a task may be called so
}


def test_each_layer_moves_less_than_the_one_above() -> None:
    """ULMFiT, section 3.2."""
    tx = build_chain(("sgd(1.0)", "layerwise_decay(0.5)"), {})
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    factors = {path: -float(leaf[0]) for path, leaf in zip(trees.paths(updates), jax.tree.leaves(updates), strict=True)}
    expected = {f"encoder/layer_{n}/attention/kernel": 0.5 ** (12 - n) for n in range(12)}
    expected |= {"encoder/embeddings/word/embedding": 0.5**13, "encoder/pooler/kernel": 1.0}
    assert factors == pytest.approx({**expected, "heads/layer_0/output/kernel": 1.0})


def test_frozen_layers_below_change_no_factor() -> None:
    kept = {"encoder": {name: leaf for name, leaf in PARAMS["encoder"].items() if name not in ("layer_0", "layer_1")}}
    tx = build_chain(("layerwise_decay(0.9)",), {})
    updates, _ = tx.update(kept, tx.init(kept))
    np.testing.assert_allclose(updates["encoder"]["layer_2"]["attention"]["kernel"], 0.9**10, rtol=1e-6)


@pytest.mark.parametrize("frozen", ["encoder/layer_11", "encoder/layer_0"])
def test_in_training_all_layers_count_whichever_train(frozen: str) -> None:
    """As where LoRA has products in some layers alone; also inside of another transformation."""
    grads = trees.split(PARAMS, (frozen,))[1]
    tx = build_chain(("sgd(1.0)", "masked(layerwise_decay(0.5), encoder)"), chain_context(lambda _: 1.0, grads))
    state, terms = TrainState.create(PARAMS, tx, jax.random.key(0), (frozen,)), Terms(jnp.zeros(()), {})
    update = Update(tx, StageSpec((frozen,)), ALONE)
    after = update.apply_gradients(state, {"layer_0": grads}, {"layer_0": terms})[0].params["encoder"]
    moves = {n: float(1 - after[f"layer_{n}"]["attention"]["kernel"][0]) for n in (0, 1, 10, 11)}
    expected = {n: 0.0 if frozen.endswith(f"_{n}") else 0.5 ** (12 - n) for n in moves}
    assert moves == pytest.approx(expected, rel=1e-3)


def test_behind_adam_it_changes_steps_and_before_it_nothing() -> None:
    grads = jax.tree.map(lambda leaf: 3 * leaf, PARAMS)

    def steps(*calls: str) -> optax.Updates:
        tx = build_chain(calls, {})
        return tx.update(grads, tx.init(PARAMS), PARAMS)[0]

    plain, before = steps("adam(0.1)"), steps("layerwise_decay(0.9)", "adam(0.1)")
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(before), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)
    top = steps("adam(0.1)", "layerwise_decay(0.9)")["encoder"]["layer_11"]["attention"]["kernel"]
    np.testing.assert_allclose(top, 0.9 * plain["encoder"]["layer_11"]["attention"]["kernel"], rtol=1e-6)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match="rate must be above 0"):
        layerwise_decay(rate)
