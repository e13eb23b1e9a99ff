"""SMART (Jiang et al. 2020, arXiv:1911.03437): adversarial smoothness R_s, Bregman proximal point D_Breg.

Both compare two outputs for the same examples by ℓ_s: the symmetric Kullback-Leibler divergence for classes, the
squared difference for regression. R_s compares the outputs at the embeddings x and at x̃ = x + noise, with the noise
that makes them differ most; D_Breg compares those of the parameters θ and of a teacher θ̃ made of earlier ones.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from optax.projections import projection_l1_ball, projection_l2_ball

from mtbert_jax.config import SmartConfig
from mtbert_jax.tasks import KINDS, TaskKind
from mtbert_jax.tasks.losses import mean_loss

Logits = Float[Array, "batch output"]
Embeddings = Float[Array, "batch seq hidden"]
LogitsFn = Callable[[Embeddings], Logits]
Tree = Any
GUARD = 1e-6
"""What smart-pytorch and mt-dnn add to the norm that they divide by."""
ORDERS = {"inf": math.inf, "2": 2, "1": 1}
"""Norms by the config's names."""


class Preset(NamedTuple):
    """What tells known forms of R_s apart (docs/numerics.md, section 2.1).

    Attributes:
        radius: ε; see `ball`.
        noise_std: σ.
        step_size: η.
        ball: Whether noise is projected onto the ball of radius ε; otherwise every step is scaled to the norm ε.
        inner: What the ascent climbs: ℓ_s of each example, or KL(clean ‖ perturbed) as mean or sum over the batch.
        detach: Whether either term of the outer ℓ_s is differentiated by its second argument alone.
        outer: Reduction of the outer ℓ_s over the batch.
    """

    radius: float
    noise_std: float
    step_size: float
    ball: bool
    inner: Literal["symmetric", "mean_kl", "sum_kl"]
    detach: bool
    outer: Literal["mean", "sum"]


PRESETS = {
    "paper": Preset(1e-5, 1e-5, 1e-3, ball=True, inner="symmetric", detach=False, outer="mean"),
    "smart_pytorch": Preset(1.0, 1e-5, 1e-3, ball=False, inner="mean_kl", detach=True, outer="sum"),
    # mt-dnn's inner loss is no divergence (logs are detached) and its squared error broadcasts: both put right.
    "mtdnn": Preset(1.0, 1e-5, 1e-5, ball=False, inner="sum_kl", detach=True, outer="mean"),
}


class Comparison(NamedTuple):
    """How the outputs of one kind of task are compared; both give a value per example.

    Attributes:
        symmetric: ℓ_s: ``(one, other, detach) → [batch]``.
        one_sided: KL(clean ‖ perturbed), or the squared difference: ``(perturbed, clean) → [batch]``.
    """

    symmetric: Callable[[Logits, Logits, bool], Float[Array, " batch"]]
    one_sided: Callable[[Logits, Logits], Float[Array, " batch"]]

    @classmethod
    def of(cls, kind: "TaskKind | Comparison | str") -> "Comparison":
        """The comparison of tasks of a kind, given as such or by its name; a comparison stays as it is."""
        if isinstance(kind, Comparison):
            return kind
        known = KINDS[kind] if isinstance(kind, str) else kind
        return cls(known.divergence, known.one_sided)


def resolve(config: SmartConfig) -> Preset:
    """The config's preset, with the numbers that the config gives in place of its own."""
    given = {name: getattr(config, name) for name in ("radius", "noise_std", "step_size")}
    return PRESETS[config.preset]._replace(**{name: value for name, value in given.items() if value is not None})


def smoothness_loss(
    logits_fn: LogitsFn,
    embeddings: Embeddings,
    mask: Int[Array, "batch seq"],
    key: PRNGKeyArray,
    config: SmartConfig,
    *,
    kind: TaskKind | Comparison | str = "classification",
    clean_logits: Logits | None = None,
    weights: Float[Array, " batch"] | None = None,
) -> Float[Array, ""]:
    """R_s of a batch (equation 2 and algorithm 1); `config.weight` is not in it.

    Its gradient takes the noise as given: what `logits_fn` closes over gets no second-order term.

    Args:
        logits_fn: Embeddings → logits.
        embeddings: x, what the first layer reads.
        mask: 1 for a token, 0 for padding, which gets no noise.
        key: Key of the noise at the start.
        config: Preset, norm, radius, steps.
        kind: How logits are compared.
        clean_logits: ``logits_fn(embeddings)``, where the caller has them; they may be of other dropout masks.
        weights: 0 for a row that only fills the batch up.

    >>> weights = jnp.array([[1.0, -1.0], [0.5, 2.0]])
    >>> x, mask = jnp.ones((3, 4, 2)), jnp.ones((3, 4), int)
    >>> smoothness = smoothness_loss(lambda x: x.mean(1) @ weights, x, mask, jax.random.key(0), SmartConfig())
    >>> bool(smoothness > 0)
    True
    """
    clean = logits_fn(embeddings) if clean_logits is None else clean_logits
    weights = jnp.ones(clean.shape[0]) if weights is None else weights
    return smoothness(logits_fn, clean, embeddings, mask, key, config, Comparison.of(kind), weights).loss


class Smoothness(NamedTuple):
    """R_s of a batch, and what it was found with.

    Attributes:
        loss: R_s.
        noise: Mean norm (the config's) of a token's noise.
    """

    loss: Float[Array, ""]
    noise: Float[Array, ""]


def smoothness(
    logits_fn: LogitsFn,
    clean_logits: Logits,
    embeddings: Embeddings,
    mask: Int[Array, "batch seq"],
    key: PRNGKeyArray,
    config: SmartConfig,
    compare: Comparison,
    weights: Float[Array, " batch"],
) -> Smoothness:
    """R_s, and how large the noise was; `smoothness_loss` explains the arguments."""
    preset = resolve(config)
    noise = adversarial_noise(logits_fn, clean_logits, embeddings, mask, key, config, compare, weights)
    perturbed = logits_fn(embeddings.astype(jnp.float32) + noise)
    losses = compare.symmetric(perturbed, clean_logits, preset.detach)
    loss = mean_loss(losses, weights) if preset.outer == "mean" else jnp.sum(losses * weights)
    norms = jnp.linalg.norm(noise, ORDERS[config.norm], axis=-1)
    return Smoothness(loss, mean_loss(norms.reshape(-1), (mask * weights[:, None]).reshape(-1).astype(norms.dtype)))


def adversarial_noise(
    logits_fn: LogitsFn,
    clean_logits: Logits,
    embeddings: Embeddings,
    mask: Int[Array, "batch seq"],
    key: PRNGKeyArray,
    config: SmartConfig,
    compare: Comparison,
    weights: Float[Array, " batch"],
) -> Float[Array, "batch seq hidden"]:
    """x̃ - x in float32, a constant to differentiation; `smoothness_loss` explains the arguments.

    In bfloat16 noise of 1e-5 would vanish beside an embedding, so it stays in float32 whatever the compute type.
    """
    preset = resolve(config)
    # Parameters that `logits_fn` closes over become arguments, so that they can be held constant: the ascent then
    # costs gradients of the noise alone, and an outer gradient does not run through it.
    frozen_fn, closed_over = jax.closure_convert(logits_fn, embeddings.astype(jnp.float32))
    x, clean, closed_over = jax.lax.stop_gradient((embeddings.astype(jnp.float32), clean_logits, closed_over))
    shown = mask[:, :, None].astype(jnp.float32)

    def disagreement(noise: Float[Array, "batch seq hidden"]) -> Float[Array, ""]:
        perturbed = frozen_fn(x + noise, *closed_over)
        if preset.inner == "symmetric":
            return jnp.sum(compare.symmetric(perturbed, clean, False) * weights)
        losses = compare.one_sided(perturbed, clean)
        return mean_loss(losses, weights) if preset.inner == "mean_kl" else jnp.sum(losses * weights)

    def ascend(_: int, noise: Float[Array, "batch seq hidden"]) -> Float[Array, "batch seq hidden"]:
        return _constrain(noise + preset.step_size * _direction(jax.grad(disagreement)(noise), preset), preset, config)

    noise = shown * preset.noise_std * jax.random.normal(key, x.shape, jnp.float32)
    noise = jax.lax.fori_loop(0, config.steps, ascend, noise) if config.steps else _constrain(noise, preset, config)
    return jax.lax.stop_gradient(shown * noise)


def _direction(gradient: Float[Array, "batch seq hidden"], preset: Preset) -> Float[Array, "batch seq hidden"]:
    if not preset.ball:
        return gradient
    # Algorithm 1: an example's gradient divided by its ∞-norm; zero stays zero.
    largest = jnp.max(jnp.abs(gradient), axis=(1, 2), keepdims=True)
    return gradient / jnp.where(largest > 0, largest, 1.0)


def _constrain(
    noise: Float[Array, "batch seq hidden"], preset: Preset, config: SmartConfig
) -> Float[Array, "batch seq hidden"]:
    """Projects every token's noise onto the ball, or scales it to the ball's surface."""
    if preset.ball:
        project = {"inf": _clip, "2": projection_l2_ball, "1": _project_l1}[config.norm]
        # At radius 0 optax's projection onto the 1-ball divides by zero.
        return jax.vmap(jax.vmap(lambda token: project(token, preset.radius)))(noise) if preset.radius else 0 * noise
    return preset.radius * noise / (jnp.linalg.norm(noise, ORDERS[config.norm], axis=-1, keepdims=True) + GUARD)


def _clip(token: Float[Array, " hidden"], radius: float) -> Float[Array, " hidden"]:
    return jnp.clip(token, -radius, radius)


def _project_l1(token: Float[Array, " hidden"], radius: float) -> Float[Array, " hidden"]:
    # Where the token is much longer than the radius, the projection's sums round to a little more than the radius.
    projected = projection_l1_ball(token, radius)
    return projected * (radius / jnp.maximum(jnp.sum(jnp.abs(projected)), radius))
