"""What a run begins with: a pretrained encoder under fresh heads, or the best checkpoint of another run."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtbert_jax import trees
from mtbert_jax.config import Config, Task
from mtbert_jax.config.schema import must_be_among
from mtbert_jax.encoders.config_json import load_encoder_config, size_changes
from mtbert_jax.encoders.hub import load_pretrained
from mtbert_jax.encoders.lm_head import load_lm_head
from mtbert_jax.errors import InputError
from mtbert_jax.parallel import common_layout
from mtbert_jax.tasks import kind_of
from mtbert_jax.tasks.reads import head_reads
from mtbert_jax.training.checkpoint import Checkpoints
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.setup import Setup
from mtbert_jax.types import Params


class Origin(NamedTuple):
    """What a run begins with: parameters of encoder and heads (other tasks get fresh ones), and lines that say so."""

    encoder: Params
    heads: Params
    told: tuple[str, ...] = ()


def restore_params(folder: RunFolder, config: Config, setup: Setup, which: str = "best") -> tuple[int, Params]:
    """What a run evaluates, student or teacher, and from which step: the best or latest that can be read.

    The latest stands in for the best where no score was defined. `setup` says where arrays are to lie. LoRA's products
    are added to their kernels.

    Raises:
        InputError: There is no checkpoint that can be read, `which` is neither word, or the encoder's description is
            not the run's.
    """
    must_be_among("which", which, ("best", "latest"))
    folder.check_encoder()
    if not folder.checkpoints.is_dir():
        why = ": the run has ended, and its checkpoints/ is gone" if folder.results.is_file() else " yet"
        raise InputError(f"{folder.path} holds no checkpoint{why}")
    with Checkpoints(folder.checkpoints, run=folder.load_identity()) as checkpoints:
        steps, best = list(checkpoints.standings), checkpoints.best_step()
        shapes = setup.restored_params()
        for step in [best, *steps] if which == "best" and best in steps else steps:
            stage = checkpoints.standings[step].stage_of(config.resolved_stages(), folder.config)
            teacher = trees.split(shapes, setup.model.frozen(stage.freeze))[1] if config.evaluate == "teacher" else None
            params = checkpoints.restore_params(step, shapes, teacher)
            if params is not None:
                return step, setup.layout.computed(setup.model.merged, params) if setup.model.lora else params
    raise InputError(f"{folder.path} holds no checkpoint that can be read")


def from_directory(directory: Path, setup: Setup) -> Origin:
    """A pretrained encoder; tasks of masked language modelling get the head that its file has, where it has one."""
    heads: Params = {}
    told = []
    for name, task in setup.tasks.items():
        if head_reads(task) == "masked":
            shapes = {path: leaf.shape for path, leaf in trees.leaves(setup.abstract_params()["heads"][name])}
            found = load_lm_head(directory, shapes)
            heads |= {} if found is None else {name: found}
            told.append(f"task {name}: {'a fresh head' if found is None else 'the head of the file of the encoder'}")
    return Origin(load_pretrained(directory)[1], heads, tuple(told))


def from_run(source: RunFolder, setup: Setup) -> Origin:
    """The encoder of another run's best checkpoint, and those of its heads that fit tasks of the same names.

    Raises:
        InputError: The other run has another encoder, no checkpoint that can be read, or parameters that are not
            finite.
    """
    where = f"init_from = {setup.config.init_from!r}"
    if changes := size_changes(load_encoder_config(source.encoder), setup.encoder_config):
        raise InputError(f"{where}: the encoder of {source.path} is another one ({'; '.join(changes)})")
    config = source.load_config()
    here = replace(config, attention="auto")  # whatever this machine has
    theirs = Setup.load(here, source.encoder, common_layout())
    step, params = restore_params(source, config, theirs)
    if jax.process_count() > 1:
        params = jax.tree.map(lambda leaf: jnp.asarray(jax.device_get(leaf)), params)
    if path := not_finite(params):
        raise InputError(f"{where}: the values of {path} at step {step} are not finite; that run had diverged")
    fit = dict(_heads(setup, theirs))
    taken = {name: params["heads"][name] for name, reason in fit.items() if not reason}
    fresh = [name + (f" ({reason})" if name in theirs.tasks else "") for name, reason in fit.items() if reason]
    whose = "teacher" if config.evaluate == "teacher" else "checkpoint"
    heads = f"and the heads of {', '.join(taken)}" if taken else "and no head"
    told = f"begins from the best {whose} of {source.path} (step {step}): its encoder, {heads}"
    return Origin(params["encoder"], taken, (told + (f"; fresh heads: {', '.join(fresh)}" if fresh else ""),))


def _heads(setup: Setup, theirs: Setup) -> Iterator[tuple[str, str]]:
    """Every task with the reason why it cannot have the other run's head of the same name; empty where it can."""
    ours, others = setup.abstract_params()["heads"], theirs.abstract_params()["heads"]
    for name, task in setup.tasks.items():
        if name not in others:
            yield name, "new"
            continue
        meant, before = _meaning(task), _meaning(theirs.tasks[name])
        shapes = [{path: leaf.shape for path, leaf in trees.leaves(tree[name])} for tree in (ours, others)]
        changes = [f"{what} {before[what]} there" for what in meant if meant[what] != before[what]]
        yield name, ", ".join(changes or ["of another shape there"] * (shapes[0] != shapes[1]))


def _meaning(task: Task) -> dict[str, object]:
    """What a head's parameters mean, beside their shapes."""
    return {"kind": task.kind, "classes": ", ".join(kind_of(task).classes(task)), "reads": head_reads(task)}


def not_finite(params: Params) -> str:
    """Path of the first leaf that has a value which is not finite; empty where there is none."""
    return next((path for path, leaf in trees.leaves(params) if not np.isfinite(np.asarray(leaf)).all()), "")
