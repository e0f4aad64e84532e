"""Random changes of one image, at the network's input size."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from sklearn_dl.augmentation._colour import COLOURS, ColourMap
from sklearn_dl.augmentation._damage import DAMAGE
from sklearn_dl.augmentation._foreign import Foreign
from sklearn_dl.augmentation._geometry import (
    GEOMETRIC,
    crop_box,
    elastic_field,
    padding_shift,
    warp,
)
from sklearn_dl.augmentation._images import (
    plain_view,
    size_of,
    to_bytes,
    to_floats,
    to_image,
    to_pixels,
)
from sklearn_dl.backbones import CallablePreprocessing

# Longer side up to which an image is small: a part of it is no longer the same thing,
# and the padding, a border that the network learns to see past.
_SMALL = 64

# All names, in the order in which they act.
NAMES = ("crop", *GEOMETRIC, "elastic", *COLOURS, *DAMAGE)


class Named:
    """Some of the named transforms as one step, which act in the order of `NAMES`."""

    def __init__(self, strengths: Mapping[str, float], rgb: bool = True):
        self.strengths = {n: strengths[n] for n in NAMES if n in strengths}
        self.rgb = rgb  # whether the first three channels are red, green and blue

    def __repr__(self) -> str:
        return ", ".join(self.strengths)

    def __call__(
        self, pixels: np.ndarray, rng: np.random.Generator, small: bool = False
    ) -> np.ndarray:
        """Apply the transforms to pixels (c, H, W), uint8 or float32 in [0, 1]."""
        pixels = self._move(pixels, rng, small)
        pixels = self._colour(pixels, rng)
        for transform, strength in self._acting(DAMAGE):
            pixels = transform(pixels, rng, strength)
        return pixels

    def _acting(self, transforms: Mapping[str, Any]) -> list[tuple[Any, float]]:
        """Return those of some transforms that are asked for, with their strengths."""
        chosen = self.strengths.items()
        return [(transforms[n], s) for n, s in chosen if s and n in transforms]

    def _move(
        self, pixels: np.ndarray, rng: np.random.Generator, small: bool
    ) -> np.ndarray:
        size = pixels.shape[1:]
        moves = self._acting({"crop": padding_shift} if small else {})
        matrices = [m(rng, s, *size) for m, s in moves + self._acting(GEOMETRIC)]
        bends = self._acting({"elastic": elastic_field})
        fields = [bend(rng, strength, *size) for bend, strength in bends]
        if not matrices and not fields:
            return pixels
        total = np.eye(3)
        for matrix in matrices:
            total = matrix @ total
        return warp(pixels, total, *fields)

    def _colour(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        steps = self._acting(COLOURS)
        if not steps:
            return pixels
        scale = 255 if pixels.dtype == np.uint8 else 1
        colours = ColourMap(pixels.mean((1, 2), dtype=np.float64) / scale, self.rgb)
        for step, strength in steps:
            step(colours, rng, strength)
        return colours.apply(to_floats(pixels))


class Augmenter:
    """Random changes of one image, by steps (`Named`, `Foreign`), up to its resizing.

    The order is: ``crop``; then resizing as `preprocessing` has it; then all else, at
    the network's size. Where `preprocessing` is a function, everything happens to the
    image before the function. A first step that crops or resizes by itself gets the
    image as it was decoded. What another library's step returns at another size is
    resized. Such steps draw from generators of the process, so they aren't thread-safe.
    """

    def __init__(self, steps: list, preprocessing):
        self.steps = steps
        self.preprocessing = preprocessing
        self.thread_safe = not any(isinstance(step, Foreign) for step in steps)
        self._by_function = isinstance(preprocessing, CallablePreprocessing)
        first = steps[0]
        named = isinstance(first, Named)
        self._crop = first.strengths.get("crop", 0) if named else 0
        self._sizes_first = not (named or self._by_function) and first.sizes

    def __repr__(self) -> str:
        return f"Augmenter({', '.join(map(repr, self.steps))})"

    def __call__(self, image, rng: np.random.Generator) -> torch.Tensor:
        """Return a decoded image as the network sees it this time, (C, h, w).

        It is uint8 for a PIL image, else of the tensor's dtype; what the function
        returns where `preprocessing` is one.
        """
        pixels, small = self._start(image, rng)
        size = None if self._by_function or self._sizes_first else pixels.shape[1:]
        for step in self.steps:
            if isinstance(step, Named):
                pixels = step(pixels, rng, small)
                continue
            pixels = step(pixels, rng)
            if not self._by_function:
                pixels = self._sized(pixels, size)
                size = pixels.shape[1:]
        if self._by_function:
            whole = to_bytes(pixels) if isinstance(image, Image.Image) else pixels
            return self.preprocessing.geometry(to_image(whole))
        if isinstance(image, Image.Image) or image.dtype == torch.uint8:
            return torch.from_numpy(to_bytes(pixels))
        return torch.from_numpy(to_floats(pixels)).to(image.dtype)

    def _start(self, image, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
        """Return the pixels that the steps begin with, and whether they are small."""
        height, width = size_of(image)
        small = max(height, width) <= _SMALL
        if not self._crop or small:
            if not (self._by_function or self._sizes_first):
                image = self.preprocessing.geometry(image)
            return to_pixels(image), small
        if self._by_function:
            box = crop_box(rng, self._crop, height, width, 1.0)
            return to_pixels(F.crop(image, *box)), small
        size = self.preprocessing.output_size
        size = size or size_of(self.preprocessing.geometry(image))
        # Width by height of what prediction sees.
        whole = not isinstance(self.preprocessing.resize_size, int)
        ratio = width / height if whole else size[1] / size[0]
        box = crop_box(rng, self._crop, height, width, ratio)
        how = InterpolationMode(self.preprocessing.interpolation)
        smooth = self.preprocessing.antialias
        image = F.resized_crop(image, *box, list(size), how, antialias=smooth)
        return to_pixels(image), small

    def _sized(self, pixels: np.ndarray, size) -> np.ndarray:
        """Return pixels at the network's size."""
        if pixels.shape[1:] == (size or self.preprocessing.output_size):
            return pixels
        return plain_view(to_image(pixels), self.preprocessing).numpy()
