"""Channels of images that are more, fewer or others than red, green and blue."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from numbers import Integral
from typing import Any

import numpy as np
from PIL import Image
from sklearn.base import BaseEstimator

from sklearn_dl._plain import PlainParameters

# Weights of red, green and blue (ITU-R BT.601), as Pillow converts to grey.
LUMA = (0.299, 0.587, 0.114)


@dataclass(repr=False, eq=False)
class Channels(PlainParameters, BaseEstimator):
    """Channels of images, by number or by position.

    A value of the estimators' `image_shape`, for images that are no photographs:
    microscope fields, satellite tiles, RGB with near infrared. The first convolution of
    the backbone is adapted to them, with its pretrained weights.

    Parameters
    ----------
    channels : int or sequence of int
        How many channels each image has; or the positions, from 0, of those that are
        taken, in this order: ``[3, 2, 1]`` is the true colour of a Sentinel-2 tile of
        13 bands.
    rgb : bool or "auto", default="auto"
        Whether the first three of them are red, green and blue. Then the backbone keeps
        its kernels for these, and those of further channels begin at zero: features are
        those of the RGB image until training changes them. Otherwise the three kernels
        are repeated, and scaled by three to the number of channels [1]_. ``"auto"`` is
        True for three and four channels. One channel takes the sum of the kernels.
    shape : tuple of int or None, default=None
        (height, width) or (height, width, channels) of rows of pixels, and of arrays
        whose axes could be read in two ways.

    Notes
    -----
    Without `Channels` images have 1, 3 or 4 channels, and the fourth is transparency.
    Arrays don't need it where one axis alone, the first or the last, can hold other
    numbers: at most half of the other two. Files do:
    multi-band TIFF (with ``sklearn_dl[tiff]``), ``.npy``, and PNG or WebP with a fourth
    channel, which is then taken as it is. Files in colour become grey for one channel.

    References
    ----------
    .. [1] R. Wightman, "PyTorch Image Models", 2019, `in_chans` of pretrained models.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl import ImageFeatureExtractor
    >>> from sklearn_dl.datasets import Channels
    >>> tiles = np.random.default_rng(0).random((2, 40, 40, 13), dtype="float32")
    >>> small = {"weights": "builtin", "image_size": 64}
    >>> true_colour = Channels([3, 2, 1])
    >>> extractor = ImageFeatureExtractor(
    ...     "mobilenet_v3_small", **small, image_shape=true_colour
    ... )
    >>> same = ImageFeatureExtractor("mobilenet_v3_small", **small)
    >>> features = extractor.fit_transform(tiles)
    >>> bool((features == same.fit_transform(tiles[..., [3, 2, 1]])).all())
    True
    """

    channels: int | Sequence[int]
    _: KW_ONLY
    rgb: bool | str = "auto"
    shape: tuple[int, ...] | None = None


Channels.__module__ = "sklearn_dl.datasets"  # where it is public: files name it so


@dataclass(frozen=True)
class Selection:
    """Channels that images have, and those that are taken of them, checked."""

    n: int  # how many are taken
    taken: tuple[int, ...] | None = None  # their positions; None: all there are
    rgb: bool = False  # whether the first three are red, green and blue

    @classmethod
    def of(cls, value: Any) -> "Selection":
        """Return what a number of channels, positions or `Channels` ask for."""
        if isinstance(value, Selection):
            return value
        asked: Any = value if isinstance(value, Channels) else Channels(value)
        channels, rgb = asked.channels, asked.rgb
        listed = isinstance(channels, Sequence | np.ndarray)
        listed &= not isinstance(channels, str | bytes)
        taken: tuple[Any, ...] | None = tuple(channels) if listed else None
        numbers: tuple[Any, ...] = (channels,) if taken is None else taken
        least = 1 if taken is None else 0
        ints = [isinstance(c, Integral) and not isinstance(c, bool) for c in numbers]
        if not numbers or not all(ints) or min(numbers) < least:
            raise ValueError(
                "channels must be a number of at least 1, or a list of positions from "
                f"0; got {channels!r}."
            )
        n = int(numbers[0]) if taken is None else len(numbers)
        if not (isinstance(rgb, bool | np.bool_) or rgb == "auto"):
            raise ValueError(f"rgb must be True, False or 'auto', got {rgb!r}.")
        if rgb is True and n < 3:
            raise ValueError(f"rgb=True needs three channels or more, got {n}.")
        first_three = n in (3, 4) if isinstance(rgb, str) else bool(rgb)
        return cls(n, taken and tuple(map(int, taken)), first_three)

    @property
    def stored(self) -> int | None:
        """How many channels an image has; None where some are taken of any number."""
        return self.n if self.taken is None else None

    @property
    def bands(self) -> bool:
        """Whether all that files hold counts; photographs have one channel or three."""
        return self.stored not in (1, 3)

    @property
    def least(self) -> int:
        """How many channels an image has at least."""
        return self.n if self.taken is None else max(self.taken) + 1

    def of_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Return those that are taken of the pixels (..., C) of arrays."""
        found = pixels.shape[-1]
        if found != (self.stored or found) or found < self.least:
            wanted = f"not {self.n}"
            if self.taken is not None:
                wanted = f"and so no channel {self.least - 1}, counted from 0"
            raise ValueError(f"the image has {found} channels, {wanted}")
        return pixels if self.taken is None else pixels[..., list(self.taken)]

    def of_file(self, pixels: np.ndarray) -> np.ndarray:
        """Return those of a file's image (H, W, C); grey and RGB become one another."""
        if self.stored == 1 and pixels.shape[2] == 3:
            if pixels.dtype == np.uint8:
                return np.array(Image.fromarray(pixels).convert("L"))[..., None]
            return (pixels @ np.array(LUMA, np.float32))[..., None]
        if self.least <= 3 and pixels.shape[2] == 1 and self.stored != 1:
            pixels = np.repeat(pixels, 3, axis=2)
        return self.of_pixels(pixels)
