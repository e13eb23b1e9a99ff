"""A run from its config to its end: everything is checked and opened, then the loop goes through the stages."""

import shutil
from contextlib import ExitStack

import numpy as np

from mtbert_jax.config import Config, save_config
from mtbert_jax.config.schema import difference, to_dict
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.encoders.hub import load_pretrained, save_description
from mtbert_jax.errors import InputError
from mtbert_jax.machine import free_memory
from mtbert_jax.parallel import REPLICA, Layout, agreed, wait_for_all
from mtbert_jax.training.display import Display
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.interrupt import Interruption
from mtbert_jax.training.loop import Loop
from mtbert_jax.training.memory import check_state, estimate
from mtbert_jax.training.prepare import describe, prepare
from mtbert_jax.training.replica import Replica, groups, restore, seeds_apart
from mtbert_jax.training.setup import Plan, Setup
from mtbert_jax.training.trackers import BACKENDS
from mtbert_jax.types import Params

SHARE_OF_MEMORY = 0.8
"""Of what is free: what seeds that train together may take, by estimate."""

MAY_CHANGE = (
    *("out", "data_dir", "cache_dir", "encoder", "revision", "log_every_steps", "eval_batch_size", "max_bad_steps"),
    *("parallel", "remat", "attention", "writers"),
)
"""Fields that a resumed run may have otherwise: they move files, records or work, and numbers by rounding only."""


def fit(
    config: Config,
    folder: RunFolder,
    resume: bool = False,
    overwrite: bool = False,
    display: Display | None = None,
) -> None:
    """Trains a run to its end, leaving checkpoints and records in `folder`.

    Args:
        config: The run.
        folder: New, or with `resume` the folder of the same run.
        resume: Go on from the newest checkpoint that can be read; without one, begin.
        overwrite: Delete the run that lies there, once it is sure that this one can start.
        display: Where progress is shown.

    Raises:
        InputError: Config, encoder, data or folder are not right, or another process trains in the folder.
        Interrupted: A signal came; all that was done is saved.
    """
    directory, layout, setup, train, dev = prepare(config)
    runs = seeds_apart(config, folder)
    setups = [setup.with_config(own_config) for own_config, _ in runs]
    plans = [own_setup.plans(train) for own_setup in setups]
    for plan in plans[0]:
        check_state(setup, plan, layout)
    encoder = load_pretrained(directory)[1]
    with ExitStack() as stack, Interruption() as interruption:
        for _, place in runs if layout.leads else ():
            stack.enter_context(place.hold())
        for own_config, place in runs:
            check_folder(place, own_config, resume, overwrite)
        wait_for_all("folders checked")
        if layout.leads:
            for own_config, place in runs:
                open_folder(place, own_config, overwrite)
                save_description(place.encoder, setup.bert, setup.tokenizer)
        wait_for_all("folders opened")

        display = display or Display(quiet=not layout.leads)
        display.say(f"run folder {folder.path}")
        for line in describe(setup, layout, train, dev, plans[0]):
            display.say(line)
        replicas = []
        for own_setup, (_, place), stages in zip(setups, runs, plans, strict=True):
            replicas.append(Replica.open(own_setup, place, stages))
            stack.callback(replicas[-1].close)
        stack.callback(display.stop)
        for some in groups(replicas, _at_once(setup, plans[0], layout, display), resume):
            _train(some, layout, encoder, train, dev, resume, display, interruption)


def _train(
    replicas: list[Replica],
    layout: Layout,
    encoder: Params,
    train: dict[str, Dataset],
    dev: dict[str, Dataset],
    resume: bool,
    display: Display,
    interruption: Interruption,
) -> None:
    """Takes runs that train together to their end."""
    state = restore(replicas, layout) if resume else None
    if layout.leads:
        for replica in replicas:
            replica.open_records(int(state.step) if state else 0)
    loop = Loop(replicas, layout, train, dev, display, interruption)
    progress = replicas[0].progress
    for plan in replicas[0].plans[progress.stage + progress.stage_done :]:
        if state is None:
            state = loop.begin(plan, [replica.setup.initial_params(encoder) for replica in replicas], 0)
        elif plan.number > replicas[0].progress.stage:
            params = [state.of(number, layout).params for number in range(len(replicas))]
            state = loop.begin(plan, params, int(state.step))
        state = loop.run(plan, state)


def _at_once(setup: Setup, plans: list[Plan], layout: Layout, display: Display) -> int:
    """How many seeds fit into memory together, as far as that can be told."""
    count = max(len(setup.config.seeds), 1)
    room = free_memory() if count > 1 else None
    if room is None:
        return count
    room = int(agreed(room, np.min))
    need = max(estimate(setup, plan, layout).total for plan in plans)
    side = layout.mesh.shape[REPLICA] if layout.mesh else 1
    fitting = max(1, int(SHARE_OF_MEMORY * room / need)) * side
    if fitting < count:
        display.say(
            f"{fitting} of {count} seeds at once: each needs about {need / 2**30:.1f} GiB, {room / 2**30:.1f} are free"
        )
    return fitting


def check_folder(folder: RunFolder, config: Config, resume: bool, overwrite: bool = False) -> None:
    """Checks that the run folder is free, or holds the run that is to go on.

    Raises:
        InputError: A run lies there already, or, under `resume`, another one.
    """
    if overwrite or not (folder.config.is_file() or any(folder.checkpoints.glob("*"))):
        return
    if not resume:
        raise InputError(
            f"{folder.path} holds a run already; --resume goes on with it, --overwrite deletes it, "
            "--out names another folder"
        )
    changes = config_changes(folder.load_config(), config)
    if changes:
        raise InputError(f"{folder.path} holds a run with another config ({'; '.join(changes)}); --resume cannot go on")


def open_folder(folder: RunFolder, config: Config, overwrite: bool = False) -> None:
    """Makes the run folder, or empties it.

    Raises:
        InputError: It cannot be written.
    """
    if overwrite:
        delete_run(folder)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        save_config(config, folder.config)
    except OSError as error:
        raise InputError(f"cannot write the run folder {folder.path}: {error.strerror or error}") from None


def config_changes(old: Config, new: Config) -> list[str]:
    """What makes two configs different runs, one line per field; empty where one may go on as the other."""
    before, after = (
        {name: value for name, value in to_dict(config).items() if name not in MAY_CHANGE} for config in (old, new)
    )
    return difference(before, after)


def delete_run(folder: RunFolder) -> None:
    """Deletes what a run has written, and nothing else that may lie there; its lock is kept by whoever holds it."""
    folders = (folder.checkpoints, folder.predictions, folder.submission, folder.encoder)
    for path in (*folders, folder.tensorboard, folder.wandb):
        shutil.rmtree(path, ignore_errors=True)
    for path in (folder.config, folder.metrics, folder.results, *map(folder.note, BACKENDS)):
        path.unlink(missing_ok=True)
