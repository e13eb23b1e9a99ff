"""The page of all config fields, from the dataclasses of mtbert_jax.config and what stands below each field."""

import ast
import dataclasses
import inspect
import itertools
import re
import typing
from collections.abc import Iterator
from typing import Any

from mtbert_jax import config
from mtbert_jax.schema import to_toml

TABLES = {
    config.Config: ("The run", "Top level of the TOML file."),
    config.TaskConfig: ("`[[tasks]]`", "One table for each task."),
    config.HeadConfig: ("`[head]`", "The head of every task; `[tasks.head]` below a task is that task's own."),
    config.StageConfig: ("`[[stages]]`", "What a stage leaves out it takes from the run's field of the same name."),
    config.SmartConfig: ("`[smart]`", "Also in a stage."),
    config.ProximalConfig: ("`[proximal]`", "Also in a stage."),
    config.ParallelConfig: (
        "`[parallel]`",
        "Sizes of a mesh of devices; -1, for one of them, takes what is left.",
    ),
}


def page() -> str:
    """The page, as Markdown.

    Raises:
        ValueError: A field has no description.
    """
    parts = [
        "# Config fields\n\nEvery field can stand in the TOML file, or on the command line: `--lr 3e-5`, "
        "`--head.dropout 0.1`, `--tasks.0.batch-size 8`. A key that does not exist is refused, and the nearest known "
        "one is named. Rates and shares are plain numbers, lengths are in tokens, and sizes in what the text says.\n"
    ]
    for table, (title, words) in TABLES.items():
        parts += [f"## {title}\n\n{words}\n", "| field | default | meaning |", "|---|---|---|"]
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
        yield one.name, default(one), text + (f" One of {', '.join(words)}." if unsaid else "")


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
