"""What a config's values must be, whatever their source: file, command line or code."""

import math
import re
from collections.abc import Callable

from mtbert_jax.config import Config, HeadConfig, ParallelConfig, ProximalConfig, SmartConfig, StageConfig, TaskConfig
from mtbert_jax.types import InputError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def check_config(config: Config) -> None:
    """Refuses values that cannot work, whatever their source.

    Raises:
        InputError: Names the field and what would be right.
    """
    if not config.tasks:
        raise InputError("the config has no [[tasks]]; name at least one")
    names = [task.name for task in config.tasks]
    for number, task in enumerate(config.resolved_tasks(), start=1):
        _check_task(task, f"tasks[{number}]" + (f" ({task.name})" if task.name.isprintable() and task.name else ""))
    if len(set(names)) < len(names):
        raise InputError(f"task names must differ, got {', '.join(names)}")
    if config.max_length < 3:
        raise InputError(f"max_length = {config.max_length}: an example needs at least 3 tokens")
    if min(config.lengths, default=1) < 1:
        raise InputError("lengths: give positive numbers, such as [32, 64, 128], or none to fit them to the data")
    if config.encoder_dropout is not None and not 0 <= config.encoder_dropout < 1:
        raise InputError(f"encoder_dropout = {config.encoder_dropout}: must be at least 0 and below 1")
    for name, least in (
        ("max_shapes", 1),
        ("eval_batch_size", 1),
        ("log_every_steps", 1),
        ("eval_every_steps", 0),
        ("save_every_steps", 0),
        ("patience", 0),
        ("max_bad_steps", 0),
        ("micro_batches", 1),
    ):
        if getattr(config, name) < least:
            raise InputError(f"{name} = {getattr(config, name)}: must be at least {least}")
    for seed in (config.seed, *config.seeds):
        if not 0 <= seed < 2**32:
            raise InputError(f"seed = {seed}: must be at least 0 and below 2**32")
    if len(set(config.seeds)) < len(config.seeds):
        raise InputError(f"seeds = {list(config.seeds)}: each may stand there once")
    if len(set(config.writers)) < len(config.writers):
        raise InputError(f"writers = {list(config.writers)}: each may stand there once")
    if config.seeds and config.patience:
        raise InputError("patience stops a run by its own scores, but runs of several seeds end together; set it to 0")
    _check_parallel(config.parallel)
    for stage in config.resolved_stages():
        _check_stage(stage, f"stage {stage.name}: " if config.stages else "")


def _check_parallel(parallel: ParallelConfig) -> None:
    sizes = vars(parallel)
    for name, size in sizes.items():
        if size < 1 and size != -1:
            raise InputError(f"parallel.{name} = {size}: must be at least 1, or -1 for all devices that are left")
    if list(sizes.values()).count(-1) > 1:
        raise InputError(f"parallel: only one of {', '.join(sizes)} can be -1")


def _check_task(task: TaskConfig, where: str) -> None:
    def refuse(what: str) -> None:
        raise InputError(f"{where}: {what}")

    if not NAME.fullmatch(task.name):
        refuse(f"name = {task.name!r}: use letters, digits, '-' and '_'")
    if len(task.text) not in (1, 2) or not all(task.text):
        refuse("text: name one column, or two for pairs")
    if not task.train and not task.dev and not task.test:
        refuse("no file: give train, dev or test")
    if task.kind == "classification":
        if task.classes and task.num_classes not in (0, len(task.classes)):
            refuse(f"num_classes = {task.num_classes} but {len(task.classes)} classes are named; leave num_classes out")
        if task.num_outputs < 2:
            refuse("classification needs num_classes of 2 or more, or the names of the classes")
        if len(set(task.classes)) < len(task.classes):
            refuse("classes: each may stand there once")
    elif task.num_classes or task.classes:
        refuse(f"num_classes and classes belong to kind = 'classification', not to {task.kind!r}")
    if task.label_range:
        if task.kind != "regression":
            refuse(f"label_range belongs to kind = 'regression', not to {task.kind!r}")
        if len(task.label_range) != 2 or not task.label_range[0] < task.label_range[1]:
            refuse("label_range: give the smallest and the largest label, such as [0.0, 5.0]")
    head = task.head or HeadConfig()
    if not 0 <= head.dropout < 1:
        refuse(f"head.dropout = {head.dropout}: must be at least 0 and below 1")
    if head.pooling == "pair" and len(task.text) != 2:
        refuse("head.pooling = 'pair' needs two texts; take 'mean' or 'cls' for one")
    if head.hidden_layers < 0 or head.hidden_size < 0:
        refuse("head.hidden_layers and head.hidden_size must be at least 0")
    if not (math.isfinite(task.loss_weight) and task.loss_weight > 0):
        refuse(f"loss_weight = {task.loss_weight}: must be above 0")
    if task.batch_size is not None and task.batch_size < 1:
        refuse(f"batch_size = {task.batch_size}: must be at least 1")
    if task.max_length is not None and task.max_length < 3:
        refuse(f"max_length = {task.max_length}: an example needs at least 3 tokens")
    if not 0 <= task.smart_factor < math.inf:
        refuse(f"smart_factor = {task.smart_factor}: must be at least 0")
    _check_balance(task, refuse)


def _check_balance(task: TaskConfig, refuse: Callable[[str], None]) -> None:
    for name in ("class_weights", "loss_balance", "sampling_balance"):
        if getattr(task, name) and task.kind == "regression":
            refuse(f"{name} is for tasks with classes, not for kind = 'regression'")
    for name in ("loss_balance", "sampling_balance"):
        if not 0 <= getattr(task, name) <= 1:
            refuse(f"{name} = {getattr(task, name)}: must be from 0 to 1")
    if not task.class_weights:
        return
    if len(task.class_weights) != task.num_label_classes:
        refuse(f"class_weights: give {task.num_label_classes} numbers, one per class, not {len(task.class_weights)}")
    if not all(0 < weight < math.inf for weight in task.class_weights):
        refuse("class_weights: every weight must be above 0")
    if task.loss_balance:
        refuse("class_weights and loss_balance exclude each other")


def _check_stage(stage: StageConfig, where: str) -> None:
    if stage.steps is not None and stage.steps < 1:
        raise InputError(f"{where}steps = {stage.steps}: must be at least 1")
    if stage.steps is None and not (stage.epochs is not None and 0 < stage.epochs < math.inf):
        raise InputError(f"{where}epochs = {stage.epochs}: must be above 0")
    if stage.batch_size is None or stage.batch_size < 1:
        raise InputError(f"{where}batch_size = {stage.batch_size}: must be at least 1")
    if stage.lr is None or not 0 < stage.lr < math.inf:
        raise InputError(f"{where}lr = {stage.lr}: must be above 0")
    if stage.warmup_fraction is None or not 0 <= stage.warmup_fraction <= 1:
        raise InputError(f"{where}warmup_fraction = {stage.warmup_fraction}: must be from 0 to 1")
    if stage.cache_features:
        if "encoder" not in (stage.freeze or ()):
            raise InputError(f'{where}cache_features needs a frozen encoder: freeze = ["encoder"]')
        if stage.smart and stage.smart.weight:
            raise InputError(
                f"{where}cache_features leaves no embeddings for SMART to perturb; set smart.weight = 0 in this stage"
            )
    _check_smart(stage.smart or SmartConfig(), where)
    _check_proximal(stage.proximal or ProximalConfig(), where)
    if not stage.optimizer:
        raise InputError(f'{where}optimizer is empty; give call strings such as "pcgrad()", "adam(lr)"')


def _check_smart(smart: SmartConfig, where: str) -> None:
    for name in ("weight", "radius", "noise_std", "step_size"):
        value = getattr(smart, name)
        if value is not None and not 0 <= value < math.inf:
            raise InputError(f"{where}smart.{name} = {value}: must be at least 0")
    if smart.steps < 0:
        raise InputError(f"{where}smart.steps = {smart.steps}: must be at least 0")
    if not 0 <= smart.ramp_fraction <= 1:
        raise InputError(f"{where}smart.ramp_fraction = {smart.ramp_fraction}: must be from 0 to 1")


def _check_proximal(proximal: ProximalConfig, where: str) -> None:
    if not 0 <= proximal.weight < math.inf:
        raise InputError(f"{where}proximal.weight = {proximal.weight}: must be at least 0")
    for name in ("momentum", "early_momentum"):
        if not 0 <= getattr(proximal, name) < 1:
            raise InputError(f"{where}proximal.{name} = {getattr(proximal, name)}: must be at least 0 and below 1")
    if not 0 <= proximal.early_fraction <= 1:
        raise InputError(f"{where}proximal.early_fraction = {proximal.early_fraction}: must be from 0 to 1")
    if proximal.anchor_every_steps < 2:
        raise InputError(
            f"{where}proximal.anchor_every_steps = {proximal.anchor_every_steps}: must be at least 2; with 1 the "
            "teacher is the student itself in every step, and the gradient of the proximal term is zero"
        )
