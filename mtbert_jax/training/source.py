"""Where a run's encoder comes from: a directory, the hub, or the run that `init_from` names."""

import re
from dataclasses import replace
from pathlib import Path

from mtbert_jax.config import Config
from mtbert_jax.encoders.config_json import load_encoder_config, size_changes
from mtbert_jax.encoders.hub import locate
from mtbert_jax.errors import InputError
from mtbert_jax.files import is_folder
from mtbert_jax.training.folder import RunFolder

DEFAULT_ENCODER = "google-bert/bert-base-uncased"
"""The encoder of a config that names neither `encoder` nor `init_from`."""


def seed_folders(path: Path) -> dict[int, RunFolder]:
    """The run folders of several seeds that lie in one folder, by seed."""
    named = ((re.fullmatch(r"seed(\d+)", file.parent.name), file.parent) for file in path.glob("seed*/config.toml"))
    return {seed: RunFolder(own) for seed, own in sorted((int(name[1]), own) for name, own in named if name)}


def source_of(config: Config) -> RunFolder | None:
    """The run that a run begins from: `init_from` itself or, where several seeds lie there, that of the same seed.

    Raises:
        InputError: No such run lies there.
    """
    if not config.init_from:
        return None
    folder, where = RunFolder(Path(config.init_from)), f"init_from = {config.init_from!r}"
    if not is_folder(folder.path):
        raise InputError(f"{where} is no run folder: no folder lies there")
    if folder.config.is_file():
        return folder
    seeds, seed = seed_folders(folder.path), (*config.seeds, config.seed)[0]
    if seed in seeds:
        return seeds[seed]
    if seeds:
        first = next(iter(seeds.values())).path
        names = ", ".join(own.path.name for own in seeds.values())
        raise InputError(
            f"{where} holds the runs {names}, none of seed {seed}; name one of them, such as {str(first)!r}"
        )
    hint = f"; it is an encoder: encoder = {config.init_from!r}" if (folder.path / "config.json").is_file() else ""
    raise InputError(f"{where} is no run folder: it has no config.toml{hint}")


def encoder_folder(config: Config, weights: bool = True) -> Path:
    """The folder that a run reads its encoder's description and tokenizer from.

    Args:
        config: The run.
        weights: Whether weights are needed from there; if not, they are not fetched from the hub.

    Raises:
        InputError: There is no such run or encoder.
    """
    source = source_of(config)
    config = with_encoder(config, source)
    return source.encoder if source else locate(config.encoder, config.revision, weights)


def with_encoder(config: Config, source: RunFolder | None) -> Config:
    """The config with `encoder` and `revision` filled in: what a run from `source` is, in the end, a training of.

    Raises:
        InputError: `encoder` or `revision` contradict `init_from`.
    """
    if source is None:
        return replace(config, encoder=config.encoder or DEFAULT_ENCODER)
    theirs = source.load_config()
    whose, remedy = f"init_from = {config.init_from!r}", "leave encoder and revision out: init_from brings its own"
    name = theirs.encoder or DEFAULT_ENCODER
    if config.encoder not in ("", name):
        try:
            own = load_encoder_config(locate(config.encoder, config.revision, weights=False))
        except InputError as error:
            raise InputError(f"{error}; {remedy}") from None
        if changes := size_changes(load_encoder_config(source.encoder), own):
            raise InputError(f"encoder = {config.encoder!r} is not that of {whose} ({'; '.join(changes)}); {remedy}")
    elif config.revision not in (None, theirs.revision):
        raise InputError(f"revision = {config.revision!r} is not that of {whose}, {theirs.revision!r}; {remedy}")
    return replace(config, encoder=name, revision=theirs.revision)
