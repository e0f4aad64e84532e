"""What augmentation makes of images, as a picture."""

from typing import Any

from sklearn.base import clone

from sklearn_dl.augmentation import (
    USUAL_PREPROCESSING,
    Augment,
    Draws,
    draw_augmentations,
)
from sklearn_dl.inspection._pictures import grid_of_axes
from sklearn_dl.inspection._stream import image_shape_of


class AugmentationDisplay:
    """Images as the network sees them in prediction, and as drawn for training.

    Each row is an image: first as it is in prediction, then one draw in each column.
    Where images are mixed, a column is a batch: each image is mixed with another one
    of its column, and below it stand both percentages and the number of the other.

    Make one with `from_estimator` or `from_images`.

    Parameters
    ----------
    draws : Draws
        The images, with `plain` (a list of tensors (1 or 3, h, w)) and `columns` (for
        each draw a list of such tensors, each with what is written below it).

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (n_images, 1 + n_draws)
    figure_ : matplotlib Figure

    See Also
    --------
    sklearn_dl.augmentation.Augment : What augmentations there are.
    sklearn_dl.augmentation.plot_augmentations : The same as a function.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.inspection import AugmentationDisplay
    >>> X = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), "uint8")
    >>> display = AugmentationDisplay.from_images(
    ...     X, "light", n_draws=3, image_size=16, ax=Figure().add_subplot()
    ... )
    >>> display.axes_.shape
    (2, 4)
    """

    def __init__(self, draws: Draws):
        self.draws = draws

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X,
        *,
        n_images: int = 4,
        n_draws: int = 6,
        random_state=0,
        ax=None,
    ) -> "AugmentationDisplay":
        """Draw what an estimator makes of images in training.

        Parameters
        ----------
        estimator : ImageClassifier or ImageRegressor
            Its `augment` is taken; and its resizing and cropping where it is fitted,
            else those of most weights at its `image_size`.
        X : images
            Any form that `estimator` takes.
        n_images : int, default=4
            The first images of X are shown, at most as many.
        n_draws : int, default=6
            Draws of each image.
        random_state : int, RandomState instance or None, default=0
            Seed of the draws.
        ax : matplotlib Axes or array of them, default=None
            See `plot`.

        Returns
        -------
        AugmentationDisplay
            Drawn.

        Raises
        ------
        TypeError
            If the estimator has no augmentation.
        """
        if not hasattr(estimator, "augment"):
            raise TypeError(
                f"{type(estimator).__name__} has no parameter augment: give an "
                "ImageClassifier or ImageRegressor, or use from_images."
            )
        preprocessing = getattr(estimator, "preprocessing_", None)
        if preprocessing is None:
            preprocessing = _preset(estimator.image_size)
        augment = estimator.augment
        if getattr(estimator, "mix", None) is not None:
            augment = clone(
                augment if isinstance(augment, Augment) else Augment(augment)
            )
            augment.set_params(mix=estimator.mix, mix_alpha=estimator.mix_alpha)
        draws = draw_augmentations(
            X,
            augment,
            preprocessing,
            n_images=n_images,
            n_draws=n_draws,
            random_state=random_state,
            image_shape=image_shape_of(estimator),
        )
        return cls(draws).plot(ax=ax)

    @classmethod
    def from_images(
        cls,
        X,
        augment: Any = "standard",
        *,
        n_images: int = 4,
        n_draws: int = 6,
        image_size: int | tuple[int, int] | None = None,
        random_state=0,
        ax=None,
    ) -> "AugmentationDisplay":
        """Draw what an augmentation makes of images.

        Parameters
        ----------
        X : images
            Any form that the estimators take.
        augment : None, str, callable, sequence of them or Augment, default="standard"
            Whatever the estimators take; see `sklearn_dl.augmentation.Augment`.
        n_images, n_draws, random_state, ax
            See `from_estimator`.
        image_size : int or (int, int), default=None
            The network's input size in pixels, see `plot_augmentations`; None is 224.

        Returns
        -------
        AugmentationDisplay
            Drawn.
        """
        draws = draw_augmentations(
            X,
            augment,
            _preset(image_size),
            n_images=n_images,
            n_draws=n_draws,
            random_state=random_state,
        )
        return cls(draws).plot(ax=ax)

    def plot(self, *, ax=None) -> "AugmentationDisplay":
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or array of them, default=None
            One for each image and draw; a single subplot is divided. None makes a new
            figure.

        Returns
        -------
        AugmentationDisplay
            This one.

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If there are too few Axes, or the one isn't a subplot.
        """
        draws = self.draws
        n_rows, n_columns = draws.shape
        self.axes_ = grid_of_axes(
            ax, [1.0] * n_rows, n_columns, "AugmentationDisplay", draws.figsize, 0.25
        )
        self.figure_ = self.axes_[0, 0].figure
        draws.show(self.axes_)
        return self


def _preset(image_size: Any) -> Any:
    if image_size is None:
        return USUAL_PREPROCESSING
    size = tuple(image_size) if isinstance(image_size, list) else image_size
    return USUAL_PREPROCESSING.replace_image_size(size)
