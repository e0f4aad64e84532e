#!/usr/bin/env bash
# A legend "outside" a figure's Axes is drawn over the figure's heading.
#
# matplotlib 3.11.2 (and 3.8.0), numpy 2.4.6. One would guess that the constrained layout,
# which keeps room for a legend with loc="outside upper center" and for suptitle, keeps room
# for both. Each is given its own room at the same edge: the margin is the larger of the two,
# not their sum, and they overlap. So do a legend "outside lower center" and supxlabel. So a
# display that has both writes its heading as the title of the legend.
#
# Output seen:
#   suptitle and legend outside upper center: overlap 51 x 14 pixels
#   supxlabel and legend outside lower center: overlap 51 x 14 pixels
#   margin above the axes: 59 pixels with a title, 38 without
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check matplotlib==3.11.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def drawn(loc, text=None, title=None):
    """Return a text and a legend at the same edge, and the Axes, after the layout."""
    figure = Figure((5, 3), layout="constrained")
    ax = figure.subplots()
    ax.plot([1, 2], label="a line")
    written = getattr(figure, text)("words") if text else None
    legend = figure.legend(loc=loc, title=title)
    FigureCanvasAgg(figure).draw()
    return written, legend, figure.bbox.height - ax.get_window_extent().y1


for text, loc in (
    ("suptitle", "outside upper center"),
    ("supxlabel", "outside lower center"),
):
    written, legend, _ = drawn(loc, text)
    one, other = written.get_window_extent(), legend.get_window_extent()
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    print(f"{text} and legend {loc}: overlap {wide:.0f} x {high:.0f} pixels")
    assert wide > 5
    assert high > 5

above = drawn("outside upper center")[2]
titled = drawn("outside upper center", title="words")[2]
print(f"margin above the axes: {titled:.0f} pixels with a title, {above:.0f} without")
assert titled > above + 5
PY
