"""A run's parameters against `torch.optim`, which skips parameters without a gradient, counts included."""

from typing import Any

import numpy as np
import pytest

from tests.optim.orders import flat, initial, steps

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make parity")

CHAINS = {
    "adam(lr)": lambda params: torch.optim.Adam(params),
    "adamw(lr, weight_decay=0.1)": lambda params: torch.optim.AdamW(params, weight_decay=0.1),
    "partition({'encoder': adam(lr), 'heads': adam(lr)}, parts)": lambda params: torch.optim.Adam(params),
    "radam(lr)": lambda params: torch.optim.RAdam(params),
}


@pytest.mark.parametrize("order", ["sequential", "proportional", "annealed", "round_robin"])
@pytest.mark.parametrize("call", CHAINS)
def test_a_thousand_steps_are_those_of_torch_with_gradients_of_none(call: str, order: Any) -> None:
    """The rate of the stage's step for all parameters; one gradient in ten is not finite, and its task left out."""
    theirs = {path: torch.nn.Parameter(torch.tensor(value)) for path, value in flat(initial()).items()}
    optimizer = CHAINS[call](theirs.values())
    for number, step in enumerate(steps((call,), order, 1000, bad=0.1)):
        optimizer.zero_grad(set_to_none=True)
        for path, gradient in step.grads.items():
            theirs[path].grad = torch.tensor(gradient)
        optimizer.param_groups[0]["lr"] = step.rate
        optimizer.step()
        for path, parameter in theirs.items():
            value = parameter.detach().numpy()
            np.testing.assert_allclose(step.params[path], value, rtol=0, atol=3e-6, err_msg=f"step {number}, {path}")
