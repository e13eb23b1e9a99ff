"""Each head's optimizer state is what it would be alone: literal formulas in float64, each parameter by itself."""

from typing import Any

import numpy as np
import pytest

from tests.optim.orders import flat, initial, steps

B1, B2, EPS = 0.9, 0.999, 1e-8


class Alone:
    """Adam of one parameter, which counts the parameter's own steps (Kingma and Ba 2015, Algorithm 1)."""

    def __init__(self, rule: str, value: np.ndarray) -> None:
        self.rule, self.value, self.t = rule, value.astype(np.float64), 0
        self.m, self.v = np.zeros(value.shape), np.zeros(value.shape)

    def step(self, gradient: np.ndarray, rate: float) -> None:
        g = gradient.astype(np.float64)
        self.t += 1
        self.m, self.v = B1 * self.m + (1 - B1) * g, B2 * self.v + (1 - B2) * g**2
        m = self.m / (1 - B1**self.t)
        if self.rule == "nadam":  # Dozat 2016
            m = B1 * self.m / (1 - B1 ** (self.t + 1)) + (1 - B1) * g / (1 - B1**self.t)
        change = m / (np.sqrt(self.v / (1 - B2**self.t)) + (1e-6 if self.rule == "lamb" else EPS))
        if self.rule == "adamw":
            change = change + 0.1 * self.value
        if self.rule == "lamb":  # You et al. 2020, Algorithm 2
            change = change + 0.1 * self.value
            change = change * np.linalg.norm(self.value) / np.linalg.norm(change)
        self.value = self.value - rate * change


RULES = {
    "adam": "adam(lr)",
    "adamw": "adamw(lr, weight_decay=0.1)",
    "nadam": "nadam(lr)",
    "lamb": "lamb(lr, weight_decay=0.1)",
}


@pytest.mark.parametrize("order", ["sequential", "proportional", "annealed", "round_robin"])
@pytest.mark.parametrize("rule", RULES)
def test_every_parameter_moves_as_if_it_were_alone(rule: str, order: Any) -> None:
    alone = {path: Alone(rule, value) for path, value in flat(initial()).items()}
    worst = 0.0
    for step in steps((RULES[rule],), order, bad=0.1):
        for path, gradient in step.grads.items():
            alone[path].step(gradient, step.rate)
        worst = max(worst, *(np.abs(step.params[path] - one.value).max() for path, one in alone.items()))
    print(rule, order, worst)
    assert worst < 1e-6
