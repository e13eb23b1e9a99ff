"""Losses with a weight per class against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax.config import TaskConfig
from mtbert_jax.data.balance import loss_weights
from mtbert_jax.tasks import KINDS
from mtbert_jax.tasks.losses import mean_loss

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make parity")


@pytest.mark.parametrize("size", [1, 7, 32])
@pytest.mark.parametrize("scale", [0.01, 1.0, 50.0])
def test_a_weighted_batch_has_the_loss_and_gradient_of_pytorchs_cross_entropy(size: int, scale: float) -> None:
    rng = np.random.default_rng(size)
    logits, labels = rng.normal(size=(size, 3)).astype(np.float32), rng.integers(0, 3, size)
    class_weights = tuple((scale * rng.uniform(0.1, 3.0, 3)).tolist())
    weights = loss_weights(TaskConfig(num_classes=3, class_weights=class_weights), labels.astype(np.float32))

    def loss(logits: jax.Array) -> jax.Array:
        return mean_loss(KINDS["classification"].loss(logits, jnp.asarray(labels, jnp.float32)), jnp.asarray(weights))

    theirs = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(theirs, torch.tensor(labels), torch.tensor(class_weights))
    expected.backward()
    value, grads = jax.value_and_grad(loss)(jnp.asarray(logits))
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(grads, theirs.grad.numpy(), rtol=1e-4, atol=1e-6)
