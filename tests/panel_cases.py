"""Whether a picture can be read: what is written in it, and where."""

import sys
from itertools import combinations
from unittest.mock import patch

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


@pytest.fixture(autouse=True)
def no_windows():
    backend = mpl.get_backend()
    mpl.use("Agg")
    from matplotlib import pyplot

    yield
    pyplot.close("all")
    mpl.use(backend)


@pytest.fixture
def without_matplotlib(monkeypatch):
    """No part of matplotlib can be imported."""
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)


PLACES = {
    "its own figure": lambda: None,
    "a small figure": lambda: Figure((4, 3), layout="constrained").add_subplot(),
    "a bare figure": lambda: Figure().add_subplot(),
    "the middle of three": lambda: Figure((12, 4)).subplots(1, 3)[1],
}


@pytest.fixture(params=PLACES)
def place(request):
    """Axes to draw in, or None."""
    return PLACES[request.param]()


def drawn_texts(figure):
    """Draw a figure, and return the texts that were drawn, with their boxes."""
    drawn = []
    draw = Text.draw

    def record(text, renderer, *args, **kwargs):
        drawn.append(text)
        return draw(text, renderer, *args, **kwargs)

    canvas = FigureCanvasAgg(figure)
    with patch.object(Text, "draw", record):
        canvas.draw()
    shown = {id(t): t for t in drawn if t.get_visible() and t.get_text().strip()}
    return [(t.get_text(), t.get_window_extent()) for t in shown.values()]


def words(figure):
    """Draw a figure, and return all that is written in it, on one line."""
    return " ".join(" ".join(text for text, _ in drawn_texts(figure)).split())


def shown_ticks(axis):
    """Return the ticks that stand within the limits of an axis, after drawing."""
    axis.figure.draw_without_rendering()
    low, high = sorted(axis.get_view_interval())
    return [tick for tick in axis.get_majorticklocs() if low <= tick <= high]


def beside(one, other):
    """Tell whether two boxes share no more than their edge.

    Before matplotlib 3.11 those of powers are a pixel wider than what is written.
    """
    across = min(one.x1, other.x1) - max(one.x0, other.x0)
    down = min(one.y1, other.y1) - max(one.y0, other.y0)
    return min(across, down) < 1.5


def assert_legible(figure):
    """Check that no texts overlap, and that none is cut off."""
    texts = drawn_texts(figure)
    assert len(texts) > 3
    for (one, a), (other, b) in combinations(texts, 2):
        assert beside(a, b), (one, other)
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in texts:
        assert min(box.x0, box.y0) > -0.5, text
        assert max(box.x1 - width, box.y1 - height) < 0.5, text
