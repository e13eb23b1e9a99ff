"""PCGrad against TorchJD's (docs/numerics.md, section 3: random order, not with itself, sum)."""

import jax.numpy as jnp
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.optim.aggregators import gramian

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make parity")
aggregation = pytest.importorskip("torchjd.aggregation", reason="TorchJD is not installed: make parity")


@pytest.mark.parametrize("seed", range(50))
def test_two_tasks_agree(seed: int) -> None:
    """With two tasks there is one order only, so both must agree whatever their randomness."""
    rng = np.random.default_rng(seed)
    jacobian = rng.normal(size=(2, 9)).astype(np.float32)
    if seed % 3 == 0:
        jacobian[1] = -0.7 * jacobian[0] + 0.1 * jacobian[1]
    expected = aggregation.PCGrad()(torch.tensor(jacobian)).numpy()
    tx = mt.pcgrad()
    updates, _ = tx.update({"w": jnp.asarray(jacobian)}, tx.init(None))
    np.testing.assert_allclose(updates["w"], expected, atol=1e-5, rtol=1e-5)


def test_golden_weights_are_torchjds() -> None:
    """docs/numerics.md, section 3: [[-4, 1, 1], [6, 1, 1]] → weights [2.2222, 1.5789]."""
    jacobian = [[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]
    expected = aggregation.PCGrad()(torch.tensor(jacobian)).numpy()
    weights = mt.pcgrad_weights(gramian([jnp.array(jacobian)]), jnp.array([[1], [0]]))
    np.testing.assert_allclose(np.asarray(weights) @ np.array(jacobian), expected, atol=1e-5)
