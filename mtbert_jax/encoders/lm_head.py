"""The masked-LM head that an encoder's file may hold beside the encoder, under the names of `transformers`' BERT."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from mtbert_jax.encoders.weights import has_weights, stored_tensors
from mtbert_jax.errors import InputError
from mtbert_jax.types import Params

_NAMES = {
    "dense/kernel": ("cls.predictions.transform.dense.weight",),
    "dense/bias": ("cls.predictions.transform.dense.bias",),
    "layer_norm/scale": ("cls.predictions.transform.LayerNorm.weight", "cls.predictions.transform.LayerNorm.gamma"),
    "layer_norm/bias": ("cls.predictions.transform.LayerNorm.bias", "cls.predictions.transform.LayerNorm.beta"),
    "bias": ("cls.predictions.bias", "cls.predictions.decoder.bias"),
}
"""Our paths, and what files call them. The decoder's matrix is the table of word embeddings."""


def load_lm_head(directory: Path, shapes: dict[str, tuple[int, ...]]) -> Params | None:
    """The head's parameters, float32; None where the file holds none of these shapes.

    Args:
        directory: The encoder's.
        shapes: Shapes of the parameters by our paths.

    Raises:
        InputError: The file is broken, or a tensor's values are not finite.
    """
    if not has_weights(directory):
        return None
    files = stored_tensors(directory).files
    found = {ours: next((name for name in theirs if name in files), None) for ours, theirs in _NAMES.items()}
    params: Params = {}
    for ours, name in found.items():
        if name is None:
            return None
        try:
            with safe_open(files[name], framework="flax") as tensors:
                value = np.asarray(tensors.get_tensor(name), np.float32)
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{files[name]} is broken or cut off: {error}") from None
        value = value.T if ours.endswith("kernel") else value
        if value.shape != shapes[ours]:
            return None
        if not np.isfinite(value).all():
            raise InputError(f"{files[name]}: tensor {name} has values that are not finite")
        branch, _, leaf = ours.rpartition("/")
        (params.setdefault(branch, {}) if branch else params)[leaf] = jnp.asarray(value)
    return params
