"""Plots, read as SVG."""

import re

import numpy as np
import pytest

from mtbert_jax.report.plots import COLOURS, curves, figure, mean_of, svg


def ticks(svg: str) -> set[str]:
    return set(re.findall(r">([^<>\n]+)</(?:text|tspan)>", svg.replace("\N{MINUS SIGN}", "-")))


def test_the_scale_of_lines_is_linear_or_logarithmic() -> None:
    line = {"": [([0, 50, 100], [3000.0, 2000.0, 20.0])]}
    assert {"500", "1000", "1500"} <= ticks(svg(curves("rate", "examples", line)))
    assert "500" not in ticks(svg(curves("rate", "examples", line, scale="log")))


def test_ticks_tell_whole_numbers() -> None:
    values = 0.969 + np.array([0.0, 1e-5, 2e-5])
    assert any(tick.startswith("0.96900") for tick in ticks(svg(curves("noise", "norm", {"": [([0, 1, 2], values)]}))))


@pytest.mark.parametrize("title", ["$x", "a & b <c>"])
def test_titles_are_taken_as_they_are(title: str) -> None:
    text = svg(curves(title, "y", {"": [([0, 1], [0.0, 1.0])], title: [([0, 1], [1.0, 0.0])]}))
    escaped = title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert text.count(f">{escaped}<") == 2  # above the plot and in the legend


def test_loss_and_score_are_told_apart_by_legend_axes_and_colours() -> None:
    loss, accuracy = ([1, 2, 3], [3.0, 2.0, 1.0]), ([2, 3], [0.5, 0.6])
    text = svg(curves("sst", "training loss", {"training loss": [loss]}, ("dev accuracy", accuracy)))
    assert text.count(">training loss<") == text.count(">dev accuracy<") == 2  # legend and axis
    for name, colour in zip(("training loss", "dev accuracy"), COLOURS, strict=False):
        axis = re.findall(rf'<text style="[^"]*fill: (#\w+)[^"]*"[^>]*>{name}<', text)
        assert colour in axis
    assert text.count("<use ") > 5  # a point for each value, beside ticks


def test_several_lines_of_one_name_are_thin_and_their_mean_is_drawn() -> None:
    one, other = ([1, 2, 4], [1.0, 2.0, 5.0]), ([1, 2, 3], [3.0, 4.0, 9.0])
    assert mean_of([one, other]) == ([1, 2], [2.0, 3.0])
    made = figure([curves("seeds", "y", {"a": [one, other], "b": [one]})])
    (axes,) = made.axes
    assert [len(line.get_xdata()) for line in axes.lines] == [3, 3, 2, 3]
    assert [line.get_alpha() for line in axes.lines] == [0.55, 0.55, None, None]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_marks_stand_beside_their_steps() -> None:
    made = figure([curves("a", "y", {"": [([1, 9], [0.0, 1.0])]}, marks={4: "end of heads"})])
    (axes,) = made.axes
    assert axes.lines[1].get_xdata() == [4, 4]
    assert [text.get_text() for text in axes.texts] == ["end of heads"]


def test_many_names_have_room_above_the_plot() -> None:
    lines = {f"configs/a_long_name_{n}": [([0, 1], [0.0, float(n)])] for n in range(12)}
    made = figure([curves("all", "y", lines)])
    (axes,) = made.axes
    shape = axes.get_legend().get_window_extent()
    assert shape.y0 >= axes.get_window_extent().y1 - 2
    assert shape.y1 <= made.bbox.height
    assert shape.x1 <= made.bbox.width
    assert axes.get_window_extent().height > made.bbox.height / 3
