"""Fields of a config that are set and do nothing beside the others."""

from collections.abc import Iterator
from typing import Any

from mtbert_jax.config import Config, StageConfig
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
    if not any(stage.smart.weight for stage in stages):
        why = "no stage has a smart.weight above 0"
        yield from _unused("smart.", config.smart, tuple(vars(config.smart)), why)
        if factors := [task.name for task in tasks if task.smart_factor != 1]:
            yield f"smart_factor of {', '.join(factors)} without effect: {why}"
    elif not config.smart.steps:
        yield from _unused("smart.", config.smart, ("step_size",), "smart.steps = 0")
    kept = config.evaluate == "teacher" or any(one.needs_teacher for own in stages for one in stage_regularizers(own))
    averaged, teacher = ("momentum", "early_momentum", "early_fraction"), config.proximal.teacher
    others = averaged if teacher == "vanilla" else ("anchor_every_steps",)
    why = f'proximal.teacher = "{teacher}"' if kept else "no stage has a proximal.weight above 0"
    yield from _unused("proximal.", config.proximal, others if kept else tuple(vars(config.proximal)), why)


def _unused(where: str, table: Any, names: tuple[str, ...], why: str) -> Iterator[str]:
    """Those of some fields that are not as they are when they are left out."""
    usual = Config() if isinstance(table, StageConfig) else type(table)()
    if found := [f"{where}{name}" for name in names if getattr(table, name) not in (None, getattr(usual, name))]:
        yield f"{', '.join(found)} without effect: {why}"
