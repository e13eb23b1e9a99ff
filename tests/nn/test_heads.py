"""One head: pooling and the feed-forward network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax.nn.heads import Head, pool
from mtbert_jax.types import Batch, EncoderOutput, Params

RNG = np.random.default_rng(0)
OUTPUT = EncoderOutput(
    jnp.asarray(RNG.normal(size=(2, 3, 4)), jnp.float32), jnp.asarray(RNG.normal(size=(2, 4)), jnp.float32)
)
MASK = jnp.array([[1, 1, 1], [1, 1, 0]])
SECOND = jnp.array([[0, 0, 1], [0, 1, 0]])
BATCH = Batch(jnp.zeros_like(MASK), MASK, SECOND, jnp.zeros(2), jnp.ones(2))


def init(head: Head) -> Params:
    return jax.jit(head.init)(jax.random.key(0), OUTPUT.pooled)["params"]


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_a_head_is_dense_and_relu_so_many_times_and_a_dense_output(layers: int) -> None:
    """docs/numerics.md, section 1.1: a feed-forward network (ReLU) with a hyper-parameter's number of hidden layers."""
    head = Head(num_outputs=5, hidden_layers=layers, hidden_size=6)
    params = init(head)
    expected = np.asarray(OUTPUT.pooled, np.float64)
    for number in range(layers):
        at = params[f"hidden_{number}"]
        expected = np.maximum(expected @ np.asarray(at["kernel"]) + np.asarray(at["bias"]), 0)
    expected = expected @ np.asarray(params["output"]["kernel"]) + np.asarray(params["output"]["bias"])
    np.testing.assert_allclose(jax.jit(head.apply)({"params": params}, OUTPUT.pooled), expected, atol=1e-5)
    assert len(params) == layers + 1


def test_cls_pooling_reads_the_pooler_alone() -> None:
    changed = EncoderOutput(OUTPUT.hidden_states + 1, OUTPUT.pooled)
    assert (pool(changed, BATCH, "cls") == OUTPUT.pooled).all()


def test_mean_pooling_is_the_mean_of_the_tokens_without_padding() -> None:
    states = np.asarray(OUTPUT.hidden_states)
    expected = [states[0].mean(0), states[1, :2].mean(0)]
    np.testing.assert_allclose(pool(OUTPUT, BATCH, "mean"), expected, atol=1e-6)
    changed = EncoderOutput(OUTPUT.hidden_states.at[1, 2].set(99.0), OUTPUT.pooled)
    assert (pool(changed, BATCH, "mean") == pool(OUTPUT, BATCH, "mean")).all()


def test_mean_pooling_of_no_token_is_finite() -> None:
    assert (pool(OUTPUT, BATCH._replace(attention_mask=jnp.zeros_like(MASK)), "mean") == 0).all()


def test_pair_pooling_joins_the_means_of_both_texts_their_distance_and_their_product() -> None:
    """InferSent, section 3.1: [u, v, |u - v|, u v]."""
    states = np.asarray(OUTPUT.hidden_states)
    u, v = np.stack([states[0, :2].mean(0), states[1, 0]]), np.stack([states[0, 2], states[1, 1]])
    np.testing.assert_allclose(pool(OUTPUT, BATCH, "pair"), np.hstack([u, v, abs(u - v), u * v]), atol=1e-6)
    padded = EncoderOutput(OUTPUT.hidden_states.at[1, 2].set(99.0), OUTPUT.pooled)
    assert (pool(padded, BATCH, "pair") == pool(OUTPUT, BATCH, "pair")).all()


def test_logits_are_float32_whatever_the_encoder_computes_in() -> None:
    half = EncoderOutput(OUTPUT.hidden_states.astype(jnp.bfloat16), OUTPUT.pooled)
    head = Head(num_outputs=2, hidden_size=4)
    assert jax.jit(head.apply)({"params": init(head)}, pool(half, BATCH, "mean")).dtype == jnp.float32


def test_dropout_acts_after_every_hidden_layer_and_only_when_asked() -> None:
    head = Head(num_outputs=2, hidden_layers=1, hidden_size=32, dropout=0.5)
    params = init(head)

    def logits(key: int) -> np.ndarray:
        rngs = {"dropout": jax.random.key(key)}
        return np.asarray(
            jax.jit(functools.partial(head.apply, deterministic=False))({"params": params}, OUTPUT.pooled, rngs=rngs)
        )

    still = np.asarray(jax.jit(head.apply)({"params": params}, OUTPUT.pooled))
    assert (logits(0) == logits(0)).all()
    assert not np.allclose(logits(0), logits(1), atol=1e-4)
    assert not np.allclose(logits(0), still, atol=1e-4)


def test_a_linear_head_has_no_dropout() -> None:
    head = Head(num_outputs=2, hidden_size=4, hidden_layers=0, dropout=0.9)
    params = init(head)
    rngs = {"dropout": jax.random.key(0)}
    dropped = jax.jit(functools.partial(head.apply, deterministic=False))({"params": params}, OUTPUT.pooled, rngs=rngs)
    assert (dropped == jax.jit(head.apply)({"params": params}, OUTPUT.pooled)).all()
