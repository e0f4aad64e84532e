"""Which classes are taken for each other, with images."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix
from sklearn.utils.validation import check_is_fitted

from sklearn_dl._images import ImageSource, as_source
from sklearn_dl._plots import Place, fitted, fitted_apart, place_of, width_of
from sklearn_dl.inspection._confusion import by_confidence, most_confused
from sklearn_dl.inspection._pictures import WRONG, check_count, show_image, thumbnail
from sklearn_dl.inspection._stream import image_shape_of

_CELL, _PICTURE = 0.52, 1.4  # inches of a cell, and of an image with its heading
_LONGEST_NAME = 1.3  # inches
_MOST_CLASSES = 12


class MostConfusedDisplay:
    """Confusion matrix beside the pairs of classes that are confused most often.

    A row per label and a column per prediction: in the cells the number of images, in
    colour their share of the images of the label. With many classes those of the most
    confused pairs are shown. Beside it, or below it where the place is narrow, a row
    per pair with example images, the most confident mistakes first.

    Make one with `from_estimator` or `from_predictions`.

    Parameters
    ----------
    matrix : DataFrame
        Numbers of images: labels as index, predictions as columns, of all classes.
    pairs : DataFrame
        What `most_confused` returned.
    images : list of list of ndarray of uint8, shape (h, w, 3)
        Examples of each pair.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The matrix.
    axes_ : ndarray of matplotlib Axes, shape (n_pairs, n_examples)
        The images.
    headings_ : list of matplotlib Text
        Above the images of each pair.
    figure_ : matplotlib Figure

    See Also
    --------
    most_confused : The pairs as a DataFrame.
    TopLossesDisplay : The mistakes one by one.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.inspection import MostConfusedDisplay
    >>> X = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), "uint8")
    >>> display = MostConfusedDisplay.from_predictions(
    ...     ["ant", "ant", "bee", "bee"],
    ...     ["ant", "bee", "bee", "bee"],
    ...     X,
    ...     ax=Figure().add_subplot(),
    ... )
    >>> display.headings_[0].get_text()
    'ant → bee: 1 of 2 (50 %)'
    """

    def __init__(
        self,
        matrix: pd.DataFrame,
        pairs: pd.DataFrame,
        images: list[list[np.ndarray]],
    ):
        self.matrix = matrix
        self.pairs = pairs
        self.images = images

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X,
        y,
        *,
        n_pairs: int = 4,
        n_examples: int = 4,
        max_classes: int = _MOST_CLASSES,
        ax=None,
    ) -> "MostConfusedDisplay":
        """Draw what a fitted classifier takes for what.

        Parameters
        ----------
        estimator : fitted classifier
            A classifier of images.
        X : images
            Any form that `estimator` takes.
        y : array-like of shape (n,)
            Labels.
        n_pairs, n_examples : int, default=4
            Pairs of classes with images, and images of each, at most.
        max_classes : int, default=12
            See `plot`.
        ax : matplotlib Axes, default=None
            See `plot`.

        Returns
        -------
        MostConfusedDisplay
            Drawn.

        Raises
        ------
        ValueError, NotFittedError
            As `most_confused`.
        """
        check_is_fitted(estimator)
        _check(n_pairs=n_pairs, n_examples=n_examples, max_classes=max_classes)
        matrix, pairs = _tables(y, estimator.predict(X))
        source, first = (
            as_source(X, image_shape=image_shape_of(estimator)),
            pairs[:n_pairs],
        )
        examples = first["examples"].tolist()
        if examples:
            examples = by_confidence(estimator, X, first["prediction"], examples)
        images = _thumbnails(source, examples, n_examples)
        return cls(matrix, pairs, images).plot(max_classes=max_classes, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y_true,
        y_pred,
        X,
        *,
        n_pairs: int = 4,
        n_examples: int = 4,
        max_classes: int = _MOST_CLASSES,
        image_shape=None,
        ax=None,
    ) -> "MostConfusedDisplay":
        """Draw predictions that were made before.

        Parameters
        ----------
        y_true, y_pred : array-like of shape (n,)
            Labels and predictions.
        X : images
            The n images, in any form that the estimators take.
        n_pairs, n_examples, max_classes, ax
            See `from_estimator`.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, channels) of rows of pixels.

        Returns
        -------
        MostConfusedDisplay
            Drawn.

        Raises
        ------
        ValueError
            If the lengths differ, or a number is not an int of at least 1.
        """
        _check(n_pairs=n_pairs, n_examples=n_examples, max_classes=max_classes)
        matrix, pairs = _tables(y_true, y_pred)
        source, n = as_source(X, image_shape=image_shape), len(y_true)
        if len(source) != n:
            raise ValueError(f"X has {len(source)} images, but y has {n} labels.")
        images = _thumbnails(source, pairs["examples"][:n_pairs], n_examples)
        return cls(matrix, pairs, images).plot(max_classes=max_classes, ax=ax)

    def plot(
        self,
        *,
        max_classes: int = _MOST_CLASSES,
        im_kw: dict | None = None,
        text_kw: dict | None = None,
        ax=None,
    ) -> "MostConfusedDisplay":
        """Draw.

        Parameters
        ----------
        max_classes : int, default=12
            Where there are more, those of the most confused pairs are shown.
        im_kw, text_kw : dict, default=None
            Passed to matplotlib's `imshow` for the matrix, and `text` for its numbers.
        ax : matplotlib Axes, default=None
            A subplot, which is divided; None makes a new figure.

        Returns
        -------
        MostConfusedDisplay
            This one.

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If ax isn't a subplot, or `max_classes` is not an int of at least 1.
        """
        _check(max_classes=max_classes)
        shown = self._classes(max_classes)
        n_rows = len(self.images)
        n_columns = max((len(images) for images in self.images), default=0)
        longest = max(width_of(fitted(c, _LONGEST_NAME, 9), 9) for c in shown)
        side = max(2.2, _CELL * len(shown)) + longest
        right = max(0.85 * _PICTURE * n_columns, 2.9) if n_rows else 0.0
        size = (side + 0.6 + right, max(side + 0.9, _PICTURE * n_rows))
        place = place_of("MostConfusedDisplay", ax, size)
        self.figure_ = place.whole
        self.axes_ = np.empty((0, 0), dtype=object)
        self.headings_: list[Any] = []
        matrix, pairs = place, None
        if n_rows and place.width >= 1.2 * place.height:
            matrix, pairs = place.divided(right / size[0], across=True)
        elif n_rows:  # below the matrix, as many as have room
            n_rows = min(n_rows, max(int(0.6 * place.height), 1))
            part = 0.65 * n_rows / place.height
            matrix, pairs = place.divided(min(part, 0.5), across=False)
        self.ax_ = matrix.figure.subplots()
        self._draw_matrix(shown, matrix, {"cmap": "Blues", **(im_kw or {})}, text_kw)
        if pairs is not None:
            self._draw_pairs(pairs, n_rows, n_columns)
        return self

    def _classes(self, max_classes: int) -> list[Any]:
        """Return the classes to show, in their order."""
        known = self.matrix.index.tolist()
        if len(known) <= max_classes:
            return known
        chosen: dict[Any, None] = {}
        for truth, prediction in zip(
            self.pairs["truth"], self.pairs["prediction"], strict=True
        ):
            new = {truth: None, prediction: None}
            if len(chosen | new) <= max_classes:
                chosen |= new
        return [one for one in known if one in chosen] or known[:max_classes]

    def _draw_matrix(
        self, shown: list[Any], place: Place, im_kw: dict, text_kw: dict | None
    ) -> None:
        ax, n = self.ax_, len(shown)
        counts = self.matrix.loc[shown, shown].to_numpy()
        totals = np.maximum(self.matrix.loc[shown].to_numpy().sum(1), 1)
        shares = counts / totals[:, None]
        ax.imshow(shares, **{"vmin": 0, "vmax": 1, "aspect": "auto", **im_kw})
        size = place.letters()
        of_all = (
            f" of {n} of {len(self.matrix)} classes" if n < len(self.matrix) else ""
        )
        note = f"number of images{of_all}; colour: share of the label's images"
        place.head(note, [], size)
        longest = min(_LONGEST_NAME, 0.28 * place.width)
        width, height = place.width - longest - 0.4, place.height - 0.8
        size = min(size, 54 * height / n, 54 * width / n)  # as high as a cell at most
        names = fitted_apart(shown, longest, size)
        below, widest = names, max(width_of(name, size) for name in names)
        upright = widest > 0.85 * width / n
        if upright and widest > 0.25 * height:  # there the columns have numbers
            below = [str(column + 1) for column in range(n)]
            names = fitted_apart(shown, longest - 0.25, size)
            names = [f"{name}  {k}" for name, k in zip(names, below, strict=True)]
            upright = False
        size = min(size, 54 * (height - upright * widest) / n)
        ax.set_yticks(range(n), names, fontsize=size)
        ax.set_xticks(range(n), below, fontsize=size, rotation=90 * upright)
        ax.tick_params(length=0)
        ax.set_ylabel("label", fontsize=place.letters())
        ax.set_xlabel("prediction", fontsize=place.letters())
        texts = {
            cell: f"{count}\n{100 * shares[cell]:.0f} %" if n <= 6 else f"{count}"
            for cell, count in np.ndenumerate(counts)
            if count
        }
        lines = {line for text in texts.values() for line in text.split("\n")}
        if max(width_of(line, size) for line in lines) > 0.9 * width / n:
            return  # no room for numbers
        look = {"ha": "center", "va": "center", "fontsize": size, **(text_kw or {})}
        for (row, column), text in texts.items():
            colour = "white" if shares[row, column] > 0.55 else "black"
            ax.text(column, row, text, **{"color": colour, **look})

    def _draw_pairs(self, place: Place, n_rows: int, n_columns: int) -> None:
        self.axes_ = place.figure.subplots(n_rows, n_columns, squeeze=False)
        size = place.letters() if place.width < 2.5 else 9.0
        for axes, images, (_, pair) in zip(
            self.axes_, self.images, self.pairs.iterrows(), strict=False
        ):
            for axis in axes:
                axis.set_axis_off()
            for axis, image in zip(axes, images, strict=False):
                show_image(axis, image, WRONG, anchor="NW")
            total = round(pair["n"] / pair["rate"])
            all_of_them = f": {pair['n']} of {total} ({100 * pair['rate']:.0f} %)"
            for numbers in (all_of_them, f": {pair['n']}", ""):
                room = (0.95 * place.width - width_of(f" → {numbers}", size)) / 2
                if room > 0.5:
                    break
            names = fitted_apart([pair["truth"], pair["prediction"]], room, size)
            heading = " → ".join(names) + numbers
            # The heading is wider than its image: an empty one keeps its height free.
            axes[0].set_title(" ", fontsize=size, y=1.0, pad=4)
            over = {"xycoords": "axes fraction", "textcoords": "offset points"}
            title = axes[0].annotate(heading, (0, 1), (0, 4), fontsize=size, **over)
            title.set_in_layout(False)
            self.headings_.append(title)


def _check(**counts: Any) -> None:
    for name, value in counts.items():
        check_count(name, value)


def _tables(y, predicted) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the matrix, and all pairs with all examples."""
    y, predicted = np.asarray(y).ravel(), np.asarray(predicted).ravel()
    classes = np.unique(np.concatenate([y, predicted]))
    counts = confusion_matrix(y, predicted, labels=classes)
    pairs = most_confused(y, predicted, k=None, n_examples=len(y))
    return pd.DataFrame(counts, index=classes, columns=classes), pairs


def _thumbnails(source: ImageSource, examples: Any, n: int) -> list[list[np.ndarray]]:
    return [[thumbnail(source, row) for row in rows[:n]] for rows in examples]
