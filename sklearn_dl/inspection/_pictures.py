"""What displays with images in them have in common."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from sklearn_dl import _plots
from sklearn_dl._images import ImageSource, Selection

# Text, or (before, name, after), of which the name alone is shortened.
Line = str | tuple[str, Any, str]

WRONG = _plots.VERMILLION
SIDE = 256  # pixels of a thumbnail's longer side
_WIDTH, _LINE = 1.9, 0.17  # inches of a picture in a new figure, and of a line of text
_QUALITY = 60  # of JPEG: ten times as fast to write as WebP
_SMALLEST = 32  # pixels of the longer side
# Bytes of a photograph are about so many times the square of its longer side.
_DENSITY = 0.13
_ORANGE = np.array([255.0, 95.0, 0.0])


def check_count(**counts: Any) -> None:
    """Refuse what is no int of at least 1."""
    for name, value in counts.items():
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < 1:
            raise ValueError(f"{name} must be an int of at least 1, got {value!r}.")


def thumbnail(source: ImageSource, row: int, side: int = SIDE) -> np.ndarray:
    """Return an image as uint8 (h, w, 3), its longer side at most `side` pixels."""
    return reduced(source[row], source.channels, side)


def reduced(image: Any, channels: Selection | None, side: int = SIDE) -> np.ndarray:
    """Return a decoded image as `thumbnail` does."""
    if isinstance(image, np.ndarray):
        pixels = image
        if pixels.dtype != np.uint8:
            pixels = np.clip(255 * pixels + 0.5, 0, 255).astype(np.uint8)
        pixels = as_picture(pixels, channels)
        image = Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy())
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.array(image)


def as_picture(pixels: np.ndarray, channels: Selection | None) -> np.ndarray:
    """Return pixels (h, w, C) in colour, or grey: of other channels the mean."""
    if pixels.shape[2] in (1, 3):
        return pixels
    if channels is not None and channels.rgb:
        return pixels[..., :3]
    return pixels.mean(2, keepdims=True).astype(pixels.dtype)


def picture_axes(
    what: str, ax: Any, images: list, titles: list, n_columns: int, each: int = 1
) -> tuple[Any, np.ndarray]:
    """Return a figure and its Axes for pictures, a row `each` times, with titles."""
    heights = [min(1.0, image.shape[0] / image.shape[1]) for image in images]
    starts = range(0, len(images), n_columns)
    tops = np.repeat([max(heights[k : k + n_columns]) for k in starts], each)
    above = _LINE * max(map(len, titles), default=0) + 0.1
    size = n_columns * _WIDTH, _WIDTH * tops.sum() + above * len(starts) + 0.5
    figure = _plots.figure_of(what, ax, size)
    axes = figure.subplots(len(tops), n_columns, squeeze=False, height_ratios=tops)
    for axis in axes.flat:
        axis.set_axis_off()
    room = _plots.size_of(figure)[0] / n_columns - 0.15
    letters = 9.0 if room >= 1.15 else 7.0
    for axis, lines in zip(axes[::each].flat, titles, strict=False):
        parts = [("", line, "") if isinstance(line, str) else line for line in lines]
        texts = [
            _plots.fitted(t, room, letters, before=b, after=a) for b, t, a in parts
        ]
        look = {"fontsize": letters, "linespacing": 1.2, "y": 1.0, "pad": 4}
        axis.set_title("\n".join(texts), **look)
    return figure, axes


def show_image(ax: Any, image: np.ndarray, colour: Any = None, label: str = "") -> None:
    """Draw an image (h, w, 3) at the top of its place, in a frame of a colour."""
    ax.imshow(image).set_in_layout(False)  # it lies within its Axes
    ax.set_anchor("N")
    if colour is not None:
        from matplotlib.patches import Rectangle

        look: dict[str, Any] = {"fill": False, "edgecolor": colour, "linewidth": 2.5}
        place = {"transform": ax.transAxes, "clip_on": False}
        frame = Rectangle((0, 0), 1, 1, label=label, **look, **place)
        ax.add_patch(frame).set_in_layout(False)


def encoded(picture: np.ndarray, max_bytes: int) -> str:
    """Return uint8 pixels (h, w, 3) as the address of an image, made smaller to fit."""
    image, most = Image.fromarray(picture), max_bytes * 3 / 4
    side = min(SIDE, max(_SMALLEST, int((most / _DENSITY) ** 0.5)))
    while True:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=_QUALITY)
        if file.tell() <= most or side == _SMALLEST:
            break
        side = max(_SMALLEST, int(0.95 * side * (most / file.tell()) ** 0.5))
    text = base64.b64encode(file.getvalue()).decode()
    return f"data:image/jpeg;base64,{text}"


def with_map(picture: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return a picture (h, w, 3) in grey, with a map's magnitude (h, w) in orange."""
    strength = np.abs(values)[..., None]
    strength = strength / max(float(strength.max()), np.finfo(np.float32).tiny)
    grey: Any = picture.mean(axis=2, keepdims=True)
    mixed = 0.85 * grey * (1 - 0.7 * strength) + 0.7 * strength * _ORANGE
    return np.clip(mixed, 0, 255).astype(np.uint8)
