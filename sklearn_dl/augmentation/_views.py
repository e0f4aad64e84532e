"""Several views of one image, whose predictions are averaged."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from sklearn_dl._images import resized_size, strip_part
from sklearn_dl.augmentation._foreign import global_seed
from sklearn_dl.augmentation._images import (
    plain_view,
    result_pixels,
    size_of,
    to_image,
    to_tensor,
)
from sklearn_dl.augmentation._presets import resolve_augment
from sklearn_dl.backbones import CallablePreprocessing, blank_image, resize_strip

# Room round the crop, as in most presets, where a preprocessing leaves none.
_MARGIN = 256 / 224
# Where the crops of `five_crop` lie: the parts of the room that are above and left.
_CROPS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))


@dataclass(frozen=True, repr=False, eq=False)
class Views:
    """Views of one image at the network's input size, which depend on it alone."""

    name: str
    make: Callable[[Any], list[torch.Tensor]]
    n_views: int
    thread_safe: bool

    def __repr__(self) -> str:
        return f"Views({self.name}, n_views={self.n_views})"

    def __call__(self, image) -> torch.Tensor:
        """Return the views (n_views, C, h, w) of an image as it was decoded."""
        views = self.make(image)
        if len(views) != self.n_views:
            raise ValueError(
                f"tta={self.name} returned {len(views)} images; for a first one it "
                f"returned {self.n_views}, and all must have as many."
            )
        return torch.stack(views)


def resolve_views(tta: Any, preprocessing, augment: Any = None) -> Views | None:
    """Return the views that a `tta` parameter (test-time augmentation) stands for.

    "five_crop" has the four corners and the centre of the resized image, "ten_crop"
    their mirror images too [1]_. An int has the image, and random views of it by
    `augment` (None: "light"), the same draws for each image. What a callable returns is
    resized as for prediction unless it has the network's size.

    References
    ----------
    .. [1] Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep
       convolutional neural networks", NeurIPS 2012.
    """
    if tta is None:
        return None
    if isinstance(tta, str) and tta in ("flip", "five_crop", "ten_crop"):
        n_views = {"flip": 2, "five_crop": 5, "ten_crop": 10}[tta]
        crops = partial(_crops, preprocessing, tta == "ten_crop")
        make = partial(_mirrored, preprocessing) if tta == "flip" else crops
        return Views(repr(tta), make, n_views, True)
    if isinstance(tta, int | np.integer) and not isinstance(tta, bool) and tta >= 2:
        with warnings.catch_warnings():  # what is said of colours, fit has said
            warnings.simplefilter("ignore")
            found, _ = resolve_augment(augment, preprocessing)
        augmenter: Any = found or resolve_augment("light", preprocessing)[0]
        make = partial(_random, preprocessing, augmenter, int(tta))
        return Views(repr(int(tta)), make, int(tta), augmenter.thread_safe)
    if not callable(tta) or isinstance(tta, type):
        raise ValueError(
            "tta must be None, 'flip', 'five_crop', 'ten_crop', an int from 2 or a "
            f"callable; got {tta!r}."
        )
    name = getattr(tta, "__name__", type(tta).__name__)
    make = partial(_called, preprocessing, tta, name)
    some = blank_image(preprocessing.n_channels)
    return Views(name, make, len(make(some)), False)


def _mirrored(preprocessing, image) -> list[torch.Tensor]:
    if isinstance(preprocessing, CallablePreprocessing):
        return [plain_view(view, preprocessing) for view in (image, F.hflip(image))]
    view = plain_view(image, preprocessing)
    return [view, view.flip(-1)]


def _crops(preprocessing, ten: bool, image) -> list[torch.Tensor]:
    if isinstance(preprocessing, CallablePreprocessing):
        crop = F.ten_crop if ten else F.five_crop
        size = [max(round(side / _MARGIN), 1) for side in size_of(image)]
        return [plain_view(part, preprocessing) for part in crop(image, size)]
    output = preprocessing.output_size or size_of(preprocessing.geometry(image))
    size = _with_margin(preprocessing, output, *size_of(image))
    whole, how = size_of(image), preprocessing.interpolation
    wanted = resized_size(size[0] if len(size) == 1 else tuple(size), False, *whole)
    views = []
    for one in (image, F.hflip(image)) if ten else (image,):
        resized = None
        for k, place in enumerate(_CROPS):
            # of a strip each part by itself, of others the whole once
            part = strip_part(whole, wanted, output, place)
            if part is not None:
                resized = resize_strip(one, *part, how)
            elif resized is None:
                mode = InterpolationMode(how)
                resized = F.resize(one, size, mode, antialias=preprocessing.antialias)
            views.append(to_tensor(F.five_crop(resized, list(output))[k]))
    return views


def _with_margin(preprocessing, crop, height: int, width: int) -> list[int]:
    """Return the size to resize an image to, so that crops of it differ."""
    resize = preprocessing.resize_size
    if isinstance(resize, int):
        if resize <= max(crop):
            resize = round(max(crop) * _MARGIN)
        return [resize]
    size = (height, width) if resize is None else resize
    if all(side > part for side, part in zip(size, crop, strict=True)):
        return list(size)
    grown = max(part / side for side, part in zip(size, crop, strict=True)) * _MARGIN
    return [math.ceil(round(side * grown, 6)) for side in size]


def _random(preprocessing, augmenter, n_views: int, image) -> list[torch.Tensor]:
    # By the number of the view alone: no row depends on another, or on its place.
    return [plain_view(image, preprocessing)] + [
        augmenter(image, np.random.default_rng(k)) for k in range(1, n_views)
    ]


def _called(preprocessing, tta: Callable, name: str, image) -> list[torch.Tensor]:
    with global_seed(0):  # a random function, too, gives each row the same views
        results = tta(image)
    if not isinstance(results, list | tuple):
        found = type(results).__name__
        raise ValueError(f"tta={name} must return a list of images, got {found}.")
    if not results:
        raise ValueError(f"tta={name} returned no image.")
    by_function = isinstance(preprocessing, CallablePreprocessing)
    size = None if by_function else preprocessing.output_size
    c = preprocessing.n_channels
    images = [to_image(result_pixels(result, f"tta={name}", c)) for result in results]
    return [
        to_tensor(image) if size_of(image) == size else plain_view(image, preprocessing)
        for image in images
    ]
