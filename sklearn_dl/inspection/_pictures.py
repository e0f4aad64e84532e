"""What displays with images in them have in common."""

from typing import Any

import numpy as np
from PIL import Image

from sklearn_dl._images import ImageSource
from sklearn_dl._plots import BLUE, PURPLE, VERMILLION, fitted, import_pyplot

# Text, or (before, name, after), of which the name alone is shortened.
Line = str | tuple[str, str, str]

RIGHT, WRONG, DOUBTED = BLUE, VERMILLION, PURPLE
SIDE = 256  # pixels of a thumbnail's longer side


def check_count(name: str, value: Any) -> None:
    """Refuse what is no int of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be an int of at least 1, got {value!r}.")


def size_of_row(source: ImageSource, row: int) -> tuple[int, int]:
    """Return height and width of an image."""
    if source.image_shape is not None:
        return source.image_shape[:2]
    image = source[row]
    return image.shape[:2] if isinstance(image, np.ndarray) else image.size[::-1]


def thumbnail(source: ImageSource, row: int, side: int = SIDE) -> np.ndarray:
    """Return an image as uint8 (h, w, 3), its longer side at most `side` pixels."""
    image = source[row]
    if isinstance(image, np.ndarray):
        pixels = image
        if pixels.dtype != np.uint8:
            pixels = np.clip(255 * pixels + 0.5, 0, 255).astype(np.uint8)
        image = Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy())
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.array(image)


def row_heights(images: list[np.ndarray], n_columns: int) -> list[float]:
    """Return the height of each row of pictures, in widths of a column, at most 1."""
    heights = [min(1.0, image.shape[0] / image.shape[1]) for image in images]
    starts = range(0, len(images), n_columns)
    return [max(heights[start : start + n_columns]) for start in starts]


def grid_of_axes(
    ax: Any,
    heights: list[float],
    n_columns: int,
    what: str,
    figsize: tuple[float, float],
    gap: float = 0.0,
) -> np.ndarray:
    """Return Axes (n_rows, n_columns) for pictures.

    Parameters
    ----------
    ax : Axes, array-like of Axes or None
        One, a subplot, is divided; of several the first are taken; None makes a figure.
    heights : list of float
        Of the rows, to each other.
    n_columns : int
    what : str
        Who draws, for messages.
    figsize : (float, float)
        Of a new figure, in inches.
    gap : float, default=0.0
        Between the rows in inches, where the figure has no layout that finds it.
    """
    n_rows = len(heights)
    if ax is None:
        pyplot = import_pyplot(what)
        figure = pyplot.figure(figsize=figsize, layout="constrained")
        return figure.subplots(n_rows, n_columns, squeeze=False, height_ratios=heights)
    if isinstance(ax, list | tuple | np.ndarray):
        given = np.asarray(ax, dtype=object).ravel()
        if len(given) < n_rows * n_columns:
            raise ValueError(
                f"{what} needs {n_rows * n_columns} Axes, or one subplot that it "
                f"divides; got {len(given)}."
            )
        return given[: n_rows * n_columns].reshape(n_rows, n_columns)
    place = subplot_place(ax)
    from matplotlib.gridspec import GridSpecFromSubplotSpec

    spaces: dict[str, float] = {}
    if ax.figure.get_layout_engine() is None:
        height = ax.get_window_extent().height / ax.figure.dpi
        each = max((height - (n_rows - 1) * gap) / n_rows, 0.1)
        spaces = {"hspace": gap / each, "wspace": 0.06}
    grid = GridSpecFromSubplotSpec(
        n_rows, n_columns, place, height_ratios=heights, **spaces
    )
    axes = [ax.figure.add_subplot(grid[i]) for i in range(n_rows * n_columns)]
    return np.array(axes, dtype=object).reshape(n_rows, n_columns)


def subplot_place(ax: Any) -> Any:
    """Return the place of a subplot, to be divided, and hide its frame."""
    place = ax.get_subplotspec() if hasattr(ax, "get_subplotspec") else None
    if place is None:
        raise ValueError("ax must be a subplot, as Figure.add_subplot makes it.")
    ax.set_axis_off()
    return place


def show_image(
    ax: Any, image: np.ndarray, height: float = 1.0, colour: str | None = None
) -> None:
    """Draw an image at the top of a box, so that those beside it are in line.

    Parameters
    ----------
    ax : Axes
    image : ndarray of shape (h, w, 3)
    height : float, default=1.0
        Of the box, in widths.
    colour : str, default=None
        Of a frame round it.
    """
    h, w = image.shape[:2]
    width = max(w, h / height)  # of the box, in pixels
    pad = 0.02 * width
    ax.imshow(image, extent=(0, w, h, 0))
    ax.set_xlim((w - width) / 2 - pad, (w + width) / 2 + pad)
    ax.set_ylim(height * width + pad, -pad)
    ax.set_aspect("equal", anchor="N")
    ax.set_axis_off()
    if colour is not None:
        from matplotlib.patches import Rectangle

        ax.add_patch(Rectangle((0, 0), w, h, fill=False, color=colour, lw=2.5))


def set_title(ax: Any, lines: list[Line], width: float, size: float) -> None:
    """Write lines over a picture, each at most `width` inches wide; size in points."""
    parts = [("", line, "") if isinstance(line, str) else line for line in lines]
    texts = [fitted(name, width, size, before=b, after=a) for b, name, a in parts]
    ax.set_title("\n".join(texts), fontsize=size, linespacing=1.2, pad=3)


def text_room(ax: Any, axes: np.ndarray, width: float) -> tuple[float, float]:
    """Return inches for a text over a picture, and the size of its letters in points.

    Parameters
    ----------
    ax : Axes, array-like of Axes or None
        Where somebody wanted the pictures; None is a new figure.
    axes : ndarray of Axes
        Of the pictures.
    width : float
        Of one in a new figure, in inches.
    """
    if ax is not None:
        width = axes_width(axes)
    # On a screen's pixels letters are a little wider than they should be.
    return 0.92 * width, 9.0 if width >= 1.3 else 7.0


def axes_width(axes: np.ndarray) -> float:
    """Return the width of the narrowest Axes, in inches."""
    return min(
        ax.get_window_extent().width / ax.figure.dpi for ax in np.asarray(axes).ravel()
    )


def name_of(path: Any) -> str:
    """Return the last part of a path; "" of None."""
    return "" if path is None else str(path).replace("\\", "/").rsplit("/", 1)[-1]
