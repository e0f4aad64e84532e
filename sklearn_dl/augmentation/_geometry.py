"""Random crops, and all other changes of place in one warp."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.random import Generator
from torch.nn import functional as F

from sklearn_dl.augmentation._images import to_floats

Box = tuple[int, int, int, int]

# Part of the side that a small image is padded by before it is cropped.
_PADDING = 1 / 8
# Width of the Gaussian that smooths elastic displacements, as part of the side.
_ELASTIC_SCALE = 0.14
_ELASTIC_DEVIATION = 0.03


def crop_box(
    rng: Generator, strength: float, height: int, width: int, ratio: float
) -> Box:
    """Draw the box of a random resized crop, of about `ratio` (width by height)."""
    smallest = max(1 - 0.65 * strength, 0.08)
    spread = math.log(4 / 3) * min(strength, 1.0)
    for _ in range(10):
        area = height * width * rng.uniform(smallest, 1)
        sides = ratio * math.exp(rng.uniform(-spread, spread))
        w, h = round(math.sqrt(area * sides)), round(math.sqrt(area / sides))
        if 0 < w <= width and 0 < h <= height:
            break
    else:  # the image is much longer than the network's: the largest box of its ratio
        w = max(min(width, round(height * ratio)), 1)
        h = max(min(height, round(width / ratio)), 1)
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    return int(top), int(left), h, w


# The matrices below move the image: (x, y, 1) from the centre, in pixels, y downwards.


def rotation_matrix(degrees: float) -> np.ndarray:
    """Rotate counter-clockwise."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1.0]])


def scale_matrix(x: float, y: float) -> np.ndarray:
    """Stretch by factors; -1 mirrors."""
    return np.diag([x, y, 1.0])


def translation_matrix(x: float, y: float) -> np.ndarray:
    """Move to the right and downwards, in pixels."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def shear_matrix(x_degrees: float, y_degrees: float) -> np.ndarray:
    """Slant the columns and the rows by angles."""
    x, y = math.tan(math.radians(x_degrees)), math.tan(math.radians(y_degrees))
    return np.array([[1, x, 0], [y, 1, 0], [0, 0, 1.0]])


def perspective_matrix(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Take four points (x, y) to four others; both are of shape (4, 2)."""
    rows, values = [], []
    for (x, y), (u, v) in zip(start, end, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(rows, values), 1).reshape(3, 3)


def _mirrored(rng: Generator, strength: float) -> float:
    return -1.0 if rng.random() < 0.5 * min(strength, 1) else 1.0


def _scale(rng, strength, height, width):
    factor = 1.25 ** (strength * rng.uniform(-1, 1))
    return scale_matrix(factor, factor)


def _translation(rng, strength, height, width):
    x, y = min(0.1 * strength, 0.5) * rng.uniform(-1, 1, 2)
    return translation_matrix(x * width, y * height)


def _perspective(rng, strength, height, width):
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    corners = signs * [width / 2, height / 2]
    inwards = rng.uniform(0, min(0.25 * strength, 0.9), (4, 2))
    return perspective_matrix(corners, corners * (1 - inwards))


def padding_shift(rng: Generator, strength: float, height: int, width: int):
    """Draw the move that padding and a random crop amount to, in whole pixels."""
    reach = _PADDING * min(strength, 4)
    y = rng.integers(-round(reach * height), round(reach * height) + 1)
    x = rng.integers(-round(reach * width), round(reach * width) + 1)
    return translation_matrix(float(x), float(y))


# Matrices drawn from (rng, strength, height, width), in the order in which they act.
GEOMETRIC: dict[str, Callable[..., np.ndarray]] = {
    "flip": lambda r, s, h, w: scale_matrix(_mirrored(r, s), 1.0),
    "vertical_flip": lambda r, s, h, w: scale_matrix(1.0, _mirrored(r, s)),
    "scale": _scale,
    "rotation": lambda r, s, h, w: rotation_matrix(min(15 * s, 180) * r.uniform(-1, 1)),
    "shear": lambda r, s, h, w: shear_matrix(*min(10 * s, 40) * r.uniform(-1, 1, 2)),
    "perspective": _perspective,
    "translation": _translation,
}


def elastic_field(rng: Generator, strength: float, height: int, width: int):
    """Draw displacements in x and y, (2, height, width): noise under a Gaussian."""
    side = min(height, width)
    spacing = max(_ELASTIC_SCALE * side, 1.0)
    # Noise on a lattice as wide as the Gaussian gives the same field as on every pixel.
    across, down = _gaussians(width, spacing), _gaussians(height, spacing)
    noise = rng.standard_normal((2, down.shape[1], across.shape[1]))
    deviation = _ELASTIC_DEVIATION * min(strength, 3) * side
    return deviation * (down @ noise @ across.T)


def _gaussians(length: int, spacing: float) -> np.ndarray:
    centres = np.arange(-2 * spacing, length + 2 * spacing, spacing)
    distance = (np.arange(length)[:, None] - centres) / spacing
    weights = np.exp(-(distance**2) / 2)
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def warp(
    pixels: np.ndarray, matrix: np.ndarray, field: np.ndarray | None = None
) -> np.ndarray:
    """Move the pixels of an image, (c, H, W), with one bilinear interpolation.

    `matrix` moves the image, from its centre, in pixels; `field`, (2, H, W), moves the
    places that its pixels are taken from. What comes in from outside is more of a plain
    ground, as digits and drawings have; else the image's reflection at its border. The
    values are those that came in where no pixel falls between two; else float32.
    """
    _, height, width = pixels.shape
    matrix = np.linalg.inv(matrix)  # from where each pixel of the result comes
    matrix = matrix / matrix[2, 2]
    ground = _plain_ground(pixels)
    if field is None and (moved := _moved(pixels, matrix, ground)) is not None:
        return moved
    x = np.arange(width) - (width - 1) / 2
    y = (np.arange(height) - (height - 1) / 2)[:, None]
    source_x, source_y = (row[0] * x + row[1] * y + row[2] for row in matrix[:2])
    if matrix[2, 0] or matrix[2, 1]:
        depth = matrix[2, 0] * x + matrix[2, 1] * y + 1
        source_x, source_y = source_x / depth, source_y / depth
    if field is not None:
        source_x, source_y = source_x + field[0], source_y + field[1]
    # torch takes places on the scale of -1 to 1, the outer edges of the outer pixels.
    grid = np.empty((1, height, width, 2), np.float32)
    grid[0, ..., 0], grid[0, ..., 1] = source_x * (2 / width), source_y * (2 / height)
    values = to_floats(pixels)
    shift = None if ground is None else to_floats(ground)[:, None, None]
    if shift is not None:
        values = values - shift  # so that the zeros outside are the ground
    image, places = torch.from_numpy(values)[None], torch.from_numpy(grid)
    outside = "reflection" if shift is None else "zeros"
    found = F.grid_sample(image, places, padding_mode=outside, align_corners=False)
    moved = found[0].numpy()
    return moved if shift is None else moved + shift


def _plain_ground(pixels: np.ndarray) -> np.ndarray | None:
    """Return the colour (c,) that at least half of the outer pixels have, or None."""
    left, right = pixels[:, 1:-1, 0], pixels[:, 1:-1, -1]
    border = np.concatenate([pixels[:, 0], pixels[:, -1], left, right], axis=1)
    middle = np.sort(border, axis=1)[:, border.shape[1] // 2]
    tolerance = 2 if pixels.dtype == np.uint8 else 2 / 255
    distance = np.abs(border.astype(np.float32) - middle[:, None])
    same = (distance <= tolerance).all(0)
    return middle if same.mean() >= 0.5 else None


def _moved(
    pixels: np.ndarray, matrix: np.ndarray, ground: np.ndarray | None
) -> np.ndarray | None:
    """Return pixels mirrored and moved by whole pixels; None for any other matrix."""
    linear, shift = matrix[:2, :2], matrix[:2, 2]
    whole = np.array_equal(shift, np.round(shift))
    if not whole or matrix[2, :2].any() or (np.abs(linear) != np.eye(2)).any():
        return None
    _, height, width = pixels.shape
    rows, row_inside = _places(height, linear[1, 1], shift[1])
    columns, column_inside = _places(width, linear[0, 0], shift[0])
    moved = pixels[:, rows][:, :, columns]
    if ground is not None:
        inside = row_inside[:, None] & column_inside
        moved = np.where(inside, moved, ground[:, None, None])
    return np.ascontiguousarray(moved)


def _places(length: int, sign: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where pixels of a line come from, by reflection, and which lie inside."""
    places = np.arange(length) if sign > 0 else np.arange(length)[::-1]
    places = places + int(shift)
    inside = (places >= 0) & (places < length)
    places = places % (2 * length)
    return np.where(places < length, places, 2 * length - 1 - places), inside
