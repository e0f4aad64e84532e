"""Transforms of other libraries, which draw from generators of the process."""

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from sklearn_dl._runtime import seeded
from sklearn_dl.augmentation._images import result_pixels, to_image


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed random's, numpy's and torch's generators for a block, one at a time."""
    with seeded(seed):
        python, legacy = random.getstate(), np.random.get_state()
        try:
            random.seed(seed)
            np.random.seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


class Foreign:
    """A transform that somebody else wrote, as a step of an `Augmenter`.

    Albumentations get an array (H, W[, c]), torchvision's v2 an ``Image`` tensor; any
    other callable, and what stands for a `name`, a PIL image (a tensor of floats, and
    of other channels than grey and RGB have). One that crops or resizes (`sizes`) wants
    the image as it was.
    """

    def __init__(self, transform: Callable[..., Any], name: str | None = None):
        homes = [cls.__module__ for cls in type(transform).__mro__]
        self.albumentations = any(h.split(".")[0] == "albumentations" for h in homes)
        # Their generators are seeded in place: not in the user's object.
        self.transform = copy.deepcopy(transform) if self.albumentations else transform
        v2 = any(home.startswith("torchvision.transforms.v2") for home in homes)
        self.takes_tensors = name is None and v2
        self.name = name or _name_of(transform)
        self.sizes = _sizes(transform)

    def __repr__(self) -> str:
        return self.name

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Apply the transform to pixels (c, H, W), its draws seeded from `rng`."""
        seed = int(rng.integers(2**32))
        with global_seed(seed):
            result = self._apply(pixels, seed)
        return result_pixels(result, self.name, len(pixels))

    def _apply(self, pixels: np.ndarray, seed: int) -> Any:
        if self.albumentations:
            array = pixels.transpose(1, 2, 0)
            if hasattr(self.transform, "set_random_seed"):
                self.transform.set_random_seed(seed)
            return self.transform(image=np.ascontiguousarray(array))["image"]
        if self.takes_tensors:
            from torchvision import tv_tensors

            return self.transform(tv_tensors.Image(torch.from_numpy(pixels)))
        return self.transform(to_image(pixels))


def _name_of(transform: Any) -> str:
    return getattr(transform, "__name__", type(transform).__name__)


def _sizes(transform: Any) -> bool:
    """Tell whether a transform, or one that it holds, crops or resizes."""
    if any(word in _name_of(transform) for word in ("Crop", "Resize", "MaxSize")):
        return True
    parts = getattr(transform, "transforms", None)
    return isinstance(parts, list | tuple) and any(_sizes(part) for part in parts)
