"""The page of all config fields, from the dataclasses of mtbert_jax.config, what stands below each field, and units."""

import ast
import dataclasses
import inspect
import itertools
import re
import typing
from collections.abc import Iterator
from typing import Any

from mtbert_jax import config
from mtbert_jax.config.schema import to_toml

TABLES = {
    config.Config: ("The run", "Top level of the TOML file."),
    config.TaskConfig: ("`[[tasks]]`", "One table for each task."),
    config.HeadConfig: ("`[head]`", "The head of every task; `[tasks.head]` below a task is that task's own."),
    config.StageConfig: ("`[[stages]]`", "What a stage leaves out it takes from the run's field of the same name."),
    config.SmartConfig: ("`[smart]`", "Also in a stage."),
    config.ProximalConfig: ("`[proximal]`", "Also in a stage."),
    config.LoraConfig: ("`[lora]`", "Of the run, in all of its stages."),
    config.ParallelConfig: (
        "`[parallel]`",
        "Sizes of a mesh of devices; -1, for one of them, takes what is left.",
    ),
}
UNITS = {
    "tokens": ("max_length", "lengths"),
    "examples": ("batch_size", "eval_batch_size", "sampling_cap"),
    "epochs": ("epochs",),
    "optimizer steps": (
        "steps",
        "log_every_steps",
        "eval_every_steps",
        "save_every_steps",
        "affinity_every_steps",
        "anchor_every_steps",
        "max_bad_steps",
    ),
    "evaluations": ("patience",),
    "share": (
        "encoder_dropout",
        "dropout",
        "warmup_fraction",
        "ramp_fraction",
        "early_fraction",
        "momentum",
        "early_momentum",
    ),
    "0 to 1": ("loss_balance", "sampling_balance", "sampling_exponent", "swap_pairs", "word_deletion", "word_swap"),
    "factor": ("weight", "loss_weight", "smart_factor", "class_weights"),
    "embedding units": ("radius", "noise_std", "step_size"),
    "layers": ("hidden_layers",),
    "neurons": ("hidden_size",),
    "classes": ("num_classes",),
    "label units": ("label_range", "min_label"),
    "parts": ("micro_batches",),
    "lengths": ("max_shapes",),
    "devices": ("replica", "data", "fsdp"),
    "": ("lr", "seed", "seeds", "rank", "alpha", "temperature"),
}
"""What the numbers of the config count, by the names of their fields; a table's own stand in `OWN_UNITS`."""

OWN_UNITS = {"SmartConfig.steps": "steps of ascent"}


def page() -> str:
    """The page, as Markdown.

    Raises:
        ValueError: A field has no description, or a number no unit.
    """
    parts = [
        "# Config fields\n\nEvery field can stand in the TOML file, or on the command line: `--lr 3e-5`, "
        "`--head.dropout 0.1`, `--tasks.sst.batch-size 8`. A key that does not exist is refused, and the nearest known "
        "one is named. Beside a default stands what the number counts.\n"
    ]
    for table, (title, words) in TABLES.items():
        parts += [f"## {title}\n\n{words}\n", "| field | default, unit | meaning |", "|---|---|---|"]
        parts += [f"| `{name}` | {default} | {text} |" for name, default, text in rows(table)]
        parts.append("")
    return "\n".join(parts)


def rows(table: type[Any]) -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each field."""
    told, kinds = descriptions(table), typing.get_type_hints(table)
    for one in dataclasses.fields(table):
        if not told.get(one.name):
            raise ValueError(f"{table.__name__}.{one.name} has no description")
        text = told[one.name].replace("|", "\\|")
        words = [f"`{word}`" for word in literals(kinds[one.name])]
        unsaid = any(word not in text for word in words)
        counted = unit(table, one.name) if is_number(kinds[one.name]) else ""
        yield (
            one.name,
            default(one) + (f" ({counted})" if counted else ""),
            text + (f" One of {', '.join(words)}." if unsaid else ""),
        )


def is_number(kind: Any) -> bool:
    """Whether a field holds numbers; a choice of words or yes and no are none."""
    return kind in (int, float) or (
        typing.get_origin(kind) is not typing.Literal and any(map(is_number, typing.get_args(kind)))
    )


def unit(table: type[Any], name: str) -> str:
    """What a number counts.

    Raises:
        ValueError: `UNITS` does not say.
    """
    if own := OWN_UNITS.get(f"{table.__name__}.{name}"):
        return own
    for words, names in UNITS.items():
        if name in names:
            return words
    raise ValueError(f"{table.__name__}.{name} has no unit: docs/hooks/reference.py")


def literals(kind: Any) -> list[Any]:
    """The words that a field may be, where it may not be any."""
    if typing.get_origin(kind) is typing.Literal:
        return list(typing.get_args(kind))
    return [choice for part in typing.get_args(kind) for choice in literals(part)]


def default(one: dataclasses.Field[Any]) -> str:
    """A field's default as TOML would have it."""
    if one.default_factory is not dataclasses.MISSING:
        return "its own table"
    if one.default is None:
        return "left out"
    value = to_toml({"value": one.default}).removeprefix("value = ").strip()
    return f"`{value}`".replace("|", "\\|")


def descriptions(table: type[Any]) -> dict[str, str]:
    """The string below each field of a dataclass, in one line."""
    (body,) = ast.parse(inspect.getsource(table)).body
    told: dict[str, str] = {}
    lines = body.body if isinstance(body, ast.ClassDef) else []
    for field, text in itertools.pairwise(lines):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                told[name] = re.sub(r"\s+", " ", words).strip()
    return told
