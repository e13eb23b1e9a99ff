"""R-Drop (Liang et al. 2021, arXiv:2106.14448): two passes with different dropout masks shall agree."""

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import PRNGKeyArray

from mtbert_jax.errors import InputError
from mtbert_jax.regularizers.base import Forward, Penalty, Regularizer, register_regularizer


@register_regularizer("rdrop")
@dataclass(frozen=True)
class RDrop(Regularizer):
    """½ (ℓ₁ + ℓ₂) + weight · ½ (KL(P₁ ‖ P₂) + KL(P₂ ‖ P₁)), where 1 and 2 are the two passes (equations 2 to 4).

    The first pass is the one that the task's loss is of; SMART reads it, too. Tasks without classes have the squared
    difference of the two outputs in place of the divergence. Without dropout both passes would be the same, and the
    term zero, so a stage without any is refused.

    Attributes:
        weight: α, at least 0. The paper's tasks of GLUE take .1 to 1.
    """

    weight: float = 1.0

    titles: ClassVar[dict[str, str]] = {
        "rdrop": "R-Drop: distance between two passes",
        "second_loss": "R-Drop: loss of the second pass",
    }
    needs_dropout: ClassVar[bool] = True
    loss_share: ClassVar[float] = 0.5

    def __post_init__(self) -> None:
        """Refuses a weight below 0."""
        if not 0 <= self.weight < math.inf:
            raise InputError(f"weight must be a number of at least 0, got {self.weight}")

    def penalty(self, forward: Forward, key: PRNGKeyArray) -> dict[str, Penalty]:
        """The distance, and the second pass's loss, half of which takes the place of half of the first's."""
        first, second = forward.logits, forward.logits_again(key)
        both = forward.task.one_sided(first, second) + forward.task.one_sided(second, first)
        return {
            "rdrop": Penalty(forward.mean(0.5 * both), self.weight),
            "second_loss": Penalty(forward.mean_loss(second), 1 - self.loss_share),
        }
