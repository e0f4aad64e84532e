"""Maps of what predictions rest on, over the images."""

from typing import Any

import numpy as np
from sklearn.base import is_classifier

from sklearn_dl._images import as_source
from sklearn_dl._plots import picture_axes
from sklearn_dl.backbones import Preprocessing
from sklearn_dl.inspection._pictures import (
    LINE,
    SIDE,
    WIDTH,
    Line,
    row_heights,
    set_title,
    show_image,
    thumbnail,
)
from sklearn_dl.inspection._saliency import saliency
from sklearn_dl.inspection._stream import image_shape_of

_GREY = np.array([0.299, 0.587, 0.114])


class SaliencyDisplay:
    """Images, and below each the map of what the prediction rests on.

    The map lies over the image in grey, on a scale of its own, up to its largest value.
    For classes, bright yellow is what speaks for the class most. For a regressor,
    orange raises the prediction and purple lowers it.

    Make one with `from_estimator` or `from_maps`.

    Parameters
    ----------
    images : list of ndarray of uint8, shape (h, w, 3)
        Images.
    maps : list of ndarray, shape (h, w)
        Their maps, of any size, over the whole image.
    titles : list of str or of lists of lines, default=None
        Lines above each image. Instead of text, a line can be (before, name, after), of
        which the name alone is shortened.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (2 * n_rows, n_columns)
        Rows of images and of maps by turns.
    figure_ : matplotlib Figure

    See Also
    --------
    saliency : The maps.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.inspection import SaliencyDisplay
    >>> X = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), "uint8")
    >>> maps = np.zeros((2, 20, 20))
    >>> maps[:, 5:9, 5:9] = 1
    >>> display = SaliencyDisplay.from_maps(X, maps, ax=Figure().add_subplot())
    >>> display.axes_.shape
    (2, 2)
    """

    def __init__(
        self,
        images: list[np.ndarray],
        maps: list[np.ndarray],
        titles: list[Any] | None = None,
    ):
        self.images = images
        self.maps = maps
        self.titles = titles

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X,
        y=None,
        *,
        target=None,
        method: str = "auto",
        layer: str | None = None,
        n_columns: int = 4,
        ax=None,
    ) -> "SaliencyDisplay":
        """Explain predictions of a fitted estimator.

        Parameters
        ----------
        estimator : ImageClassifier, ImageRegressor or Pipeline
            See `saliency`.
        X : images
            Those to show, some 4 to 12.
        y : array-like of shape (n,), default=None
            Their labels or numbers, to be written beside the predictions.
        target, method, layer
            See `saliency`.
        n_columns, ax
            See `plot`.

        Returns
        -------
        SaliencyDisplay
            Drawn.

        Raises
        ------
        TypeError, ValueError, NotFittedError
            As `saliency`.
        """
        source = as_source(X, image_shape=image_shape_of(estimator))
        first = estimator.steps[0][1] if hasattr(estimator, "steps") else estimator
        preprocessing = getattr(first, "preprocessing_", None)
        whole = preprocessing is None or isinstance(preprocessing, Preprocessing)
        maps = saliency(
            estimator,
            X,
            target=target,
            method=method,
            layer=layer,
            frame="image" if whole else "input",
        )
        images = [
            thumbnail(source, row) if whole else _input(source, row, preprocessing)
            for row in range(len(source))
        ]
        titles = _titles(estimator, X, y, target, len(source))
        return cls(images, list(maps), titles).plot(n_columns=n_columns, ax=ax)

    @classmethod
    def from_maps(
        cls, X, maps, *, titles=None, n_columns: int = 4, image_shape=None, ax=None
    ) -> "SaliencyDisplay":
        """Draw maps that were made before, by `saliency` or another way.

        Parameters
        ----------
        X : images
            The n images, in any form that the estimators take.
        maps : array-like of shape (n, h, w), or list of n arrays (h, w)
            Each of a whole image, at any size. Maps with negative values are drawn as
            those of a regressor.
        titles : list of str, default=None
            Lines above each image.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, channels) of rows of pixels.
        n_columns, ax
            See `plot`.

        Returns
        -------
        SaliencyDisplay
            Drawn.

        Raises
        ------
        ValueError
            If there is not one map, and one title, for each image.
        """
        source = as_source(X, image_shape=image_shape)
        maps = [np.asarray(values, dtype=float) for values in maps]
        for name, values in (("maps", maps), ("titles", titles)):
            if values is not None and len(values) != len(source):
                raise ValueError(
                    f"There are {len(source)} images, but {len(values)} {name}."
                )
        for row, values in enumerate(maps):
            if values.ndim != 2:
                raise ValueError(
                    f"Map {row} has the shape {values.shape}, not (height, width)."
                )
        images = [thumbnail(source, row) for row in range(len(source))]
        return cls(images, maps, titles).plot(n_columns=n_columns, ax=ax)

    def plot(self, *, n_columns: int = 4, ax=None) -> "SaliencyDisplay":
        """Draw.

        Parameters
        ----------
        n_columns : int, default=4
            Images side by side.
        ax : matplotlib Axes or array of them, default=None
            Two for each image; a single subplot is divided. None makes a new figure.

        Returns
        -------
        SaliencyDisplay
            This one.

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If there are too few Axes, or the one isn't a subplot.
        """
        n = len(self.images)
        n_columns = max(1, min(n_columns, n))
        heights = np.repeat(row_heights(self.images, n_columns), 2).tolist()
        lines: list[list[Line]] = [
            list(t.split("\n")) if isinstance(t, str) else list(t)
            for t in self.titles or []
        ]
        above = LINE * max(map(len, lines), default=0) + 0.1
        height = WIDTH * sum(heights) + above * len(heights) / 2 + 0.9
        self.axes_, place = picture_axes(
            "SaliencyDisplay", ax, heights, n_columns, (n_columns * WIDTH, height)
        )
        self.figure_ = place.whole
        for axis in self.axes_.flat:
            axis.set_axis_off()
        signed = any((values < 0).any() for values in self.maps)
        colours = _colours(signed)
        for i, (image, values) in enumerate(zip(self.images, self.maps, strict=True)):
            row, column = 2 * (i // n_columns), i % n_columns
            show_image(self.axes_[row, column], image)
            show_image(
                self.axes_[row + 1, column], _over(image, values, colours, signed)
            )
            if lines:
                set_title(self.axes_[row, column], lines[i], place.width / n_columns)
        if place.figure is not None:
            place.head("What predictions rest on", [], place.letters())
        _draw_scale(self.axes_, colours, signed, place.letters())
        return self


def _colours(signed: bool) -> Any:
    import matplotlib as mpl

    return mpl.colormaps["PuOr_r" if signed else "inferno"]


def _over(image, values, colours, signed: bool) -> np.ndarray:
    """Return a map over an image in grey, as floats (h, w, 3)."""
    from PIL import Image

    size = image.shape[1], image.shape[0]
    scaled = Image.fromarray(np.asarray(values, np.float32)).resize(
        size, Image.Resampling.BILINEAR
    )
    heat = np.array(scaled)
    heat = heat / (np.abs(heat).max() or 1.0)
    grey = np.repeat((image / 255 @ _GREY)[..., None], 3, axis=2)
    colour = colours((heat + 1) / 2 if signed else heat)[..., :3]
    weight = 0.15 + 0.55 * np.abs(heat)[..., None]
    return np.clip((1 - weight) * grey + weight * colour, 0, 1)


def _draw_scale(axes: np.ndarray, colours: Any, signed: bool, size: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    low = -1 if signed else 0
    bar = axes[0, 0].figure.colorbar(
        ScalarMappable(Normalize(low, 1), colours),
        ax=axes.ravel().tolist(),
        location="bottom",
        aspect=30,
        shrink=0.6,
        pad=0.02,
    )
    names = ["lowers it", "no influence", "raises it"] if signed else ["none", "most"]
    bar.set_ticks([-1, 0, 1] if signed else [0, 1], labels=names, fontsize=size - 1)
    what = "part in the predicted number" if signed else "speaks for the class"
    bar.set_label(what, fontsize=size)


def _input(source, row: int, preprocessing) -> np.ndarray:
    """Return what a function makes of an image, stretched to be seen."""
    from PIL import Image

    image = Image.fromarray(thumbnail(source, row, 1 << 30))
    view = np.asarray(preprocessing.geometry(image)).transpose(1, 2, 0)
    view = (view - view.min()) / max(float(np.ptp(view)), 1e-9)
    return (255 * view).astype(np.uint8)[:SIDE, :SIDE]


def _titles(estimator, X, y, target, n: int) -> list[list[Line]]:
    predicted = np.asarray(estimator.predict(X))
    numbers = not is_classifier(estimator)
    chances = [""] * n
    if hasattr(estimator, "predict_proba") and predicted.ndim == 1:
        highest = np.asarray(estimator.predict_proba(X)).max(1)
        chances = [f" {100 * p:.0f} %" for p in highest]
    titles: list[list[Line]] = [
        [("predicted ", _text(value), chance)]
        for value, chance in zip(predicted, chances, strict=True)
    ]
    if y is not None:
        for lines, value in zip(titles, np.asarray(y), strict=True):
            lines.append(("true " if numbers else "label ", _text(value), ""))
    if target is not None:
        for lines, one in zip(titles, np.broadcast_to(target, n), strict=True):
            lines.append(("map for output " if numbers else "map for ", str(one), ""))
    return titles


def _text(value: Any) -> str:
    if np.ndim(value):
        return ", ".join(map(_text, value))
    is_number = isinstance(value, float | np.floating)
    return f"{value:.3g}" if is_number else str(value)
