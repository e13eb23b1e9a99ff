"""The drawings on the concept pages: `python docs/pictures.py` writes docs/pictures/*.svg, and a test compares them.

Each drawing is computed: the projection by PCGrad's formula, the noise by SMART's ascent, the time line by the rules of
a loop. Lines and text have the page's colour, so that they can be read in light and dark.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).with_name("pictures")
BLUE, ORANGE, GREEN = "#3b82f6", "#e8590c", "#2f9e44"
HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{title}" '
    'font-family="system-ui, sans-serif" font-size="15" fill="currentColor" stroke-width="2" '
    'style="width:100%;max-width:{width}px;height:auto">\n'
    "<title>{title}</title>\n"
    # As a file of its own, a picture follows the system's scheme; a page that holds it gives it its own colour.
    "<style>svg:root {{ color: #1f2328 }} "
    "@media (prefers-color-scheme: dark) {{ svg:root {{ color: #e6edf3 }} }}</style>\n"
)
Point = Sequence[float]


class Drawing:
    """An SVG in the making, in units of pixels with y downwards; `at` maps points of the plane to them."""

    def __init__(self, title: str, width: int, height: int, origin: Point = (0, 0), unit: float = 1.0) -> None:
        self.parts = [HEAD.format(title=title, width=width, height=height)]
        self.origin, self.unit = origin, unit

    def at(self, point: Point) -> tuple[float, float]:
        """Where a point of the plane lies, y upwards there."""
        return self.origin[0] + self.unit * point[0], self.origin[1] - self.unit * point[1]

    def line(self, one: Point, other: Point, colour: str = "currentColor", dashed: bool = False) -> None:
        """A line between two points of the plane."""
        (x1, y1), (x2, y2) = self.at(one), self.at(other)
        dashes = ' stroke-dasharray="5 5" stroke-opacity="0.7"' if dashed else ""
        self.parts.append(f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}" fill="none"{dashes}/>\n')

    def arrow(self, one: Point, other: Point, colour: str, faint: bool = False) -> None:
        """An arrow from a point of the plane to another."""
        start, end = np.array(self.at(one)), np.array(self.at(other))
        along = (end - start) / np.linalg.norm(end - start)
        across = np.array([-along[1], along[0]])
        left, right, neck = end - 11 * along + 5 * across, end - 11 * along - 5 * across, end - 9 * along
        opacity = ' opacity="0.45"' if faint else ""
        self.parts.append(
            f'<g{opacity}><path d="M{start[0]:.1f} {start[1]:.1f}L{neck[0]:.1f} {neck[1]:.1f}" stroke="{colour}"/>'
            f'<path d="M{end[0]:.1f} {end[1]:.1f}L{left[0]:.1f} {left[1]:.1f}L{right[0]:.1f} {right[1]:.1f}Z" '
            f'fill="{colour}"/></g>\n'
        )

    def dot(self, point: Point, colour: str = "currentColor", size: float = 4) -> None:
        """A dot."""
        x, y = self.at(point)
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:g}" fill="{colour}"/>\n')

    def text(
        self, point: Point, words: str, colour: str = "currentColor", anchor: str = "start", size: int = 15
    ) -> None:
        """Words at a point of the plane."""
        x, y = self.at(point)
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" font-size="{size}">{words}</text>\n'
        )

    def path(self, points: Sequence[Point], colour: str = "currentColor", opacity: float = 0.35) -> None:
        """A closed line through points of the plane."""
        listed = "L".join(f"{x:.1f} {y:.1f}" for x, y in map(self.at, points))
        self.parts.append(f'<path d="M{listed}Z" stroke="{colour}" fill="none" stroke-opacity="{opacity:g}"/>\n')

    def box(self, one: Point, other: Point, colour: str, opacity: float) -> None:
        """A rectangle between two corners, filled."""
        (x1, y1), (x2, y2) = self.at(one), self.at(other)
        x, y, width, height = min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1)
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}" '
            f'fill-opacity="{opacity:g}"/>\n'
        )

    def __str__(self) -> str:
        return "".join([*self.parts, "</svg>\n"])


def beside(point: Point, right: float, up: float) -> tuple[float, float]:
    """A point of the plane some way off."""
    return point[0] + right, point[1] + up


def projected(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A gradient without its component along another that it conflicts with: PCGrad's step."""
    inner = one @ other
    return one - min(inner, 0) / (other @ other) * other


def surgery() -> Drawing:
    """Two gradients in conflict, each projected onto the normal plane of the other, and the sums before and after."""
    first, second = np.array([2.1, 0.5]), np.array([-1.2, 1.5])
    drawing = Drawing("PCGrad: two conflicting gradients and their projections", 560, 300, (220, 270), 80)
    zero = np.zeros(2)
    ours, theirs = projected(first, second), projected(second, first)
    drawing.line(first, ours, BLUE, dashed=True)
    drawing.line(second, theirs, ORANGE, dashed=True)
    drawing.arrow(zero, first + second, "currentColor", faint=True)
    drawing.arrow(zero, first, BLUE, faint=True)
    drawing.arrow(zero, second, ORANGE, faint=True)
    drawing.arrow(zero, ours, BLUE)
    drawing.arrow(zero, theirs, ORANGE)
    drawing.arrow(zero, ours + theirs, GREEN)
    drawing.dot(zero)
    drawing.text(beside(first, 0.08, -0.04), "g₁", BLUE)
    drawing.text(beside(second, -0.1, -0.1), "g₂", ORANGE, "end")
    drawing.text(beside(ours, 0.1, 0.02), "g₁, projected", BLUE)
    drawing.text(beside(theirs, -0.05, 0.14), "g₂, projected", ORANGE, "end")
    drawing.text(beside(ours + theirs, 0.1, -0.04), "the update: the sum of both", GREEN)
    drawing.text(beside(first + second, 0.1, -0.05), "g₁ + g₂", "currentColor")
    return drawing


def ascent(start: np.ndarray, matrix: np.ndarray, step: float, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """The noise after one step of ascent on νᵀ A ν, before and after the projection onto the ball of the ∞-norm."""
    gradient = 2 * matrix @ start
    moved = start + step * gradient / np.abs(gradient).max()
    return moved, np.clip(moved, -radius, radius)


def smart() -> Drawing:
    """SMART's ball around a token's embedding, and one step of ascent from random noise to its edge."""
    drawing = Drawing("SMART: noise in a ball around an embedding", 560, 290, (150, 145), 1200)
    matrix, radius = np.array([[1.0, 0.35], [0.35, 0.4]]), 0.1
    start = np.array([0.018, 0.022])
    moved, end = ascent(start, matrix, 0.1, radius)
    drawing.box([-radius, -radius], [radius, radius], BLUE, 0.12)
    drawing.path([[-radius, -radius], [radius, -radius], [radius, radius], [-radius, radius]], BLUE, 0.9)
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    values, vectors = np.linalg.eigh(matrix)
    for level in (0.0006, 0.0018, 0.0036):
        drawing.path((vectors @ (np.sqrt(level / values)[:, None] * np.stack([np.cos(angles), np.sin(angles)]))).T)
    drawing.line(moved, end, ORANGE, dashed=True)
    drawing.arrow(start, moved, ORANGE)
    drawing.dot([0, 0])
    drawing.dot(start, ORANGE)
    drawing.dot(end, GREEN, 5)
    drawing.text([-0.006, -0.018], "x", anchor="end")
    drawing.text(beside(start, -0.004, 0.012), "x + ν, random", ORANGE, "end")
    drawing.text(beside(moved, 0.008, -0.006), "a step along the gradient", ORANGE)
    drawing.text(beside(end, 0.01, 0.012), "projected: R is measured here", GREEN)
    drawing.text([radius + 0.008, -radius + 0.003], "the ball ‖ν‖∞ ≤ ε", BLUE)
    drawing.text([radius + 0.008, -0.045], "rings: equal divergence", size=13)
    return drawing


STAGES = (("heads", "", 20, BLUE), ("full", ", all parameters", 50, ORANGE))
"""Name, what is said of it, steps, and colour of the stages of the time line."""
RECORD, EVALUATION = 8, 10
"""Steps between records, and steps of an epoch, after which there is an evaluation."""


def marks(steps: int, every: int) -> list[int]:
    """Steps of a stage at which something happens that happens every so many steps, and at its end."""
    return sorted({*range(every, steps + 1, every), steps})


def time_line() -> Drawing:
    """A run of two stages: its records, evaluations and checkpoints."""
    drawing = Drawing("A run of two stages: records, evaluations, checkpoints", 560, 240, (100, 0), 1)
    wide, start, best = 6.4, 0, 60
    rows = {"records": -95, "evaluations": -130, "saved": -165, "best": -200}
    for words, y in rows.items():
        drawing.text([-12, y - 5], words, anchor="end", size=14)
        drawing.line([0, y], [wide * 70, y], "currentColor", dashed=True)
    for name, trains, steps, colour in STAGES:
        left, right = wide * start, wide * (start + steps)
        drawing.box([left, -20], [right - 3, -62], colour, 0.25)
        drawing.text([left + 8, -46], f"stage {name}{trains}", size=14)
        for step in marks(steps, RECORD):
            drawing.dot([left + wide * step, rows["records"]], colour, 3.5)
        for step in marks(steps, EVALUATION):
            drawing.dot([left + wide * step, rows["evaluations"]], colour, 5)
            drawing.dot([left + wide * step, rows["saved"]], "currentColor", 4)
        start += steps
    drawing.dot([wide * best, rows["best"]], GREEN, 6)
    drawing.text([wide * best - 10, rows["best"] + 10], "the evaluation with the highest score", GREEN, "end", 13)
    drawing.text([0, -228], "steps →", size=13)
    return drawing


PICTURES = {"surgery": surgery, "smart": smart, "run": time_line}


def main() -> None:
    """Writes all drawings."""
    FOLDER.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(str(draw()), encoding="utf-8")
        print(FOLDER / f"{name}.svg")


if __name__ == "__main__":
    main()
