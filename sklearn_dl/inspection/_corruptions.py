"""Corruptions of images, each as far as a random augmentation goes."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from sklearn_dl._images import decode_image, image_array, is_tensor
from sklearn_dl._runtime import keyed_generator
from sklearn_dl.augmentation import (
    ColourMap,
    gaussian_blur,
    jpeg,
    rotation_matrix,
    scale_matrix,
    shear_matrix,
    to_bytes,
    to_floats,
    to_pixels,
    translation_matrix,
    warp,
)

# Six casts: one channel up or down against the two others.
_CASTS = np.array(
    [[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, -1]]
)
# Below this side a fraction of it is too little of a pixel to blur anything.
_LEAST_BLURRED = 107
# Floats further outside [0, 1] than a filter overshoots are no pixels.
_OVERSHOOT = 0.25


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption, and the random augmentation that answers it."""

    augmentation: str  # reaches as far with a strength equal to the severity
    amount: Callable[[float], float]  # of a severity; equal amounts are the same
    text: str  # format of the amount
    apply: Callable[[np.ndarray, np.random.Generator, float], np.ndarray]  # (c, H, W)
    colour: bool = False  # grey images don't have it
    # Strength of the augmentation by the severity. At 1 the corruption would lie at the
    # edge of what is drawn, where hardly any draw comes.
    reach: float = 1.5


def _sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _scaled(pixels, rng, factor):
    return warp(pixels, scale_matrix(factor, factor))


def _rotation(pixels, rng, degrees):
    return warp(pixels, rotation_matrix(_sign(rng) * degrees))


def _mirrored(axis: int) -> Callable:
    return lambda pixels, rng, amount: np.ascontiguousarray(np.flip(pixels, axis))


def _translation(pixels, rng, fraction):
    _, height, width = pixels.shape
    x, y = _sign(rng) * fraction * width, _sign(rng) * fraction * height
    return warp(pixels, translation_matrix(x, y))


def _shear(pixels, rng, degrees):
    return warp(pixels, shear_matrix(_sign(rng) * degrees, _sign(rng) * degrees))


def _coloured(step: Callable[[ColourMap, Any, float], None]) -> Callable:
    def apply(pixels, rng, amount):
        values = to_floats(pixels)
        colours = ColourMap(values.mean((1, 2), dtype=np.float64))
        step(colours, rng, amount)
        return colours.apply(values)

    return apply


_brightness = _coloured(lambda colours, rng, factor: colours.brightness(factor))
_contrast = _coloured(lambda colours, rng, factor: colours.contrast(factor))
_grayscale = _coloured(lambda colours, rng, part: colours.saturation(1 - part))
_cast = _coloured(lambda c, rng, part: c.shift(part * _CASTS[rng.integers(6)]))


def _blur(pixels, rng, fraction):
    side = max(min(pixels.shape[1:]), _LEAST_BLURRED)
    return gaussian_blur(to_floats(pixels), fraction * side)


def _noise(pixels, rng, deviation):
    noise = rng.standard_normal(pixels.shape, np.float32)
    noise *= np.float32(deviation)
    noise += to_floats(pixels)
    return np.clip(noise, 0, 1, out=noise)


def _occlusion(pixels, rng, area):
    _, height, width = pixels.shape
    side = area**0.5
    h, w = max(round(side * height), 1), max(round(side * width), 1)
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    colour = rng.random((len(pixels), 1, 1), np.float32)
    if pixels.dtype == np.uint8:
        colour = to_bytes(colour)
    covered = pixels.copy()
    covered[:, top : top + h, left : left + w] = colour
    return covered


def _jpeg(pixels, rng, quality):
    return jpeg(pixels, int(quality))


def _less(severity: float) -> float:
    return max(1 - 0.4 * severity, 0.05)


def _more(severity: float) -> float:
    return 1 + 0.4 * severity


_TIMES, _DEGREES = "times {:.2f}", "{:.3g} degrees"
_AREA, _SHORTER = "{:.0%} of the area", "{:.2%} of the shorter side"

#: By name, in the order of a report.
CORRUPTIONS: dict[str, Corruption] = {
    "smaller": Corruption("scale", lambda s: 1.25**-s, _TIMES, _scaled),
    "larger": Corruption("scale", lambda s: 1.25**s, _TIMES, _scaled),
    "rotation": Corruption("rotation", lambda s: min(15 * s, 180), _DEGREES, _rotation),
    "flip": Corruption("flip", lambda s: 1, "left and right", _mirrored(2), reach=1.0),
    "vertical_flip": Corruption(
        "vertical_flip", lambda s: 1, "top and bottom", _mirrored(1), reach=1.0
    ),
    "translation": Corruption(
        "translation", lambda s: min(0.1 * s, 0.5), "{:.0%} of the sides", _translation
    ),
    "shear": Corruption("shear", lambda s: min(10 * s, 40), _DEGREES, _shear),
    "darker": Corruption("brightness", _less, _TIMES, _brightness),
    "brighter": Corruption("brightness", _more, _TIMES, _brightness),
    "less_contrast": Corruption("contrast", _less, _TIMES, _contrast),
    "more_contrast": Corruption("contrast", _more, _TIMES, _contrast),
    "color_cast": Corruption(
        "channel_shift", lambda s: min(0.1 * s, 1), "{:.0%} of the scale", _cast, True
    ),
    "grayscale": Corruption(
        "grayscale", lambda s: min(s, 1), "{:.0%} of the colour", _grayscale, True
    ),
    "blur": Corruption("blur", lambda s: 0.0075 * s, _SHORTER, _blur),
    "noise": Corruption("noise", lambda s: 0.06 * s, "{:.1%} of the scale", _noise),
    "occlusion": Corruption(  # what the augmentation hides in the mean
        "erase", lambda s: min(0.165 * s, 0.9), _AREA, _occlusion, reach=1.0
    ),
    "jpeg": Corruption(
        "jpeg", lambda s: max(round(95 - 65 * s), 5), "quality {:.0f}", _jpeg
    ),
}


def list_corruptions() -> pd.DataFrame:
    """Return the kinds of corruption that a robustness report is made of.

    Severity says how far a corruption goes: as far as the augmentation that answers it
    goes at the same ``strength`` of `Augment`. For ``occlusion`` it is half as far:
    what the augmentation hides in the mean. Images of less than 107 pixels on the
    shorter side are blurred like those of 107.

    Returns
    -------
    DataFrame
        One row per kind, with ``corruption``, ``amount`` (what severity 1 is) and
        ``augmentation`` (the name for `augment` that answers it; each has one).

    Examples
    --------
    >>> from sklearn_dl.inspection import list_corruptions
    >>> list_corruptions().head(3)
         corruption      amount augmentation
    0   smaller  times 0.80        scale
    1    larger  times 1.25        scale
    2  rotation  15 degrees     rotation
    """
    rows = [
        (name, kind.text.format(kind.amount(1.0)), kind.augmentation)
        for name, kind in CORRUPTIONS.items()
    ]
    return pd.DataFrame(rows, columns=["corruption", "amount", "augmentation"])


def corrupt_image(
    image: Any, corruption: str, severity: float = 1.0, *, seed: int = 0, row: int = 0
) -> Image.Image | np.ndarray:
    """Return an image with one corruption, as `robustness_report` makes it.

    Parameters
    ----------
    image : str, Path, bytes, PIL.Image.Image, ndarray or torch tensor
        An array is (H, W), (H, W, C) or (C, H, W), uint8 or float in [0, 1].
    corruption : str
        A name out of `list_corruptions`.
    severity : float, default=1.0
        How far, positive; see `list_corruptions`.
    seed, row : int, default=0
        Signs, places and noise follow from these and the corruption's name alone. In a
        report, the row is the image's position in X.

    Returns
    -------
    PIL.Image.Image or ndarray of shape (H, W, C)
        It has the image's own size: in mode RGB or L; for an array an array, uint8 or
        float32 in [0, 1].

    Raises
    ------
    ValueError
        If there is no such corruption, the severity isn't positive, floats lie outside
        [0, 1], or a grey array is to change its colour.
    ImageDecodeError
        If the image can't be decoded.

    Notes
    -----
    What a corruption of place brings in from outside is as with `Augment`: more of the
    ground where most of the border has one colour, else the image's reflection.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl.inspection import corrupt_image
    >>> image = np.full((2, 2, 3), 100, "uint8")
    >>> corrupt_image(image, "darker", 1.0)[0, 0]
    array([60, 60, 60], dtype=uint8)
    """
    check_corruption(corruption)
    if not (np.isfinite(severity) and severity > 0):
        raise ValueError(f"severity must be positive, got {severity!r}.")
    if isinstance(image, np.ndarray) or is_tensor(image):
        image = image_array(image)
    elif not (isinstance(image, Image.Image) and image.mode in ("L", "RGB")):
        image = decode_image(image)
    return corrupted(image, corruption, severity, seed, row)


def check_corruption(name: Any) -> None:
    """Refuse what is no name of a corruption."""
    if not isinstance(name, str) or name not in CORRUPTIONS:
        raise ValueError(
            f"There is no corruption {name!r}; the corruptions are "
            f"{', '.join(CORRUPTIONS)}."
        )


def corrupted(image: Any, name: str, severity: float, seed: int, row: int) -> Any:
    """Return a decoded image (PIL, or an array (H, W, C)) with one corruption."""
    kind = CORRUPTIONS[name]
    is_array = not isinstance(image, Image.Image)
    pixels = to_pixels(image) if not is_array else image.transpose(2, 0, 1)
    pixels = np.ascontiguousarray(pixels)
    if pixels.dtype != np.uint8:
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):
            raise ValueError(
                f"Row {row} holds floats from {low:.3g} to {high:.3g}: images are "
                "corrupted as uint8 or as floats in [0, 1]."
            )
    if kind.colour and len(pixels) == 1:
        raise ValueError(f"Grey images have no {name!r}: leave it out of corruptions.")
    # Without the severity: what a row meets grows with it and turns nowhere else.
    rng = keyed_generator(seed, zlib.crc32(name.encode()), row)
    result = kind.apply(pixels, rng, kind.amount(severity))
    result = to_bytes(result) if pixels.dtype == np.uint8 else to_floats(result)
    if is_array:
        return np.ascontiguousarray(result.transpose(1, 2, 0))
    return Image.fromarray(result[0] if len(result) == 1 else result.transpose(1, 2, 0))
