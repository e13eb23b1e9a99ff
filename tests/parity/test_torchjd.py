"""Aggregators against TorchJD's, of which each works otherwise (docs/numerics.md, sections 3 and 8.2)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import mtbert_jax as mt
from mtbert_jax.optim.aggregators import gramian
from tests.optim.rules import GOLDEN, first, step, update, weights

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make parity")
aggregation = pytest.importorskip("torchjd.aggregation", reason="TorchJD is not installed: make parity")
for solver in ("qpsolvers", "quadprog", "cvxpy", "clarabel"):
    pytest.importorskip(solver, reason=f"{solver} is not installed: make parity")
scalarization = pytest.importorskip("torchjd.scalarization", reason="this TorchJD has no scalarizers: make parity")


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
    expected = aggregation.PCGrad()(torch.tensor(GOLDEN)).numpy()
    weights = mt.pcgrad_weights(gramian([jnp.array(GOLDEN)]), jnp.array([[1], [0]]))
    np.testing.assert_allclose(np.asarray(weights) @ GOLDEN, expected, atol=1e-4)


def dual_cone(kind: Any) -> Any:
    """TorchJD's with its own projector, but for gradients of norms below .01, which it would take for none."""
    from torchjd.linalg import QuadprogProjector

    return kind(projector=QuadprogProjector(norm_eps=0.0))


# Thresholds of TorchJD that are no shares of the gradients' norms are turned off: `norm_eps`, `eps`.
TORCHJD: dict[str, Callable[[], Any]] = {
    "mgda": lambda: aggregation.MGDA(epsilon=1e-5, max_iters=200),
    "upgrad": lambda: dual_cone(aggregation.UPGrad),
    "dualproj": lambda: dual_cone(aggregation.DualProj),
    "cagrad": lambda: aggregation.CAGrad(c=0.5, norm_eps=0.0),
    "fairgrad": lambda: aggregation.FairGrad(alpha=1.0),
    "imtl_g": lambda: aggregation.IMTLG(),
    "aligned_mtl": lambda: aggregation.AlignedMTL(),
    "config": lambda: aggregation.ConFIG(),
    "gradvac": lambda: aggregation.GradVac(eps=0.0),
}


@pytest.mark.parametrize("name", TORCHJD)
def test_200_jacobians_agree(name: str) -> None:
    """T = 2 … 6 and scales 1e-6 … 1e6: float32 here, float64 there, within 1e-2 of the norm in 95 of 100 cases.

    TorchJD's FairGrad starts from weights of 1 / T and stops far from the solution for gradients that are small: it
    gets gradients of scale 1, and its weights are scaled as the equations say. GradVac has one order for two tasks.
    TorchJD's MGDA is still under way after 200 steps where the vector found here is shorter; after 20,000 it agrees in
    all cases.
    """
    distances = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        tasks, scale = 2 + seed % 5 if name != "gradvac" else 2, 10.0 ** rng.uniform(-6, 6)
        jacobian = rng.normal(size=(tasks, int(rng.integers(8, 40)))).astype(np.float32)
        known = 1.0 if name == "fairgrad" else scale
        theirs = TORCHJD[name]()(torch.tensor(jacobian * known, dtype=torch.float64)).numpy()
        found = update(name, jacobian * scale)  # fairgrad's update does not depend on the scale
        distance = np.linalg.norm(found - theirs) / np.linalg.norm(theirs)
        shorter = name == "mgda" and np.linalg.norm(found) < np.linalg.norm(theirs)
        distances.append(0.0 if shorter else distance)
    print(f"{name}: {np.mean(np.array(distances) <= 1e-2):.1%}, median {np.median(distances):.1e}")
    assert np.mean(np.array(distances) <= 1e-2) >= 0.95


@pytest.mark.parametrize("name", ["upgrad", "dualproj", "cagrad", "imtl_g", "config", "fairgrad"])
def test_rows_of_other_norms_agree(name: str) -> None:
    """Norms that differ by up to 10⁴. Aligned-MTL's least eigenvalue is then lost in float32's rounding."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        jacobian = rng.normal(size=(2 + seed % 5, 20)) * 10.0 ** rng.uniform(-2, 2, size=(2 + seed % 5, 1))
        theirs = TORCHJD[name]()(torch.tensor(jacobian, dtype=torch.float64)).numpy()
        assert np.linalg.norm(update(name, jacobian) - theirs) <= 1e-2 * np.linalg.norm(theirs), seed


def test_smoothed_weights_over_steps_agree() -> None:
    theirs = aggregation.CRMOGMWeighting(aggregation.UPGradWeighting(), alpha=0.7)
    options: dict[str, Any] = {"of": mt.upgrad(), "alpha": 0.7}
    state, rng = first("smoothed", 3, **options), np.random.default_rng(0)
    for _ in range(8):
        jacobian = rng.normal(size=(3, 9))
        found, state = step("smoothed", jacobian, state=state, **options)
        np.testing.assert_allclose(found, theirs(torch.tensor(jacobian @ jacobian.T)).numpy(), rtol=2e-3)


def test_gradvac_over_steps_agrees() -> None:
    theirs, state, rng = aggregation.GradVac(beta=0.3), first("gradvac", 2, beta=0.3), np.random.default_rng(0)
    for number in range(10):
        jacobian = rng.normal(size=(2, 5)) + 0.4
        found, state = step("gradvac", jacobian, seed=number, state=state, beta=0.3)
        np.testing.assert_allclose(found @ jacobian, theirs(torch.tensor(jacobian)).numpy(), rtol=1e-3, atol=1e-4)


def test_random_weights_have_torchjds_distribution() -> None:
    torch.manual_seed(0)
    one = np.stack([weights("random_weights", np.eye(3), seed=seed) for seed in range(500)])
    other = np.stack([aggregation.RandomWeighting()(torch.eye(3)).numpy() for _ in range(500)])
    np.testing.assert_allclose(np.sort(one.ravel())[::50], np.sort(other.ravel())[::50], atol=0.06)


# Weights that need the losses: TorchJD's scalarizers over 50 steps of a toy problem


class Toy:
    """Three quadratic losses of five parameters, which both sides follow with their own weights."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.targets = rng.normal(size=(3, 5))
        self.sizes = np.array([1.0, 4.0, 0.3])

    def losses(self, params: Any) -> Any:
        if isinstance(params, torch.Tensor):
            targets, sizes = torch.tensor(self.targets), torch.tensor(self.sizes)
            return sizes * (((params - targets) ** 2).sum(1) + 0.1)
        return self.sizes * (np.sum((params - self.targets) ** 2, 1) + 0.1)

    def jacobian(self, params: np.ndarray) -> np.ndarray:
        return 2 * self.sizes[:, None] * (params - self.targets)


@pytest.mark.parametrize("name", ["famo", "uw", "dwa", "gls", "stch"])
def test_scalarizers_agree_over_fifty_steps(name: str) -> None:
    """The same batch in every step, so that FAMO's losses after a step are those before the next one."""
    toy, mine, theirs = Toy(), np.zeros(5), torch.zeros(5, dtype=torch.float64, requires_grad=True)
    options: dict[str, Any] = {"dwa": {"steps": 5}, "stch": {"mu": 0.5}, "uw": {"lr": 0.02}}.get(name, {})
    make = {
        "famo": lambda: scalarization.FAMO(3),
        "uw": lambda: scalarization.UW(3),
        "dwa": lambda: scalarization.DWA(),
        "gls": lambda: scalarization.GeometricMean(),
        "stch": lambda: scalarization.STCH(mu=0.5),
    }[name]
    scalarizer = make()
    if isinstance(scalarizer, torch.nn.Module):
        scalarizer.double()
    of_uw = torch.optim.Adam(scalarizer.parameters(), lr=0.02) if name == "uw" else None
    state = first(name, 3, **options)
    for number in range(50):
        found, state = step(name, toy.jacobian(mine), losses=toy.losses(mine), state=state, **options)
        mine = mine - 0.05 * found @ toy.jacobian(mine)
        value = scalarizer(toy.losses(theirs))
        if of_uw:
            of_uw.zero_grad()
        (gradient,) = torch.autograd.grad(value, theirs, retain_graph=bool(of_uw))
        if of_uw:
            value.backward()
            of_uw.step()
        theirs = (theirs - 0.05 * gradient).detach().requires_grad_()
        if name == "famo":
            scalarizer.update(toy.losses(theirs).detach())
        if name == "dwa" and number % 5 == 4:
            scalarizer.step()
        np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=2e-3, atol=2e-4)
    assert np.abs(mine).max() > 0.1
