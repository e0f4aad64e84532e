"""What displays with images in them have in common."""

from typing import Any

import numpy as np
from PIL import Image

from sklearn_dl._images import ImageSource
from sklearn_dl._plots import BLUE, PURPLE, VERMILLION, fitted

# Text, or (before, name, after), of which the name alone is shortened.
Line = str | tuple[str, str, str]

RIGHT, WRONG, DOUBTED = BLUE, VERMILLION, PURPLE
SIDE = 256  # pixels of a thumbnail's longer side
WIDTH, LINE = 1.9, 0.17  # inches of a picture in a new figure, and of a line of text


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
        if pixels.shape[2] not in (1, 3):  # as a picture: in colour, or their mean
            colour = source.channels is not None and source.channels.rgb
            mean = pixels.mean(2, keepdims=True).astype(np.uint8)
            pixels = pixels[..., :3] if colour else mean
        image = Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy())
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.array(image)


def row_heights(images: list[np.ndarray], n_columns: int) -> list[float]:
    """Return the height of each row of pictures, in widths of a column, at most 1."""
    heights = [min(1.0, image.shape[0] / image.shape[1]) for image in images]
    starts = range(0, len(images), n_columns)
    return [max(heights[start : start + n_columns]) for start in starts]


def show_image(
    ax: Any, image: np.ndarray, colour: str | None = None, anchor: str = "N"
) -> None:
    """Draw an image (h, w, 3) at the top of its place, in a frame of a colour."""
    ax.imshow(image).set_in_layout(False)  # it lies within its Axes
    ax.set_anchor(anchor)
    ax.set_axis_off()
    if colour is not None:
        from matplotlib.patches import Rectangle

        place = {"transform": ax.transAxes, "clip_on": False}
        frame = Rectangle((0, 0), 1, 1, fill=False, color=colour, lw=2.5, **place)
        ax.add_patch(frame).set_in_layout(False)


def set_title(ax: Any, lines: list[Line], width: float) -> None:
    """Write lines over a picture that has so many inches of width."""
    size = 9.0 if width >= 1.3 else 7.0
    parts = [("", line, "") if isinstance(line, str) else line for line in lines]
    room = 0.95 * width
    texts = [fitted(name, room, size, before=b, after=a) for b, name, a in parts]
    ax.set_title("\n".join(texts), fontsize=size, linespacing=1.2, y=1.0, pad=4)
