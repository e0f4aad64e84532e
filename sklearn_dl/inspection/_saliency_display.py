"""Maps of what predictions rest on, over the images."""

from typing import Any

import numpy as np
from PIL import Image
from sklearn.base import is_classifier

from sklearn_dl import _plots
from sklearn_dl._images import as_source
from sklearn_dl.backbones import Preprocessing
from sklearn_dl.inspection import _pictures
from sklearn_dl.inspection._saliency import saliency
from sklearn_dl.inspection._stream import image_shape_of

_GREY = np.array([0.299, 0.587, 0.114])


class SaliencyDisplay:
    """Images, and below each the map of what the prediction rests on.

    The map lies over the image in grey, on a scale of its own, up to its largest value.
    For classes, bright yellow is what speaks for the class most. For a regressor,
    orange raises the prediction and purple lowers it.

    Parameters
    ----------
    X : images
        The n images, in any form that the estimators take.
    maps : array-like of shape (n, h, w), or list of n arrays (h, w)
        What `saliency` returned, or other maps: each of a whole image, at any size.
        Maps with negative values are drawn as those of a regressor.
    titles : list of str or of lists of lines, default=None
        Lines above each image. Instead of text, a line can be (before, name, after), of
        which the name alone is shortened.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, channels) of rows of pixels.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (2 * n_rows, n_columns)
        Rows of images and of maps by turns.
    figure_ : matplotlib Figure

    Raises
    ------
    ValueError
        If there is not one map, and one title, for each image.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.inspection import SaliencyDisplay
    >>> X = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), "uint8")
    >>> maps = X.mean(axis=-1)
    >>> SaliencyDisplay(X, maps).plot(ax=Figure().add_subplot()).axes_.shape
    (2, 2)
    """

    def __init__(self, X, maps, titles: list | None = None, *, image_shape=None):
        source = as_source(X, image_shape=image_shape)
        self.maps = [np.asarray(values, dtype=float) for values in maps]
        self.titles = titles
        for name, values in (("maps", maps), ("titles", titles)):
            if values is not None and len(values) != len(source):
                n = len(source)
                raise ValueError(f"There are {n} images, but {len(values)} {name}.")
        for row, values in enumerate(self.maps):
            if values.ndim != 2:
                shape = values.shape
                raise ValueError(f"Map {row} has the shape {shape}, not (h, w).")
        self.images = [_pictures.thumbnail(source, row) for row in range(len(source))]

    @classmethod
    def from_estimator(
        cls, estimator, X, y=None, *, target=None, method="auto", layer=None, ax=None
    ) -> "SaliencyDisplay":
        """Return a drawn display of what predictions rest on; raises as `saliency`.

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
        ax : matplotlib Axes, default=None
            See `plot`.
        """
        source: Any = as_source(X, image_shape=image_shape_of(estimator))
        first = estimator.steps[0][1] if hasattr(estimator, "steps") else estimator
        preprocessing = getattr(first, "preprocessing_", None)
        whole = preprocessing is None or isinstance(preprocessing, Preprocessing)
        frame = "image" if whole else "input"
        ways = {"target": target, "method": method, "layer": layer, "frame": frame}
        maps = saliency(estimator, X, **ways)
        if not whole:
            source = [_input(source, row, preprocessing) for row in range(len(source))]
        titles = _titles(estimator, X, y, target, len(source))
        return cls(source, maps, titles).plot(ax=ax)

    def plot(self, *, n_columns: int = 4, ax=None) -> "SaliencyDisplay":
        """Draw, and return the display.

        Parameters
        ----------
        n_columns : int, default=4
            Images side by side.
        ax : matplotlib Axes, default=None
            A subplot, which is divided; None makes a new figure.
        """
        _plots.import_pyplot("SaliencyDisplay")
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        n_columns = max(1, min(n_columns, len(self.images)))
        titles = [t.split("\n") if isinstance(t, str) else t for t in self.titles or []]
        figure, self.axes_ = _pictures.picture_axes(
            "SaliencyDisplay", ax, self.images, titles, n_columns, each=2
        )
        self.figure_, size = figure.figure, _plots.letters_in(figure)
        signed = any((values < 0).any() for values in self.maps)
        scale = ScalarMappable(Normalize(-signed, 1), "PuOr_r" if signed else "inferno")
        for i, (image, values) in enumerate(zip(self.images, self.maps, strict=True)):
            row, column = 2 * (i // n_columns), i % n_columns
            shown = _over(image, values, scale)
            _pictures.show_image(self.axes_[row, column], image)
            _pictures.show_image(self.axes_[row + 1, column], shown)
        _plots.head(figure, "What predictions rest on", size)
        look: dict[str, Any] = {"location": "bottom", "aspect": 30, "shrink": 0.6}
        bar = figure.colorbar(scale, ax=self.axes_.ravel().tolist(), **look)
        names = (
            ["lowers it", "no influence", "raises it"] if signed else ["none", "most"]
        )
        bar.set_ticks([-1, 0, 1][1 - signed :], labels=names, fontsize=size - 1)
        what = "part in the predicted number" if signed else "speaks for the class"
        bar.set_label(what, fontsize=size)
        return self


def _over(image: np.ndarray, values: np.ndarray, scale: Any) -> np.ndarray:
    """Return a map over an image in grey, as floats (h, w, 3)."""
    size = image.shape[1], image.shape[0]
    values = np.asarray(values, np.float32)
    heat = np.array(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    heat /= np.abs(heat).max() or 1.0
    weight = 0.15 + 0.55 * np.abs(heat)[..., None]
    grey = (image / 255 @ _GREY)[..., None]
    return (1 - weight) * grey + weight * scale.to_rgba(heat)[..., :3]


def _input(source, row: int, preprocessing) -> np.ndarray:
    """Return what a function makes of an image, stretched to be seen."""
    image = Image.fromarray(_pictures.thumbnail(source, row, 1 << 30))
    view = np.asarray(preprocessing.geometry(image)).transpose(1, 2, 0)
    view = (view - view.min()) / max(float(np.ptp(view)), 1e-9)
    return (255 * view).astype(np.uint8)[: _pictures.SIDE, : _pictures.SIDE]


def _titles(estimator, X, y, target, n: int) -> list[list[_pictures.Line]]:
    predicted = np.asarray(estimator.predict(X))
    of_numbers, of_classes = ("true ", "map for output "), ("label ", "map for ")
    true, output = of_classes if is_classifier(estimator) else of_numbers
    chances = [""] * n
    if hasattr(estimator, "predict_proba") and predicted.ndim == 1:
        highest = np.asarray(estimator.predict_proba(X)).max(1)
        chances = [f" {chance:.0%}" for chance in highest]
    titles: list[list[_pictures.Line]] = [
        [("predicted ", _text(value), chance)]
        for value, chance in zip(predicted, chances, strict=True)
    ]
    targets = None if target is None else np.broadcast_to(target, n)
    truth = None if y is None else np.asarray(y)
    for what, values in ((true, truth), (output, targets)):
        for lines, value in zip(titles, () if values is None else values, strict=False):
            lines.append((what, _text(value), ""))
    return titles


def _text(value: Any) -> str:
    if np.ndim(value):
        return ", ".join(map(_text, value))
    is_number = isinstance(value, float | np.floating)
    return f"{value:.3g}" if is_number else str(value)
