"""Picture of what the network sees in training."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from sklearn_dl._images import as_source
from sklearn_dl._plots import import_pyplot
from sklearn_dl._runtime import draw_seed
from sklearn_dl.augmentation._images import plain_view, to_floats
from sklearn_dl.augmentation._mix import Mixing
from sklearn_dl.augmentation._presets import resolve_augment
from sklearn_dl.backbones import CallablePreprocessing, Preprocessing

# The preset of most weights; values are shown as they are before normalisation.
USUAL_PREPROCESSING = Preprocessing(256, (224, 224), mean=(0.5,) * 3, std=(0.5,) * 3)


def plot_augmentations(
    X,
    augment: Any = "standard",
    *,
    n_images: int = 4,
    n_draws: int = 6,
    image_size: int | tuple[int, int] = 224,
    random_state=0,
    figure=None,
):
    """Show what the network will see of some images in training.

    Each row is an image: as it is in prediction, then as it was drawn. Where images
    are mixed, a column of draws is a batch: each image is mixed with another one of its
    column, and the percentages of both are written below it.

    Parameters
    ----------
    X : array, tensor, list, tuple, Series or DataFrame
        Images in any form that the estimators take.
    augment : None, str, callable, sequence of them or Augment, default="standard"
        See `Augment`.
    n_images : int, default=4
        The first images of X are shown, at most as many.
    n_draws : int, default=6
        Draws of each image.
    image_size : int or (int, int), default=224
        The network's input size, in pixels. An int is a side: the shorter side is
        resized to 256/224 of it, and the centre cropped. (height, width) resizes.
    random_state : int, RandomState instance or None, default=0
        Seed of the draws.
    figure : matplotlib.figure.Figure or SubFigure, default=None
        Where to draw; None makes a new figure.

    Returns
    -------
    matplotlib.figure.Figure or SubFigure

    Raises
    ------
    ImportError
        If matplotlib is missing.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.augmentation import plot_augmentations
    >>> X = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), "uint8")
    >>> figure = plot_augmentations(
    ...     X, "light", n_draws=3, image_size=16, figure=Figure()
    ... )
    >>> len(figure.axes)
    8
    """
    preprocessing = USUAL_PREPROCESSING.replace_image_size(image_size)
    draws = draw_augmentations(
        X,
        augment,
        preprocessing,
        n_images=n_images,
        n_draws=n_draws,
        random_state=random_state,
    )
    if figure is None:
        pyplot = import_pyplot("plot_augmentations")
        figure = pyplot.figure(figsize=draws.figsize, layout="constrained")
    draws.show(figure.subplots(*draws.shape, squeeze=False))
    return figure


@dataclass
class Draws:
    """Images as they are in prediction, and as they were drawn for training.

    Attributes
    ----------
    plain : list of Tensor of shape (1 or 3, h, w)
        Images in prediction, uint8 or float in [0, 1].
    columns : list of list of (Tensor, str)
        For each draw the images, each with what is written below it.
    """

    plain: list[torch.Tensor]
    columns: list[list[tuple[torch.Tensor, str]]]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the picture."""
        return len(self.plain), 1 + len(self.columns)

    @property
    def figsize(self) -> tuple[float, float]:
        """Width and height of a figure, in inches."""
        rows, n = self.shape
        height, width = self.plain[0].shape[-2:]
        side = 1.6
        titled = any(title for column in self.columns for _, title in column)
        per_row = side * height / width + (0.2 if titled else 0.0)
        return 0.2 + side * n, 0.4 + per_row * rows

    def show(self, axes) -> None:
        """Draw on matplotlib Axes of this shape."""
        for row, plain in enumerate(self.plain):
            column = [(plain, ""), *(column[row] for column in self.columns)]
            for axis, (view, title) in zip(axes[row], column, strict=True):
                _show(axis, view)
                # Below the image: above the first row stand the headings.
                axis.set_xlabel(title, fontsize=8, labelpad=2)
            axes[row, 0].set_ylabel(str(row + 1), rotation=0, va="center", labelpad=8)
        for number, axis in enumerate(axes[0]):
            title = f"draw {number}" if number else "prediction"
            axis.set_title(title, fontsize=9)


def draw_augmentations(
    X,
    augment: Any,
    preprocessing: Preprocessing | CallablePreprocessing,
    *,
    n_images: int,
    n_draws: int,
    random_state,
    image_shape=None,
) -> Draws:
    """Draw what `plot_augmentations` shows, for a network's own preprocessing."""
    for name, value in (("n_images", n_images), ("n_draws", n_draws)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an int of at least 1, got {value!r}.")
    source = as_source(X, image_shape=image_shape)
    augmenter, mixing = resolve_augment(augment, preprocessing)
    seed = draw_seed(random_state)
    images = [as_image(source[row]) for row in range(min(n_images, len(source)))]
    plain = [plain_view(image, preprocessing) for image in images]
    columns = []
    for draw in range(n_draws):
        views = plain
        if augmenter is not None:
            views = [
                augmenter(image, np.random.default_rng([seed, draw, row]))
                for row, image in enumerate(images)
            ]
        columns.append(_mixed(views, mixing, [seed, draw]))
    return Draws(plain, columns)


def as_image(image: Image.Image | np.ndarray) -> Any:
    """Return an image of a source as a PIL image, or a tensor where it has floats."""
    if isinstance(image, Image.Image):
        return image
    if image.dtype != np.uint8:
        return torch.from_numpy(image).permute(2, 0, 1)
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _mixed(views, mixing: Mixing | None, key) -> list[tuple[torch.Tensor, str]]:
    """Return a column of images, each with its title."""
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
    factors, others = mixed["mix_share"].tolist(), mixed["mix_target"].tolist()
    titles = [
        f"{factor:.0%} + {1 - factor:.0%} of {other + 1}"
        for factor, other in zip(factors, others, strict=True)
    ]
    return list(zip(mixed["x"], titles, strict=True))


def _show(axis, view: torch.Tensor) -> None:
    values = np.clip(to_floats(view.numpy()), 0, 1)
    values = values[0] if len(values) == 1 else values.transpose(1, 2, 0)
    axis.imshow(values, cmap="gray" if values.ndim == 2 else None, vmin=0, vmax=1)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
