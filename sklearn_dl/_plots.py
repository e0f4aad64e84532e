"""Matplotlib, where it is installed: figures, colours, and texts that fit."""

import textwrap
from functools import lru_cache
from itertools import takewhile
from typing import Any

import numpy as np

# Okabe and Ito's palette, "Color universal design" (2008), which the colour-blind can
# tell apart.
BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"

# Scores from 0 to 1, by the beginning of their names, and others of at most 1.
_SHARES = (
    *("accuracy", "average_precision", "balanced_accuracy", "f1", "jaccard"),
    *("precision", "recall", "roc_auc", "top_k_accuracy"),
)
_AT_MOST_1 = ("R²", "r2", "d2_", "explained_variance", "matthews_corrcoef")
_LEGEND: dict[str, Any] = {"loc": "outside upper left", "alignment": "left"}
_LEGEND |= {"frameon": False, "borderpad": 0.2, "borderaxespad": 0.2}
_LEGEND |= {"handlelength": 1.8, "columnspacing": 1.5, "labelspacing": 0.35}


def limits_of(score: str, values: Any) -> tuple[float, float]:
    """Return the lowest and the highest value of a score of this name, or of a loss."""
    low = 0.0 if score.startswith((*_SHARES, "loss")) else -np.inf
    high = 0.0 if score.startswith("neg_") else np.inf
    if score.startswith((*_SHARES, *_AT_MOST_1)):
        high = 1.0
    # Values beyond them tell of another score of that name, such as percentages.
    beyond = (np.asarray(values) < low) | (np.asarray(values) > high)
    return (-np.inf, np.inf) if beyond.any() else (low, high)


def end_at(ax: Any, axis: str, limits: tuple[float, float]) -> None:
    """Let the axis "x" or "y" end at limits, with room for a dot but not for a tick."""
    low, high = getattr(ax, f"get_{axis}lim")()
    room = 0.03 * (high - low)
    ends = max(low, limits[0] - room), min(high, limits[1] + room)
    getattr(ax, f"set_{axis}lim")(*ends)


def import_pyplot(what: str) -> Any:
    """Return ``matplotlib.pyplot``, or say what to install, and what needs it."""
    try:
        import matplotlib.pyplot as pyplot
    except ImportError as error:
        install = "pip install 'sklearn_dl[plots]'"
        raise ImportError(f"{what} needs matplotlib: {install}.") from error
    return pyplot


def figure_of(what: str, ax: Any, size: tuple[float, float]) -> Any:
    """Return a subplot's place as a figure, or a new one of a size in inches."""
    if ax is None:
        return import_pyplot(what).figure(figsize=size, layout="constrained")
    spec = ax.get_subplotspec() if hasattr(ax, "get_subplotspec") else None
    if spec is None:
        raise ValueError("ax must be a subplot, as Figure.add_subplot makes it.")
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not isinstance(ax.figure.get_layout_engine(), ConstrainedLayoutEngine):
        try:
            ax.figure.figure.set_layout_engine("constrained")
        except RuntimeError as error:  # a colorbar was laid out by another engine
            raise ValueError(
                "The figure of ax has a colorbar in another layout: make it with "
                "layout='constrained'."
            ) from error
    ax.set_axis_off()
    return ax.figure.add_subfigure(spec)


def size_of(place: Any) -> tuple[float, float]:
    """Return width and height of a figure or Axes in inches, as far as is known now."""
    return place.bbox.width / place.figure.dpi, place.bbox.height / place.figure.dpi


def letters_in(figure: Any, n_columns: int = 1, n_rows: int = 1) -> float:
    """Return the size of letters in points, with so many panels."""
    width, height = size_of(figure)
    wide = width >= max(5.0, 1.15 * n_columns)
    return 9.0 if wide and height >= 1.25 * n_rows else 7.0


def head(figure: Any, text: str, size: float) -> None:
    """Write a heading that wraps, and under it a legend of all that has a label."""
    named: dict[str, Any] = {}
    for ax in figure.axes:
        spell_out(ax)
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    room = size_of(figure)[0]
    text = wrapped(text, room, size)
    if not named:
        figure.suptitle(text, x=0.01, ha="left", fontsize=size)
        return
    widths = [width_of(label, size) + 4.2 * size / 72 for label in named]
    n_columns = len(widths)  # as many as fit, filled as a legend fills them
    while n_columns > 1 and room < sum(map(max, np.array_split(widths, n_columns))):
        n_columns -= 1
    look = {"fontsize": size, "title_fontsize": size, "ncols": n_columns, **_LEGEND}
    figure.legend(named.values(), named, title=text or None, **look)


def tidy(ax: Any, size: float) -> None:
    """Remove the frame above and at the right, and set the size of the letters."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=size - 1)
    ax.xaxis.label.set_fontsize(size)
    ax.yaxis.label.set_fontsize(size)


def spell_out(ax: Any) -> None:
    """Write numbers whole: a power apart, as "1e6", would cover a heading."""
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_major_formatter().format_ticks(axis.get_majorticklocs())
        if axis.get_major_formatter().get_offset():
            axis.set_major_formatter("{x:.7g}")


def options(artist: str, look: dict, given: dict | None) -> dict[str, Any]:
    """Return a look with what a user gave, also under matplotlib's short names."""
    from matplotlib import cbook, collections, lines, text

    kinds = {"line": lines.Line2D, "text": text.Text, "dots": collections.Collection}
    sides = [cbook.normalize_kwargs(one, kinds[artist]) for one in (look, given or {})]
    return {**sides[0], **sides[1]}


def draw_matrix(
    ax: Any,
    values: np.ndarray,
    names: list[Any],
    texts: dict[tuple[int, int], str],
    room: tuple[float, float],
    size: float,
    im_kw: dict,
    text_kw: dict | None,
) -> bool:
    """Draw a square matrix with names; write in its cells if all texts have room."""
    n, longest = len(names), min(2.0, 0.4 * room[0])
    size = float(np.clip(54 * (room[1] - 0.8) / n, 5.0, size))  # as high as a cell
    rows = columns = fitted_apart(names, longest, size)
    widest = max(width_of(name, size) for name in rows)
    across, down = (room[0] - widest - 0.4) / n, (room[1] - 0.8) / n
    upright = widest > 0.9 * across
    if upright and widest > 0.2 * room[1]:  # numbers in place of names
        columns, upright = [str(number) for number in range(1, n + 1)], False
        rows = fitted_apart(names, longest - 0.25, size)
        rows = [f"{name}  {k}" for name, k in zip(rows, columns, strict=True)]
    high = 1.2 * size / 72
    wide = high if upright else 1.2 * width_of(columns[-1], size)
    # Not all of many have room.
    every, each = int(np.ceil(high / down)), int(np.ceil(wide / across))
    ax.set_yticks(range(0, n, every), rows[::every], fontsize=size)
    look = {"fontsize": size, "rotation": 90 * upright}
    ax.set_xticks(range(0, n, each), columns[::each], **look)
    ax.tick_params(length=0)
    image = ax.imshow(values, **{"aspect": "auto", **im_kw})
    lines = {line for text in texts.values() for line in text.split("\n")}
    if max((width_of(line, size) for line in lines), default=0) > 0.9 * across:
        return False
    at = {"ha": "center", "va": "center", "fontsize": size}
    at = options("text", at, text_kw)
    for (row, column), text in texts.items():
        red, green, blue, alpha = image.cmap(image.norm(values[row, column]))
        light = alpha * (0.299 * red + 0.587 * green + 0.114 * blue) + 1 - alpha
        colour = "white" if light < 0.5 else "black"
        ax.text(column, row, text, **{"color": colour, **at})
    return True


def fitted(
    text: Any, width: float, size: float, *, before: str = "", after: str = ""
) -> str:
    """Return a line of at most `width` inches, the middle of its text left out."""
    text = " ".join(str(text).split())
    line, kept = f"{before}{text}{after}", len(text)
    while kept and (wide := width_of(line, size)) > width:
        kept = min(kept - 1, int(kept * width / wide))
        end = text[len(text) - kept // 2 :]
        line = f"{before}{text[: -(-kept // 2)].rstrip()}…{end}{after}"
    if not kept and (before or after):
        return fitted(f"{before}{text}{after}", width, size)
    return plain(line)


def fitted_apart(names: list[Any], width: float, size: float) -> list[str]:
    """Return names as `fitted` does; of those that would look alike, what differs."""
    shown = [fitted(name, width, size) for name in names]
    for look in {text for text in shown if shown.count(text) > 1}:
        texts = {i: str(names[i]) for i, text in enumerate(shown) if text == look}
        if len({*texts.values()}) == 1:
            continue
        start = _alike([*texts.values()])
        end = _alike([text[:start:-1] for text in texts.values()])
        for i, text in texts.items():
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
    letter = max(width_of(text, size) / max(len(text), 1), 1e-9)
    return plain(textwrap.fill(text, max(int(0.92 * width / letter), 8)))


def plain(text: Any) -> str:
    """Return text that matplotlib writes as it is."""
    return _as_unicode(text).replace("$", r"\$")


def _as_unicode(text: Any) -> str:
    """Return text with what is no Unicode, as in names of files, as its code."""
    return str(text).encode("utf-8", "backslashreplace").decode()


@lru_cache(maxsize=4096)
def width_of(text: str, size: float) -> float:
    """Return how wide a text is in inches on a screen, whose pixels widen letters."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font, text = FontProperties(size=size), _as_unicode(text)
    return 1.06 * text_to_path.get_text_width_height_descent(text, font, False)[0] / 72
