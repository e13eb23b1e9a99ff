"""An encoder that `transformers` reads, and its heads beside it in torch's layout."""

from pathlib import Path

import numpy as np

from mtbert_jax import trees
from mtbert_jax.encoders.hub import save_pretrained, save_tensors
from mtbert_jax.export.description import labelled_tasks
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.types import Params

HEADS = "heads.safetensors"


def write_hugging_face(folder: Path, model: MultitaskModel) -> None:
    """Writes encoder and tokenizer as `transformers` has them, and all heads of tasks with labels in one file."""
    save_pretrained(folder, model.setup.encoder_config, model.params["encoder"], model.setup.tokenizer)
    if tasks := labelled_tasks(model):
        save_tensors(folder / HEADS, head_tensors({name: model.params["heads"][name] for name in tasks}))


def head_tensors(heads: Params) -> dict[str, np.ndarray]:
    """Every leaf as a linear layer of torch has it, under such names as ``sst.hidden_0.weight``, ``sst.output.bias``.

    >>> head_tensors({"sst": {"output": {"kernel": np.zeros((16, 5))}}})["sst.output.weight"].shape
    (5, 16)
    """
    tensors = {}
    for path, leaf in trees.leaves(heads):
        layer, _, name = path.replace("/", ".").rpartition(".")
        value = np.asarray(leaf, np.float32)
        tensors[f"{layer}.{'weight' if name == 'kernel' else name}"] = np.ascontiguousarray(value.T)
    return tensors
