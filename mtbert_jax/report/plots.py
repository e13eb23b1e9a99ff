"""Plots: as SVG that stands inside a page, its ink the page's own in light and dark, or as a figure of matplotlib."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mtbert_jax.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # becomes the page's text colour
COLOURS = ("#3b82f6", "#e8590c", "#2f9e44", "#ae3ec9", "#e03176", "#0c9ca6", "#b8860b", "#868e96")
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mtbert",  # the same plot is the same text
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.formatter.useoffset": False,  # every tick tells its whole number
    "grid.alpha": 0.15,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "grid.color": INK,
}
MANY = 60  # values of a line that are no longer marked one by one
WIDTH, HEIGHT = 4.6, 2.9  # of a plot, in inches
Series = tuple[Sequence[float], Sequence[float]]
Scale = Literal["linear", "log"]


@dataclass(frozen=True)
class Plot:
    """A plot that can be drawn on any axes.

    Attributes:
        title: What it shows.
        draw: Draws it.
        names: Names in its legend.
    """

    title: str
    draw: Callable[["Axes"], None]
    names: tuple[str, ...] = ()

    @property
    def legend_lines(self) -> int:
        """Lines of the legend, which stands between title and axes."""
        return math.ceil(len(self.names) / self.legend_columns)

    @property
    def legend_columns(self) -> int:
        """Columns of the legend: as many as its names leave room for."""
        return max(1, min(4, 60 // (6 + max(map(len, self.names), default=0))))


def look(number: int, values: Sequence[float]) -> dict[str, Any]:
    """How line number `number` is drawn: 24 of them can be told apart; values are points, unless there are many."""
    again = number // len(COLOURS) % 3
    marker = "os^"[again] if len(values) < MANY else ""
    dashes = ("-", "--", ":")[again]
    colour = COLOURS[number % len(COLOURS)]
    return {"color": colour, "linestyle": dashes, "marker": marker, "markersize": 3.5, "linewidth": 1.4}


def curves(
    title: str,
    y: str,
    lines: Mapping[str, Sequence[Series]],
    right: tuple[str, Series] | None = None,
    scale: Scale = "linear",
    marks: Mapping[float, str] | None = None,
) -> Plot:
    """Lines over steps, and perhaps one on an axis of its own at the right, with its name.

    Several lines under one name, such as those of several seeds, are thin, and their mean is drawn over them. A single
    name gets no legend. With an axis at the right both axes have the colours of their lines. `marks` are vertical lines
    by step, with what stands beside them.
    """
    names = (*lines, *([right[0]] if right else []))

    def draw(axes: "Axes") -> None:
        drawn = []
        for number, (name, some) in enumerate(lines.items()):
            drawn.append(_line(axes, number, name, some))
        axes.set(xlabel="step", ylabel=literal(y), yscale=scale)
        if right:
            other = axes.twinx()
            other.grid(visible=False)
            other.spines["right"].set_visible(True)
            drawn.append(_line(other, len(lines), right[0], [right[1]]))
            other.set_ylabel(literal(right[0]))
            for side, number in ((axes, 0), (other, len(lines))):
                colour = COLOURS[number % len(COLOURS)]
                side.yaxis.label.set_color(colour)
                side.tick_params(axis="y", colors=colour)
        for step, text in (marks or {}).items():
            axes.axvline(step, color=INK, linewidth=0.8, linestyle=":", alpha=0.7)
            place: Any = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "rotation": 90}
            axes.annotate(literal(text), (step, 1), (-2, -2), ha="right", va="top", fontsize=7, alpha=0.8, **place)
        if plot.legend_lines:
            where: Any = {"loc": "lower left", "bbox_to_anchor": (-0.02, 0.99), "borderaxespad": 0.2}
            axes.legend(handles=drawn, fontsize=8, ncols=plot.legend_columns, columnspacing=1.2, **where)

    plot = Plot(title, draw, names if len(names) > 1 else ())
    return plot


def _line(axes: "Axes", number: int, name: str, some: Sequence[Series]) -> Any:
    """Draws the lines of one name; returns the one that stands in the legend."""
    if len(some) > 1:
        for steps, values in some:
            axes.plot(steps, values, **{**look(number, values), "linewidth": 0.9, "alpha": 0.55, "marker": ""})
        some = [mean_of(some)]
    steps, values = some[0] if some else ((), ())
    (line,) = axes.plot(steps, values, **look(number, values))
    line.set_label(literal(name))
    return line


def mean_of(some: Sequence[Series]) -> Series:
    """Mean of several lines, at the steps that all of them have."""
    known = [dict(zip(steps, values, strict=True)) for steps, values in some]
    steps = sorted(set(known[0]).intersection(*known[1:]))
    return steps, [float(np.mean([one[step] for one in known])) for step in steps]


def heat(title: str, rows: Sequence[str], columns: Sequence[str], values: np.ndarray, y: str = "", x: str = "") -> Plot:
    """A matrix ``[row column]`` with its numbers in its cells; NaN leaves a cell empty."""
    largest = max(float(np.nanmax(np.abs(values), initial=0.0)), 1e-9)

    def draw(axes: "Axes") -> None:
        axes.grid(visible=False)
        # One colour, the more of it the larger the number: on a dark page a cell of nothing is dark.
        cells = np.full((*values.shape, 4), [0x3B / 255, 0x82 / 255, 0xF6 / 255, 0.0])
        cells[..., 3] = np.nan_to_num(np.abs(values)) / largest * 0.65
        axes.imshow(cells, aspect="auto", interpolation="nearest")
        small = 7 if max(len(rows), len(columns)) > 6 else 9
        for row, column in np.argwhere(np.isfinite(values)):
            axes.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center", fontsize=small)
        axes.set_xticks(range(len(columns)), map(literal, columns), rotation=45 if max(map(len, columns)) > 6 else 0)
        axes.set_yticks(range(len(rows)), map(literal, rows))
        axes.set(xlabel=x, ylabel=y)

    return Plot(title, draw)


def scatter(title: str, x: str, xs: np.ndarray, y: str, ys: np.ndarray) -> Plot:
    """Points, and the line on which both are equal."""

    def draw(axes: "Axes") -> None:
        axes.plot(xs, ys, ".", color=COLOURS[0], alpha=0.5, markersize=5, markeredgewidth=0)
        ends = [float(min(xs.min(), ys.min())), float(max(xs.max(), ys.max()))]
        axes.plot(ends, ends, color=INK, linewidth=0.8, alpha=0.6)
        axes.set(xlabel=x, ylabel=y)

    return Plot(title, draw)


def svg(plot: Plot) -> str:
    """A plot as SVG, for a page."""
    check_packages()
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.StringIO()
    with mpl.rc_context(STYLE):
        FigureCanvasSVG(figure([plot])).print_svg(out, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r"\s*<metadata>.*</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return text.replace(INK, "currentColor")


def figure(plots: Sequence[Plot], face: str = "none") -> "Figure":
    """Plots beside each other, two in a line, as one figure of matplotlib; `face` is the colour behind them."""
    check_packages()
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(2, len(plots))
    rows = math.ceil(len(plots) / columns)
    height = HEIGHT + 0.17 * max(plot.legend_lines for plot in plots)
    with mpl.rc_context(STYLE):
        made = Figure(figsize=(WIDTH * columns, height * rows), dpi=72, facecolor=face)
        for place, plot in enumerate(plots, start=1):
            axes = made.add_subplot(rows, columns, place, facecolor="none")
            plot.draw(axes)
            axes.set_title(literal(plot.title), fontsize=10, loc="left", pad=6 + 13 * plot.legend_lines)
        ConstrainedLayoutEngine().execute(made)  # once: `savefig` does it twice, which is most of the work
    return made


def literal(text: str) -> str:
    """A text that matplotlib takes as it is: neither as mathematics nor, by a leading underscore, as no label."""
    return re.sub(r"^_", "\u200b_", text.replace("$", r"\$"))


def check_packages() -> None:
    """Refuses to go on without matplotlib and Jinja, which reports need; the message says how to install them."""
    try:
        import jinja2  # noqa: F401
        import matplotlib.backends.backend_svg  # noqa: F401
    except ImportError:
        raise InputError("reports and plots need matplotlib and jinja2: pip install matplotlib jinja2") from None
