"""The drawings on the concept pages are those that docs/pictures.py makes, and show what they say."""

import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

import mtbert_jax as mt
from tests.docs.test_pages import DOCS, PAGES


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
    import pictures

    return pictures


def test_files_are_current_and_used(pictures) -> None:
    for name, draw in pictures.PICTURES.items():
        text = str(draw())
        assert (DOCS / "pictures" / f"{name}.svg").read_text(encoding="utf-8") == text, "run docs/pictures.py"
        assert len(text) < 10_000
        assert any(f"pictures/{name}.svg)" in page.read_text(encoding="utf-8") for page in PAGES)
    photographs = {"report.png"}  # of README, by docs/screenshots.py
    drawn = {f"{name}.svg" for name in pictures.PICTURES}
    assert {path.name for path in (DOCS / "pictures").iterdir()} == drawn | photographs


def test_they_are_well_formed_and_stay_inside(pictures) -> None:
    for draw in pictures.PICTURES.values():
        root = ElementTree.fromstring(str(draw()))
        width, height = map(int, root.attrib["viewBox"].split()[2:])
        for path in root.iter("{http://www.w3.org/2000/svg}path"):
            points = np.array(re.findall(r"-?[\d.]+", path.attrib["d"]), float).reshape(-1, 2)
            assert (points >= 0).all()
            assert (points <= [width, height]).all()
        for text in root.iter("{http://www.w3.org/2000/svg}text"):
            long = 0.56 * float(text.attrib["font-size"]) * len(text.text)
            start = float(text.attrib["x"]) - (long if text.attrib["text-anchor"] == "end" else 0)
            assert start >= 0
            assert start + long <= width, text.text


def test_the_projection_is_the_librarys(pictures) -> None:
    gradients = np.array([[2.1, 0.5], [-1.2, 1.5]])
    ours, theirs = pictures.projected(*gradients), pictures.projected(*gradients[::-1])
    assert ours @ gradients[1] == pytest.approx(0)
    weights = mt.aggregator_weights("pcgrad", gradients @ gradients.T)
    np.testing.assert_allclose(weights @ gradients, ours + theirs, atol=1e-5)


def test_the_ascent_ends_on_the_ball_where_the_divergence_is_larger(pictures) -> None:
    matrix, start = np.array([[1.0, 0.35], [0.35, 0.4]]), np.array([0.018, 0.022])
    moved, end = pictures.ascent(start, matrix, 0.1, 0.1)
    assert np.abs(moved - start).max() == pytest.approx(0.1)
    assert np.abs(end).max() == pytest.approx(0.1)
    assert end @ matrix @ end > start @ matrix @ start


def test_things_happen_at_the_end_of_a_stage_too(pictures) -> None:
    assert pictures.marks(20, 8) == [8, 16, 20]
    assert pictures.marks(20, 10) == [10, 20]
