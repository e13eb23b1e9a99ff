"""LoRA: which kernels, fresh products, and the sum against NumPy."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from mtbert_jax.config import LoraConfig
from mtbert_jax.encoders.family import FAMILIES, encoder_shapes
from mtbert_jax.errors import InputError
from mtbert_jax.nn.lora import Lora
from mtbert_jax.types import Params
from tests.conftest import TINY

USUAL = FAMILIES["bert"].lora


def encoder(config: Any = TINY) -> Params:
    """Parameters of unit size."""
    leaves, structure = jax.tree.flatten(encoder_shapes(config))
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(structure, [jnp.asarray(rng.normal(size=leaf.shape), "f4") for leaf in leaves])


def layers(*paths: str, rank: int = 2) -> tuple[str, ...]:
    return Lora.of(LoraConfig(rank, paths=paths), USUAL, encoder()).layers


def test_a_fresh_product_is_zero_and_lies_beside_its_kernel() -> None:
    lora, params = Lora.of(LoraConfig(4), USUAL, encoder()), encoder()
    fresh = lora.added(params, jax.random.key(0))
    query, value = (fresh["layer_0"]["attention"][name] for name in ("query", "value"))
    assert query["lora_a"].shape == (16, 4) and query["lora_b"].shape == (4, 16)
    assert not query["lora_b"].any()
    assert 0.9 / 4 < jnp.abs(query["lora_a"]).max() <= 1 / 4  # uniform in ±1/√16
    assert len(flatten_dict(fresh)) == len(flatten_dict(params)) + 2 * 4
    assert (
        "lora_a" not in fresh["layer_0"]["attention"]["key"] and "lora_a" not in params["layer_0"]["attention"]["query"]
    )
    merged = lora.merged(fresh)
    jax.tree.map(np.testing.assert_array_equal, merged, params)

    again, other = (lora.added(params, jax.random.key(seed))["layer_0"]["attention"]["query"] for seed in (0, 1))
    np.testing.assert_array_equal(again["lora_a"], query["lora_a"])
    assert not np.allclose(other["lora_a"], query["lora_a"])
    assert not np.allclose(value["lora_a"], query["lora_a"])


def test_merged_kernels_are_w_and_the_scaled_product() -> None:
    config = LoraConfig(3, alpha=12.0, paths=("encoder/layer_1/intermediate",))
    lora, params = Lora.of(config, USUAL, encoder()), encoder()
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(16, 3)).astype("f4"), rng.normal(size=(3, 24)).astype("f4")
    own = {**params["layer_1"]["intermediate"], "lora_a": a, "lora_b": b}
    merged = lora.merged({**params, "layer_1": {**params["layer_1"], "intermediate": own}})
    expected = np.asarray(params["layer_1"]["intermediate"]["kernel"], np.float64) + 4 * a.astype(np.float64) @ b
    np.testing.assert_allclose(merged["layer_1"]["intermediate"]["kernel"], expected, rtol=1e-5, atol=1e-5)
    merged["layer_1"]["intermediate"]["kernel"] = params["layer_1"]["intermediate"]["kernel"]
    jax.tree.map(np.testing.assert_array_equal, merged, params)


def test_paths_are_prefixes_with_stars() -> None:
    attention = [f"encoder/layer_0/attention/{name}" for name in ("key", "output", "query", "value")]
    assert sorted(layers()) == [f"encoder/layer_{n}/attention/{name}" for n in (0, 1) for name in ("query", "value")]
    assert sorted(layers("encoder/layer_0/attention")) == attention
    assert sorted(layers("encoder/layer_0")) == [*attention, "encoder/layer_0/intermediate", "encoder/layer_0/output"]
    assert layers("encoder/layer_*/output/kernel") == ("encoder/layer_0/output", "encoder/layer_1/output")
    assert layers("encoder/pooler/", "encoder/pooler") == ("encoder/pooler",)
    assert len(layers("encoder")) == 13
    assert Lora.of(LoraConfig(), USUAL, encoder()) == Lora()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("encoder/layer_0/atention/query", "no dense kernel lies below 'encoder/layer_0/atention/query'; did you mean"),
        ("attention/query", "did you mean 'encoder/*/attention/query'?"),
        ("encoder/embeddings", "(kernels of this encoder: encoder/*/attention/key, encoder/*/attention/output,"),
        ("encoder/layer_0/attention/query/bias", "no dense kernel lies below 'encoder/layer_0/attention/query/bias'"),
        ("encoder/layer_2", "no dense kernel lies below 'encoder/layer_2'"),
        ("encoder/layer_", "no dense kernel lies below 'encoder/layer_'"),
        ("encoder/.*", "no dense kernel lies below 'encoder/.*'"),
        ("*/*/*/*/*/*", "no dense kernel"),
        ("", "no dense kernel lies below ''"),
    ],
)  # fmt: skip
def test_a_path_without_a_kernel_is_refused(path: str, message: str) -> None:
    with pytest.raises(InputError, match=r"^lora\.paths: .*" + re.escape(message)):
        layers("encoder/layer_0", path)


def test_a_rank_above_a_side_is_refused() -> None:
    assert layers(rank=16)
    with pytest.raises(InputError, match=r"^lora\.rank = 17: the kernel of encoder/layer_0/\S+ has 16 × 16 numbers"):
        layers(rank=17)
