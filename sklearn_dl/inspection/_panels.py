"""Axes divided into panels under a heading that wraps, for displays."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from sklearn_dl._plots import import_pyplot, plain, width_of
from sklearn_dl.inspection._pictures import subplot_place

_HINTED = 1.08  # letters on a screen's pixels are up to so much wider
# Inches of width of all and of one panel, below which letters are smaller.
_SMALL, _NARROW = 5.0, 1.15


def panels(
    name: str,
    ax: Any,
    *,
    shape: tuple[int, int],
    size: tuple[float, float],
    title: str,
    handles: Callable[[], list],
    gap: float = 0.0,
    **shared: Any,
) -> tuple[np.ndarray, float, tuple[float, float]]:
    """Return panels under a heading, the size of their letters, and their own.

    Parameters
    ----------
    name : str
        Of the display, for errors.
    ax : Axes or None
        A subplot that gives its place to the panels; None makes a figure.
    shape : (int, int)
        Rows and columns of panels.
    size : (float, float)
        Width and height in inches of a new figure, without the heading.
    title : str
        Breaks into lines as the width asks.
    handles : callable
        Returns artists with labels, for the legend under the title.
    gap : float, default=0.0
        Inches between the rows, where the figure has no layout engine to find them.
    **shared : dict
        ``sharex`` and ``sharey``, for ``subplots``.

    Returns
    -------
    axes : ndarray of Axes, of that shape
    fontsize : float
        In points.
    cell : (float, float)
        Width and height of a panel with its labels, in inches, about.
    """
    if ax is None:
        pyplot = import_pyplot(name)
    entries = handles()
    from matplotlib.gridspec import GridSpecFromSubplotSpec

    if ax is None:
        width, height = size
        fontsize = _fontsize(width, shape[1])
        lines, columns, top = _measured(title, entries, width - 0.2, fontsize)
        height += top
        figure = pyplot.figure(figsize=(width, height), layout="constrained")
        place = figure.add_gridspec(1, 1)[0]
    else:
        place = subplot_place(ax)
        figure = ax.figure
        width, height = _room(ax)
        fontsize = _fontsize(width, shape[1])
        lines, columns, top = _measured(title, entries, width, fontsize)
    if figure.get_layout_engine() is None and gap:
        top += 0.025 * fontsize  # the titles of the first row
    rest = max(height - top, 0.3 * height)
    outer = GridSpecFromSubplotSpec(2, 1, place, height_ratios=(top, rest), hspace=0)
    head = figure.add_subplot(outer[0])
    head.set_axis_off()
    legend = head.legend(
        handles=entries,
        title="\n".join(lines),
        title_fontsize=fontsize,
        fontsize=fontsize,
        ncols=columns,
        **_LEGEND,
    )
    # Where a layout engine gives less room than was kept, it shall see the legend.
    legend.set_in_layout(figure.get_layout_engine() is not None)
    spaces: dict[str, Any] = {}
    if figure.get_layout_engine() is None:
        each = max((rest - (shape[0] - 1) * gap) / shape[0], 0.1)
        spaces = {"hspace": gap / each, "wspace": 0.12}
    inner = GridSpecFromSubplotSpec(*shape, outer[1], **spaces)
    cell = (width / shape[1], rest / shape[0])
    return inner.subplots(squeeze=False, **shared), fontsize, cell


def _room(ax: Any) -> tuple[float, float]:
    """Return width and height of what a subplot can fill, in inches."""
    box, figure = ax.get_window_extent(), ax.figure
    width, height = box.width / figure.dpi, box.height / figure.dpi
    if figure.get_layout_engine() is not None:  # it will use the margins too
        margins = figure.subplotpars
        width *= 0.96 / (margins.right - margins.left)
        height *= 0.96 / (margins.top - margins.bottom)
    return width, height


_LEGEND: dict[str, Any] = {
    "loc": "upper left",
    "bbox_to_anchor": (0, 1),
    "borderaxespad": 0,
    "borderpad": 0,
    "labelspacing": 0.35,
    "handlelength": 1.8,
    "handletextpad": 0.5,
    "columnspacing": 1.5,
    "alignment": "left",
    "frameon": False,
}


def legend_above(ax: Any, handles: list, fontsize: float) -> None:
    """Put the legend of a panel over it, at the right, in one row."""
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2}
    look = {**_LEGEND, **place}
    ax.legend(handles=handles, fontsize=fontsize, ncols=len(handles), **look)


def few_ticks(height: float, fontsize: float) -> int:
    """Return how many steps an axis has that is as many inches high."""
    steps = height / (0.024 * fontsize)
    return 1 if steps < 1 else int(np.clip(steps, 2, 5))


def decades(ax: Any, values: np.ndarray, most: int) -> None:
    """Show whole decades of a log scale, at most as many steps of them."""
    from matplotlib.ticker import FixedLocator, NullLocator

    low = math.floor(math.log10(values.min()) - 0.1)
    high = math.ceil(math.log10(values.max()) + 0.1)
    step = math.ceil((high - low) / most)
    ticks = [10.0**k for k in range(low, high + 1, step)]
    ax.set_ylim(10.0**low, 10.0**high)
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_minor_locator(NullLocator())


def wrapped(text: str, width: float, fontsize: float) -> list[str]:
    """Return the lines of a text, each at most as many inches wide."""
    lines: list[str] = []
    for word in plain(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, fontsize) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def tidy(ax: Any, fontsize: float) -> None:
    """Remove the frame above and at the right, and set the size of the letters."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.tick_params(labelsize=fontsize - 1)
    ax.xaxis.label.set_fontsize(fontsize)
    ax.yaxis.label.set_fontsize(fontsize)


def _fontsize(width: float, columns: int) -> float:
    return 9.0 if width >= _SMALL and width >= _NARROW * columns else 7.0


def _measured(title, entries, width, fontsize) -> tuple[list[str], int, float]:
    """Return the lines of a heading, the columns of its legend, and its height."""
    em = fontsize / 72
    width /= _HINTED
    around = (
        _LEGEND["handlelength"] + _LEGEND["handletextpad"] + _LEGEND["columnspacing"]
    )
    lines = wrapped(title, width, fontsize)
    widths = [width_of(h.get_label(), fontsize) + around * em for h in entries]
    columns = 1
    for n in range(len(widths), 1, -1):
        parts = np.array_split(widths, n)  # as a legend fills its columns
        if sum(part.max() for part in parts) <= width:
            columns = n
            break
    rows = math.ceil(len(widths) / columns)
    return lines, columns, (1.25 * len(lines) + 1.45 * rows + 0.6) * em
