"""The encoder: what it must compute (docs/numerics.md, section 4) and what must change nothing."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from mtbert_jax.encoders.bert import BertConfig, BertEncoder
from mtbert_jax.nn.activations import ACTIVATIONS
from mtbert_jax.types import EncoderOutput, Params
from tests.conftest import TINY

IDS = jnp.array([[2, 5, 9, 3, 11, 3], [2, 7, 3, 8, 8, 3]])
TYPES = jnp.array([[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]])
MASK = jnp.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])


def make_params(config: BertConfig = TINY) -> Params:
    """Parameters of unit size, biases and scales too: each must matter to the output."""
    params = jax.eval_shape(BertEncoder(config).init, jax.random.key(1), IDS)["params"]
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(structure, [jnp.asarray(0.5 * rng.normal(size=x.shape), jnp.float32) for x in leaves])


PARAMS = make_params()
ONE = dataclasses.replace(TINY, num_hidden_layers=1)  # reads the first layer of PARAMS


@functools.partial(jax.jit, static_argnames=("config", "dtype", "deterministic", "cls_only"))
def call(ids, mask, types, key, params, config, dtype, deterministic, cls_only):  # type: ignore[no-untyped-def]
    encoder, rngs = BertEncoder(config, dtype), {} if deterministic else {"dropout": key}
    return encoder.apply(
        {"params": params}, ids, mask, types, deterministic=deterministic, cls_only=cls_only, rngs=rngs
    )


def run(
    ids: Array = IDS,
    mask: Array = MASK,
    types: Array = TYPES,
    *,
    key: int | None = None,
    params: Params = PARAMS,
    config: BertConfig = TINY,
    dtype: Any = jnp.float32,
    cls_only: bool = False,
) -> EncoderOutput:
    return call(ids, mask, types, jax.random.key(key or 0), params, config, dtype, key is None, cls_only)


def literal_bert(params: Params, config: BertConfig, ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> tuple:
    """Devlin et al. 2019 in float64 NumPy, one example at a time."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    gelu = np.vectorize(lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))))

    def dense(x: np.ndarray, at: dict) -> np.ndarray:
        return x @ at["kernel"] + at["bias"]

    def norm(x: np.ndarray, at: dict) -> np.ndarray:
        mean = x.mean(-1, keepdims=True)
        variance = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-12) * at["scale"] + at["bias"]

    hidden_states, pooled = [], []
    size = config.hidden_size // config.num_attention_heads
    for row_ids, row_mask, row_types in zip(ids, mask, types, strict=True):
        tables = p["embeddings"]
        x = tables["word"]["embedding"][row_ids] + tables["position"]["embedding"][: len(row_ids)]
        x = norm(x + tables["token_type"]["embedding"][row_types], tables["layer_norm"])
        for number in range(config.num_hidden_layers):
            at = p[f"layer_{number}"]
            q, k, v = (dense(x, at["attention"][name]) for name in ("query", "key", "value"))
            contexts = []
            for start in range(0, config.hidden_size, size):
                part = slice(start, start + size)
                scores = np.where(row_mask[None, :] > 0, q[:, part] @ k[:, part].T / math.sqrt(size), -np.inf)
                weights = np.exp(scores - scores.max(-1, keepdims=True))
                contexts.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
            x = norm(x + dense(np.concatenate(contexts, -1), at["attention"]["output"]), at["attention_norm"])
            x = norm(x + dense(gelu(dense(x, at["intermediate"])), at["output"]), at["output_norm"])
        hidden_states.append(x)
        pooled.append(np.tanh(dense(x[0], p["pooler"])))
    return np.array(hidden_states), np.array(pooled)


@pytest.mark.parametrize("layers", [1, 2])
def test_equals_a_literal_bert_in_float64(layers: int) -> None:
    """docs/numerics.md, section 4: epsilon 1e-12, erf GELU, post-norm, scores over √head_dim, tanh on [CLS]."""
    config = dataclasses.replace(TINY, num_hidden_layers=layers)
    params = make_params(config)
    output = run(params=params, config=config)
    hidden_states, pooled = literal_bert(params, config, *map(np.asarray, (IDS, MASK, TYPES)))
    np.testing.assert_allclose(output.hidden_states, hidden_states, rtol=0, atol=1e-5)
    np.testing.assert_allclose(output.pooled, pooled, rtol=0, atol=1e-5)


def test_layer_norm_has_berts_epsilon() -> None:
    """docs/numerics.md, section 4: with flax's epsilon of 1e-6 embeddings as small as 1e-4 would shrink."""
    params = {**PARAMS, "embeddings": jax.tree.map(lambda leaf: 1e-4 * leaf, PARAMS["embeddings"])}
    params["embeddings"]["layer_norm"] = {"scale": jnp.ones(16), "bias": jnp.zeros(16)}
    embedded = BertEncoder(TINY).apply({"params": params}, IDS, MASK, TYPES, method="embed")
    np.testing.assert_allclose(np.asarray(embedded).var(-1), 1.0, atol=2e-3)


def test_layer_norm_is_exact_far_from_zero() -> None:
    """E[x²] − E[x]² in float32 would lose the variance beside a mean of 1000."""
    embeddings = jax.tree.map(lambda leaf: leaf, PARAMS["embeddings"])
    embeddings["word"] = {"embedding": embeddings["word"]["embedding"] + 1000.0}
    embeddings["layer_norm"] = {"scale": jnp.ones(16), "bias": jnp.zeros(16)}
    embedded = BertEncoder(TINY).apply(
        {"params": {**PARAMS, "embeddings": embeddings}}, IDS, MASK, TYPES, method="embed"
    )
    np.testing.assert_allclose(np.asarray(embedded).var(-1), 1.0, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "at_one"),
    [("gelu", 0.8413447), ("gelu_new", 0.8411920), ("relu", 1.0), ("silu", 0.7310586), ("tanh", 0.7615942)],
)
def test_activations_have_their_values_at_1(name: str, at_one: float) -> None:
    assert float(ACTIVATIONS[name](jnp.float32(1.0))) == pytest.approx(at_one, abs=2e-7)


def test_padding_changes_nothing_for_the_tokens() -> None:
    padded = jnp.pad(IDS, ((0, 0), (0, 5)), constant_values=13)
    long = run(padded, jnp.pad(MASK, ((0, 0), (0, 5))), jnp.pad(TYPES, ((0, 0), (0, 5))))
    short = run()
    np.testing.assert_allclose(long.pooled, short.pooled, atol=1e-6)
    np.testing.assert_allclose(long.hidden_states[0, :6], short.hidden_states[0], atol=2e-6)
    np.testing.assert_allclose(long.hidden_states[1, :3], short.hidden_states[1, :3], atol=2e-6)


def test_what_stands_under_the_mask_does_not_matter() -> None:
    changed = run(IDS.at[1, 3:].set(20))
    assert (changed.pooled == run().pooled).all()
    unmasked = run(IDS.at[1, 3:].set(20), jnp.ones_like(MASK))
    assert not np.allclose(unmasked.pooled[1], run().pooled[1], atol=1e-3)


def test_cls_only_gives_the_same_pooled_and_one_state() -> None:
    full, first = run(), run(cls_only=True)
    np.testing.assert_allclose(first.pooled, full.pooled, atol=1e-6)
    assert first.hidden_states.shape == (2, 1, 16)
    np.testing.assert_allclose(first.hidden_states[:, 0], full.hidden_states[:, 0], atol=2e-6)


def test_embed_and_encode_are_the_two_halves_of_call() -> None:
    @jax.jit
    def halves(params: Params) -> EncoderOutput:
        embeddings = BertEncoder(TINY).apply({"params": params}, IDS, MASK, TYPES, method="embed")
        return BertEncoder(TINY).apply({"params": params}, embeddings, MASK, method="encode")

    np.testing.assert_allclose(halves(PARAMS).pooled, run().pooled, rtol=0, atol=1e-6)
    np.testing.assert_allclose(halves(PARAMS).hidden_states, run().hidden_states, rtol=0, atol=2e-6)


def test_without_mask_and_types_every_token_counts_as_of_the_first_text() -> None:
    short = jax.jit(BertEncoder(TINY).apply)({"params": PARAMS}, IDS)
    full = run(IDS, jnp.ones_like(IDS), jnp.zeros_like(IDS))
    np.testing.assert_allclose(short.pooled, full.pooled, rtol=0, atol=1e-6)


def test_token_types_matter() -> None:
    """docs/numerics.md, section 4: 0 for the first text, 1 for the second."""
    assert not np.allclose(run(types=jnp.zeros_like(TYPES)).pooled, run().pooled, atol=1e-3)


def test_dropout_off_is_deterministic() -> None:
    assert (run().pooled == run().pooled).all()


def test_dropout_repeats_for_one_key_and_differs_between_keys() -> None:
    assert (run(key=0).pooled == run(key=0).pooled).all()
    assert not np.allclose(run(key=0).pooled, run(key=1).pooled, atol=1e-3)
    assert not np.allclose(run(key=0).pooled, run().pooled, atol=1e-3)


@pytest.mark.parametrize("rate", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_either_rate_of_dropout_alone_changes_the_output(rate: str) -> None:
    none = dataclasses.replace(ONE, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    one = dataclasses.replace(none, **{rate: 0.5})
    np.testing.assert_allclose(run(key=0, config=none).pooled, run(config=ONE).pooled, rtol=0, atol=1e-6)
    assert not np.allclose(run(key=0, config=one).pooled, run(config=ONE).pooled, atol=1e-3)


def test_bfloat16_products_keep_gradients_in_float32() -> None:
    grads = jax.jit(jax.grad(lambda params: run(params=params, config=ONE, dtype=jnp.bfloat16).pooled.sum()))(PARAMS)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_bfloat16_products_give_a_float32_pooled_near_that_of_float32() -> None:
    half, full = run(dtype=jnp.bfloat16, config=ONE), run(config=ONE)
    assert half.pooled.dtype == jnp.float32
    assert half.hidden_states.dtype == jnp.float32  # what lies between the products is not rounded
    np.testing.assert_array_equal(half.hidden_states.shape, full.hidden_states.shape)
    np.testing.assert_allclose(half.pooled, full.pooled, atol=0.1)
    assert not (half.pooled == full.pooled).all()


def test_shapes_and_types_of_parameters_do_not_depend_on_the_compute_type() -> None:
    full, half = (
        jax.eval_shape(BertEncoder(TINY, dtype).init, jax.random.key(0), IDS)["params"]
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert full == half
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype("float32")}


def test_initial_kernels_have_the_configs_standard_deviation() -> None:
    config = dataclasses.replace(ONE, hidden_size=64, intermediate_size=64, initializer_range=0.02)
    params = BertEncoder(config).init(jax.random.key(0), IDS)["params"]
    for leaf in (
        params["layer_0"]["intermediate"]["kernel"],
        params["pooler"]["kernel"],
        params["embeddings"]["position"]["embedding"],
    ):
        assert float(leaf.std()) == pytest.approx(0.02, rel=0.05)
    assert not params["pooler"]["bias"].any()
