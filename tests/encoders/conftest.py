"""Tiny encoders of families that are plugins."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.encoders.plugins import save_encoder
from tests.plugins import registered


@pytest.fixture
def roberta(tmp_path: Path) -> Iterator[Path]:
    """The directory of a tiny RoBERTa; the plugin lies beside it."""
    with registered("roberta.py", tmp_path):
        yield save_encoder("roberta", tmp_path / "roberta")


@pytest.fixture
def distilbert(tmp_path: Path) -> Iterator[Path]:
    with registered("distilbert.py", tmp_path):
        yield save_encoder("distilbert", tmp_path / "distilbert")
