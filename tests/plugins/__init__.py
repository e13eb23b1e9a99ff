"""Plugins as a user writes them: the files that docs/extending.md shows, and those that lie beside this one."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtbert_jax.encoders.family import FAMILIES
from mtbert_jax.optim.registry import AGGREGATORS, unregister
from mtbert_jax.plugins import run_plugins
from mtbert_jax.regularizers import REGULARIZERS
from mtbert_jax.tasks import KINDS

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "extending.md"


def shown() -> dict[str, str]:
    """The files that the page shows, word for word, by their names."""
    text = PAGE.read_text(encoding="utf-8")
    return dict(re.findall(r'^```python title="([\w.]+)"\n(.*?)^```$', text, re.DOTALL | re.MULTILINE))


def write(name: str, folder: Path) -> Path:
    """Writes a plugin: a file of the page, or else one that lies here."""
    path = folder / name
    path.write_text(shown().get(name) or (HERE / name).read_text(encoding="utf-8"), encoding="utf-8")
    return path


@contextmanager
def registered(name: str, folder: Path) -> Iterator[Path]:
    """Runs a plugin from a file in `folder`, and forgets it at the end."""
    with forgetting():
        path = write(name, folder)
        run_plugins([path])
        yield path


@contextmanager
def forgetting() -> Iterator[None]:
    """At the end, forgets all that plugins have registered in between."""
    registries: list[dict[str, object]] = [KINDS, FAMILIES, REGULARIZERS]  # type: ignore[list-item]
    before = [dict(registry) for registry in registries]
    aggregators, metrics = set(AGGREGATORS), {name: kind.metrics for name, kind in KINDS.items()}
    try:
        yield
    finally:
        for registry, known in zip(registries, before, strict=True):
            registry.clear()
            registry.update(known)
        for name, own in metrics.items():
            type(KINDS[name]).metrics = own
        for name in set(AGGREGATORS) - aggregators:
            unregister(name)
        for name in [name for name in sys.modules if name.startswith("mtbert_plugin_")]:
            del sys.modules[name]
