"""SMART (Jiang et al. 2020, arXiv:1911.03437): adversarial smoothness R_s, Bregman proximal point D_Breg.

Both compare two outputs for the same examples by ℓ_s: the symmetric Kullback-Leibler divergence for classes, the
squared difference for regression. R_s compares the outputs at the embeddings x and at x̃ = x + noise, with the noise
that makes them differ most; D_Breg compares those of the parameters θ and of a teacher θ̃ made of earlier ones.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray
from optax.projections import projection_l1_ball, projection_l2_ball

from mtbert_jax.config import SmartConfig, TaskConfig
from mtbert_jax.config.schema import check_number, describe, from_dict, must_be
from mtbert_jax.errors import InputError
from mtbert_jax.limits import MOST_ASCENTS
from mtbert_jax.regularizers.base import (
    Comparison,
    Embeddings,
    Forward,
    Logits,
    Penalty,
    Regularizer,
    comparison,
    register_regularizer,
)
from mtbert_jax.tasks.losses import mean_loss
from mtbert_jax.types import FeatureBatch

LogitsFn = Callable[[Embeddings], Logits]
NOISE = 1
"""Folded into a step's key: the key of the noise."""
OTHER_MASKS = 2
"""Folded into a step's key: the key of dropout masks that are not the clean side's."""
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
    "ball": Preset(0.1, 1e-5, 0.1, ball=True, inner="symmetric", detach=False, outer="mean"),
    # The numbers of the paper's section 5: the same, in a ball so small that nothing shows (docs/concepts/smart.md).
    "paper": Preset(1e-5, 1e-5, 1e-3, ball=True, inner="symmetric", detach=False, outer="mean"),
    "smart_pytorch": Preset(1.0, 1e-5, 1e-3, ball=False, inner="mean_kl", detach=True, outer="sum"),
    # mt-dnn's inner loss is no divergence (logs are detached) and its squared error broadcasts: both put right.
    "mtdnn": Preset(1.0, 1e-5, 1e-5, ball=False, inner="sum_kl", detach=True, outer="mean"),
}


def resolve(config: SmartConfig) -> Preset:
    """The config's preset, with the numbers that the config gives in place of its own."""
    given = {name: getattr(config, name) for name in ("radius", "noise_std", "step_size")}
    return PRESETS[config.preset]._replace(**{name: value for name, value in given.items() if value is not None})


@register_regularizer("smart")
@dataclass(frozen=True)
class Smart(Regularizer):
    """λ_s R_s: how far the outputs move, at most, when the embeddings move little."""

    config: SmartConfig

    titles: ClassVar[dict[str, str]] = {
        "smoothness": "SMART: smoothness R_s",
        "noise": "SMART: mean norm of a token's noise",
    }
    needs_embeddings: ClassVar[bool] = True
    table: ClassVar[bool] = True
    key_fold: ClassVar[int] = NOISE

    def penalty(self, forward: Forward, key: PRNGKeyArray) -> dict[str, Penalty]:
        """R_s of a batch; and the mean norm of a token's noise, which is no term."""
        if forward.embeddings is None or isinstance(forward.batch, FeatureBatch):
            raise InputError("kept features leave no embeddings to perturb")
        masks = jax.random.fold_in(forward.key, OTHER_MASKS) if self.config.resample_dropout else forward.key
        at = CleanPass(
            lambda x: forward.logits_of(x, masks),
            forward.logits,
            forward.embeddings,
            forward.batch.attention_mask,
            forward.task,
            forward.real,
        )
        loss, noise = smoothness(at, key, self.config)
        if resolve(self.config).outer == "mean":
            loss *= forward.share.examples
        weight = forward.task.number(lambda task: task.smart_factor) * self.weight(forward.step, forward.num_steps)
        return {"smoothness": Penalty(loss, weight), "noise": Penalty(forward.share.examples * noise, None)}

    def weight(self, step: Int[Array, ""], num_steps: int) -> Float[Array, ""]:
        """λ_s at a step of the stage, of which there are `num_steps`."""
        ramp = round(self.config.ramp_fraction * num_steps)
        if not ramp:
            return jnp.asarray(self.config.weight)
        return jnp.asarray(optax.linear_schedule(0.0, self.config.weight, ramp)(step))

    def is_on(self, task: TaskConfig) -> bool:
        """Whether R_s is computed for a task."""
        return bool(self.config.weight * task.smart_factor)

    def describe(self) -> str:
        """Preset and λ_s."""
        return f"SMART {self.config.preset} × {self.config.weight:g}"


def smoothness_loss(  # noqa: PLR0913 - the public contract
    logits_fn: LogitsFn,
    embeddings: Embeddings,
    mask: Int[Array, "batch seq"],
    key: PRNGKeyArray,
    config: SmartConfig,
    *,
    kind: Comparison | str = "classification",
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
        kind: The task's kind, which compares logits, or its name; of one whose head reads a vector.
        clean_logits: ``logits_fn(embeddings)``, where the caller has them; they may be of other dropout masks.
        weights: 0 for a row that only fills the batch up.

    Raises:
        InputError: A number of the config is out of its range, there is no such kind, or the arrays do not fit each
            other.

    >>> weights = jnp.array([[1.0, -1.0], [0.5, 2.0]])
    >>> x, mask = jnp.ones((3, 4, 2)), jnp.ones((3, 4), int)
    >>> smoothness = smoothness_loss(lambda x: x.mean(1) @ weights, x, mask, jax.random.key(0), SmartConfig())
    >>> bool(smoothness > 0)
    True
    """
    if not isinstance(config, SmartConfig):
        raise InputError(f"config = {describe(config)}: give an mt.SmartConfig")
    check_smart(config, "config.")
    if embeddings.ndim != 3 or jnp.shape(mask) != embeddings.shape[:2]:
        raise InputError(
            f"embeddings of shape {embeddings.shape} with a mask of shape {jnp.shape(mask)}: give embeddings as "
            "[batch seq hidden], and the mask as [batch seq]"
        )
    logits = jax.eval_shape(logits_fn, jax.ShapeDtypeStruct(embeddings.shape, jnp.float32))  # as noise makes them
    clean = logits_fn(embeddings) if clean_logits is None else clean_logits
    weights = jnp.ones(logits.shape[:1]) if weights is None else weights
    compare = comparison(kind, logits, clean, weights)
    return smoothness(CleanPass(logits_fn, clean, embeddings, mask, compare, weights), key, config)[0]


def check_smart(config: SmartConfig, where: str) -> None:
    """Refuses options that no ascent can have; `where` they stand is put before the name of the field."""
    config = from_dict(SmartConfig, vars(config), where.removesuffix("."))
    must_be("at least 0", where, config, "weight", "radius", "noise_std", "step_size")
    check_number(f"{where}steps", config.steps, 0, MOST_ASCENTS)
    must_be("from 0 to 1", where, config, "ramp_fraction")


@dataclass(frozen=True)
class CleanPass:
    """What noise is sought around; `smoothness_loss` explains the parts."""

    logits_fn: LogitsFn
    logits: Logits
    embeddings: Embeddings
    mask: Int[Array, "batch seq"]
    kind: Comparison
    weights: Float[Array, " batch"]


def smoothness(at: CleanPass, key: PRNGKeyArray, config: SmartConfig) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """R_s of a batch, and the mean norm, the config's, of a token's noise."""
    preset = resolve(config)
    noise = adversarial_noise(at, key, config)
    perturbed = at.logits_fn(at.embeddings.astype(jnp.float32) + noise)
    losses = at.kind.divergence(perturbed, at.logits, preset.detach)
    loss = mean_loss(losses, at.weights) if preset.outer == "mean" else jnp.sum(losses * at.weights)
    norms = jnp.linalg.norm(noise, ORDERS[config.norm], axis=-1)
    inputs = len(at.mask) // len(at.weights)
    weights = at.weights if inputs == 1 else jnp.repeat(at.weights, inputs)
    shown = (at.mask * weights[:, None]).reshape(-1).astype(norms.dtype)
    return loss, mean_loss(norms.reshape(-1), shown)


def adversarial_noise(at: CleanPass, key: PRNGKeyArray, config: SmartConfig) -> Embeddings:
    """x̃ - x in float32, a constant to differentiation.

    In bfloat16 noise of 1e-5 would vanish beside an embedding, so it stays in float32 whatever the compute type.
    """
    preset, clean_x = resolve(config), at.embeddings.astype(jnp.float32)
    # Parameters that `logits_fn` closes over become arguments, so that they can be held constant: the ascent then
    # costs gradients of the noise alone, and an outer gradient does not run through it.
    frozen_fn, closed_over = jax.closure_convert(at.logits_fn, clean_x)
    x, clean, closed_over = jax.lax.stop_gradient((clean_x, at.logits, closed_over))
    shown = at.mask[:, :, None].astype(jnp.float32)

    def disagreement(noise: Embeddings) -> Float[Array, ""]:
        perturbed = frozen_fn(x + noise, *closed_over)
        if preset.inner == "symmetric":
            return jnp.sum(at.kind.divergence(perturbed, clean, False) * at.weights)
        losses = at.kind.one_sided(perturbed, clean)
        return mean_loss(losses, at.weights) if preset.inner == "mean_kl" else jnp.sum(losses * at.weights)

    def ascend(_: int, noise: Embeddings) -> Embeddings:
        return _constrain(noise + preset.step_size * _direction(jax.grad(disagreement)(noise), preset), preset, config)

    noise = shown * preset.noise_std * jax.random.normal(key, x.shape, jnp.float32)
    noise = jax.lax.fori_loop(0, config.steps, ascend, noise) if config.steps else _constrain(noise, preset, config)
    return jax.lax.stop_gradient(shown * noise)


def _direction(gradient: Embeddings, preset: Preset) -> Embeddings:
    if not preset.ball:
        return gradient
    # Algorithm 1: an example's gradient, or that of each of its inputs, divided by its ∞-norm; zero stays zero.
    largest = jnp.max(jnp.abs(gradient), axis=(1, 2), keepdims=True)
    return gradient / jnp.where(largest > 0, largest, 1.0)


def _constrain(noise: Embeddings, preset: Preset, config: SmartConfig) -> Embeddings:
    """Projects every token's noise onto the ball, or scales it to the ball's surface."""
    if preset.ball:
        clip = lambda token, radius: jnp.clip(token, -radius, radius)  # noqa: E731
        project = {"inf": clip, "2": projection_l2_ball, "1": _project_l1}[config.norm]
        # At radius 0 optax's projection onto the 1-ball divides by zero.
        return jax.vmap(jax.vmap(lambda token: project(token, preset.radius)))(noise) if preset.radius else 0 * noise
    return preset.radius * noise / (jnp.linalg.norm(noise, ORDERS[config.norm], axis=-1, keepdims=True) + GUARD)


def _project_l1(token: Float[Array, " hidden"], radius: float) -> Float[Array, " hidden"]:
    # Where the token is much longer than the radius, the projection's sums round to a little more than the radius.
    projected = projection_l1_ball(token, radius)
    return projected * (radius / jnp.maximum(jnp.sum(jnp.abs(projected)), radius))
