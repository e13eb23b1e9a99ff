"""Training from a config to its end: everything is checked and opened, then the loop goes through the stages."""

import shutil
from contextlib import ExitStack
from typing import Literal

from mtbert_jax.config import Config, save_config
from mtbert_jax.config.schema import difference, to_dict
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.encoders.hub import load_pretrained, save_description
from mtbert_jax.errors import InputError
from mtbert_jax.parallel import wait_for_all
from mtbert_jax.training.active import ActiveRun
from mtbert_jax.training.display import Display
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.interrupt import Interruption
from mtbert_jax.training.loop import Loop
from mtbert_jax.training.memory import check_state
from mtbert_jax.training.prepare import describe_run, prepare
from mtbert_jax.training.seeds import seeds_apart, trained_together
from mtbert_jax.training.trackers import BACKENDS

MAY_CHANGE = (
    *("out", "data_dir", "cache_dir", "encoder", "revision", "log_every_steps", "eval_batch_size", "max_bad_steps"),
    *("parallel", "remat", "attention", "writers"),
)
"""Fields that a resumed run may have otherwise: they move files, records or work, and numbers by rounding only."""

Existing = Literal["refuse", "resume", "overwrite"]
"""What to do about a run that lies in the folder already."""


def fit(
    config: Config, folder: RunFolder, existing: Existing = "refuse", display: Display | None = None
) -> dict[str, Dataset]:
    """Trains a run to its end, leaving checkpoints and records in `folder`.

    Args:
        config: The run.
        folder: The run folder.
        existing: What to do about a run that lies there. `resume`: go on from its newest checkpoint that can be read;
            without one, begin. `overwrite`: delete it, once it is sure that this one can start.
        display: Where progress is shown.

    Returns:
        The dev splits by task, as they were read.

    Raises:
        InputError: Config, encoder, data or folder are not right, or another process trains in the folder.
        Interrupted: A signal came; all that was done is saved.
    """
    ready = prepare(config)
    layout, runs = ready.layout, seeds_apart(config, folder)
    setups = [ready.setup.with_config(own_config) for own_config, _ in runs]
    plans = [own_setup.plans(ready.train) for own_setup in setups]
    for plan in plans[0]:
        check_state(ready.setup, plan, layout)
    encoder = load_pretrained(ready.encoder)[1]
    with ExitStack() as stack, Interruption() as interruption:
        for _, place in runs if layout.leads else ():
            stack.enter_context(place.hold())
        for own_config, place in runs:
            check_folder(place, own_config, existing)
        wait_for_all("folders checked")
        if layout.leads:
            for own_config, place in runs:
                open_folder(place, own_config, existing == "overwrite")
                save_description(place.encoder, ready.setup.encoder_config, ready.setup.tokenizer)
        wait_for_all("folders opened")

        display = display or Display(quiet=not layout.leads)
        display.say(f"run folder {folder.path}")
        for line in describe_run(ready, plans[0]):
            display.say(line)
        active = []
        for setup, (_, place), stages in zip(setups, runs, plans, strict=True):
            active.append(ActiveRun.open(setup, place, stages, ready.train, ready.dev))
            stack.callback(active[-1].close)
        stack.callback(display.stop)
        resume = existing == "resume"
        for run in trained_together(active, layout, resume, display):
            Loop(run, display, interruption).train(encoder, resume)
    return ready.dev


def check_folder(folder: RunFolder, config: Config, existing: Existing) -> None:
    """Checks that the run folder is free, or holds the run that is to go on.

    Raises:
        InputError: A run lies there already, or, under `resume`, another one.
    """
    if existing == "overwrite" or not (folder.config.is_file() or any(folder.checkpoints.glob("*"))):
        return
    if existing == "refuse":
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
