"""The matrix products of an encoder: their types, their derivatives, and the form that each platform gets."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax.encoders.bert import BertConfig, BertEncoder
from mtbert_jax.nn import products
from mtbert_jax.nn.products import Dense, attention_context, attention_scores, choose_dtype, project

BERT = BertConfig(50, 32, 2, 4, 64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
IDS = np.random.default_rng(0).integers(0, 50, (3, 7))
MASK = (np.arange(7) < np.array([[7], [4], [2]])).astype(np.int32)
SHAPES: dict[Callable[..., Any], tuple[tuple[int, ...], tuple[int, ...]]] = {
    project: ((3, 7, 16), (16, 24)),
    attention_scores: ((3, 5, 2, 8), (3, 7, 2, 8)),  # fewer queries than keys, as at the first token alone
    attention_context: ((3, 2, 5, 7), (3, 7, 2, 8)),
}
CASES = pytest.mark.parametrize("product", SHAPES, ids=lambda product: product.__name__)


def factors(product: Callable[..., Any]) -> list[jax.Array]:
    generator = np.random.default_rng(1)
    return [jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in SHAPES[product]]


def gradients(product: Callable[..., Any], dtype: str, a: jax.Array, b: jax.Array) -> list[jax.Array]:
    """The product and its derivatives by both factors, along a fixed direction."""
    y, pullback = jax.vjp(lambda a, b: product(a, b, dtype), a, b)
    direction = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
    return [y, *pullback(direction)]


@CASES
def test_bfloat16_gives_float32_arrays_near_those_of_float32(product: Callable[..., Any]) -> None:
    found = [gradients(product, dtype, *factors(product)) for dtype in ("bfloat16", "float32")]
    for half, full in zip(*found, strict=True):
        assert half.dtype == jnp.float32
        assert half.shape == full.shape
        assert 0 < np.linalg.norm(half - full) < 0.005 * np.linalg.norm(full)


@CASES
def test_factors_alone_are_rounded(product: Callable[..., Any]) -> None:
    """On a CPU sums and what leaves are float32: the product of rounded factors, exactly but for the order of sums."""
    a, b = factors(product)
    rounded = [x.astype(jnp.bfloat16).astype(jnp.float32) for x in (a, b)]
    np.testing.assert_allclose(product(a, b, "bfloat16"), product(*rounded, "float32"), rtol=0, atol=1e-5)


@CASES
def test_several_seeds_at_once_have_the_products_of_each(product: Callable[..., Any]) -> None:
    a, b = factors(product)
    several = jax.vmap(lambda a, b: gradients(product, "bfloat16", a, b))(jnp.stack([a, 2 * a]), jnp.stack([b, -b]))
    for number, pair in enumerate([(a, b), (2 * a, -b)]):
        for one, alone in zip(several, gradients(product, "bfloat16", *pair), strict=True):
            np.testing.assert_allclose(one[number], alone, rtol=0, atol=1e-5 * float(jnp.abs(alone).max()))


def dots(text: str) -> set[str]:
    """Types of factors and result of a program's products: ``bf16 bf16 f32``."""
    types = r"tensor<[^>]*?x?([a-z]+\d+)>"
    return {" ".join(found) for found in re.findall(rf"dot_general .*: \({types}, {types}\) -> {types}", text)}


def lowered(platform: str, dtype: str) -> str:
    encoder = BertEncoder(BERT, dtype)
    params = jax.eval_shape(encoder.init, jax.random.key(0), IDS)["params"]

    def loss(params: Any) -> jax.Array:
        return jnp.sum(encoder.apply({"params": params}, IDS, MASK).hidden_states[:, 0])  # type: ignore[union-attr]

    return jax.jit(jax.grad(loss)).trace(params).lower(lowering_platforms=(platform,)).as_text()


def test_a_cpus_products_are_all_of_the_form_that_reaches_its_units() -> None:
    text = lowered("cpu", "bfloat16")
    assert dots(text) == {"bf16 bf16 f32"}
    # Weight gradients (6 a layer), and of attention those of keys and values, need the other factor transposed.
    assert text.count("optimization_barrier") == 8  # all layers share one function
    for line in (line for line in text.splitlines() if "dot_general" in line):
        contracted = re.search(r"contracting_dims = \[(\d)\] x \[\d\]", line)
        rank = line.split(": (tensor<")[1].split(">")[0].count("x")
        assert contracted, line
        assert int(contracted[1]) == rank - 1, line  # the first factor in row-major layout


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_keep_products_that_give_bfloat16(platform: str) -> None:
    text = lowered(platform, "bfloat16")
    assert dots(text) == {"bf16 bf16 bf16"}
    assert "optimization_barrier" not in text


def test_float32_has_no_trace_of_it() -> None:
    text = lowered("cpu", "float32")
    assert dots(text) == {"f32 f32 f32"}
    assert "bf16" not in text
    assert "optimization_barrier" not in text


def test_gradients_of_an_encoder_are_near_those_of_float32() -> None:
    """Issue: median leaf within 1 %, all but the keys' biases, which are zero but for rounding, within 3 %."""
    params = BertEncoder(BERT).init(jax.random.key(0), IDS)["params"]

    def gradient(dtype: str) -> dict[str, jax.Array]:
        def loss(params: Any) -> jax.Array:
            states = BertEncoder(BERT, dtype).apply({"params": params}, IDS, MASK).hidden_states  # type: ignore[union-attr]
            return jnp.mean(jnp.square(states[:, :, 0]) + states[:, :, 1])

        leaves = jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(params))
        return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}

    full, half = gradient("float32"), gradient("bfloat16")
    errors = {
        name: float(np.linalg.norm(half[name] - leaf) / np.linalg.norm(leaf))
        for name, leaf in full.items()
        if np.linalg.norm(leaf) and not name.endswith("key/bias")
    }
    assert float(np.median(list(errors.values()))) < 0.01
    assert max(errors.values()) < 0.03, max(errors, key=lambda name: errors[name])


def test_a_dense_layer_has_the_parameters_of_flax_and_may_lack_the_bias() -> None:
    x = jnp.ones((2, 3))
    assert set(Dense(4).init(jax.random.key(0), x)["params"]) == {"kernel", "bias"}
    params = Dense(4, use_bias=False).init(jax.random.key(0), x)["params"]
    np.testing.assert_allclose(Dense(4, use_bias=False).apply({"params": params}, x), x @ params["kernel"], rtol=1e-6)


@pytest.mark.parametrize(("units", "chosen"), [("amx_bf16", "bfloat16"), ("", "float32")])
def test_auto_goes_by_the_devices_units(units: str, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "bfloat16_units", lambda: units)
    assert choose_dtype("auto") == chosen
    assert (choose_dtype("float32"), choose_dtype("bfloat16")) == ("float32", "bfloat16")
