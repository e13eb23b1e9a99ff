"""Everything that a run needs from its first step to its end, checked before the first step."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mtbert_jax.checks import check_config
from mtbert_jax.config import Config
from mtbert_jax.config.includes import read_all
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.data.readers import SPLITS, Split
from mtbert_jax.errors import InputError
from mtbert_jax.files import real
from mtbert_jax.nn.products import choose_dtype
from mtbert_jax.parallel import Layout
from mtbert_jax.tasks.methods import check_methods
from mtbert_jax.tasks.scores import AVERAGES, deciding
from mtbert_jax.training.active import labels_of
from mtbert_jax.training.existing import Digests, Existing, check_data, check_folder, check_inputs, check_place
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.memory import check_state
from mtbert_jax.training.origin import Origin, from_directory, from_run
from mtbert_jax.training.plan import Plan, make_plans
from mtbert_jax.training.seeds import seeds_apart
from mtbert_jax.training.setup import Setup
from mtbert_jax.training.source import source_of, with_encoder
from mtbert_jax.training.trackers import check_trackers


class PreparedRun(NamedTuple):
    """One of the runs that a config stands for: the only one, or that of one seed.

    What it begins with is None where it goes on from a checkpoint in its folder.
    """

    setup: Setup
    folder: RunFolder
    plans: list[Plan]
    origin: Origin | None


class Prepared(NamedTuple):
    """What a run is made of, checked; `config` has the encoder that `init_from` stands for filled in.

    `remarks` are about what was given and is not used.
    """

    config: Config
    layout: Layout
    setup: Setup
    splits: dict[Split, dict[str, Dataset]]
    runs: list[PreparedRun]
    existing: Existing
    digests: Digests
    remarks: tuple[str, ...] = ()


def prepare(config: Config, folder: RunFolder, existing: Existing = "refuse", *, busy: bool = False) -> Prepared:
    """Reads and checks everything that a run needs, test files and weights included; leaves nothing behind.

    If `busy`, the folder may hold a run although it is to be refused.

    Raises:
        InputError: Config, encoder or data are not right, a package is missing, or the folder is not free or writable.
    """
    check_config(config)
    for task in config.tasks:
        check_methods(task)
    check_trackers(config.writers)
    config = _with_dtype(config, folder, existing)
    layout = Layout.build(config.parallel, len(config.seeds))
    check_place(folder, config)
    apart = seeds_apart(config, folder)
    for own, place in apart:
        if layout.leads:
            place.check_writable()
        if not (busy and existing == "refuse" and place.is_used):
            check_folder(place, own, existing)
    goes_on = [existing == "resume" and place.has_checkpoint for _, place in apart]
    sources = [None if on else source_of(own) for on, (own, _) in zip(goes_on, apart, strict=True)]
    known = next(filter(None, sources), None)
    remarks: tuple[str, ...] = ()
    if all(goes_on):  # what the runs began with need not be there any more
        for _, place in apart:
            place.check_encoder()
        before, directory = apart[0][1].load_config(), apart[0][1].encoder
        if config.encoder not in ("", before.encoder):
            remarks = (f"encoder = {config.encoder!r} is not read: what is resumed has its encoder, {before.encoder}",)
        config = replace(config, encoder=before.encoder, revision=before.revision)
    else:
        config, directory = with_encoder(config, known)
    for on, (_, place) in zip(goes_on, apart, strict=True):
        if not on:
            check_inputs(place, config, directory)

    setup = Setup.load(config, directory, layout.narrow)
    splits = {split: setup.datasets(split) for split in SPLITS}
    _check_datasets(config, splits)
    digests: Digests = {name: {} for name in splits["train"]}
    for split in SPLITS[:2]:
        for name, data in splits[split].items():
            digests[name][split] = data.digest
    for on, (own, place) in zip(goes_on, apart, strict=True):
        if on:
            check_data(place, own, digests)
    named = {"encoder": config.encoder, "revision": config.revision}
    setups = [setup.with_config(replace(own, **named)) for own, _ in apart]  # type: ignore[arg-type]
    plans = [make_plans(own_setup, splits["train"]) for own_setup in setups]
    for plan in plans[0]:
        check_state(setup, plan, layout)
    read: dict[Path, Origin] = {}
    runs = []
    for own_setup, (_, place), stages, on, source in zip(setups, apart, plans, goes_on, sources, strict=True):
        where = source.path if source else directory
        if not on and where not in read:
            read[where] = from_run(source, own_setup) if source else from_directory(directory, own_setup)
        runs.append(PreparedRun(own_setup, place, stages, None if on else read[where]))
    return Prepared(config, layout, setup, splits, runs, existing, digests, remarks)


def check_config_file(path: Path, config: Config, existing: Existing) -> None:
    """Refuses a run that would write its complete config over a file that it is read from; a run's own may be replaced.

    `path` is the file, or a run folder, and `config` what came of it.
    """
    files = [file for file, _ in read_all(path)] if path.is_file() else []
    for _, place in seeds_apart(config, RunFolder(Path(config.out))):
        begun = place.data.is_file() or place.has_checkpoint
        for file in files:
            own = begun and (existing == "resume" or real(file) == real(path))
            if real(file) == real(place.config) and not own:
                raise InputError(
                    f"{file} is read as a config, and a run in {place.path} would write over it; give another --out"
                )


def _with_dtype(config: Config, folder: RunFolder, existing: Existing) -> Config:
    """The config with the type of products that it gets here; a run that goes on has the one that it began with."""
    if config.compute_dtype != "auto":
        return config
    begun = [place for _, place in seeds_apart(config, folder) if existing == "resume" and place.is_used]
    return replace(config, compute_dtype=begun[0].load_config().compute_dtype if begun else choose_dtype("auto"))


def _check_datasets(config: Config, splits: dict[Split, dict[str, Dataset]]) -> None:
    train, dev = splits["train"], splits["dev"]
    for task in config.tasks:
        if task.name not in train:
            raise InputError(f'task {task.name} has no train file; give its name as train = "..."')
        if not train[task.name].labelled or (task.name in dev and not dev[task.name].labelled):
            raise InputError(f"task {task.name}: training and dev files need labels")
    which = config.checkpoint_metric
    if which not in AVERAGES and not deciding(config.tasks, labels_of(dev), which):
        raise InputError(
            f"checkpoint_metric = {which!r} is undefined for the labels of that dev file, whatever is predicted (are "
            "they all equal?); choose another metric or task, or the average"
        )
