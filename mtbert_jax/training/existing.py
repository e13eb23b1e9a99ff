"""What is to be done about a run that lies in the run folder already: refused, gone on with, or deleted."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

from mtbert_jax.config import Config, save_config
from mtbert_jax.config.schema import difference, to_dict
from mtbert_jax.data.readers import data_files
from mtbert_jax.errors import InputError
from mtbert_jax.files import input_errors, real, write_whole
from mtbert_jax.training.folder import IDENTITY, RunFolder, must_lie_apart
from mtbert_jax.training.source import seed_folders, source_of
from mtbert_jax.training.trackers import BACKENDS

MAY_CHANGE = (
    *("out", "data_dir", "cache_dir", "encoder", "revision", "log_every_steps", "eval_batch_size", "max_bad_steps"),
    "affinity_every_steps",
    *("parallel", "remat", "attention", "writers"),
)
"""Fields that a resumed run may have otherwise: they move files, records or work, and numbers by rounding only."""

Existing = Literal["refuse", "resume", "overwrite"]
"""What to do about a run that lies in the folder already."""
Digests = dict[str, dict[str, str]]
"""What `mtbert_jax.data.examples.digest` gives for the training and dev splits, by task and split."""


def check_place(folder: RunFolder, config: Config) -> None:
    """Refuses a folder where several seeds' runs would lie beside a run of one seed, or beside those of another config.

    Else only some of the runs would be seen by whoever looks into the folder.
    """
    must_lie_apart(folder.path)
    seeds = seed_folders(folder.path)
    if seeds and not config.seeds:
        raise InputError(
            f"{folder.path} holds the runs {', '.join(own.path.name for own in seeds.values())}; name one of them, or "
            "give another --out"
        )
    if config.seeds and folder.is_used:
        raise InputError(f"{folder.path} holds a run of one seed; runs of several seeds need another --out")
    for seed, own in seeds.items():
        one_seed = replace(config, seed=seed, seeds=())
        if seed not in config.seeds and (changes := config_changes(own.load_config(), one_seed)):
            raise InputError(
                f"{folder.path} holds the run of seed {seed} with another config ({'; '.join(changes)}); give another "
                "--out, or --seeds with all of them"
            )


def check_folder(folder: RunFolder, config: Config, existing: Existing) -> None:
    """Refuses a folder that is not free, or under `resume` holds another run, and a run that begins from itself."""
    source = source_of(config) if existing != "resume" else None
    if source is not None and source.path.resolve() == folder.path.resolve():
        raise InputError(
            f"init_from and out are the same folder, {folder.path}: --resume goes on with the run there, and another "
            "--out begins a new one from it"
        )
    if existing == "overwrite" or not folder.is_used:
        return
    if existing == "refuse":
        raise InputError(
            f"{folder.path} holds a run already; --resume goes on with it, --overwrite deletes it, "
            "--out names another folder"
        )
    if changes := config_changes(folder.load_config(), config):
        raise InputError(
            f"{folder.path} holds a run with another config ({'; '.join(changes)}); --resume cannot go on: "
            f"mtbert train {folder.path} --resume takes the run's own config, and --init-from {folder.path} with "
            "another --out begins a new run from its best checkpoint"
        )
    if folder.load_results() is not None and not folder.has_checkpoint:
        raise InputError(
            f"{folder.path} holds the results of a run that has ended, and no checkpoint to go on from; --overwrite "
            "deletes them and begins the run again"
        )


def config_changes(old: Config, new: Config) -> list[str]:
    """What makes two configs different runs, one line per field; empty where one may go on as the other.

    `old` is a run folder's. Its `compute_dtype` is a type by name, and `auto` takes that of the folder.
    """
    if new.compute_dtype == "auto":
        new = replace(new, compute_dtype=old.compute_dtype)
    before, after = (
        {name: value for name, value in to_dict(config).items() if name not in MAY_CHANGE} for config in (old, new)
    )
    return difference(before, after)


def check_inputs(folder: RunFolder, config: Config, encoder: Path) -> None:
    """Refuses to begin a run where what it is given lies among what it would write, or delete to begin again."""
    own = [real(path) for path in (*folder.folders, *folder.files)]
    for path, what in ((encoder, "the encoder"), *data_files(config)):
        if any(real(path).is_relative_to(place) for place in own):
            raise InputError(
                f"{path} is {what}, and a run in {folder.path} writes or deletes what lies there; give another --out"
            )


def check_data(folder: RunFolder, config: Config, digests: Digests) -> None:
    """Refuses to go on with a run whose training or dev examples are not those that it began with."""
    before, tasks = folder.load_data(), {task.name: task for task in config.tasks}
    changed = [
        f"{split} of task {name}, {getattr(tasks[name], split)}"
        for name, splits in digests.items()
        for split, digest in splits.items()
        if before.get(name, {}).get(split, digest) != digest
    ]
    if changed:
        raise InputError(
            f"{folder.path}: the run began with other examples ({'; '.join(changed)}), so --resume cannot go on: put "
            f"the files back, or begin a new run with another --out (--init-from {folder.path} takes its parameters)"
        )


def open_folder(folder: RunFolder, config: Config, digests: Digests, overwrite: bool = False) -> None:
    """Makes the run folder, or empties it; `InputError` if it cannot be written."""
    if overwrite:
        delete_run(folder)
    identity = folder.load_identity() if folder.has_checkpoint else identify(config, digests)
    own = {IDENTITY: {"digest": identity}} if identity else {}
    with input_errors(f"cannot write the run folder {folder.path}"):
        folder.path.mkdir(parents=True, exist_ok=True)
        save_config(config, folder.config)
        write_whole(folder.data, json.dumps({**own, **digests}, indent=1) + "\n")


def identify(config: Config, digests: Digests) -> str:
    """A number in hexadecimal digits that is another one for a run of another config, encoder or other examples."""
    names = ("encoder", "revision")
    kept = {name: value for name, value in to_dict(config).items() if name in names or name not in MAY_CHANGE}
    return hashlib.sha256(json.dumps([kept, digests]).encode()).hexdigest()


def delete_run(folder: RunFolder) -> None:
    """Deletes what a run has written, and nothing else that may lie there; its lock is kept by whoever holds it."""
    for path in folder.folders:
        shutil.rmtree(path, ignore_errors=True)
    for path in (*folder.files, *map(folder.note, BACKENDS)):
        path.unlink(missing_ok=True)
