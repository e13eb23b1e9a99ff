"""SMART's two terms against literal formulas, stored values, and (where installed) smart-pytorch."""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtbert_jax.config import ProximalConfig, SmartConfig
from mtbert_jax.errors import InputError
from mtbert_jax.regularizers.proximal import proximal_loss, update_teacher
from mtbert_jax.regularizers.smart import CleanPass, adversarial_noise, resolve, smoothness, smoothness_loss
from mtbert_jax.tasks import KINDS
from tests.cases import rows_slow_but_for

PRESETS = ("ball", "paper", "smart_pytorch", "mtdnn")
NAMES = ("classification", "binary", "regression")
NORMS: tuple[Literal["inf", "2", "1"], ...] = ("inf", "2", "1")
BATCH, SEQ, HIDDEN = 3, 5, 4
KEY = jax.random.key(7)


class Network:
    """A small differentiable network over embeddings: two layers, tanh, mean over the tokens that are shown."""

    def __init__(self, outputs: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.params = {
            "inner": jnp.asarray(rng.normal(size=(HIDDEN, 6)), jnp.float32),
            "outer": jnp.asarray(rng.normal(size=(6, outputs)), jnp.float32),
        }
        self.x = jnp.asarray(rng.normal(size=(BATCH, SEQ, HIDDEN)), jnp.float32)
        self.mask = jnp.array([[1] * SEQ, [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])

    def logits(self, params: Any, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        mask = self.mask if mask is None else mask
        states = jnp.tanh(x @ params["inner"]) * mask[:, :, None]
        return jnp.tanh(states.sum(1) / mask.sum(1, keepdims=True)) @ params["outer"]

    def loss(self, config: SmartConfig, kind: str, **options: Any) -> Callable[[Any], jax.Array]:
        return lambda params: smoothness_loss(
            functools.partial(self.logits, params), self.x, self.mask, KEY, config, kind=kind, **options
        )

    def noise(self, config: SmartConfig, kind: str = "classification", x: jax.Array | None = None) -> np.ndarray:
        x = self.x if x is None else x
        logits_fn = functools.partial(self.logits, self.params)
        return np.asarray(adversarial_noise(self.clean(logits_fn, x, kind), KEY, config))

    def clean(self, logits_fn: Any, x: jax.Array, kind: str, weights: jax.Array | None = None) -> CleanPass:
        weights = jnp.ones(BATCH) if weights is None else weights
        return CleanPass(logits_fn, logits_fn(x), x, self.mask, KINDS[kind], weights)


def network(kind: str) -> Network:
    return Network(5 if kind == "classification" else 1)


def token_norms(noise: np.ndarray, norm: str) -> np.ndarray:
    return np.linalg.norm(noise.astype(np.float64), {"inf": np.inf, "2": 2, "1": 1}[norm], axis=-1)


@pytest.mark.parametrize("norm", NORMS)
def test_the_mean_norm_of_the_noise_is_over_real_tokens_of_real_examples(norm: Literal["inf", "2", "1"]) -> None:
    bench = network("classification")
    config = SmartConfig(preset="paper", radius=0.3, noise_std=0.1, step_size=0.2, norm=norm)
    logits_fn, weights = functools.partial(bench.logits, bench.params), jnp.array([1.0, 0.0, 1.0])
    at = bench.clean(logits_fn, bench.x, "classification", weights)
    noise = np.asarray(adversarial_noise(at, KEY, config))
    norms = token_norms(noise, norm)
    expected = np.concatenate([norms[0], norms[2, :2]]).mean()
    assert float(smoothness(at, KEY, config)[1]) == pytest.approx(expected, rel=1e-5)


# The two divergences


@pytest.mark.parametrize("detach", [False, True])
def test_divergence_of_classes_is_both_kullback_leibler_divergences(detach: bool) -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 4, 5))
    p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (one, other))
    expected = (p * np.log(p / q) + q * np.log(q / p)).sum(-1)
    found = KINDS["classification"].divergence(jnp.asarray(one), jnp.asarray(other), detach=detach)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_divergence_of_a_binary_task_is_that_of_its_two_classes() -> None:
    one, other = jnp.array([[0.3], [-2.0]]), jnp.array([[1.0], [0.5]])
    two = [jnp.concatenate([jnp.zeros((2, 1)), logit], axis=1) for logit in (one, other)]
    np.testing.assert_allclose(
        KINDS["binary"].divergence(one, other), KINDS["classification"].divergence(*two), rtol=1e-6
    )


def test_divergence_of_regression_is_the_squared_difference_of_each_example() -> None:
    """docs/numerics.md, section 2.1: mt-dnn compares [B] with [B, 1], so [1, 2, 4] against itself gives 3.11."""
    values = jnp.array([[1.0], [2.0], [4.0]])
    assert KINDS["regression"].divergence(values, values).tolist() == [0.0, 0.0, 0.0]
    assert KINDS["regression"].divergence(values, jnp.zeros((3, 1))).tolist() == [1.0, 4.0, 16.0]


def test_the_detached_divergence_has_the_gradient_of_its_definition() -> None:
    """KL(sg P || Q) + KL(sg Q || P), by each argument."""

    def literal(one: jax.Array, other: jax.Array) -> jax.Array:
        log_p, log_q = jax.nn.log_softmax(one), jax.nn.log_softmax(other)
        p, q = jax.lax.stop_gradient((jnp.exp(log_p), jnp.exp(log_q)))
        return jnp.sum(p * (jax.lax.stop_gradient(log_p) - log_q) + q * (jax.lax.stop_gradient(log_q) - log_p))

    def ours(one: jax.Array, other: jax.Array) -> jax.Array:
        return KINDS["classification"].divergence(one, other, detach=True).sum()

    one, other = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 5)), jnp.float32)
    for argument in (0, 1):
        expected = jax.grad(literal, argument)(one, other)
        np.testing.assert_allclose(jax.grad(ours, argument)(one, other), expected, atol=1e-6)


# Properties that every preset keeps (docs/numerics.md, section 2.1)


@pytest.mark.parametrize(
    ("preset", "kind"),
    rows_slow_but_for(zip(PRESETS, itertools.cycle(NAMES), strict=False), itertools.product(PRESETS, NAMES)),
)
def test_smoothness_is_positive_and_radius_zero_gives_zero(preset: Any, kind: str) -> None:
    net = network(kind)
    value, grads = jax.value_and_grad(net.loss(SmartConfig(preset=preset, radius=0.5), kind))(net.params)
    assert float(value) > 0
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads)) > 0
    for norm in NORMS:
        config = SmartConfig(preset=preset, radius=0.0, norm=norm)
        assert float(net.loss(config, kind)(net.params)) == 0.0
        assert (net.noise(config, kind) == 0).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_padding_gets_no_noise(preset: Any, norm: Any, steps: int) -> None:
    net = network("classification")
    noise = net.noise(SmartConfig(preset=preset, norm=norm, steps=steps))
    shown = np.asarray(net.mask, bool)
    assert (noise[~shown] == 0).all()
    assert (token_norms(noise, "2")[shown] > 0).all()


@pytest.mark.parametrize("preset", PRESETS)
def test_no_second_order_term_reaches_the_parameters(preset: Any) -> None:
    """The gradient equals that of the same loss at a constant noise.

    It begins with noise of .1: at 1e-5 the first step's direction is of differences that float32 hardly tells.
    """
    net = network("classification")
    config = SmartConfig(preset=preset, radius=0.5, noise_std=0.1, steps=2)
    noise = jnp.asarray(net.noise(config))
    detach, total = resolve(config).detach, resolve(config).outer == "sum"

    def at_constant_noise(params: Any) -> jax.Array:
        values = KINDS["classification"].divergence(
            net.logits(params, net.x + noise), net.logits(params, net.x), detach
        )
        return values.sum() if total else values.mean()

    expected = jax.grad(at_constant_noise)(net.params)
    found = jax.jit(jax.grad(net.loss(config, "classification")))(net.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)


def test_the_clean_logits_are_used_as_given() -> None:
    net = network("classification")
    config = SmartConfig(preset="paper", radius=0.1)
    clean = net.logits(net.params, net.x)
    same = net.loss(config, "classification", clean_logits=clean)(net.params)
    np.testing.assert_allclose(same, net.loss(config, "classification")(net.params), rtol=1e-6)
    assert float(net.loss(config, "classification", clean_logits=clean + jnp.arange(5.0))(net.params)) > float(same)


@pytest.mark.parametrize("preset", PRESETS)
def test_rows_of_weight_zero_have_no_part(preset: Any) -> None:
    net = network("classification")
    config = SmartConfig(preset=preset, radius=0.5)
    weights = jnp.array([1.0, 1.0, 0.0])
    value = net.loss(config, "classification", weights=weights)(net.params)
    logits_fn = functools.partial(net.logits, net.params)
    noise = adversarial_noise(net.clean(logits_fn, net.x, "classification", weights), KEY, config)
    losses = KINDS["classification"].divergence(logits_fn(net.x + noise), logits_fn(net.x))[:2]
    np.testing.assert_allclose(value, losses.sum() if preset == "smart_pytorch" else losses.mean(), rtol=1e-5)


def test_the_ascent_finds_more_than_random_noise_of_the_same_size() -> None:
    net = network("classification")
    random = net.loss(SmartConfig(preset="paper", radius=0.1, noise_std=0.1, steps=0), "classification")(net.params)
    climbed = net.loss(SmartConfig(preset="paper", radius=0.1, noise_std=0.1, step_size=0.1, steps=3), "classification")
    assert float(climbed(net.params)) > 2 * float(random)


def test_noise_is_float32_and_acts_in_bfloat16_too() -> None:
    """JAX_FACTS: noise of 1e-5 vanishes in bfloat16, and zero noise has no gradient direction."""
    net = network("classification")
    half = net.x.astype(jnp.bfloat16)
    seen = []

    def logits_fn(x: jax.Array) -> jax.Array:
        seen.append(x.dtype)
        return net.logits(net.params, x)

    config = SmartConfig(preset="paper")
    value = smoothness_loss(logits_fn, half, net.mask, KEY, config, clean_logits=net.logits(net.params, half * 1.0))
    noise = net.noise(config, x=half)
    assert noise.dtype == np.float32
    assert set(seen) == {jnp.dtype("float32")}
    assert float(value) > 0
    reference = net.noise(config, x=half.astype(jnp.float32))
    np.testing.assert_array_equal(noise, reference)


# The presets apart


@pytest.mark.parametrize("radius", [1e-5, 0.05])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_paper_keeps_every_token_in_its_ball(norm: Any, radius: float, steps: int) -> None:
    """docs/numerics.md, section 2.1: ‖x̃ − x‖_p ≤ ε for every token."""
    net = network("classification")
    config = SmartConfig(preset="paper", norm=norm, radius=radius, noise_std=10 * radius, step_size=0.1, steps=steps)
    norms = token_norms(net.noise(config), norm)
    assert norms.max() <= radius * (1 + 1e-5)
    assert norms.max() >= radius * 0.99  # large steps reach the surface


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("preset", ["smart_pytorch", "mtdnn"])
def test_the_other_presets_give_every_token_noise_of_norm_one(preset: Any, norm: Any) -> None:
    """docs/numerics.md, section 2.1: no ball; with smart-pytorch's numbers the ∞-norm per token is about 0.95."""
    net = network("classification")
    norms = token_norms(net.noise(SmartConfig(preset=preset, norm=norm)), norm)[np.asarray(net.mask, bool)]
    assert (norms <= 1.0).all()
    assert (norms > 0.8).all()
    assert token_norms(net.noise(SmartConfig(preset=preset, norm=norm, radius=0.3)), norm).max() <= 0.3


def project(noise: np.ndarray, radius: float, norm: str) -> np.ndarray:
    """Projection of one token onto a ball; onto the 1-ball by bisection on the threshold."""
    if norm == "inf":
        return np.clip(noise, -radius, radius)
    if norm == "2":
        return noise * min(1.0, radius / max(float(np.linalg.norm(noise)), 1e-30))
    low, high = 0.0, float(np.abs(noise).max())
    if np.abs(noise).sum() <= radius:
        return noise
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(np.abs(noise) - middle, 0).sum() > radius else (low, middle)
    return np.sign(noise) * np.maximum(np.abs(noise) - high, 0)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("norm", NORMS)
def test_paper_is_projected_ascent_on_a_quadratic(norm: Any, steps: int) -> None:
    """f(x) = Σ a · x is linear, so ℓ_s is (a · noise)²; its ascent in NumPy, step by step (algorithm 1)."""
    rng = np.random.default_rng(3)
    slope = rng.normal(size=(SEQ, HIDDEN))
    x, mask = rng.normal(size=(BATCH, SEQ, HIDDEN)), np.array([[1] * SEQ, [1] * SEQ, [1, 1, 1, 0, 0]])
    config = SmartConfig(preset="paper", norm=norm, radius=0.08, noise_std=0.05, step_size=0.03, steps=steps)

    noise = 0.05 * np.asarray(jax.random.normal(KEY, x.shape), np.float64) * mask[:, :, None]
    for _ in range(steps):
        gradient = 2 * np.einsum("bsh,sh->b", noise, slope)[:, None, None] * slope * mask[:, :, None]
        gradient /= np.abs(gradient).max(axis=(1, 2), keepdims=True)
        moved = noise + 0.03 * gradient
        noise = np.array([[project(token, 0.08, norm) for token in example] for example in moved])
    expected = np.einsum("bsh,sh->b", noise, slope) ** 2

    shown = jnp.asarray(mask, jnp.float32)[:, :, None]
    logits_fn = lambda x: jnp.einsum("bsh,sh->b", x * shown, jnp.asarray(slope, jnp.float32))[:, None]  # noqa: E731
    x32, mask32 = jnp.asarray(x, jnp.float32), jnp.asarray(mask)
    at = CleanPass(logits_fn, logits_fn(x32), x32, mask32, KINDS["regression"], jnp.ones(BATCH))
    found = adversarial_noise(at, KEY, config)
    np.testing.assert_allclose(found, noise, atol=2e-6)
    value = smoothness_loss(logits_fn, x32, mask32, KEY, config, kind="regression")
    np.testing.assert_allclose(value, expected.mean(), rtol=2e-4)


def literal_smart_pytorch(net: Network, kind: str, noise: np.ndarray, steps: int) -> Callable[[Any], jax.Array]:
    """smart-pytorch's loop, written out: `batchmean` KL inside, summed symmetric KL outside."""
    full = jnp.ones((BATCH, SEQ), jnp.int32)

    def loss(params: Any) -> jax.Array:
        frozen = jax.lax.stop_gradient(params)
        clean = net.logits(params, net.x, full)
        log_c = jax.nn.log_softmax(clean)

        def inner(noise: jax.Array) -> jax.Array:
            log_p = jax.nn.log_softmax(net.logits(frozen, net.x + noise, full))
            target = jax.lax.stop_gradient(log_c)
            return jnp.sum(jnp.exp(target) * (target - log_p)) / BATCH

        delta = jnp.asarray(noise)
        for _ in range(steps):
            step = delta + 1e-3 * jax.grad(inner)(delta)
            delta = step / (jnp.abs(step).max(-1, keepdims=True) + 1e-6)
        delta = jax.lax.stop_gradient(delta)
        log_p = jax.nn.log_softmax(net.logits(params, net.x + delta, full))
        c, p = jax.lax.stop_gradient((jnp.exp(log_c), jnp.exp(log_p)))
        return jnp.sum(c * (jax.lax.stop_gradient(log_c) - log_p)) + jnp.sum(p * (jax.lax.stop_gradient(log_p) - log_c))

    return loss


@pytest.mark.parametrize("steps", [1, 2])
def test_smart_pytorch_is_its_loop_written_out(steps: int) -> None:
    """docs/numerics.md, section 2.1, smart-pytorch: steps scaled per token, KL mean inside, detached sum outside."""
    net = network("classification")
    net.mask = jnp.ones((BATCH, SEQ), jnp.int32)
    noise = 1e-5 * np.asarray(jax.random.normal(KEY, net.x.shape))
    expected = jax.value_and_grad(literal_smart_pytorch(net, "classification", noise, steps))(net.params)
    found = jax.value_and_grad(net.loss(SmartConfig(preset="smart_pytorch", steps=steps), "classification"))(net.params)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found[1], expected[1])


GOLDEN = [
    # options; loss; its gradient by the outer weights; by the first row of the inner ones: of smart-pytorch 0.0.4
    (
        {},
        0.0330116,
        [
            [0.0053186, 0.0052506, -0.0105692],
            [0.0000460, -0.0108563, 0.0108104],
            [-0.0053779, 0.0098102, -0.0044324],
            [-0.0015896, -0.0083320, 0.0099215],
            [-0.0030326, 0.0112194, -0.0081868],
            [0.0083056, -0.0062606, -0.0020450],
        ],
        [-0.0075879, 0.0076324, 0.0103532, 0.0069607, 0.0054356, -0.0037657],
    ),
    (
        {"step_size": 30.0, "noise_std": 0.1, "steps": 2},
        0.0540456,
        [
            [0.0075707, 0.0033554, -0.0109261],
            [0.0085743, -0.0222876, 0.0137134],
            [-0.0106038, 0.0217851, -0.0111813],
            [-0.0017148, -0.0100315, 0.0117463],
            [-0.0122042, 0.0236764, -0.0114722],
            [0.0128934, -0.0172880, 0.0043947],
        ],
        [-0.0107146, 0.0030542, 0.0143894, 0.0136103, 0.0056528, -0.0122152],
    ),
]


@pytest.mark.parametrize(("options", "loss", "outer", "inner"), GOLDEN, ids=["its defaults", "a steep ascent"])
def test_stored_values_of_smart_pytorch(
    options: dict[str, Any], loss: float, outer: Any, inner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tests/parity holds the comparison itself, for where PyTorch is installed."""
    noise = jnp.cos(jnp.arange(24.0)).reshape(2, 3, 4)
    monkeypatch.setattr(jax.random, "normal", lambda *_: noise)
    wave = lambda *shape: jnp.sin(jnp.arange(1.0, math.prod(shape) + 1)).reshape(shape)  # noqa: E731
    x, mask = wave(2, 3, 4), jnp.ones((2, 3), jnp.int32)

    def smoothness(params: dict[str, jax.Array]) -> jax.Array:
        logits_fn = lambda x: jnp.tanh(jnp.tanh(x @ params["inner"]).mean(1)) @ params["outer"]  # noqa: E731
        return smoothness_loss(logits_fn, x, mask, KEY, SmartConfig(preset="smart_pytorch", **options))

    value, grads = jax.value_and_grad(smoothness)({"inner": wave(4, 6)[::-1], "outer": wave(6, 3)})
    np.testing.assert_allclose(value, loss, atol=3e-6)
    np.testing.assert_allclose(grads["outer"], outer, atol=3e-6)
    np.testing.assert_allclose(grads["inner"][0], inner, atol=3e-6)


def test_presets_differ_in_step_size_and_reduction() -> None:
    """docs/numerics.md, section 2.1, row by row: smart-pytorch η 1e-3 and a sum; mt-dnn η 1e-5 and a mean."""
    smart_pytorch, mtdnn, paper = (resolve(SmartConfig(preset=name)) for name in ("smart_pytorch", "mtdnn", "paper"))
    assert (smart_pytorch.step_size, smart_pytorch.noise_std, smart_pytorch.outer) == (1e-3, 1e-5, "sum")
    assert (mtdnn.step_size, mtdnn.noise_std, mtdnn.outer) == (1e-5, 1e-5, "mean")
    assert (paper.step_size, paper.noise_std, paper.radius, paper.outer) == (1e-3, 1e-5, 1e-5, "mean")
    net = network("classification")
    same = SmartConfig(preset="smart_pytorch", steps=0), SmartConfig(preset="mtdnn", steps=0)
    summed, mean = (float(net.loss(config, "classification")(net.params)) for config in same)
    assert math.isclose(summed, BATCH * mean, rel_tol=1e-6)


def test_a_number_in_the_config_replaces_the_presets() -> None:
    assert resolve(SmartConfig(preset="paper", radius=0.2)).radius == 0.2
    assert resolve(SmartConfig(preset="mtdnn", step_size=0.5, noise_std=0.1))[:3] == (1.0, 0.1, 0.5)


def test_the_default_is_the_papers_form_in_a_ball_of_a_tenth() -> None:
    """SMART's algorithm 1 with ε = η = .1: what the study's row in a ball spells out."""
    assert resolve(SmartConfig()) == resolve(SmartConfig(preset="paper", radius=0.1, step_size=0.1))
    net = network("classification")
    norms = token_norms(net.noise(SmartConfig()), "inf")
    assert norms.max() == pytest.approx(0.1)
    climbed, random = (float(net.loss(SmartConfig(steps=n), "classification")(net.params)) for n in (1, 0))
    assert climbed > 100 * random


# Bregman proximal point


@pytest.mark.parametrize("kind", NAMES)
def test_the_proximal_term_and_its_gradient_vanish_at_the_teacher(kind: str) -> None:
    """docs/numerics.md, section 2.2: with S = 1 and no dropout the gradient is exactly zero."""
    net = network(kind)

    def loss(params: Any, teacher: Any) -> jax.Array:
        return proximal_loss(kind, net.logits(params, net.x), net.logits(teacher, net.x), jnp.ones(BATCH))

    value, grads = jax.value_and_grad(loss)(net.params, net.params)
    assert float(value) == 0.0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads))
    other = jax.tree.map(lambda leaf: leaf + 0.1, net.params)
    value, grads = jax.value_and_grad(loss)(net.params, other)
    assert float(value) > 0
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(grads))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(jax.grad(loss, argnums=1)(net.params, other)))


def test_the_proximal_term_is_a_mean_over_real_rows() -> None:
    logits, teacher = jnp.array([[1.0], [2.0], [9.0]]), jnp.zeros((3, 1))
    assert float(proximal_loss("regression", logits, teacher, jnp.array([1.0, 1.0, 0.0]))) == 2.5


def test_the_momentum_teacher_follows_its_recursion_over_fifty_steps() -> None:
    """docs/numerics.md, section 2.2: θ̃ ← β θ̃ + (1 − β) θ, β = .99 for the first 10 % of steps, then .999."""
    rng = np.random.default_rng(0)
    params = rng.normal(size=(50, 3, 2))
    expected = rng.normal(size=(3, 2))
    teacher = {"w": jnp.asarray(expected, jnp.float32)}
    for step in range(50):
        beta = 0.99 if step < 5 else 0.999
        expected = beta * expected + (1 - beta) * params[step]
        now = {"w": jnp.asarray(params[step], jnp.float32)}
        teacher = update_teacher(ProximalConfig(), teacher, now, jnp.asarray(step), 50)
        np.testing.assert_allclose(teacher["w"], expected, atol=1e-6)


def test_the_vanilla_teacher_is_renewed_every_so_many_steps() -> None:
    """docs/numerics.md, section 2.2: θ̃ is the θ of the previous outer iteration, with S inner steps per outer one."""
    config = ProximalConfig(teacher="vanilla", anchor_every_steps=3)
    teacher, seen = jnp.asarray(0.0), []
    for step in range(8):  # after step k the parameters are k + 1
        seen.append(float(teacher))
        teacher = update_teacher(config, teacher, jnp.asarray(step + 1.0), jnp.asarray(step), 8)
    assert seen == [0, 0, 0, 3, 3, 3, 6, 6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": -1.0}, "config.radius = -1.0: must be at least 0"),
        ({"noise_std": -1.0}, "config.noise_std = -1.0: must be at least 0"),
        ({"steps": -1}, "config.steps = -1: must be at least 0"),
        ({"norm": "3"}, "config: norm = '3' is none of 'inf', '2', '1'"),
        ({"preset": "paperr"}, "config: preset = 'paperr' is none of .*; did you mean 'paper'"),
    ],
)
def test_a_config_made_in_python_is_checked_as_one_of_a_file(options: dict[str, Any], message: str) -> None:
    bench = network("classification")
    with pytest.raises(InputError, match=message):
        bench.loss(SmartConfig(**options), "classification")(bench.params)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clean_logits": jnp.ones((1, 5))}, r"logits of shapes \(3, 5\) and \(1, 5\) with weights of shape \(3,\)"),
        ({"weights": jnp.ones((BATCH, 1))}, r"weights of shape \(3, 1\): give both logits as \[batch output\], and"),
        ({"mask": jnp.ones((1, SEQ), int)}, r"embeddings of shape \(3, 5, .\) with a mask of shape \(1, 5\)"),
        ({"kind": "clasification"}, "kind = 'clasification' is none of .*; did you mean 'classification'"),
        ({"kind": "tokens"}, "kind = 'tokens' has logits of places"),
    ],
)
def test_smoothness_of_arrays_that_would_broadcast_is_refused(options: dict[str, Any], message: str) -> None:
    bench = network("classification")
    mask = options.pop("mask", bench.mask)
    with pytest.raises(InputError, match=message):
        smoothness_loss(functools.partial(bench.logits, bench.params), bench.x, mask, KEY, SmartConfig(), **options)


@pytest.mark.parametrize("kind", ["binary", "regression", "multilabel"])
@pytest.mark.parametrize("shapes", [((3,), (3,), (3,)), ((3, 1), (1, 1), (3,)), ((3, 1), (3, 1), (3, 1))])
def test_a_distance_of_arrays_that_would_broadcast_is_refused(kind: str, shapes: Any) -> None:
    with pytest.raises(InputError, match=r"give both logits as \[batch output\], and weights as \[batch\]"):
        proximal_loss(kind, *map(jnp.ones, shapes))


def test_a_distance_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="kind = 'binry' is none of .*; did you mean 'binary'"):
        proximal_loss("binry", jnp.ones((3, 1)), jnp.ones((3, 1)), jnp.ones(3))
