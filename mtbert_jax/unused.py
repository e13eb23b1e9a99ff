"""Fields of a config that are set and do nothing beside the others."""

from collections.abc import Iterator
from typing import Any

from mtbert_jax.config import Config, ProximalConfig, SmartConfig, Stage, StageConfig
from mtbert_jax.files import is_folder
from mtbert_jax.regularizers import stage_regularizers


def unused_fields(config: Config) -> Iterator[str]:
    """Fields that are set and do nothing beside the others, and why, a line for each reason."""
    stages, tasks = config.resolved_stages(), config.resolved_tasks()
    if config.seeds:
        yield from _unused("", config, ("seed",), "seeds has the seeds of all runs")
    if config.lengths:
        yield from _unused("", config, ("max_shapes",), "lengths has all lengths")
    most = max(task.max_length for task in tasks)
    if longer := ", ".join(str(length) for length in config.lengths if length > most):
        yield f"{longer} in lengths without effect: max_length = {most}"
    if is_folder(config.encoder):
        yield from _unused("", config, ("revision",), "encoder is a folder")
    if not config.lora.rank:
        yield from _unused("lora.", config.lora, ("alpha",), "lora.rank = 0")
    if all(task.head for task in config.tasks):
        yield from _unused("", config, ("head",), "every task has its own")
    tables: list[tuple[str, Config | StageConfig]] = [("", config)]
    tables += [(f"stages[{number}]: ", stage) for number, stage in enumerate(config.stages)]
    for where, own in tables:
        if all(task.batch_size for task in tasks):
            yield from _unused(where, own, ("batch_size",), "every task has its own")
        if own.steps is not None and own.epochs is not None:
            yield from _unused(where, own, ("epochs",), f"steps = {own.steps}")
    for task in tasks:
        if not task.head.hidden_layers:
            names = ("hidden_size", "dropout")
            yield from _unused(f"task {task.name}: head.", task.head, names, "head.hidden_layers = 0")
        sizes = {task.batch_size or stage.batch_size for stage in stages if task.name in stage.tasks}
        if sizes == {1}:
            why = "batch_size = 1, and the loss of a batch is the weighted mean over its examples"
            yield from _unused(f"task {task.name}: ", task, ("class_weights", "loss_balance"), why)
    if all(stage.cache_features for stage in stages):
        why = "every stage keeps features, which the encoder makes once, without dropout"
        yield from _unused("", config, ("encoder_dropout", "remat"), why)
    is_on = any(stage.smart.weight for stage in stages)
    yield from _unused_of_smart("smart.", config.smart, "" if is_on else "no stage has a smart.weight above 0")
    if not is_on and (factors := [task.name for task in tasks if task.smart_factor != 1]):
        yield f"smart_factor of {', '.join(factors)} without effect: no stage has a smart.weight above 0"
    with_teacher = [_has_teacher(config, stage) for stage in stages]
    why = "" if any(with_teacher) else "no stage has a proximal.weight above 0"
    yield from _unused_of_proximal("proximal.", config.proximal, why)
    for number, (given, kept) in enumerate(zip(config.stages, with_teacher, strict=False)):
        where = f"stages[{number}]: "
        if given.smart is not None:  # as a whole: nothing of it is the run's
            why = "" if given.smart.weight else "the smart.weight of this stage is 0"
            yield from _unused_of_smart(f"{where}smart.", given.smart, why)
        if given.proximal is not None:
            why = "" if kept else "the proximal.weight of this stage is 0"
            yield from _unused_of_proximal(f"{where}proximal.", given.proximal, why)
    for name in ("smart", "proximal"):
        if config.stages and all(getattr(given, name) is not None for given in config.stages):
            yield from _unused("", config, (name,), "every stage has its own")


def _has_teacher(config: Config, stage: Stage) -> bool:
    return config.evaluate == "teacher" or any(one.needs_teacher for one in stage_regularizers(stage))


def _unused_of_smart(where: str, table: SmartConfig, off: str) -> Iterator[str]:
    """Fields of a table that do nothing: all of them if it is `off`, for that reason."""
    if off:
        yield from _unused(where, table, tuple(vars(table)), off)
    elif not table.steps:
        yield from _unused(where, table, ("step_size",), "smart.steps = 0")


def _unused_of_proximal(where: str, table: ProximalConfig, off: str) -> Iterator[str]:
    """The same of a proximal term, or of the teacher alone."""
    averaged = ("momentum", "early_momentum", "early_fraction")
    others = averaged if table.teacher == "vanilla" else ("anchor_every_steps",)
    why = off or f'proximal.teacher = "{table.teacher}"'
    yield from _unused(where, table, tuple(vars(table)) if off else others, why)


def _unused(where: str, table: Any, names: tuple[str, ...], why: str) -> Iterator[str]:
    """Those of some fields that are not as they are when they are left out."""
    usual = Config() if isinstance(table, StageConfig) else type(table)()
    if found := [f"{where}{name}" for name in names if getattr(table, name) not in (None, getattr(usual, name))]:
        yield f"{', '.join(found)} without effect: {why}"
