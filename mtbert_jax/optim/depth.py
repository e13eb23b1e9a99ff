"""Smaller steps for the layers that are closer to the input."""

from typing import Any

import jax
import optax

from mtbert_jax import trees
from mtbert_jax.errors import InputError
from mtbert_jax.optim.registry import register_transformation


@register_transformation("layerwise_decay")
def layerwise_decay(rate: float) -> optax.GradientTransformation:
    """Multiplies the updates of each encoder layer by `rate` once more than those of the layer above it.

    Heads and pooler keep theirs, the top layer's are multiplied by `rate`, the bottom one's of L by rate^L, the
    embeddings' by rate^(L + 1): the discriminative rates of ULMFiT (Howard and Ruder 2018, section 3.2), as ELECTRA
    fine-tunes with (Clark et al. 2020, appendix B).

    In training L counts all layers of the encoder, whichever of them train; called elsewhere, those among the updates,
    unless the extra argument ``num_layers`` says how many there are.

    It belongs behind adam and its like, which divide a gradient by its own size: before them it does nothing.

    Args:
        rate: Above 0; 1 changes nothing.

    Raises:
        InputError: The rate is not above 0.
    """
    if not rate > 0:
        raise InputError(f"rate must be above 0, got {rate}")

    def update(
        updates: Any, state: optax.EmptyState, params: Any = None, *, num_layers: int | None = None, **others: Any
    ) -> tuple[Any, optax.EmptyState]:
        layers = trees.num_layers(updates) if num_layers is None else num_layers

        def scaled(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
            return leaf * rate ** _depth(trees.path_of(path), layers)

        return jax.tree_util.tree_map_with_path(scaled, updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)


def _depth(path: str, num_layers: int) -> int:
    """How many layers below the heads a parameter lies."""
    if match := trees.LAYER.match(path):
        return num_layers - int(match[1])
    return num_layers + 1 if trees.is_below(path, "encoder/embeddings") else 0
