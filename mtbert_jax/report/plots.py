"""Plots as SVG that stands inside a page: its ink is the page's own, so that it is legible in light and dark."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mtbert_jax.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
FEW = 15  # values of a line that are marked one by one
Series = tuple[Sequence[float], Sequence[float]]


def look(number: int, values: Sequence[float]) -> dict[str, Any]:
    """How line number `number` is drawn: 24 of them can be told apart; few values are points, too."""
    again = number // len(COLOURS) % 3
    marker = "os^"[again] if len(values) < FEW else ""
    dashes = ("-", "--", ":")[again]
    colour = COLOURS[number % len(COLOURS)]
    return {"color": colour, "linestyle": dashes, "marker": marker, "markersize": 4, "linewidth": 1.4}


def curves(
    title: str,
    y: str,
    lines: Mapping[str, Sequence[Series]],
    right: tuple[str, Series] | None = None,
    scale: Literal["linear", "log"] = "linear",
) -> str:
    """Lines over steps, and perhaps one on an axis of its own at the right, with its name.

    Lines that share a name look alike; a single name gets no legend.
    """

    def draw(axes: "Axes") -> None:
        for number, (name, some) in enumerate(lines.items()):
            for place, (steps, values) in enumerate(some):
                axes.plot(steps, values, label="" if place else name, **look(number, values))
        axes.set(xlabel="step", ylabel=y, yscale=scale)
        if 1 < len(lines) <= len(COLOURS):
            axes.legend(fontsize=8)
        elif len(lines) > 1:
            axes.figure.legend(fontsize=6, ncols=2, loc="outside lower center")
        if right:
            (name, (steps, values)) = right
            other = axes.twinx()
            other.grid(visible=False)
            other.spines["right"].set_visible(True)
            other.plot(steps, values, **look(len(lines), values))
            other.set_ylabel(name)

    return _svg(title, draw, height=2.9 + 0.11 * (len(lines) if len(lines) > len(COLOURS) else 0))


def heat(title: str, rows: Sequence[str], columns: Sequence[str], values: np.ndarray, y: str = "", x: str = "") -> str:
    """A matrix ``[row column]`` with its numbers in its cells; NaN leaves a cell empty."""
    largest = max(float(np.nanmax(np.abs(values), initial=0.0)), 1e-9)

    def draw(axes: "Axes") -> None:
        axes.grid(visible=False)
        axes.imshow(np.abs(values) / largest, cmap="Blues", vmin=0, vmax=1.6, alpha=0.75, aspect="auto")
        small = 7 if max(len(rows), len(columns)) > 6 else 9
        for row, column in np.argwhere(np.isfinite(values)):
            axes.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center", fontsize=small)
        axes.set_xticks(range(len(columns)), columns, rotation=45 if max(map(len, columns)) > 6 else 0)
        axes.set_yticks(range(len(rows)), rows)
        axes.set(xlabel=x, ylabel=y)

    return _svg(title, draw)


def scatter(title: str, x: str, xs: np.ndarray, y: str, ys: np.ndarray) -> str:
    """Points, and the line on which both are equal."""

    def draw(axes: "Axes") -> None:
        axes.plot(xs, ys, ".", color=COLOURS[0], alpha=0.35, markersize=4, markeredgewidth=0)
        ends = [float(min(xs.min(), ys.min())), float(max(xs.max(), ys.max()))]
        axes.plot(ends, ends, color=INK, linewidth=0.8, alpha=0.6)
        axes.set(xlabel=x, ylabel=y)

    return _svg(title, draw)


def _svg(title: str, draw: Any, height: float = 2.9) -> str:
    check_matplotlib()
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, height), dpi=72, facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        draw(axes)
        axes.set_title(title.replace("$", r"\$"), fontsize=10, loc="left")
        ConstrainedLayoutEngine().execute(figure)  # once: `savefig` does it twice, which is most of the work
        out = io.StringIO()
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r"\s*<metadata>.*</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return text.replace(INK, "currentColor")


def check_matplotlib() -> None:
    """Refuses to draw without matplotlib; the message says how to install it."""
    try:
        import matplotlib.backends.backend_svg  # noqa: F401
    except ImportError:
        raise InputError("plots need matplotlib: pip install 'mtbert_jax[report]'") from None
