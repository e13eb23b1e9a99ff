"""A program per task that plain JAX runs, and one file of parameters for all of them.

The parameters are an argument of the programs: the encoder, nearly all of the bytes, is stored once for all tasks, a
program has some 0.1 MB, and the arrays stay readable after the programs have become too old for a newer JAX.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import export
from jaxtyping import Array, Float, Int

from mtbert_jax.errors import InputError
from mtbert_jax.export.description import labelled_tasks
from mtbert_jax.export.loader import LOADER
from mtbert_jax.inference import MultitaskModel
from mtbert_jax.model import EncoderWithHeads
from mtbert_jax.tasks.reads import inputs
from mtbert_jax.types import Batch, Params

PLATFORMS = ("cpu", "cuda")
PARAMS = "params.npz"
Flat = dict[str, Array]
"""Leaves by path: ``encoder/pooler/kernel``, ``heads/sst/output/bias``."""


def write_stablehlo(folder: Path, model: MultitaskModel) -> None:
    """Writes a program per task, the parameters, the tokenizer and a script that loads them."""
    if not (tasks := labelled_tasks(model)):
        raise InputError("no task of this run predicts labels, so there is no program; --format hf writes the encoder")
    for task in tasks:
        own = len(inputs(tasks[task]))
        data = program(model.setup.model, model.params, task, model.setup.positions, own).serialize()
        (folder / f"{task}.jax").write_bytes(data)
    params = {**model.params, "heads": {name: model.params["heads"][name] for name in tasks}}
    arrays = {path: np.asarray(leaf, np.float32) for path, leaf in flatten_dict(params, sep="/").items()}
    np.savez(folder / PARAMS, **arrays)  # type: ignore[arg-type]
    (folder / "tokenizer.json").write_text(model.setup.tokenizer.to_str(), encoding="utf-8")
    (folder / "load.py").write_text(LOADER, encoding="utf-8")


def program(model: EncoderWithHeads, params: Params, task: str, positions: int, inputs: int = 1) -> export.Exported:
    """``(params, input_ids, attention_mask, token_type_ids) → logits`` of one task, for any batch and length.

    Of `params` only shapes are read. A program refuses an input with more tokens than `positions`. Where the encoder
    reads several `inputs` of an example, token arrays are ``[batch input seq]``.
    """
    # Whatever computed attention in training: cuDNN's kernel is of one vendor, and of one version.
    plain = replace(model, encoder=model.encoder.clone(kernel="xla", remat=False))

    def logits(
        params: Flat,
        input_ids: Int[Array, "batch *input seq"],
        attention_mask: Int[Array, "batch *input seq"],
        token_type_ids: Int[Array, "batch *input seq"],
    ) -> Float[Array, "batch output"]:
        unused = jnp.zeros(input_ids.shape[0])
        batch = Batch(input_ids, attention_mask, token_type_ids, labels=unused, weights=unused)
        return plain.logits(unflatten_dict(params, sep="/"), task, batch)

    own = flatten_dict({"encoder": params["encoder"], "heads": {task: params["heads"][task]}}, sep="/")
    shapes = {path: jax.ShapeDtypeStruct(leaf.shape, jnp.float32) for path, leaf in own.items()}
    batch, seq = export.symbolic_shape("batch, seq", constraints=[f"seq <= {positions}"])
    tokens = jax.ShapeDtypeStruct((batch, inputs, seq) if inputs > 1 else (batch, seq), jnp.int32)
    with _without_paths():
        return export.export(jax.jit(logits), platforms=PLATFORMS)(shapes, tokens, tokens, tokens)


@contextmanager
def _without_paths() -> Iterator[None]:
    """Source locations in a program name files alone, not the folders that they lie in on this machine."""
    option = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, option)
    jax.config.update(option, ".*[/\\\\]")
    try:
        yield
    finally:
        jax.config.update(option, before)
