"""docs/api.md documents every public name, and nothing else."""

import importlib
import inspect
import re

import pytest

import mtbert_jax
from tests.docs.test_pages import DOCS

IDENTIFIERS = {
    identifier.rpartition(".")[2]: identifier
    for identifier in re.findall(r"^::: (\S+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
}
"""What the page names, by the last part."""


def test_every_public_name_is_on_the_page() -> None:
    missing = set(mtbert_jax.__all__) - set(IDENTIFIERS)
    assert missing == set(), "add `::: mtbert_jax.<name>` to a section of docs/api.md"
    assert set(IDENTIFIERS) - set(mtbert_jax.__all__) == set(), "no public names"


@pytest.mark.parametrize("name", IDENTIFIERS)
def test_an_identifier_leads_to_the_public_object(name: str) -> None:
    """A function in a file of its own name needs its whole path: mkdocstrings would show the file instead."""
    module, _, last = IDENTIFIERS[name].rpartition(".")
    public = getattr(mtbert_jax, name)
    assert getattr(importlib.import_module(module), last) is public
    own = getattr(public, "__module__", "")
    if own.endswith(f".{name}"):
        assert IDENTIFIERS[name] == f"{own}.{name}"


@pytest.mark.parametrize("name", [name for name in IDENTIFIERS if callable(getattr(mtbert_jax, name))])
def test_a_public_name_has_a_docstring(name: str) -> None:
    text = inspect.getdoc(getattr(mtbert_jax, name))
    assert text
    assert not text.startswith(f"{name}("), "what Python makes of a class without one"
