"""TOML files that include others: all that a file leads to, in order, and how one is laid over another."""

import contextlib
import re
import tomllib
from pathlib import Path
from typing import Any

from mtbert_jax.errors import InputError
from mtbert_jax.files import must_be_file, must_lie_in, read_text, real
from mtbert_jax.limits import LARGEST_TOML, MOST_DOTS, MOST_INCLUDES

Table = dict[str, Any]


def read_all(path: Path, root: Path | None = None) -> list[tuple[Path, Table]]:
    """A TOML file and all that it includes, each with its own values: included files stand before what includes them.

    ``include`` is a path relative to the file that it stands in, or a list of such. A file that is reached twice counts
    once, where it is reached first: otherwise its second coming would undo what others have laid over it.

    Raises:
        InputError: A file is missing or no TOML, an include is no path to one or leads out of `root` (the folder above
            the file's own if left out), or files include each other in a circle.
    """
    found: dict[Path, tuple[Path, Table]] = {}
    _visit(path, root or real(path.parent).parent, {}, found)
    return list(found.values())


def _visit(path: Path, root: Path, above: dict[Path, Path], found: dict[Path, tuple[Path, Table]]) -> None:
    file = real(path)
    if file in above:
        circle = [*above.values()][list(above).index(file) :]
        raise InputError(f"{circle[0]}: its includes lead in a circle: {' → '.join(map(str, [*circle, path]))}")
    if file in found:
        return
    if len(found) + len(above) == MOST_INCLUDES:
        raise InputError(f"{path}: this is file {MOST_INCLUDES + 1} that includes lead to; {MOST_INCLUDES} are allowed")
    values = _read_toml(path, next(reversed(above.values()), None))
    for name in _included(path, values.pop("include", [])):
        must_lie_in(root, path.parent / name, "includes go up to the folder above the config's and no further")
        must_be_file(path.parent / name)
        _visit(path.parent / name, root, {**above, file: path}, found)
    found[file] = path, values


def _included(path: Path, include: Any) -> list[str]:
    names = include if isinstance(include, list) else [include]
    for name in names:
        if not isinstance(name, str) or "\0" in name or Path(name).is_absolute() or Path(name).suffix != ".toml":
            wanted = "give the path of a .toml file, relative to this one, or a list of such paths"
            raise InputError(f"{path}: include = {name!r}: {wanted}")
    return names


def _read_toml(path: Path, including: Path | None) -> Table:
    try:
        text = read_text(path, LARGEST_TOML)
        for number, line in enumerate(text.split("\n"), start=1):
            if line.count(".") > MOST_DOTS and re.sub(r"\d\.\d", "", line).count(".") > MOST_DOTS:
                raise InputError(f"{path}:{number}: has more than {MOST_DOTS} dots")
        return tomllib.loads(text)
    except OSError as error:
        whose = f", which {including} includes" if including else ""
        raise InputError(f"cannot read the config {path}{whose}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a TOML file: {error}{_other_format(path)}") from None


def _other_format(path: Path) -> str:
    """What to write instead, for a file that is YAML or JSON by its name or its first line."""
    with contextlib.suppress(OSError, ValueError):
        lines = (line.strip() for line in read_text(path, LARGEST_TOML).splitlines())
        first = next((line for line in lines if line and not line.startswith("#")), "")
        if path.suffix.lower() in (".yaml", ".yml") or re.match(r"---|[\w-]+:(\s|$)", first):
            return "; configs are TOML, and this looks like YAML: write lr = 1e-4 for lr: 1e-4, [head] for head:"
        if path.suffix.lower() == ".json" or first.startswith("{"):
            return '; configs are TOML, and this looks like JSON: write lr = 1e-4 for "lr": 1e-4, [head] for "head": {'
    return ""


def lay_over(old: Table, new: Table, by_name: tuple[str, ...] = ()) -> Table:
    """`new` over `old`: tables merge key by key, all else is replaced.

    Lists under the keys `by_name` hold tables with a `name`: each merges with the old one of its name, or is added.

    >>> lay_over({"lr": 1, "head": {"layers": 1, "dropout": 0.2}}, {"lr": 2, "head": {"layers": 3}})
    {'lr': 2, 'head': {'layers': 3, 'dropout': 0.2}}
    >>> lay_over({"tasks": [{"name": "a", "x": 1}]}, {"tasks": [{"name": "a", "x": 2}, {"name": "b"}]}, ("tasks",))
    {'tasks': [{'name': 'a', 'x': 2}, {'name': 'b'}]}
    """
    merged = dict(old)
    for key, value in new.items():
        if key in by_name:
            merged[key] = _lay_over_named(old.get(key, []), value)
        elif isinstance(value, dict) and isinstance(old.get(key), dict):
            merged[key] = lay_over(old[key], value)
        else:
            merged[key] = value
    return merged


def _lay_over_named(old: list[Table], new: list[Table]) -> list[Table]:
    merged = list(old)
    places = {table.get("name"): place for place, table in enumerate(old)}
    for table in new:
        place = places.pop(table.get("name"), None)  # once: two of one name in a file are not one table
        if place is None:
            merged.append(table)
        else:
            merged[place] = lay_over(merged[place], table)
    return merged
