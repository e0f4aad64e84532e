"""Matplotlib, where it is installed: places to draw in, colours, and texts that fit."""

import textwrap
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Any

import numpy as np

# Okabe and Ito's palette, "Color universal design" (2008), which the colour-blind can
# tell apart.
BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"

# Scores from 0 to 1, by the beginning of their names, and others of at most 1.
_SHARES = (
    *("accuracy", "average_precision", "balanced_accuracy", "f1", "jaccard"),
    *("precision", "recall", "roc_auc", "top_k_accuracy"),
)
_AT_MOST_1 = ("R²", "r2", "d2_", "explained_variance", "matthews_corrcoef")


def limits_of(score: str, values: Any) -> tuple[float, float]:
    """Return the lowest and the highest value of a score of this name, or of a loss.

    Values beyond them tell of another score of that name, such as percentages.
    """
    low, high = -np.inf, 1.0 if score.startswith((*_SHARES, *_AT_MOST_1)) else np.inf
    if score.startswith((*_SHARES, "loss")):
        low = 0.0
    elif score.startswith("neg_"):
        high = 0.0
    values = np.asarray(values, dtype=float)
    if (values < low).any() or (values > high).any():
        return -np.inf, np.inf
    return low, high


def end_at(ax: Any, axis: str, limits: tuple[float, float]) -> None:
    """Let the axis "x" or "y" end at limits, with room for a dot but not for a tick.

    Nothing that is drawn is cut.
    """
    low, high = getattr(ax, f"get_{axis}lim")()
    together = getattr(ax, f"get_shared_{axis}_axes")().get_siblings(ax)
    drawn = np.array([getattr(one.dataLim, f"interval{axis}") for one in together])
    room = 0.03 * (high - low)
    low = max(low, min(limits[0] - room, drawn[:, 0].min()))
    high = min(high, max(limits[1] + room, drawn[:, 1].max()))
    getattr(ax, f"set_{axis}lim")(low, high)


def import_pyplot(what: str) -> Any:
    """Return ``matplotlib.pyplot``, or say what to install, and what needs it."""
    try:
        import matplotlib.pyplot as pyplot
    except ImportError as error:
        raise ImportError(
            f"{what} needs matplotlib: pip install 'sklearn_dl[plots]'."
        ) from error
    return pyplot


@dataclass(frozen=True)
class Place:
    """Part of a figure that a display fills, laid out by matplotlib.

    Attributes
    ----------
    figure : Figure or SubFigure
        Where to draw.
    whole : Figure or SubFigure
        What it is part of; itself, where the figure is the display's own.
    width, height : float
        In inches, about: the layout is found when the figure is drawn.
    """

    figure: Any
    whole: Any
    width: float
    height: float

    def letters(self, n_columns: int = 1, n_rows: int = 1) -> float:
        """Return the size of letters in points, with so many panels."""
        wide = self.width >= max(5.0, 1.15 * n_columns)
        return 9.0 if wide and self.height >= 1.25 * n_rows else 7.0

    def head(self, text: str, handles: list[Any], size: float) -> None:
        """Write a heading that wraps, and under it a legend of the whole display."""
        if not handles:
            self.figure.suptitle(
                wrapped(text, self.width, size), x=0.01, ha="left", fontsize=size
            )
            return
        around = 4.2 * size / 72  # the handle and the gaps
        widths = [width_of(h.get_label(), size) + around for h in handles]
        n_columns = 1
        for n in range(len(widths), 1, -1):
            columns = np.array_split(widths, n)  # as a legend fills them
            if sum(column.max() for column in columns) <= self.width:
                n_columns = n
                break
        self.figure.legend(
            handles=handles,
            title=wrapped(text, self.width, size) or None,
            ncols=n_columns,
            fontsize=size,
            title_fontsize=size,
            loc="outside upper left",
            alignment="left",
            frameon=False,
            borderpad=0.2,
            borderaxespad=0.2,
            handlelength=1.8,
            handletextpad=0.5,
            columnspacing=1.5,
            labelspacing=0.35,
        )

    def divided(self, last: float, *, across: bool) -> tuple["Place", "Place"]:
        """Return two parts side by side, or under each other; the last has a share."""
        ratios, parts = (1 - last, last), []
        if across:
            figures = self.figure.subfigures(1, 2, width_ratios=ratios)
        else:
            figures = self.figure.subfigures(2, 1, height_ratios=ratios)
        for figure, share in zip(figures, ratios, strict=True):
            width, height = (share, 1.0) if across else (1.0, share)
            size = (width * self.width, height * self.height)
            parts.append(Place(figure, self.whole, *size))
        return parts[0], parts[1]


def place_of(what: str, ax: Any, size: tuple[float, float]) -> Place:
    """Return the place of a subplot, or a new figure of a size in inches for None.

    A figure without matplotlib's constrained layout is given one.
    """
    if ax is None:
        figure = import_pyplot(what).figure(figsize=size, layout="constrained")
        return Place(figure, figure, *size)
    spec = ax.get_subplotspec() if hasattr(ax, "get_subplotspec") else None
    if spec is None:
        raise ValueError("ax must be a subplot, as Figure.add_subplot makes it.")
    lay_out(ax.figure)
    # Axes that were not laid out yet leave room for labels, which the place fills.
    margins = ax.figure.subplotpars
    width, height = size_of(ax)
    width *= 0.96 / (margins.right - margins.left)
    height *= 0.96 / (margins.top - margins.bottom)
    ax.set_axis_off()
    return Place(ax.figure.add_subfigure(spec), ax.figure, width, height)


def lay_out(figure: Any) -> None:
    """Give a figure matplotlib's constrained layout, unless it has it."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.figure.set_layout_engine("constrained")


def size_of(ax: Any) -> tuple[float, float]:
    """Return width and height of Axes as they are now, in inches."""
    box = ax.get_window_extent()
    return box.width / ax.figure.dpi, box.height / ax.figure.dpi


def tidy(ax: Any, size: float) -> None:
    """Remove the frame above and at the right, and set the size of the letters."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=size - 1)
    ax.xaxis.label.set_fontsize(size)
    ax.yaxis.label.set_fontsize(size)


def fitted(
    text: Any, width: float, size: float, *, before: str = "", after: str = ""
) -> str:
    """Return a line at most `width` inches wide in letters of a size in points.

    The middle of the text is left out if need be; words before and after it stay as
    they are where they leave it room.
    """
    text = " ".join(str(text).split())

    def line(kept: int) -> str:
        shown = text
        if kept < len(text):
            end = text[len(text) - kept // 2 :]
            shown = f"{text[: -(-kept // 2)].rstrip()}…{end}"
        return plain(f"{before}{shown}{after}")

    if width_of(line(len(text)), size) <= width:
        return line(len(text))
    low, high = 0, max(len(text) - 1, 0)  # letters that are kept: as many as fit
    while low < high:
        kept = (low + high + 1) // 2
        fits = width_of(line(kept), size) <= width
        low, high = (kept, high) if fits else (low, kept - 1)
    if low == 0 and (before or after):
        return fitted(f"{before}{text}{after}", width, size)
    return line(low)


def fitted_apart(names: list[Any], width: float, size: float) -> list[str]:
    """Return names as `fitted` does; of those that would look alike, what differs."""
    shown = [fitted(name, width, size) for name in names]
    alike = defaultdict(list)
    for i, text in enumerate(shown):
        alike[text].append(i)
    for rows in alike.values():
        texts = [str(names[i]) for i in rows]
        if len({*texts}) == 1:
            continue
        start = _alike(texts)
        end = _alike([text[:start:-1] for text in texts])
        for i, text in zip(rows, texts, strict=True):
            middle = text[start : len(text) - end]
            shown[i] = fitted(f"…{middle}{'…' * bool(end)}", width, size)
    return shown


def _alike(texts: list[str]) -> int:
    """Return with how many letters all begin alike."""
    together = zip(*texts, strict=False)
    return sum(1 for _ in takewhile(lambda letters: len({*letters}) == 1, together))


def wrapped(text: Any, width: float, size: float) -> str:
    """Return lines about `width` inches wide of letters of a size in points."""
    text = " ".join(str(text).split())
    letter = max(width_of(plain(text), size) / max(len(text), 1), 1e-9)
    return plain(textwrap.fill(text, max(int(0.92 * width / letter), 8)))


def plain(text: Any) -> str:
    """Return text that matplotlib writes as it is."""
    return str(text).replace("$", r"\$")


@lru_cache(maxsize=4096)
def width_of(text: str, size: float) -> float:
    """Return how wide a text is on a screen, whose pixels widen letters, in inches."""
    from matplotlib.textpath import TextPath

    if not text.strip():
        return 0.0
    return 1.06 * float(TextPath((0, 0), text, size=size).get_extents().x1) / 72


def picture_axes(
    what: str, ax: Any, heights: list[float], n_columns: int, size: tuple[float, float]
) -> tuple[np.ndarray, Place]:
    """Return Axes (n_rows, n_columns) for pictures, rows so high to each other.

    ax is Axes one by one, a subplot to be divided, or None for a figure of that size.
    """
    n_rows = len(heights)
    if isinstance(ax, list | tuple | np.ndarray):
        given = np.asarray(ax, dtype=object).ravel()[: n_rows * n_columns]
        if len(given) < n_rows * n_columns:
            raise ValueError(
                f"{what} needs {n_rows * n_columns} Axes, or one subplot that it "
                f"divides; got {len(given)}."
            )
        width, height = np.min([size_of(one) for one in given], axis=0)
        place = Place(None, given[0].figure, n_columns * width, n_rows * height)
        return given.reshape(n_rows, n_columns), place
    place = place_of(what, ax, size)
    axes = place.figure.subplots(
        n_rows, n_columns, squeeze=False, height_ratios=heights
    )
    return axes, place
