"""What a config's values must be, whatever their source: file, command line or code."""

import math
import re

from mtbert_jax.config import Config, LoraConfig, ParallelConfig, Stage, Task, TaskConfig
from mtbert_jax.config.schema import check_number, must_be, nearest
from mtbert_jax.errors import InputError
from mtbert_jax.files import must_not_begin_at_home
from mtbert_jax.limits import (
    DEEPEST_HEAD,
    LARGEST_BATCH,
    MOST_ENTRIES,
    MOST_EPOCHS,
    MOST_STEPS,
    WIDEST_LAYER,
)
from mtbert_jax.regularizers.smart import check_smart
from mtbert_jax.tasks import kind_of, primary_metric
from mtbert_jax.tasks.methods import check_fields
from mtbert_jax.tasks.reads import head_reads
from mtbert_jax.tasks.scores import AVERAGES, check_chosen_score

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
TAKEN = (*AVERAGES, "file", "allow_pickle")
"""Names that no task can have: averages stand beside the tasks' scores, arguments of NumPy beside their logits."""

READ = {"tokens": "its tokens", "masked": "its tokens", "texts": "two, under dropout"}
"""What heads read that features cannot be kept of."""


def check_config(config: Config) -> None:
    """Refuses values that cannot work, whatever their source; the `InputError` names the field, and what is right."""
    if not config.tasks:
        raise InputError("the config has no [[tasks]]; name at least one")
    if config.max_length < 3:
        raise InputError(f"max_length = {config.max_length}: an example needs at least 3 tokens")
    names = [task.name for task in config.tasks]
    for number, task in enumerate(config.resolved_tasks()):
        _check_task(task, f"tasks[{number}]" + (f" ({task.name})" if task.name.isprintable() and task.name else ""))
    if len({name.lower() for name in names}) < len(names):  # prediction files of sst and SST are one on some disks
        raise InputError(f"task names must differ, got {', '.join(names)}; capitals make no difference")
    check_chosen_score(config.tasks, config.checkpoint_metric)
    if min(config.lengths, default=1) < 1:
        raise InputError("lengths: give positive numbers, such as [32, 64, 128], or none to fit them to the data")
    must_be("at least 0 and below 1", "", config, "encoder_dropout")
    for name, least, most in (
        ("max_shapes", 1, math.inf),
        ("eval_batch_size", 1, LARGEST_BATCH),
        ("log_every_steps", 1, math.inf),
        ("eval_every_steps", 0, math.inf),
        ("save_every_steps", 0, math.inf),
        ("affinity_every_steps", 0, math.inf),
        ("patience", 0, math.inf),
        ("max_bad_steps", 0, math.inf),
        ("micro_batches", 1, LARGEST_BATCH),
    ):
        check_number(name, getattr(config, name), least, most)
    for name in ("encoder", "init_from", "data_dir", "cache_dir", "out"):
        _check_path(name, getattr(config, name))
    for name in ("tasks", "stages", "seeds"):
        if len(getattr(config, name)) > MOST_ENTRIES:
            raise InputError(f"{name}: there are {len(getattr(config, name))}, and {MOST_ENTRIES} are allowed")
    for seed in (config.seed, *config.seeds):
        if not 0 <= seed < 2**32:
            raise InputError(f"seed = {seed}: must be at least 0 and below 2**32")
    for name, values in (("seeds", config.seeds), ("writers", config.writers)):
        if len(set(values)) < len(values):
            raise InputError(f"{name} = {list(values)}: each may stand there once")
    if config.seeds and config.patience:
        raise InputError("patience stops a run by its own scores, but runs of several seeds end together; set it to 0")
    for own in config.tasks:
        if config.micro_batches > 1 and kind_of(own).of_batch:
            raise InputError(
                f"micro_batches = {config.micro_batches}: task {own.name} of kind = {own.kind!r} compares all examples "
                "of a batch with each other; set micro_batches = 1, and remat = true to need less memory"
            )
    if config.affinity_every_steps and config.seeds:
        raise InputError("affinity_every_steps looks at a single run: take seed in place of seeds, or set it to 0")
    stages, usual = config.resolved_stages(), Config()
    for name in ("sampling_exponent", "sampling_cap"):
        asked = any(getattr(stage, name) != getattr(usual, name) for stage in stages)
        if asked and not any(stage.order == "temperature" for stage in stages):
            raise InputError(f'{name} belongs to order = "temperature", which no stage has')
    if config.affinity_every_steps and not any(stage.compares_tasks for stage in stages):
        raise InputError(
            "affinity_every_steps: no stage has several tasks in a step and trains the encoder that they share; it "
            'takes order = "round_robin" and two tasks'
        )
    _check_parallel(config.parallel)
    _check_lora(config.lora)
    if config.lora.rank and all("encoder" in stage.freeze for stage in stages):
        raise InputError(
            "lora: every stage freezes the encoder, and LoRA's products with it; set lora.rank = 0, or leave 'encoder' "
            "out of freeze in some stage"
        )
    if len({stage.name for stage in stages}) < len(stages):
        told = ", ".join(stage.name for stage in stages)
        raise InputError(f"stage names must differ, got {told}; one without a name is stage1, stage2 and so on")
    for number, given in enumerate(config.stages, start=1):
        where = f"stage {given.name or f'stage{number}'}: "
        _check_length(where, given.steps, given.epochs)
        if given.tasks is not None:
            _check_stage_tasks(where, given.tasks, names)
    trained = {name for stage in stages for name in stage.tasks}
    if idle := [name for name in names if name not in trained]:
        raise InputError(
            f"tasks of the stages: no stage trains {', '.join(idle)}; add it to one, or leave the task out"
        )
    _check_length("", config.steps, config.epochs)
    for stage in stages:
        where = f"stage {stage.name}: " if config.stages else ""
        _check_stage(stage, where)
        for own in (task for task in config.tasks if task.name in stage.tasks and kind_of(task).of_batch):
            if (own.batch_size or stage.batch_size) == 1:
                whose = "" if own.batch_size is None else "its "
                raise InputError(
                    f"{where}task {own.name} of kind = {own.kind!r} compares the examples of a batch with each other, "
                    f"and {whose}batch_size = 1 leaves none to compare with, so that its loss is 0; set 2 or more"
                )
        for own in (task for task in config.tasks if stage.cache_features and task.name in stage.tasks):
            for name in ("swap_pairs", "word_deletion", "word_swap"):
                if value := getattr(own, name):
                    raise InputError(
                        f"{where}cache_features keeps what the encoder says of texts as they are, and task {own.name} "
                        f"has {name} = {value:g}; set cache_features = false"
                    )
            if kind_of(own).reads != "vector":
                raise InputError(
                    f"{where}cache_features keeps one vector of each example, and task {own.name} of kind = "
                    f"{own.kind!r} reads {READ[kind_of(own).reads]}; set cache_features = false"
                )


def _check_path(where: str, path: str) -> None:
    if "\0" in path:
        raise InputError(f"{where} = {path!r}: no path has a NUL in it")
    must_not_begin_at_home(f"{where} = {path!r}", path)


def _check_parallel(parallel: ParallelConfig) -> None:
    sizes = vars(parallel)
    for name, size in sizes.items():
        if size < 1 and size != -1:
            raise InputError(f"parallel.{name} = {size}: must be at least 1, or -1 for all devices that are left")
    if list(sizes.values()).count(-1) > 1:
        raise InputError(f"parallel: only one of {', '.join(sizes)} can be -1")


def _check_lora(lora: LoraConfig) -> None:
    check_number("lora.rank", lora.rank, 0, WIDEST_LAYER)
    must_be("above 0", "lora.", lora, "alpha")
    if lora.paths and not lora.rank:
        raise InputError(
            "lora.paths: lora.rank = 0 turns LoRA off, and the encoder itself would train; set lora.rank, such as 8, "
            "or leave the paths out"
        )
    if len(lora.paths) > MOST_ENTRIES:
        raise InputError(f"lora.paths: there are {len(lora.paths)}, and {MOST_ENTRIES} are allowed")


def _check_task(task: Task, where: str) -> None:
    def refuse(what: str) -> None:
        raise InputError(f"{where}: {what}")

    if not NAME.fullmatch(task.name):
        refuse(f"name = {task.name!r}: use letters, digits, '-' and '_'")
    if task.name.lower() in TAKEN:
        refuse(f"name = {task.name!r}: no task can be called {', '.join(TAKEN[:-1])} or {TAKEN[-1]}")
    if len(task.text) not in (1, 2) or not all(task.text):
        refuse("text: name one column, or two for pairs")
    if len(set(task.text)) < len(task.text):
        refuse(f"text: names column {task.text[0]!r} twice; a pair has two columns")
    if task.whole_words and kind_of(task).reads != "masked":
        refuse(f"whole_words is for kind = 'masked_lm', not for kind = {task.kind!r}")
    usual = TaskConfig()
    for name in ("temperature", "min_label"):
        if getattr(task, name) != getattr(usual, name) and kind_of(task).reads != "texts":
            refuse(f"{name} is for kind = 'contrastive', not for kind = {task.kind!r}")
    must_be("above 0", f"{where}: ", task, "temperature")
    if task.min_label is not None and not math.isfinite(task.min_label):
        refuse(f"min_label = {task.min_label}: must be a finite number")
    if task.label in task.text and not kind_of(task).auxiliary:
        refuse(f"label = {task.label!r}: is a text column, too")
    for name in (task.output_column, *task.classes):
        if name.splitlines() not in ([], [name]):
            refuse(f"{name!r}: names of classes and columns stand in one line of the prediction file")
    for name in task.classes if task.output_column else ():
        if " , " in name:
            refuse(f"classes: {name!r} has ' , ' in it, which parts id and prediction in the course's format")
    for split in ("train", "dev", "test"):
        _check_path(f"{where}: {split}", getattr(task, split))
    if not task.train and not task.dev and not task.test:
        refuse("no file: give train, dev or test")
    try:
        check_fields(task)
        primary_metric(task)
    except InputError as error:
        refuse(str(error))
    head = task.head
    must_be("at least 0 and below 1", f"{where}: head.", head, "dropout")
    if (reads := head_reads(task)) in ("pair", "towers", "both") and len(task.text) != 2:
        refuse(f"head.pooling = {reads!r} needs two texts; take 'mean' or 'cls' for one")
    if head.hidden_layers < 0 or head.hidden_size < 0:
        refuse("head.hidden_layers and head.hidden_size must be at least 0")
    if head.hidden_layers > DEEPEST_HEAD or head.hidden_size > WIDEST_LAYER:
        refuse(f"head.hidden_layers must be at most {DEEPEST_HEAD}, head.hidden_size at most {WIDEST_LAYER}")
    must_be("above 0", f"{where}: ", task, "loss_weight")
    if task.batch_size is not None:
        check_number(f"{where}: batch_size", task.batch_size, 1, LARGEST_BATCH)
    if task.max_length < 3:
        refuse(f"max_length = {task.max_length}: an example needs at least 3 tokens")
    must_be("at least 0", f"{where}: ", task, "smart_factor")
    for name in ("class_weights", "loss_balance", "sampling_balance"):
        if getattr(task, name) and not kind_of(task).one_class_each:
            refuse(f"{name} is for tasks with classes, one for each example, not for kind = {task.kind!r}")
    must_be("from 0 to 1", f"{where}: ", task, "loss_balance", "sampling_balance", "swap_pairs")
    must_be("at least 0 and below 1", f"{where}: ", task, "word_deletion")
    must_be("from 0 to 1", f"{where}: ", task, "word_swap")
    for name in ("word_deletion", "word_swap"):
        if getattr(task, name) and kind_of(task).reads != "vector":
            what = READ[kind_of(task).reads].replace("its", "their")
            refuse(f"{name} is for labels of whole texts, not for kind = {task.kind!r}, which reads {what}")
        if getattr(task, name) and reads in ("towers", "both"):
            refuse(f"{name} changes the words of one input, and head.pooling = {reads!r} reads several; set it to 0")
    for name in ("swap_pairs", "both_orders"):
        if getattr(task, name) and (len(task.text) != 2 or kind_of(task).reads != "vector"):
            refuse(f"{name} is for labelled pairs of texts, not for kind = {task.kind!r} over {len(task.text)} text(s)")
    count = len(kind_of(task).classes(task))
    if len(task.class_weights) not in (0, count):
        refuse(f"class_weights: give {count} numbers, one per class, not {len(task.class_weights)}")
    if not all(0 < weight < math.inf for weight in task.class_weights):
        refuse("class_weights: every weight must be above 0")
    if task.class_weights and task.loss_balance:
        refuse("class_weights and loss_balance exclude each other")


def _check_stage_tasks(where: str, tasks: tuple[str, ...], names: list[str]) -> None:
    """Refuses tasks of a stage that the run does not have, none at all, or one of them twice."""
    if not tasks:
        raise InputError(f"{where}tasks is empty; name some of {', '.join(names)}, or leave it out for all")
    for name in tasks:
        if name not in names:
            raise InputError(f"{where}tasks: {name!r} is none of {', '.join(names)}{nearest(name, names)}")
    if len(set(tasks)) < len(tasks):
        raise InputError(f"{where}tasks = {list(tasks)}: each may stand there once")


def _check_length(where: str, steps: int | None, epochs: float | None) -> None:
    if steps is not None:
        check_number(f"{where}steps", steps, 1, MOST_STEPS)
    if epochs is not None and not 0 < epochs <= MOST_EPOCHS:
        raise InputError(f"{where}epochs = {epochs}: must be above 0, and at most {MOST_EPOCHS}")


def _check_stage(stage: Stage, where: str) -> None:
    if not stage.name.isprintable():
        raise InputError(f"stage name {stage.name!r}: must be printable")
    check_number(f"{where}batch_size", stage.batch_size, 1, LARGEST_BATCH)
    must_be("above 0", where, stage, "lr")
    must_be("from 0 to 1", where, stage, "sampling_exponent")
    check_number(f"{where}sampling_cap", stage.sampling_cap, 0, math.inf)
    must_be("from 0 to 1", where, stage, "warmup_fraction")
    if stage.cache_features:
        if "encoder" not in stage.freeze:
            raise InputError(f'{where}cache_features needs a frozen encoder: freeze = ["encoder"]')
        if stage.smart.weight:
            raise InputError(
                f"{where}cache_features leaves no embeddings for SMART to perturb; set smart.weight = 0 in this stage"
            )
    check_smart(stage.smart, f"{where}smart.")
    must_be("at least 0", f"{where}proximal.", stage.proximal, "weight")
    must_be("at least 0 and below 1", f"{where}proximal.", stage.proximal, "momentum", "early_momentum")
    must_be("from 0 to 1", f"{where}proximal.", stage.proximal, "early_fraction")
    if (anchor := stage.proximal.anchor_every_steps) < 2:
        raise InputError(
            f"{where}proximal.anchor_every_steps = {anchor}: must be at least 2; with 1 the "
            "teacher is the student itself in every step, and the gradient of the proximal term is zero"
        )
    check_number(f"{where}proximal.anchor_every_steps", anchor, 2, MOST_STEPS)
    if not stage.optimizer:
        raise InputError(f'{where}optimizer is empty; give call strings such as "pcgrad()", "adam(lr)"')
