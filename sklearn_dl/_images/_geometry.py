"""Sizes that an image takes on its way into a network."""

import math
from typing import Any

import PIL
from PIL import Image

Size = tuple[int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels

# Parts of an axis below which the rest isn't resized, only to be cut off.
_STRIP = 0.1
# Pillow resizes the width first; since 13 the height of a high image that shrinks.
_HEIGHT_FIRST = int(PIL.__version__.split(".")[0]) >= 13
_SUPPORT = 3  # pixels to which the widest of Pillow's filters looks


def resized_size(resize_size: Any, longer: bool, height: int, width: int) -> Size:
    """Return the (height, width) to which an image is resized, by a side or by both."""
    if resize_size is None:
        return height, width
    if not isinstance(resize_size, int):
        return resize_size[0], resize_size[1]
    short, long = sorted((height, width))
    if longer:
        sides = max(1, int(resize_size * short / long)), resize_size
    else:
        sides = resize_size, int(resize_size * long / short)
    return sides if height <= width else (sides[1], sides[0])


def part_seen(resized: Size, crop: Size | None) -> float:
    """Return the part of an image's area that a crop of the resized one shows."""
    if crop is None:
        return 1.0
    return math.prod(min(c, r) / r for c, r in zip(crop, resized, strict=True))


def strip_part(
    size: Size,
    resized: Size,
    crop: Size | None,
    place: tuple[float, float] = (0.5, 0.5),  # of the room, what is above, and left
) -> tuple[Box, Size] | None:
    """Return the part of a strip that a crop shows, and its size when resized."""
    crop = crop or resized  # None where it shows at least a tenth of both axes
    if all(c >= new * _STRIP for new, c in zip(resized, crop, strict=True)):
        return None
    starts, ends, targets = [], [], []
    for side, new, seen, at in zip(size, resized, crop, place, strict=True):
        if seen >= new * _STRIP:
            seen = new
        start = round((new - seen) * at)
        starts.append(start * side / new)
        ends.append(min(float(side), (start + seen) * side / new))
        targets.append(seen)
    return (starts[1], starts[0], ends[1], ends[0]), (targets[0], targets[1])


def resize_part(image: Image.Image, box: Box, size: Size, kind: Any) -> Image.Image:
    """Resize a part of an image as if all of it were resized, and cut out then."""
    height, width = size
    across, down = (box[2] - box[0]) / width, (box[3] - box[1]) / height
    # Pillow holds a box in numbers of 24 bits: those of a part are small enough.
    left = max(0, math.floor(box[0]) - _margin(across))
    top = max(0, math.floor(box[1]) - _margin(down))
    right = min(image.width, math.ceil(box[2]) + _margin(across))
    bottom = min(image.height, math.ceil(box[3]) + _margin(down))
    part = image.crop((left, top, right, bottom))
    within = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    # In the order that Pillow has for all of it, since it rounds between the axes.
    high = image.height > image.width and down > 1
    if not (high and _HEIGHT_FIRST):
        first, then = (width, part.height), (0.0, within[1], float(width), within[3])
        part = part.resize(first, kind, box=(within[0], 0, within[2], part.height))
    else:
        first, then = (part.width, height), (within[0], 0.0, within[2], float(height))
        part = part.resize(first, kind, box=(0, within[1], part.width, within[3]))
    return part.resize((width, height), kind, box=then)


def _margin(scale: float) -> int:
    """Return how many pixels a filter looks beyond those that it resizes by a scale."""
    return math.ceil(_SUPPORT * max(1.0, scale)) + 1
