"""Random changes of light and colour, in one matrix."""

import math
from collections.abc import Callable

import numpy as np

# Weights of red, green and blue (ITU-R BT.601), as Pillow converts to grey.
_LUMA = np.array([0.299, 0.587, 0.114])
# Luma and two colour differences, the planes in which hue is an angle.
_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


class ColourMap:
    """An affine map of the channels, built up step by step.

    Any number of steps is one map, applied and clipped once. `means` are those of the
    image's channels, on the scale of 0 to 1. Light is that of all channels; saturation
    and hue are those of the first three, where they are `rgb`.
    """

    def __init__(self, means: np.ndarray, rgb: bool = True):
        n = len(means)
        self.means = means
        self.matrix = np.eye(n)
        self.offset = np.zeros(n)
        self._rgb = rgb and n >= 3
        self._luma = np.full(n, 1 / n)
        if self._rgb:
            self._luma = np.pad(_LUMA, (0, n - 3))

    def _then(self, matrix: np.ndarray, offset: float | np.ndarray = 0.0) -> None:
        self.matrix = matrix @ self.matrix
        self.offset = matrix @ self.offset + offset

    def brightness(self, factor: float) -> None:
        """Multiply all values."""
        self._then(factor * np.eye(len(self.means)))

    def contrast(self, factor: float) -> None:
        """Multiply the distance to the mean grey of the image."""
        grey = self._luma @ (self.matrix @ self.means + self.offset)
        self._then(factor * np.eye(len(self.means)), (1 - factor) * grey)

    def saturation(self, factor: float) -> None:
        """Multiply the distance of each pixel to its grey."""
        self._turn(factor * np.eye(3) + (1 - factor) * np.tile(_LUMA, (3, 1)))

    def hue(self, turns: float) -> None:
        """Turn the colours round the axis of greys."""
        cos, sin = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
        turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        self._turn(np.linalg.inv(_YIQ) @ turn @ _YIQ)

    def _turn(self, colours: np.ndarray) -> None:
        """Apply a map of red, green and blue, where there are such."""
        if self._rgb:
            matrix = np.eye(len(self.means))
            matrix[:3, :3] = colours
            self._then(matrix)

    def shift(self, offset: np.ndarray) -> None:
        """Add a number to each channel."""
        self._then(np.eye(len(self.means)), offset)

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return an image, float32 (c, H, W), mapped and clipped to [0, 1]."""
        # Sums of planes rather than a matrix product, which would use all cores.
        matrix, offset = self.matrix.astype(np.float32), self.offset.astype(np.float32)
        out = np.empty_like(values)
        for i, row in enumerate(matrix):
            np.multiply(values[0], row[0], out=out[i])
            for j in range(1, len(row)):
                if row[j]:
                    out[i] += row[j] * values[j]
            out[i] += offset[i]
        return np.clip(out, 0, 1, out=out)


def _factor(rng: np.random.Generator, spread: float) -> float:
    return max(1 + spread * rng.uniform(-1, 1), 0.05)


def _color(colours: ColourMap, rng, strength: float) -> None:
    colours.brightness(_factor(rng, 0.2 * strength))
    colours.contrast(_factor(rng, 0.2 * strength))
    colours.saturation(_factor(rng, 0.3 * strength))
    colours.hue(min(0.02 * strength, 0.5) * rng.uniform(-1, 1))


def _grayscale(colours: ColourMap, rng, strength: float) -> None:
    if rng.random() < 0.2 * strength:
        colours.saturation(0.0)


# Steps drawn from (colours, rng, strength), in the order in which they act.
COLOURS: dict[str, Callable[..., None]] = {
    "brightness": lambda colours, rng, s: colours.brightness(_factor(rng, 0.4 * s)),
    "contrast": lambda colours, rng, s: colours.contrast(_factor(rng, 0.4 * s)),
    "color": _color,
    "channel_shift": lambda colours, rng, s: colours.shift(
        min(0.1 * s, 1) * rng.uniform(-1, 1, len(colours.means))
    ),
    "grayscale": _grayscale,
}
