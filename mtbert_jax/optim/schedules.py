"""Learning rate over a stage: warm-up and decay as fractions of all its steps."""

import optax

from mtbert_jax.config import Schedule


def learning_rate(peak: float, schedule: Schedule, warmup_fraction: float, steps: int) -> optax.Schedule:
    """Step → learning rate.

    Args:
        peak: Rate after warm-up.
        schedule: `constant`, or falling to 0 at the last step as a `linear` or half a `cosine` curve.
        warmup_fraction: Share of `steps` during which the rate rises linearly from 0.
        steps: Steps of the stage.

    >>> rate = learning_rate(1.0, "linear", 0.5, 8)
    >>> [round(float(rate(step)), 2) for step in (0, 2, 4, 6, 8)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    warmup = round(warmup_fraction * steps)
    rest = max(steps - warmup, 1)
    decay = {
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, 0.0, rest),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
    }[schedule]()
    if not warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])
