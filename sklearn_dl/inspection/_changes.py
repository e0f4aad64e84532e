"""Changes of images, each as far as a random augmentation goes."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from sklearn_dl._images import decode_image, image_array, is_tensor
from sklearn_dl._runtime import keyed_generator
from sklearn_dl.augmentation._colour import ColourMap
from sklearn_dl.augmentation._damage import gaussian_blur, jpeg
from sklearn_dl.augmentation._geometry import (
    rotation_matrix,
    scale_matrix,
    shear_matrix,
    translation_matrix,
    warp,
)
from sklearn_dl.augmentation._images import to_bytes, to_floats, to_pixels

# Of six casts: one channel up or down against the two others.
_CASTS = np.array(
    [[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, -1]]
)
# Below this side a share of it is too little of a pixel to blur anything.
_LEAST_BLURRED = 107
# Floats further outside [0, 1] than a filter overshoots are no pixels.
_OVERSHOOT = 0.25


@dataclass(frozen=True)
class Change:
    """One kind of change.

    Parameters
    ----------
    augmentation : str
        Name of the random transform that reaches as far at the same strength.
    amount : callable
        From a strength to how far the change goes; equal amounts are the same change.
    text : str
        Format of the amount.
    apply : callable
        From pixels (c, H, W), a generator and an amount to pixels.
    colour : bool, default=False
        Whether grey images don't have it.
    reach : float, default=1.5
        Strength of the augmentation that answers the change, by that of the change.
        At 1 the change would lie at the edge of what is drawn, where hardly any draw
        comes.
    """

    augmentation: str
    amount: Callable[[float], float]
    text: str
    apply: Callable[[np.ndarray, np.random.Generator, float], np.ndarray]
    colour: bool = False
    reach: float = 1.5


def _sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _scaled(pixels, rng, factor):
    return warp(pixels, scale_matrix(factor, factor))


def _rotation(pixels, rng, degrees):
    return warp(pixels, rotation_matrix(_sign(rng) * degrees))


def _flip(pixels, rng, amount):
    return np.ascontiguousarray(pixels[:, :, ::-1])


def _vertical_flip(pixels, rng, amount):
    return np.ascontiguousarray(pixels[:, ::-1])


def _translation(pixels, rng, share):
    _, height, width = pixels.shape
    x, y = _sign(rng) * share * width, _sign(rng) * share * height
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


def _cast(colours: ColourMap, rng, amount):
    colours.shift(amount * _CASTS[rng.integers(len(_CASTS))])


def _blur(pixels, rng, share):
    side = max(min(pixels.shape[1:]), _LEAST_BLURRED)
    return gaussian_blur(to_floats(pixels), share * side)


def _noise(pixels, rng, deviation):
    noise = rng.standard_normal(pixels.shape, np.float32)
    noise *= np.float32(deviation)
    noise += to_floats(pixels)
    return np.clip(noise, 0, 1, out=noise)


def _occlusion(pixels, rng, share):
    _, height, width = pixels.shape
    side = share**0.5
    h, w = max(round(side * height), 1), max(round(side * width), 1)
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    colour = rng.random((len(pixels), 1, 1), np.float32)
    covered = pixels.copy()
    covered[:, top : top + h, left : left + w] = (
        to_bytes(colour) if pixels.dtype == np.uint8 else colour
    )
    return covered


def _jpeg(pixels, rng, quality):
    return jpeg(pixels, int(quality))


def _once(strength: float) -> float:
    return 1.0


def _less(strength: float) -> float:
    return max(1 - 0.4 * strength, 0.05)


def _more(strength: float) -> float:
    return 1 + 0.4 * strength


#: By name, in the order of a report.
CHANGES: dict[str, Change] = {
    "smaller": Change("scale", lambda s: 1.25**-s, "times {:.2f}", _scaled),
    "larger": Change("scale", lambda s: 1.25**s, "times {:.2f}", _scaled),
    "rotation": Change(
        "rotation", lambda s: min(15 * s, 180), "{:.3g} degrees", _rotation
    ),
    "flip": Change("flip", _once, "left and right", _flip, reach=1.0),
    "vertical_flip": Change(
        "vertical_flip", _once, "top and bottom", _vertical_flip, reach=1.0
    ),
    "translation": Change(
        "translation", lambda s: min(0.1 * s, 0.5), "{:.0%} of the sides", _translation
    ),
    "shear": Change("shear", lambda s: min(10 * s, 40), "{:.3g} degrees", _shear),
    "darker": Change(
        "brightness",
        _less,
        "times {:.2f}",
        _coloured(lambda c, rng, a: c.brightness(a)),
    ),
    "brighter": Change(
        "brightness",
        _more,
        "times {:.2f}",
        _coloured(lambda c, rng, a: c.brightness(a)),
    ),
    "less_contrast": Change(
        "contrast", _less, "times {:.2f}", _coloured(lambda c, rng, a: c.contrast(a))
    ),
    "more_contrast": Change(
        "contrast", _more, "times {:.2f}", _coloured(lambda c, rng, a: c.contrast(a))
    ),
    "color_cast": Change(
        "channel_shift",
        lambda s: min(0.1 * s, 1),
        "{:.0%} of the scale",
        _coloured(_cast),
        colour=True,
    ),
    "grayscale": Change(
        "grayscale",
        lambda s: min(s, 1),
        "{:.0%} of the colour",
        _coloured(lambda c, rng, a: c.saturation(1 - a)),
        colour=True,
    ),
    "blur": Change("blur", lambda s: 0.0075 * s, "{:.2%} of the shorter side", _blur),
    "noise": Change("noise", lambda s: 0.06 * s, "{:.1%} of the scale", _noise),
    "occlusion": Change(
        "erase",
        lambda s: min(0.165 * s, 0.9),
        "{:.0%} of the area",
        _occlusion,
        reach=1.0,
    ),
    "jpeg": Change(
        "jpeg", lambda s: max(round(95 - 65 * s), 5), "quality {:.0f}", _jpeg
    ),
}


def list_changes() -> pd.DataFrame:
    """Return the kinds of change that a robustness report is made of.

    Strength says how far a change goes, on the scale of `Augment`: as far as the
    augmentation that answers it goes at this strength. For ``occlusion`` it is half as
    far: what the augmentation hides in the mean. Images of less than 107 pixels on the
    shorter side are blurred like those of 107.

    Returns
    -------
    DataFrame
        One row per kind, with ``change``, ``amount`` (what strength 1 is) and
        ``augmentation`` (the name for `augment` that answers it; each has one).

    Examples
    --------
    >>> from sklearn_dl.inspection import list_changes
    >>> list_changes().head(3)
         change      amount augmentation
    0   smaller  times 0.80        scale
    1    larger  times 1.25        scale
    2  rotation  15 degrees     rotation
    """
    return pd.DataFrame(
        {
            "change": list(CHANGES),
            "amount": [kind.text.format(kind.amount(1.0)) for kind in CHANGES.values()],
            "augmentation": [kind.augmentation for kind in CHANGES.values()],
        }
    )


def change_image(
    image: Any, change: str, strength: float = 1.0, *, seed: int = 0, row: int = 0
) -> Image.Image | np.ndarray:
    """Return an image with one change, as `robustness_report` makes it.

    Parameters
    ----------
    image : str, Path, bytes, PIL.Image.Image, ndarray or torch tensor
        An array is (H, W), (H, W, C) or (C, H, W), uint8 or float in [0, 1].
    change : str
        A name out of `list_changes`.
    strength : float, default=1.0
        How far, positive; see `list_changes`.
    seed, row : int, default=0
        Signs, places and noise follow from these and the name of the change alone. In
        a report, the row is the image's position in X.

    Returns
    -------
    PIL.Image.Image or ndarray of shape (H, W, C)
        Of the image's own size: in mode RGB or L; for an array an array, uint8 or
        float32 in [0, 1].

    Raises
    ------
    ValueError
        If there is no such change, the strength isn't positive, floats lie outside
        [0, 1], or a grey array shall change its colour.
    ImageDecodeError
        If the image can't be decoded.

    Notes
    -----
    What a change of place brings in from outside is as with `Augment`: more of the
    ground where most of the border has one colour, else the image's reflection.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl.inspection import change_image
    >>> image = np.full((2, 2, 3), 100, "uint8")
    >>> change_image(image, "darker", 1.0)[0, 0]
    array([60, 60, 60], dtype=uint8)
    """
    check_change(change)
    if not (np.isfinite(strength) and strength > 0):
        raise ValueError(f"strength must be positive, got {strength!r}.")
    if isinstance(image, np.ndarray) or is_tensor(image):
        image = image_array(image)
    elif not (isinstance(image, Image.Image) and image.mode in ("L", "RGB")):
        image = decode_image(image)
    return changed(image, change, strength, seed, row)


def check_change(change: Any) -> None:
    """Refuse what is no name of a change."""
    if not isinstance(change, str) or change not in CHANGES:
        raise ValueError(
            f"There is no change {change!r}; the changes are {', '.join(CHANGES)}."
        )


def changed(image: Any, change: str, strength: float, seed: int, row: int) -> Any:
    """Return a decoded image (PIL, or an array (H, W, C)) with one change."""
    kind = CHANGES[change]
    if isinstance(image, Image.Image):
        pixels = to_pixels(image)
    else:
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1))
    if pixels.dtype != np.uint8:
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):
            raise ValueError(
                f"Row {row} holds floats from {low:.3g} to {high:.3g}: images are "
                "changed as uint8 or as floats in [0, 1]."
            )
    if kind.colour and len(pixels) == 1:
        raise ValueError(f"Grey images have no {change!r}: leave it out of changes.")
    # Without the strength: what a row meets grows with it and turns nowhere else.
    rng = keyed_generator(seed, zlib.crc32(change.encode()), row)
    result = kind.apply(pixels, rng, kind.amount(strength))
    if pixels.dtype != np.uint8:
        result = to_floats(result)
    else:
        result = to_bytes(result)
    if not isinstance(image, Image.Image):
        return np.ascontiguousarray(result.transpose(1, 2, 0))
    return Image.fromarray(result[0] if len(result) == 1 else result.transpose(1, 2, 0))
