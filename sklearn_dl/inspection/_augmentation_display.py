"""Picture of what the network sees in training."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from sklearn_dl import _plots
from sklearn_dl._base import image_shape_of
from sklearn_dl._images import as_source
from sklearn_dl._runtime import draw_seed
from sklearn_dl.augmentation import (
    Augment,
    Mixing,
    plain_view,
    resolve_augment,
    to_floats,
)
from sklearn_dl.backbones import Preprocessing
from sklearn_dl.inspection._pictures import as_picture, check_count

# The preset of most weights; values are shown as they are before normalisation.
_PRESET = Preprocessing(256, (224, 224), mean=(0.5,) * 3, std=(0.5,) * 3)
_SIDE = 1.6  # inches of a picture


class AugmentationDisplay:
    """Images as the network sees them in prediction, and as drawn for training.

    Each row is an image: first as it is in prediction, then one draw in each column.
    Where images are mixed, a column is a batch: each image is mixed with another one of
    its column, and below it stand its percentage and the number of the other.

    Parameters
    ----------
    X : images
        Any form that the estimators take.
    augment : None, str, callable, sequence of them or Augment, default="standard"
        See `Augment`. With its `views`, draws come back after as many.
    n_images, n_draws : int, default=4 and 6
        The first images of X are shown, at most as many, and draws of each.
    image_size : int or (int, int), default=224
        The network's input size, in pixels. An int is a side: the shorter side is
        resized to 256/224 of it, and the centre cropped. (height, width) resizes.
    preprocessing : Preprocessing, default=None
        That of a backbone, in place of an image size.
    image_shape : tuple of int, Channels or None, default=None
        As the estimators have it. Of channels that are no colours the mean is shown.
    random_state : int, RandomState instance or None, default=0
        Seed of the draws.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (n_images, 1 + n_draws)
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.inspection import AugmentationDisplay
    >>> X = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), "uint8")
    >>> display = AugmentationDisplay(X, "light", n_draws=3, image_size=16)
    >>> display.plot(ax=Figure().add_subplot()).axes_.shape
    (2, 4)
    """

    def __init__(
        self,
        X: Any,
        augment: Any = "standard",
        *,
        n_images: int = 4,
        n_draws: int = 6,
        image_size: int | tuple[int, int] | None = 224,
        preprocessing: Preprocessing | None = None,
        image_shape: Any = None,
        random_state: Any = 0,
    ):
        check_count(n_images=n_images, n_draws=n_draws)
        source, seed = as_source(X, image_shape=image_shape), draw_seed(random_state)
        if preprocessing is None:
            size = tuple(image_size) if isinstance(image_size, list) else image_size
            preprocessing = _PRESET.replace_image_size(size or 224)
            if (asked := source.channels) is not None:
                preprocessing = preprocessing.replace_channels(asked.n, rgb=asked.rgb)
        augmenter, mixing = resolve_augment(augment, preprocessing)
        views = Augment.of(augment).views or n_draws
        images = [_as_image(source[row]) for row in range(min(n_images, len(source)))]
        self._channels = source.channels
        self.plain = [plain_view(image, preprocessing) for image in images]
        self.columns = []
        for draw in range(n_draws):
            column = self.plain
            if augmenter is not None:
                keys = ([seed, draw % views, row] for row in range(len(images)))
                rngs = map(np.random.default_rng, keys)
                column = [augmenter(*one) for one in zip(images, rngs, strict=True)]
            self.columns.append(_mixed(column, mixing, [seed, draw]))

    @classmethod
    def from_estimator(
        cls, estimator: Any, X, *, n_images=4, n_draws=6, random_state=0, ax=None
    ) -> "AugmentationDisplay":
        """Return a drawn display of what an estimator makes of images in training.

        Parameters
        ----------
        estimator : ImageClassifier or ImageRegressor
            Its augmentation is taken; and its resizing and cropping where
            it is fitted, else those of most weights at its `image_size`.
        X : images
            Any form that `estimator` takes.
        n_images, n_draws, random_state, ax
            See `AugmentationDisplay` and `plot`.

        Raises
        ------
        TypeError
            If the estimator has no augmentation.
        """
        if not hasattr(estimator, "augment"):
            raise TypeError(
                f"{type(estimator).__name__} has no parameter augment: give an "
                "ImageClassifier or ImageRegressor, or use AugmentationDisplay(X, ...)."
            )
        source = as_source(X, image_shape=image_shape_of(estimator))
        way = {"image_size": estimator.image_size, "random_state": random_state}
        way["preprocessing"] = getattr(estimator, "preprocessing_", None)
        way |= {"n_images": n_images, "n_draws": n_draws}
        return cls(source, estimator.augment, **way).plot(ax=ax)

    def plot(self, *, ax=None) -> "AugmentationDisplay":
        """Draw, and return the display.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            A subplot, which is divided; None makes a new figure.
        """
        n_rows, n_columns = len(self.plain), 1 + len(self.columns)
        below = any(text for column in self.columns for _, text in column)
        height, width = self.plain[0].shape[-2:]
        per_row = _SIDE * height / width + 0.2 * below
        size = (0.2 + _SIDE * n_columns, 0.4 + per_row * n_rows)
        figure = _plots.figure_of("AugmentationDisplay", ax, size)
        self.axes_ = figure.subplots(n_rows, n_columns, squeeze=False)
        self.figure_ = figure.figure
        room = 0.85 * _plots.size_of(figure)[0] / n_columns
        letters = 8 if room > 0.85 else 6
        for row, plain in enumerate(self.plain):
            cells = [(plain, ""), *(column[row] for column in self.columns)]
            for axis, (view, text) in zip(self.axes_[row], cells, strict=True):
                image = np.clip(to_floats(view.numpy()).transpose(1, 2, 0), 0, 1)
                image = as_picture(image, self._channels)
                shown = axis.imshow(image, cmap="gray", vmin=0, vmax=1)
                shown.set_in_layout(False)  # it lies within its Axes
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                # Below the image: above the first row stand the headings.
                text = _plots.wrapped(text, room, letters)
                axis.set_xlabel(text, fontsize=letters, labelpad=2)
            look = {"rotation": 0, "va": "center", "labelpad": 8}
            self.axes_[row, 0].set_ylabel(str(row + 1), **look)
        first, said = "prediction", "draw "
        if _plots.width_of(first, letters + 1) > room:
            first, said = "plain", ""
        for k, axis in enumerate(self.axes_[0]):
            heading = f"{said}{k}" if k else first
            heading = _plots.fitted(heading, room, letters + 1)
            axis.set_title(heading, fontsize=letters + 1, y=1.0)
        return self


def _as_image(image: Image.Image | np.ndarray) -> Any:
    """Return an image of a source as a PIL image, or a tensor where it has floats."""
    if isinstance(image, Image.Image):
        return image
    if image.dtype != np.uint8 or image.shape[2] not in (1, 3):
        return torch.from_numpy(image).permute(2, 0, 1)
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _mixed(views, mixing: Mixing | None, key) -> list[tuple[torch.Tensor, str]]:
    """Return a column of images, each with what is written below it."""
    if mixing is None:
        return [(view, "") for view in views]
    channels = max(len(view) for view in views)
    floats = [torch.from_numpy(to_floats(view.numpy())) for view in views]
    mixed: dict[str, Any] = mixing.mix_batch(
        torch.stack([view.expand(channels, -1, -1) for view in floats]),
        torch.arange(len(views)),
        torch.ones(len(views)),
        rng=np.random.default_rng(key),
    )
    drawn = zip(mixed["mix_share"].tolist(), mixed["mix_target"].tolist(), strict=True)
    texts = [f"{p:.0%} + {1 - p:.0%} of {other + 1}" for p, other in drawn]
    return list(zip(mixed["x"], texts, strict=True))
