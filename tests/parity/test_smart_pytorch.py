"""R_s and its gradient beside smart-pytorch's, given the same noise (docs/numerics.md, section 2)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax.config import SmartConfig
from mtbert_jax.regularizers.smart import smoothness_loss

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: make parity")
peer: Any = pytest.importorskip("smart_pytorch", reason="smart-pytorch is not installed: make parity")

THEIRS = partial(SmartConfig, preset="smart_pytorch")
BATCH, SEQ, HIDDEN, WIDTH = 4, 6, 8, 10
KEY = jax.random.key(11)


def toy(outputs: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Weights of a network of two layers, and embeddings."""
    rng = np.random.default_rng(seed)
    weights = {"inner": rng.normal(size=(HIDDEN, WIDTH)), "outer": rng.normal(size=(WIDTH, outputs))}
    return {k: v.astype(np.float32) for k, v in weights.items()}, rng.normal(size=(BATCH, SEQ, HIDDEN)).astype("f4")


def run_peer(
    weights: dict[str, np.ndarray], x: np.ndarray, noise: np.ndarray, monkeypatch: Any, **options: Any
) -> tuple[float, dict[str, np.ndarray], np.ndarray]:
    """Its loss, and its gradient by the weights and by the embeddings."""
    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in weights.items()}
    embeddings = torch.tensor(x, requires_grad=True)
    unit = torch.tensor(noise).requires_grad_()
    monkeypatch.setattr(torch, "randn_like", lambda *_, **__: unit)

    def network(x: Any) -> Any:
        return torch.tanh(torch.tanh(x @ tensors["inner"]).mean(1)) @ tensors["outer"]

    loss = peer.SMARTLoss(eval_fn=network, **options)(embeddings, network(embeddings))
    loss.backward()
    return loss.item(), {name: tensor.grad.numpy() for name, tensor in tensors.items()}, embeddings.grad.numpy()


def logits(weights: dict[str, Any], x: jax.Array) -> jax.Array:
    return jnp.tanh(jnp.tanh(x @ weights["inner"]).mean(1)) @ weights["outer"]


def ours(weights: dict[str, np.ndarray], x: np.ndarray, config: SmartConfig, kind: Any) -> Any:
    def loss(weights: dict[str, Any], x: jax.Array) -> jax.Array:
        mask = jnp.ones((BATCH, SEQ), jnp.int32)
        return smoothness_loss(lambda x: logits(weights, x), x, mask, KEY, config, kind=kind)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(weights, x)


def assert_same(found: Any, expected: tuple[float, dict[str, np.ndarray], np.ndarray]) -> None:
    value, (grads, x_grad) = found
    loss, weight_grads, embedding_grads = expected
    np.testing.assert_allclose(value, loss, atol=1e-5, rtol=1e-5)
    for name, gradient in weight_grads.items():
        np.testing.assert_allclose(grads[name], gradient, atol=1e-5, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(x_grad, embedding_grads, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("seed", range(4))
def test_smoothness_of_classes_is_smart_pytorchs(seed: int, norm: Any, steps: int, monkeypatch: Any) -> None:
    weights, x = toy(5, seed)
    noise = np.asarray(jax.random.normal(KEY, x.shape))
    order = {"inf": float("inf"), "2": 2.0, "1": 1.0}[norm]
    expected = run_peer(
        weights,
        x,
        noise,
        monkeypatch,
        loss_fn=peer.kl_loss,
        loss_last_fn=peer.sym_kl_loss,
        norm_fn=lambda step: torch.linalg.vector_norm(step, ord=order, dim=-1, keepdim=True),
        num_steps=steps,
    )
    assert_same(ours(weights, x, THEIRS(norm=norm, steps=steps), "classification"), expected)


def test_an_ascent_that_matters_is_smart_pytorchs_too(monkeypatch: Any) -> None:
    """With its default step size the noise stays as it was drawn; here the gradient decides."""
    weights, x = toy(5, 9)
    noise = np.asarray(jax.random.normal(KEY, x.shape))
    options = {"loss_fn": peer.kl_loss, "loss_last_fn": peer.sym_kl_loss, "noise_var": 0.1}
    expected = run_peer(weights, x, noise, monkeypatch, step_size=30.0, num_steps=2, **options)
    config = THEIRS(step_size=30.0, noise_std=0.1, steps=2)
    assert_same(ours(weights, x, config, "classification"), expected)
    random = ours(weights, x, THEIRS(steps=0), "classification")[0]
    assert expected[0] > 2 * float(random)


@pytest.mark.parametrize("steps", [1, 2])
def test_smoothness_of_regression_is_smart_pytorchs_with_squared_errors(steps: int, monkeypatch: Any) -> None:
    weights, x = toy(1, 3)
    noise = np.asarray(jax.random.normal(KEY, x.shape))
    mse = torch.nn.functional.mse_loss
    expected = run_peer(
        weights,
        x,
        noise,
        monkeypatch,
        loss_fn=mse,
        loss_last_fn=lambda one, other: mse(one, other, reduction="sum"),
        num_steps=steps,
        noise_var=0.1,  # at 1e-5 the difference of two outputs is mostly rounding, on either side
    )
    assert_same(ours(weights, x, THEIRS(steps=steps, noise_std=0.1), "regression"), expected)
