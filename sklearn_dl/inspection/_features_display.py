"""Features of images in two dimensions, with some of the images in place."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils import check_array, check_consistent_length, check_scalar
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import column_or_1d

from sklearn_dl import _plots
from sklearn_dl._images import as_source
from sklearn_dl.inspection._embedding import embedded, features_of, spread
from sklearn_dl.inspection._pictures import thumbnail
from sklearn_dl.inspection._stream import image_shape_of

_COLOURS = (
    *(_plots.BLUE, _plots.VERMILLION, _plots.GREEN, _plots.PURPLE),
    *(_plots.ORANGE, _plots.SKY_BLUE, _plots.BLACK),
)
# Beyond the colours: another marker of points and other dashes of frames.
_STYLES = (("o", "-"), ("^", (0, (4, 1))), ("s", (0, (1, 1))), ("D", (0, (4, 1, 1, 1))))
_PIXELS = 128  # of the longer side of a thumbnail


class EmbeddingDisplay:
    """Picture of features in two dimensions: images that are alike lie together.

    Some images are drawn as thumbnails where they lie, spread over the picture so that
    none covers another; the others are dots. Frames and dots have the colour of the
    class; or of the number, on a scale, where y is continuous.

    Parameters
    ----------
    features : array-like of shape (n, n_features)
        One row for each image; two columns are drawn as they are.
    X : images, default=None
        Any form that the estimators take. None draws dots alone.
    y : array-like of shape (n,), default=None
        Classes or numbers.
    method : {"pca", "tsne"} or transformer, default="pca"
        What maps features to two dimensions: principal components; t-SNE [1]_, of the
        first 50 of them; or any object with a `fit_transform` that returns two columns,
        such as ``umap.UMAP()``. t-SNE keeps near images near; distances between groups
        mean little.
    random_state : int, default=0
        Seed of the method, where its name is given.
    image_shape : tuple of int, default=None
        (height, width[, channels]) of rows of pixels; None infers square ones.

    Attributes
    ----------
    embedding : ndarray of shape (n, 2)
        Where the images lie.
    thumbnail_rows_ : ndarray of int
        Rows of X that are drawn as thumbnails; only these are decoded.
    ax_, figure_ : matplotlib Axes and Figure

    Raises
    ------
    ValueError
        If there is no such method, or X or y have other than n rows.

    References
    ----------
    .. [1] L. van der Maaten and G. Hinton, "Visualizing data using t-SNE", Journal of
       Machine Learning Research 9 (2008), 2579-2605.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.inspection import EmbeddingDisplay
    >>> features = np.random.default_rng(0).normal(size=(6, 10))
    >>> display = EmbeddingDisplay(features, y=["ant", "bee"] * 3)
    >>> display.plot(ax=Figure().add_subplot()).embedding.shape
    (6, 2)
    """

    def __init__(
        self,
        features: Any,
        X: Any = None,
        y: Any = None,
        *,
        method: Any = "pca",
        random_state: int = 0,
        image_shape: Any = None,
    ):
        features = check_array(features, ensure_min_samples=2)
        self.source: Any = X if X is None else as_source(X, image_shape=image_shape)
        self.y = None if y is None else column_or_1d(y)
        check_consistent_length(features, self.source, self.y)
        points, self.title, self.labels = embedded(features, method, random_state)
        self.embedding = np.asarray(points, dtype=float)

    @classmethod
    def from_estimator(
        cls, estimator: Any, X, y=None, *, method: Any = "pca", random_state=0, ax=None
    ) -> "EmbeddingDisplay":
        """Return a drawn display of features that a fitted estimator makes of images.

        Parameters
        ----------
        estimator : ImageFeatureExtractor, ImageClassifier, ImageRegressor or Pipeline
            Fitted. Features of a classifier or regressor are what its head sees; of a
            pipeline, what its last step does. Any other transformer of images serves.
        X, y, method, random_state
            See `EmbeddingDisplay`.
        ax : matplotlib Axes, default=None
            See `plot`.

        Raises
        ------
        TypeError, NotFittedError
            If the estimator makes no features, or is not fitted.
        """
        found, what = features_of(estimator, X)
        way = {"method": method, "random_state": random_state}
        display = cls(found, X, y, image_shape=image_shape_of(estimator), **way)
        display.title = f"{what}: {display.title}".removesuffix(": ")
        return display.plot(ax=ax)

    def plot(
        self, *, n_thumbnails=50, thumbnail_size=0.08, scatter_kw=None, ax=None
    ) -> "EmbeddingDisplay":
        """Draw, and return the display.

        Parameters
        ----------
        n_thumbnails : int, default=50
            At most as many images are drawn; fewer where they have no room.
        thumbnail_size : float, default=0.08
            Longer side of a thumbnail, as a share of the picture's longer side.
        scatter_kw : dict, default=None
            Passed to matplotlib's `scatter` for the dots.
        ax : matplotlib Axes, default=None
            A subplot; None makes a new figure.

        Raises
        ------
        ValueError, ImageDecodeError
            If a size is not valid, or a thumbnail can't be decoded, which is named.
        """
        check_scalar(n_thumbnails, "n_thumbnails", Integral, min_val=0)
        ends = {"min_val": 0, "max_val": 1, "include_boundaries": "neither"}
        check_scalar(thumbnail_size, "thumbnail_size", Real, **ends)
        figure = _plots.figure_of("EmbeddingDisplay", ax, (7.0, 6.2))
        (width, height), letters = _plots.size_of(figure), _plots.letters_in(figure)
        ax = self.ax_ = figure.subplots()
        self.figure_ = figure.figure
        # Distances are the same in both directions, so that images keep their shape.
        x, y = np.ptp(self.embedding, axis=0)
        side = thumbnail_size * max(x, y * width / height, 1e-9)
        side *= max(1, height / width)
        self.thumbnail_rows_ = np.empty(0, dtype=int)
        if self.source is not None and n_thumbnails:
            self.thumbnail_rows_ = spread(self.embedding, 1.05 * side, n_thumbnails)
        look = {"s": 22, "linewidths": 0.5, "edgecolors": "white"}
        look = _plots.options("dots", look, scatter_kw)
        if "c" in look:  # of all dots, as "color" is
            look["color"] = look.pop("c")
        y = np.zeros(len(self.embedding), int) if self.y is None else self.y
        if y.dtype.kind == "f" and type_of_target(y, input_name="y") == "continuous":
            frames = self._draw_numbers(y, letters, look)
        else:  # the legend takes a third of the place at most
            most = int(20 * height / letters) * max(int(width / 2.8), 1) - 1
            frames = self._draw_classes(_groups(y, most), letters, look)
        for row in self.thumbnail_rows_.tolist():
            self._draw_thumbnail(row, side, *frames[row])
        low = self.embedding.min(axis=0) - 0.6 * side
        high = self.embedding.max(axis=0) + 0.6 * side
        ax.update_datalim([low, high])
        ax.margins(0)
        ax.autoscale_view()
        ax.set_aspect("equal", adjustable="datalim")
        across = _plots.wrapped(self.labels[0], 0.9 * width, letters)
        upright = _plots.wrapped(self.labels[1], 0.5 * height, letters)
        ax.set(xticks=[], yticks=[], xlabel=across, ylabel=upright)
        _plots.tidy(ax, letters)
        _plots.head(figure, self.title, letters)
        return self

    def _draw_numbers(self, y: np.ndarray, letters: float, look: dict) -> list[tuple]:
        """Draw dots on a scale; return colour and dashes of each row's frame."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        scale = ScalarMappable(Normalize(np.nanmin(y), np.nanmax(y)), "cividis")
        colours = scale.to_rgba(y)
        dots = np.delete(np.arange(len(y)), self.thumbnail_rows_)
        self.ax_.scatter(*self.embedding[dots].T, **{"color": colours[dots], **look})
        bar = self.ax_.figure.colorbar(scale, ax=self.ax_, pad=0.02, aspect=30)
        bar.ax.tick_params(labelsize=letters - 1)
        bar.set_label("y", fontsize=letters)
        return [(colour, "-") for colour in colours]

    def _draw_classes(self, groups: list, letters: float, look: dict) -> list[tuple]:
        """Draw dots by class; return colour and dashes of each row's frame."""
        frames: list[Any] = [None] * len(self.embedding)
        names = _plots.fitted_apart([name for name, *_ in groups], 1.8, letters)
        for name, (_, rows, colour, marker, dashes) in zip(names, groups, strict=True):
            for row in rows:
                frames[row] = (colour, dashes)
            dots = self.embedding[np.setdiff1d(rows, self.thumbnail_rows_)]
            self.ax_.scatter(*dots.T, **{"color": colour, "marker": marker, **look})
            if self.y is not None:  # the legend shows frames too
                shown = {"color": colour, "marker": marker, "linestyle": dashes}
                self.ax_.plot([], [], label=f"{name} ({len(rows):,})", **shown)
        return frames

    def _draw_thumbnail(self, row: int, side: float, colour, dashes) -> None:
        from matplotlib.patches import Rectangle

        image = thumbnail(self.source, row, _PIXELS)
        height, width = np.array(image.shape[:2]) * side / max(image.shape[:2])
        x, y = self.embedding[row] - np.array([width, height]) / 2
        look: dict[str, Any] = {"fill": False, "ec": colour, "ls": dashes, "lw": 2}
        frame = Rectangle((x, y), width, height, zorder=3.1, **look)
        shown = self.ax_.imshow(image, extent=(x, x + width, y, y + height), zorder=3)
        for artist in (shown, self.ax_.add_artist(frame)):
            artist.set_in_layout(False)


def _groups(y: np.ndarray, most: int) -> list[tuple]:
    """Return label, rows and looks of each class, and of the others."""
    looks = [(colour, *style) for style in _STYLES for colour in _COLOURS]
    labels, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    most = min(most, len(looks))
    if len(labels) <= min(most + 1, len(looks)):
        most = len(labels)
    named = np.sort(np.argsort(-counts, kind="stable")[:most])
    groups: list[tuple] = [
        (str(labels[code]), np.flatnonzero(codes == code), *look)
        for code, look in zip(named, looks, strict=False)
    ]
    if len(named) < len(labels):
        rows = np.flatnonzero(~np.isin(codes, named))
        label = f"{len(labels) - len(named)} other classes"
        groups.append((label, rows, "0.6", "*", "-"))
    return groups
