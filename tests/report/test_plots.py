"""Plots, read as SVG."""

import re

import numpy as np
import pytest

from mtbert_jax.report.plots import curves


def ticks(svg: str) -> set[str]:
    return set(re.findall(r">([^<>\n]+)</(?:text|tspan)>", svg.replace("\N{MINUS SIGN}", "-")))


def test_the_scale_of_lines_is_linear_or_logarithmic() -> None:
    line = {"": [([0, 50, 100], [3000.0, 2000.0, 20.0])]}
    assert {"500", "1000", "1500"} <= ticks(curves("rate", "examples", line))
    assert "500" not in ticks(curves("rate", "examples", line, scale="log"))


def test_ticks_tell_whole_numbers() -> None:
    values = 0.969 + np.array([0.0, 1e-5, 2e-5])
    assert any(tick.startswith("0.96900") for tick in ticks(curves("noise", "norm", {"": [([0, 1, 2], values)]})))


@pytest.mark.parametrize("title", ["$x", "a & b <c>"])
def test_titles_are_taken_as_they_are(title: str) -> None:
    svg = curves(title, "y", {"": [([0, 1], [0.0, 1.0])]})
    assert title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in svg
