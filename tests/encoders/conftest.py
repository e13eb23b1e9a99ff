"""Tiny encoders of families other than BERT."""

from pathlib import Path

import pytest

from tests.encoders.tiny import save_encoder


@pytest.fixture
def roberta(tmp_path: Path) -> Path:
    """The directory of a tiny RoBERTa."""
    return save_encoder("roberta", tmp_path / "roberta")


@pytest.fixture
def distilbert(tmp_path: Path) -> Path:
    return save_encoder("distilbert", tmp_path / "distilbert")
