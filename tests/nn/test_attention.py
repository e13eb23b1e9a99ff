"""Which kernel computes attention, and why."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax.encoders.bert import BertConfig, BertEncoder
from mtbert_jax.errors import InputError
from mtbert_jax.nn import attention
from mtbert_jax.nn.attention import choose_kernel

GOOD = (64, 0.0, "bfloat16")


def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(attention, "_probe", lambda width: jnp.zeros(()))


def test_xla_is_taken_where_there_is_no_gpu() -> None:
    assert choose_kernel("xla", *GOOD).kernel == "xla"
    assert choose_kernel("auto", *GOOD) == ("xla", "cuDNN's cannot be had: it needs a GPU, and this is a cpu")
    with pytest.raises(InputError, match='attention = "cudnn": it needs a GPU'):
        choose_kernel("cudnn", *GOOD)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ((64, 0.0, "float32"), "it needs bfloat16"),
        ((64, 0.1, "bfloat16"), "no dropout on attention, and the encoder has 0.1"),
        ((12, 0.0, "bfloat16"), "a multiple of 8"),
        ((256, 0.0, "bfloat16"), "at most 128"),
    ],
)
def test_cudnn_needs_more_than_a_gpu(
    monkeypatch: pytest.MonkeyPatch, given: tuple[int, float, str], reason: str
) -> None:
    on_a_gpu(monkeypatch)
    assert choose_kernel("auto", *GOOD).kernel == "cudnn"
    choice = choose_kernel("auto", *given)
    assert choice.kernel == "xla"
    assert reason in choice.reason


def test_a_kernel_that_fails_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU the true probe fails."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_kernel("auto", *GOOD).reason.startswith("cuDNN's cannot be had: it fails on this device: ")


def test_the_fused_kernel_gets_what_the_formula_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """With JAX's own form in place of cuDNN's: shapes, scale and padding are right."""
    monkeypatch.setattr(
        "mtbert_jax.nn.layers.fused",
        lambda query, key, value, lengths: jax.nn.dot_product_attention(
            query, key, value, key_value_seq_lengths=lengths, implementation="xla"
        ),
    )
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    ids = jax.random.randint(jax.random.key(1), (3, 9), 0, 50)
    mask = (jnp.arange(9) < jnp.array([9, 4, 1])[:, None]).astype(int)
    params = BertEncoder(config).init(jax.random.key(0), ids)
    for cls_only in (False, True):
        one, other = (
            BertEncoder(config, kernel=kernel).apply(params, ids, mask, cls_only=cls_only)
            for kernel in ("xla", "cudnn")
        )
        np.testing.assert_allclose(one.pooled, other.pooled, atol=1e-5)
