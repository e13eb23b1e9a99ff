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
    """The run folders of several seeds that lie in one folder, by seed; none where the folder is a run's itself."""
    if RunFolder(path).config.is_file():
        return {}
    named = ((re.fullmatch(r"seed(\d+)", file.parent.name), file.parent) for file in path.glob("seed*/config.toml"))
    return {seed: RunFolder(own) for seed, own in sorted((int(name[1]), own) for name, own in named if name)}


def source_of(config: Config) -> RunFolder | None:
    """The run that a run begins from: `init_from` itself or, where several seeds lie there, that of the same seed."""
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


def with_encoder(config: Config, source: RunFolder | None, weights: bool = True) -> tuple[Config, Path]:
    """The config with its encoder filled in, and the folder of that; without `weights`, none are fetched.

    Raises:
        InputError: There is no such encoder, or it contradicts `init_from`.
    """
    if source is None:
        config = replace(config, encoder=config.encoder or DEFAULT_ENCODER)
        return config, locate(config.encoder, config.revision, weights)
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
    return replace(config, encoder=name, revision=theirs.revision), source.encoder
