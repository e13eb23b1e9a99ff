"""Layers of one kind are traced once, whatever their number; each has parameters and dropout of its own."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from mtbert_jax.encoders.bert import BertConfig, BertEncoder
from mtbert_jax.encoders.deberta_v2 import DebertaV2Config, DebertaV2Encoder
from mtbert_jax.encoders.family import Encoder
from mtbert_jax.encoders.modernbert import ModernBertConfig, ModernBertEncoder
from mtbert_jax.nn import dropout
from tests.cases import rows_slow_but_for, slow_but_for

IDS = jnp.array([[2, 5, 9, 3], [2, 7, 3, 3]])
LAYERED = ("bert", "deberta-v2", "modernbert")
"""A family of each kind of layer."""
SIZES: dict[str, Any] = {"vocab_size": 12, "hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2}
SIZES |= {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5}


def encoder(family: str, depth: int, remat: bool = False) -> Encoder:
    match family:
        case "bert":
            return BertEncoder(BertConfig(**SIZES, num_hidden_layers=depth), remat=remat)
        case "deberta-v2":
            config = DebertaV2Config(
                **SIZES, num_hidden_layers=depth, relative_attention=True, pos_att_type="c2p|p2c", conv_kernel_size=3
            )
            return DebertaV2Encoder(config, remat=remat)
        case _:
            return ModernBertEncoder(ModernBertConfig(**SIZES, num_hidden_layers=depth, mlp_dropout=0.5), remat=remat)


def program(model: Encoder) -> jax.stages.Lowered:
    params = jax.eval_shape(model.init, jax.random.key(0), IDS)["params"]

    def loss(params: Any, key: jax.Array) -> jax.Array:
        states = model.apply({"params": params}, IDS, deterministic=False, rngs={"dropout": key}).hidden_states  # type: ignore[union-attr]
        return jnp.sum(states[:, 0] ** 3)

    return jax.jit(jax.grad(loss)).lower(params, jax.random.key(1))


@pytest.mark.parametrize(
    ("family", "remat"),
    rows_slow_but_for([("bert", True), ("deberta-v2", False)], itertools.product(LAYERED, (False, True))),
)
def test_a_deeper_encoder_is_no_longer_program(family: str, remat: bool) -> None:
    shallow, deep = (program(encoder(family, depth, remat)).as_text().count("dot_general") for depth in (5, 9))
    assert 0 < shallow == deep


@pytest.mark.parametrize("family", slow_but_for(("bert",), LAYERED))
def test_every_dropout_of_every_layer_has_a_key_of_its_own(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[int, ...]] = []

    def keep(key: Any, rate: float, shape: tuple[int, ...]) -> jax.Array:
        jax.debug.callback(lambda data: used.append(tuple(data.tolist())), jax.random.key_data(key))
        return kept(key, rate, shape)

    kept = dropout.keep_mask
    monkeypatch.setattr(dropout, "keep_mask", keep)
    model = encoder(family, 3)
    params = model.init(jax.random.key(0), IDS)
    model.apply(params, IDS, deterministic=False, rngs={"dropout": jax.random.key(1)})
    jax.effects_barrier()
    of_all = {"bert": 1 + 3 * 3, "deberta-v2": 2 + 3 * 4, "modernbert": 1 + 3 * 3}  # DeBERTa: convolution, positions
    assert len(used) == len(set(used)) == of_all[family]
