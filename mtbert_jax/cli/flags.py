"""Flags of a command line before they are read: tasks and stages by name, and hints where a flag is unknown."""

import contextlib
import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from mtbert_jax.config import Config, HeadConfig, ProximalConfig, SmartConfig, StageConfig, TaskConfig
from mtbert_jax.config.elsewhere import HINTS
from mtbert_jax.config.schema import convert, nearest
from mtbert_jax.errors import InputError

MANY = 2
"""Number of values of a flag that takes any number of them."""
CONFIGS = (".toml", ".yaml", ".yml", ".json")
"""How names of configs end, those that a reader will refuse included."""


def known_flags(command: Any) -> dict[str, int]:
    """Every flag of a command, with its number of values: 0, 1 or `MANY`.

    An instance of its dataclass, rather than the class, has flags for its tasks and stages, too.
    """
    return {f"--{name}": count for name, count, _ in _fields(command)}


def _fields(command: Any) -> Iterator[tuple[str, int, Any]]:
    """Every flag without its dashes, its number of values, and the type of its field."""
    hints = typing.get_type_hints(command if isinstance(command, type) else type(command), include_extras=True)
    for field in dataclasses.fields(command):
        value, kind = getattr(command, field.name, field.default), hints[field.name]
        name, annotated = field.name.replace("_", "-"), str(kind)
        if dataclasses.is_dataclass(value):
            prefix = "" if isinstance(value, Config) else f"{name}."
            yield from ((prefix + below, count, own) for below, count, own in _fields(value))
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            for number, item in enumerate(value):
                yield from ((f"{name}.{number}.{below}", count, own) for below, count, own in _fields(item))
        elif kind is bool:
            yield from ((name, 0, bool), (f"no-{name}", 0, bool))
        elif "config.fields" not in annotated and "Positional" not in annotated:
            yield name, MANY if "tuple" in annotated else 1, kind


_EVERY = Config(
    tasks=(TaskConfig(head=HeadConfig()),), stages=(StageConfig(smart=SmartConfig(), proximal=ProximalConfig()),)
)
"""A config with all tables that there are."""


def config_place(command: type[Any], args: Sequence[str]) -> int | None:
    """Where the config stands among the arguments of a command over one: the first that is no flag and no flag's value.

    Flags that take any number of values leave it what is named like one.
    """
    known = known_flags(command(_EVERY))
    values = 0
    for place, arg in enumerate(args):
        if arg.startswith("--"):
            flag, given, _ = arg.partition("=")
            values = 0 if given else known.get(_in_general(flag), MANY)
        elif arg.startswith("-") and values == 0:
            continue
        elif values == 0 or (values == MANY and arg.lower().endswith(CONFIGS)):
            return place
        elif values == 1:
            values = 0
    return None


def _in_general(flag: str) -> str:
    """A flag as `_EVERY` has it: that of the first task or stage, whichever it is of."""
    table, _, rest = flag.replace("_", "-").removeprefix("--").partition(".")
    if table not in ("tasks", "stages"):
        return flag.replace("_", "-")
    fields = (name for name, _, _ in _fields(getattr(_EVERY, table)[0]))
    own = max((name for name in fields if f".{rest}".endswith(f".{name}")), key=len, default="")
    return f"--{table}.0.{own}"


def by_number(args: Sequence[str], config: Config) -> list[str]:
    """The arguments with tasks and stages by their numbers, from 0, in flags such as ``--tasks.sst.batch-size``.

    Raises:
        InputError: There is no such task or stage, or it has no such field; the nearest known one is named.
    """
    names = {"tasks": [task.name for task in config.tasks], "stages": []}
    if config.stages:
        names["stages"] = [stage.name for stage in config.resolved_stages()]
    return [_with_number(arg, names) for arg in args]


def _with_number(arg: str, names: dict[str, list[str]]) -> str:
    flag, equals, value = arg.partition("=")
    table, dot, rest = flag.removeprefix("--").partition(".")
    if not flag.startswith("--") or not dot or table not in names:
        return arg
    known, one = names[table], table.removesuffix("s")
    name, _, field = rest.partition(".")
    if not (name.isdecimal() and int(name) < len(known)):
        longer = [one for one in known if rest.startswith(f"{one}.")]  # names of stages may have dots
        name = max(longer, key=len, default=name)
        field = rest[len(name) + 1 :]
        if name not in known:
            wanted = f"{table}: {', '.join(known)}; or a number from 0" if known else f"this config has no [[{table}]]"
            raise InputError(f"{flag}: no {one} {name!r}{nearest(name, known)} ({wanted})")
        name = str(known.index(name))
    fields = [below for below, _, _ in _fields(getattr(_EVERY, table)[0])]
    if field.replace("_", "-") not in fields:
        raise InputError(f"{flag}: a {one} has no {field!r}{nearest(field, fields)}")
    return f"--{table}.{name}.{field}{equals}{value}"


def with_own_tables(config: Config, args: Sequence[str]) -> Config:
    """The config with a copy of its `head`, `smart` or `proximal` in each task or stage that gets a field of one."""
    tables: dict[str, list[Any]] = {"tasks": list(config.tasks), "stages": list(config.stages)}
    for arg in args:
        parts = arg.removeprefix("--").partition("=")[0].split(".")
        if arg.startswith("--") and len(parts) == 4 and parts[0] in tables:
            owners, place, name = tables[parts[0]], int(parts[1]), parts[2]
            if getattr(owners[place], name, "") is None and dataclasses.is_dataclass(getattr(config, name, None)):
                owners[place] = dataclasses.replace(owners[place], **{name: getattr(config, name)})
    return dataclasses.replace(config, tasks=tuple(tables["tasks"]), stages=tuple(tables["stages"]))


def check_flags(command: Any, args: Sequence[str], prog: str) -> None:
    """Refuses a flag that a command (as in `known_flags`) does not have, with what is meant where that can be told."""
    known = known_flags(command)
    for arg in args:
        flag = arg.partition("=")[0]
        plain = flag.replace("_", "-")
        if not arg.startswith("--") or plain in known or flag in ("--help", "--"):
            continue
        ours = HINTS.get(plain.removeprefix("--").lower()) if "--lr" in known else None
        hint = f"; use {ours}" if ours else nearest(plain, known, alike=0.785)  # the dashes are alike in all
        raise InputError(f"{prog} has no {flag}{hint} (see {prog} --help)")


def check_values(command: Any, args: Sequence[str], prog: str) -> None:
    """Refuses values that flags of a command (as in `known_flags`) cannot have, and words that are missing or too many.

    Raises:
        InputError: In one line what tyro says in a box of several.
    """
    if "-h" in args or "--help" in args:
        return
    kinds = {f"--{name}": (count, kind) for name, count, kind in _fields(command)}
    words: list[tuple[str, str]] = []  # each with the flag before it
    greedy = ""  # the last flag that took all words up to the next one
    at_once = 0  # words that stand beside each other, from the first on
    for flag, values in _by_flag(args):
        count, kind = kinds.get(flag.replace("_", "-"), (MANY if flag else 0, str))
        if flag and not flag.startswith("--"):
            raise InputError(f"{prog} has no {flag} (see {prog} --help)")
        if count == 1 and not values:
            raise InputError(f"{flag}: a value must follow (see {prog} --help)")
        own = values if count == MANY else values[:count]
        greedy = flag if flag and len(own) > 1 else greedy
        for value in own:
            _check_value(kind, value, flag)
        words += [(value, flag) for value in values[len(own) :]]
        at_once = at_once or len(words)
    _check_words(command, words, at_once, greedy, [arg.partition("=")[0] for arg in args], prog)


def _by_flag(args: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Every flag with the words up to the next one; words at the start and behind ``--flag=value`` have none."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for arg in args:
        flag, equals, value = arg.partition("=")
        if not re.match(r"-[^\d.]", arg) or arg.startswith("-inf"):
            found[-1][1].append(arg)
        elif equals:
            found += [(flag, [value]), ("", [])]
        else:
            found.append((flag, []))
    return found


def _check_value(kind: Any, text: str, where: str) -> None:
    """Refuses a text that is no number or choice where a field has that type; ``None`` stands for a field left out."""
    while typing.get_origin(kind) in (typing.Annotated, tuple, typing.Union, types.UnionType):
        if type(None) in typing.get_args(kind) and text == "None":
            return
        kind = typing.get_args(kind)[0]
    if kind in (int, float):
        with contextlib.suppress(ValueError):
            convert(kind, kind(text), where)
            return
    if kind in (int, float) or typing.get_origin(kind) is typing.Literal:
        convert(kind, text, where)


def _check_words(
    command: Any, words: list[tuple[str, str]], at_once: int, greedy: str, given: list[str], prog: str
) -> None:
    """Refuses words that stand at no flag and are none of the command's own, and those of its own that are missing.

    Where it takes any number of words, these are the first `at_once`, and none is left if the flag `greedy` took them.
    """
    hints = typing.get_type_hints(command if isinstance(command, type) else type(command), include_extras=True)
    for field in dataclasses.fields(command):
        kind, needed = hints[field.name], isinstance(command, type) and field.default is dataclasses.MISSING
        if "Positional" not in str(kind):
            if needed and f"--{field.name}" not in given:
                raise InputError(f"--{field.name} is missing (see {prog} --help)")
        elif "tuple" in str(kind):
            if greedy and not words and "--check" not in given:
                places = field.name
                raise InputError(
                    f"no {places}: {greedy} takes all words that follow it, so the {places} stand before it (see "
                    f"{prog} --help)"
                )
            words = words[at_once:]
        elif words:
            _check_value(kind, words.pop(0)[0], field.name)
        elif needed:
            raise InputError(f"{field.name} is missing (see {prog} --help)")
    if words:
        (word, flag), *_ = words
        takes = f"; {flag} takes {'one value' if known_flags(command)[flag] else 'none'}" if flag else ""
        raise InputError(f"{word!r} belongs to no flag{takes} (see {prog} --help)")
