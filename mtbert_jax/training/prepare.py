"""Everything that is known of a run before it writes or computes anything, checked and put into words."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax

from mtbert_jax import trees
from mtbert_jax.checks import check_config
from mtbert_jax.config import Config
from mtbert_jax.config.schema import to_toml
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.data.streams import epoch_shapes
from mtbert_jax.encoders.hub import locate
from mtbert_jax.errors import InputError
from mtbert_jax.parallel import Layout
from mtbert_jax.training.memory import check_state, estimate
from mtbert_jax.training.setup import Plan, Setup
from mtbert_jax.training.trackers import check_trackers

GIB = 2**30


class Prepared(NamedTuple):
    """What a run is made of, checked.

    Attributes:
        encoder: The encoder's directory.
        layout: The devices.
        setup: Config, encoder's description, tokenizer, model.
        train: Training splits, by task.
        dev: Dev splits, by task.
    """

    encoder: Path
    layout: Layout
    setup: Setup
    train: dict[str, Dataset]
    dev: dict[str, Dataset]


def prepare(config: Config) -> Prepared:
    """Reads and checks everything that a run begins with, but for the weights.

    Raises:
        InputError: Config, encoder or data are not right, or a package is missing.
    """
    check_config(config)
    check_trackers(config.writers)
    directory = locate(config.encoder, config.revision)
    layout = Layout.build(config.parallel, len(config.seeds))
    setup = Setup.load(config, directory, layout.narrow)
    train, dev = setup.datasets("train"), setup.datasets("dev")
    _check_datasets(config, train, dev)
    return Prepared(directory, layout, setup, train, dev)


def rehearse(config: Config) -> Iterator[str]:
    """What training would be, line by line: the whole config, data, stages, shapes to compile, memory by estimate.

    Raises:
        InputError: As `prepare`; or the optimizer or what is frozen does not fit the model.
    """
    ready = prepare(config)
    layout, setup = ready.layout, ready.setup
    plans = setup.plans(ready.train)
    yield to_toml(config)
    yield from describe_run(ready, plans)
    for plan in plans:
        check_state(setup, plan, layout)
        yield from _shapes(plan)
        memory = estimate(setup, plan, layout)
        parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in memory._asdict().items() if size)
        each = " for each seed" if config.seeds else ""
        yield f"stage {plan.stage.name}: about {memory.total / GIB:.2f} GiB on a device{each}, by estimate ({parts})"


def describe_run(ready: Prepared, plans: list[Plan]) -> Iterator[str]:
    """Model, devices, tasks and stages, line by line."""
    _, layout, setup, train, dev = ready
    params = trees.count(setup.abstract_params())
    device = jax.devices()[0].device_kind
    used = f"{layout.mesh.size} × {device} ({layout})" if layout.mesh else f"1 × {device}"
    yield f"{params / 1e6:.1f}M parameters; {used}"
    if setup.attention.kernel == "cudnn" or jax.default_backend() == "gpu":
        yield f"attention by {setup.attention.kernel}: {setup.attention.reason}"
    if setup.config.seeds:
        yield f"seeds {', '.join(map(str, setup.config.seeds))} train together, each in a folder of its own"
    for name, data in train.items():
        lengths = data.tokens.lengths
        counts = f"{len(data.ids)} train, {len(dev[name].ids) if name in dev else 0} dev"
        yield f"task {name}: {counts} examples; {lengths.mean():.0f} tokens on average, {lengths.max()} at most"
        epoch = plans[0].batches.tasks[name].num_examples
        if epoch > len(data.ids):
            yield f"task {name}: {epoch} examples in an epoch, since those of rare classes repeat"
        skipped = [*data.skipped, *(dev[name].skipped if name in dev else [])]
        if skipped:
            yield f"task {name}: {len(skipped)} bad rows left out, the first: {skipped[0]}"
    for plan in plans:
        yield f"stage {plan.stage.name}: {', '.join(plan.describe())}: {' → '.join(plan.stage.optimizer)}"


def _shapes(plan: Plan) -> Iterator[str]:
    """The lengths that a stage's first epoch pads its batches to, and what that costs."""
    if plan.stage.cache_features:
        return
    shapes = epoch_shapes(plan.batches)
    listed = ", ".join(f"{rows} × {length}" for rows, length in shapes.batches)
    cost = f"{shapes.computed / shapes.real:.2f} computed for each real one"
    yield f"stage {plan.stage.name}: batches of {listed} tokens; {cost}"


def _check_datasets(config: Config, train: dict[str, Dataset], dev: dict[str, Dataset]) -> None:
    for task in config.tasks:
        if task.name not in train:
            raise InputError(f'task {task.name} has no train file; give its name as train = "..."')
        if not train[task.name].labelled or (task.name in dev and not dev[task.name].labelled):
            raise InputError(f"task {task.name}: training and dev files need labels")
