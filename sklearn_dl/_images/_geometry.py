"""Sizes that an image takes on its way into a network."""

import math
from typing import Any

Size = tuple[int, int]

# Parts of an axis below which the rest isn't resized, only to be cut off.
_STRIP = 0.1
# Pixels of the source, or of the result, by which filters look beyond a part.
_MARGIN = 4


def resized_size(resize_size: Any, longer: bool, height: int, width: int) -> Size:
    """Return the (height, width) to which an image is resized.

    `resize_size` is what one side becomes, the longer or the shorter; or both; or None.
    """
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


def strip_window(size: Size, resized: Size, crop: Size | None) -> tuple[Size, Size]:
    """Return the centre of an image that has to be resized, and to which size.

    It is all of it, unless a crop shows less than a tenth of an axis.
    """
    parts, targets = [], []
    for side, new, seen in zip(size, resized, crop or resized, strict=True):
        if seen < new * _STRIP:
            margin = _MARGIN * math.ceil(max(1, side / new))
            part = min(side, math.ceil(seen * side / new) + 2 * margin)
            part += (side - part) % 2  # so that the centre stays where it was
            side, new = part, max(seen, round(part * new / side))
        parts.append(side)
        targets.append(new)
    return (parts[0], parts[1]), (targets[0], targets[1])
