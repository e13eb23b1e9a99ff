"""R-Drop (Liang et al. 2021, arXiv:2106.14448): ½ (ℓ₁ + ℓ₂) + weight · ½ (KL(P₁ ‖ P₂) + KL(P₂ ‖ P₁))."""

from dataclasses import dataclass

import mtbert_jax as mt


@mt.register_regularizer("rdrop")
@dataclass(frozen=True)
class RDrop(mt.Regularizer):
    """Two passes over a batch under other dropout masks: their losses' mean, and their distance."""

    weight: float = 1.0
    titles = {"rdrop": "R-Drop: distance of two passes", "second_pass": "R-Drop: (second loss - first loss) / 2"}

    def penalty(self, forward, key):
        """The distance; and what makes the first pass's loss the mean of both."""
        again = forward.logits_again(key)
        distance = forward.mean(0.5 * forward.task.divergence(forward.logits, again))
        second = 0.5 * (forward.mean_loss(again) - forward.mean_loss(forward.logits))
        return {"rdrop": mt.Penalty(distance, self.weight), "second_pass": mt.Penalty(second, 1.0)}
