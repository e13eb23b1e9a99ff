"""What a run begins with: a pretrained encoder under fresh heads, or the best checkpoint of another run."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mtbert_jax import trees
from mtbert_jax.config import Config, ParallelConfig, Task
from mtbert_jax.encoders.config_json import load_encoder_config, size_changes
from mtbert_jax.encoders.hub import load_pretrained
from mtbert_jax.errors import InputError
from mtbert_jax.parallel import ALONE, Layout
from mtbert_jax.tasks import kind_of
from mtbert_jax.training.checkpoint import Checkpoints
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.setup import Setup
from mtbert_jax.types import Params


class Origin(NamedTuple):
    """What a run begins with.

    Attributes:
        encoder: Parameters of the encoder.
        heads: Parameters of heads, by task; tasks that are missing here get fresh ones.
        told: What to say of it, line by line.
    """

    encoder: Params
    heads: Params
    told: tuple[str, ...] = ()


def restore_params(folder: RunFolder, config: Config, setup: Setup, which: str = "best") -> tuple[int, Params]:
    """What a run evaluates, student or teacher, at its best or latest checkpoint that can be read.

    Args:
        folder: The run folder.
        config: The run's config.
        setup: The same with what its encoder's folder says; its layout is where the arrays are to lie.
        which: `best`, by the dev score, or `latest`, which also stands in for the best where no score was defined.

    Returns:
        The step, and all parameters.

    Raises:
        InputError: There is no checkpoint that can be read.
    """
    if not folder.checkpoints.is_dir():
        raise InputError(f"{folder.path} holds no checkpoint yet")
    with Checkpoints(folder.checkpoints) as checkpoints:
        steps, best = list(checkpoints.standings), checkpoints.best_step()
        shapes = setup.restored_params()
        for step in [best, *steps] if which == "best" and best in steps else steps:
            stage = config.resolved_stages()[checkpoints.standings[step].stage]
            teacher = trees.split(shapes, stage.freeze)[1] if config.evaluate == "teacher" else None
            params = checkpoints.restore_params(step, shapes, teacher)
            if params is not None:
                return step, params
    raise InputError(f"{folder.path} holds no checkpoint that can be read")


def pretrained(directory: Path) -> Origin:
    """A pretrained encoder under fresh heads.

    Raises:
        InputError: As `load_pretrained`.
    """
    return Origin(load_pretrained(directory)[1], {})


def from_run(source: RunFolder, setup: Setup) -> Origin:
    """The encoder of another run's best checkpoint, and those of its heads that fit tasks of the same names.

    Args:
        source: The other run.
        setup: The run that begins.

    Raises:
        InputError: The other run's encoder is another one, or no checkpoint of it can be read, or its parameters are
            not finite.
    """
    where = f"init_from = {setup.config.init_from!r}"
    if changes := size_changes(load_encoder_config(source.encoder), setup.encoder_config):
        raise InputError(f"{where}: the encoder of {source.path} is another one ({'; '.join(changes)})")
    config = source.load_config()
    # Several processes restore together, since no one of them has all arrays; one alone needs one device.
    layout = Layout.build(ParallelConfig()) if jax.process_count() > 1 else ALONE
    theirs = Setup.load(replace(config, attention="auto"), source.encoder, layout)  # whatever this machine has
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
        shapes = [{path: leaf.shape for path, leaf in _leaves(tree[name])} for tree in (ours, others)]
        changes = [f"{what} {before[what]} there" for what in meant if meant[what] != before[what]]
        yield name, ", ".join(changes or ["of another shape there"] * (shapes[0] != shapes[1]))


def _meaning(task: Task) -> dict[str, object]:
    """What a head's parameters mean, beside their shapes."""
    return {"kind": task.kind, "classes": ", ".join(kind_of(task).classes(task)), "reads": task.head.pooling}


def _leaves(tree: Params) -> Iterator[tuple[str, jax.Array]]:
    return ((trees.path_of(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree))


def not_finite(params: Params) -> str:
    """Path of the first leaf that has a value which is not finite; empty where there is none."""
    return next((path for path, leaf in _leaves(params) if not np.isfinite(np.asarray(leaf)).all()), "")
