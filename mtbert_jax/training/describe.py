"""What a run says of itself before its first step: where it begins, what it does, what of its config does nothing."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import jax

from mtbert_jax import trees
from mtbert_jax.config import Config, Task
from mtbert_jax.config.schema import to_toml
from mtbert_jax.data.dataset import Dataset
from mtbert_jax.data.readers import SPLITS, Split
from mtbert_jax.data.streams import epoch_shapes
from mtbert_jax.data.unknown import unknown_share, unknown_warning
from mtbert_jax.files import real
from mtbert_jax.machine import bfloat16_units
from mtbert_jax.nn.lora import A as LORA_A
from mtbert_jax.tasks import primary_metric
from mtbert_jax.tasks.reads import inputs
from mtbert_jax.tasks.registry import counted, kind_of
from mtbert_jax.tasks.scores import AVERAGES, deciding
from mtbert_jax.training.active import labels_of
from mtbert_jax.training.existing import Existing
from mtbert_jax.training.folder import RunFolder
from mtbert_jax.training.memory import estimate
from mtbert_jax.training.plan import Plan
from mtbert_jax.training.prepare import Prepared, prepare
from mtbert_jax.training.setup import Setup
from mtbert_jax.unused import unused_fields

GIB = 2**30
FEW = 0.01
"""A share of a split's examples up to which nothing is said of them."""


def rehearse(config: Config, existing: Existing = "refuse") -> Iterator[str]:
    """What training would be, line by line: the whole config, data, stages, shapes to compile, memory by estimate."""
    ready = prepare(config, RunFolder(Path(config.out)), existing, busy=True)
    layout, setup = ready.layout, ready.setup
    yield to_toml(ready.config)
    yield from describe_run(ready)
    for plan in ready.runs[0].plans:
        yield from _shapes(plan)
        memory = estimate(setup, plan, layout)
        parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in memory._asdict().items() if size)
        each = " for each seed" if config.seeds else ""
        yield f"stage {plan.stage.name}: about {memory.total / GIB:.2f} GiB on a device{each}, by estimate ({parts})"
    used = [str(run.folder.path) for run in ready.runs if run.folder.is_used]
    if used and existing == "refuse":
        yield f"{', '.join(used)} holds a run already: training needs --resume, --overwrite or another --out"


def describe_run(ready: Prepared) -> Iterator[str]:
    """Where the run begins, model, devices, tasks, stages, and what the best checkpoint goes by, line by line."""
    layout, setup, (train, dev) = ready.layout, ready.setup, (ready.splits[split] for split in SPLITS[:2])
    plans = ready.runs[0].plans
    yield from ready.remarks
    yield from unused_fields(ready.config)
    yield from _beginnings(ready)
    params = trees.count(setup.abstract_params())
    device = jax.devices()[0].device_kind
    used = f"{layout.mesh.size} × {device} ({layout})" if layout.mesh else f"1 × {device}"
    yield f"{params / 1e6:.1f}M parameters; {used}; {_products(setup.config)}"
    if setup.attention.kernel == "cudnn" or jax.default_backend() == "gpu":
        yield f"attention by {setup.attention.kernel}: {setup.attention.reason}"
    if setup.config.seeds:
        yield f"seeds {', '.join(map(str, setup.config.seeds))} train together, each in a folder of its own"
    yield from setup.remarks
    for name in train:
        yield from _of_task(ready, name)
    trained = {name for plan in plans for name in plan.batches.trained}
    for name in train:
        if name not in trained:
            yield f"task {name}: the steps end before one trains it; its head stays as it was, and no step is best"
    if both := ", ".join(name for name, task in setup.tasks.items() if task.both_orders):
        yield f"dev and test pairs scored in both orders: {both}"
    for plan in plans:
        told = [*_adapted(setup, plan), *plan.describe()]
        some = f"{', '.join(plan.stage.tasks)} alone, " if len(plan.stage.tasks) < len(setup.tasks) else ""
        yield f"stage {plan.stage.name}: {some}{', '.join(told)}: {' → '.join(plan.stage.optimizer)}"
        yield from _unused(plan)
        if setup.config.evaluate == "teacher" and (share := _old_share(plan)) > 0.5:
            yield (
                f"warning: stage {plan.stage.name}: {share:.0%} of the teacher, which is scored, is at its end still "
                "what the stage began with; a smaller proximal.momentum or anchor_every_steps follows faster"
            )
    longest = max(plan.batches.num_steps for plan in plans)
    for name, last in (("save_every_steps", longest), ("affinity_every_steps", longest - 2)):
        if getattr(setup.config, name) > max(last, 0):
            yield f"{name} = {getattr(setup.config, name)} without effect: no stage has more than {longest} steps"
    evaluations = max(_evaluations_before_last(setup.config, plan) for plan in plans)
    if dev and setup.config.patience > evaluations:
        why = f"before its last evaluation no stage has more than {evaluations}"
        yield f"patience = {setup.config.patience} without effect: {why}"
    yield _best_checkpoint(setup.config, dev)


def _of_task(ready: Prepared, name: str) -> Iterator[str]:
    """What there is to say of a task's data, line by line."""
    setup, plans, (train, dev, test) = ready.setup, ready.runs[0].plans, (ready.splits[split] for split in SPLITS)
    task, data = setup.tasks[name], train[name]
    lengths = data.tokens.lengths
    counts = f"{len(data.ids)} train, {len(dev[name].ids) if name in dev else 0} dev"
    yield f"task {name}: {counts} examples; {lengths.mean():.0f} tokens on average, {lengths.max()} at most"
    yield from _full_inputs(task, {split: own[name] for split, own in ready.splits.items() if name in own})
    share = unknown_share(setup.tokenizer, data.tokens, inputs(task))
    if warning := unknown_warning(setup.tokenizer, f"task {name}", share):
        yield warning
    files = [real(Path(setup.config.data_dir) / getattr(task, split)) for split in SPLITS[:2]]
    if name in dev and files[0] == files[1]:
        yield f"warning: task {name}: its dev file is its training file; scores on it say nothing about new texts"
    epoch = next(plan.batches.tasks[name].num_examples for plan in plans if name in plan.stage.tasks)
    if epoch > len(data.ids):
        yield f"task {name}: {epoch} examples in an epoch, since those of rare classes repeat"
    for read in (split[name] for split in (train, dev, test) if name in split):
        if left_out := read.left_out():
            yield f"task {name}: {left_out}"
    if _are_alike(task, data):
        yield f"warning: task {name}: all its training labels are alike; that is all that it can learn of them"
    for split, own in (("train", data), ("dev", dev.get(name))):
        if own and own.unlabelled:
            lack = kind_of(task).lacks(task)
            yield f"task {name}: {own.unlabelled} rows of {getattr(task, split)} have {lack} for it"


def _are_alike(task: Task, data: Dataset) -> bool:
    """Whether all labels, or those of all words, are the same one; of an auxiliary task none is read."""
    labels = data.labels[data.labels >= 0] if kind_of(task).has_places else data.labels
    return not kind_of(task).auxiliary and len(labels) > 1 and bool((labels == labels[0]).all())


def _full_inputs(task: Task, splits: dict[Split, Dataset]) -> Iterator[str]:
    """How many examples are cut off, or as long as one can be: which of both, only their texts would tell."""
    full = {split: int((data.tokens.lengths >= task.max_length).sum()) for split, data in splits.items()}
    told = [
        f"{full[split]} of {len(data.ids)} in {split}"
        for split, data in splits.items()
        if full[split] > FEW * len(data.ids)
    ]
    if told:
        yield (
            f"task {task.name}: {', '.join(told)} have max_length = {task.max_length} tokens: longer ones are cut off "
            "there, and check-data counts those"
        )


def _unused(plan: Plan) -> Iterator[str]:
    """What was said of a learning rate that the stage's chain does not use, and shares of its steps that are none."""
    usual = Config()
    said = [name for name in ("lr", "schedule", "warmup_fraction") if getattr(plan.stage, name) != getattr(usual, name)]
    if plan.rate is None and said:
        names = ", ".join(said)
        yield f"stage {plan.stage.name}: {names} without effect: its optimizer does not use lr, as adam(lr) would"
    shares = {"warmup_fraction": 0.0 if plan.rate is None else plan.stage.warmup_fraction}
    shares["smart.ramp_fraction"] = plan.stage.smart.ramp_fraction if plan.stage.smart.weight else 0.0
    steps = plan.batches.num_steps
    for name, share in shares.items():
        if share and not round(share * steps):
            yield f"stage {plan.stage.name}: {name} = {share:g} without effect: of {steps} steps that is none, rounded"


def _old_share(plan: Plan) -> float:
    """How much of the teacher is, after the last step of a stage, what the stage began with."""
    proximal, steps = plan.stage.proximal, plan.batches.num_steps
    if proximal.teacher == "vanilla":
        return float(steps < proximal.anchor_every_steps)
    early = math.ceil(proximal.early_fraction * steps)
    return float(proximal.early_momentum**early * proximal.momentum ** (steps - early))


def _evaluations_before_last(config: Config, plan: Plan) -> int:
    """Evaluations of a stage after which `patience` may end it; after the last it ends anyway."""
    return (plan.batches.num_steps - 1) // (config.eval_every_steps or plan.batches.steps_per_epoch)


def _adapted(setup: Setup, plan: Plan) -> Iterator[str]:
    """What of the encoder LoRA trains in a stage, and how many numbers that is beside those of the heads."""
    lora, trainable = setup.model.lora, trees.split(setup.abstract_params(), plan.frozen)[1]
    if lora and "encoder" in trainable:
        products = [path for path in trees.paths(trainable) if path.endswith(LORA_A)]
        where = ", ".join(dict.fromkeys(re.sub(r"layer_\d+", "*", path.rpartition("/")[0]) for path in products))
        yield (
            f"LoRA of rank {lora.rank} on {len(products)} kernels ({where}): {trees.count(trainable['encoder'])} "
            f"parameters of the encoder train and {trees.count(trainable.get('heads', {}))} of heads"
        )


def _products(config: Config) -> str:
    """The type of products, and what computes or would compute them in bfloat16."""
    units, half = bfloat16_units(), config.compute_dtype == "bfloat16"
    if half:
        return f"products in bfloat16{f' by {units}' if units else ', for which this device has no units'}"
    return "products in float32" + (f' (compute_dtype = "auto" would take bfloat16, by {units})' if units else "")


def _beginnings(ready: Prepared) -> Iterator[str]:
    """Whether there was something to resume, and which parameters are another run's."""
    fresh = [run for run in ready.runs if run.origin is not None]
    if ready.existing == "resume" and fresh:
        places = ", ".join(str(run.folder.path) for run in fresh)
        yield f"nothing to resume: {places} holds no checkpoint; the run begins anew"
    for run in fresh:
        seed = f"seed {run.setup.config.seed}: " if len(ready.runs) > 1 else ""
        yield from (f"{seed}{line}" for line in run.origin.told) if run.origin else ()


def _best_checkpoint(config: Config, dev: dict[str, Dataset]) -> str:
    """What the best checkpoint goes by, in a line."""
    if not dev:
        no_stop = "; patience has no effect" if config.patience else ""
        return f"no dev file: the latest checkpoint is the best{no_stop}"
    which, names = config.checkpoint_metric, [task.name for task in config.tasks]
    able = {task.name: primary_metric(task).name for task in deciding(config.tasks, labels_of(dev), which)}
    by = f"the {which.replace('_', ' ')} of {', '.join(map(' '.join, able.items()))}"
    if which not in AVERAGES:
        by = which.replace(".", " ") if "." in which else f"{which} {able[which]}"
    known = [f"{name} has no dev file" for name in names if name not in dev]
    able_to = {task.name for task in counted([task for task in config.tasks if task.name in dev])}
    known += [f"{name} predicts no labels" for name in names if name in dev.keys() - able_to]
    known += [f"the score of {name} is undefined for its dev labels" for name in names if name in able_to - {*able}]
    without = f" ({'; '.join(known)})" if known and which in AVERAGES else ""
    return f"best checkpoint: {f'by {by} on dev' if able else 'the latest'}{without}"


def _shapes(plan: Plan) -> Iterator[str]:
    """The lengths that a stage's first epoch pads its batches to, and what that costs."""
    if plan.stage.cache_features:
        return
    shapes = epoch_shapes(plan.batches)
    listed = ", ".join(f"{rows} × {length}" for rows, length in shapes.batches)
    cost = f"{shapes.computed / shapes.real:.2f} computed for each real one"
    yield f"stage {plan.stage.name}: batches of {listed} tokens; {cost}"
