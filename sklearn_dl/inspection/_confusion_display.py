"""Which classes are taken for each other, with images."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix
from sklearn.utils.validation import check_is_fitted

from sklearn_dl._images import as_source
from sklearn_dl._plots import fitted, fitted_apart, width_of
from sklearn_dl.inspection._confusion import _by_confidence, most_confused
from sklearn_dl.inspection._pictures import (
    WRONG,
    axes_width,
    check_count,
    grid_of_axes,
    show_image,
    subplot_place,
    thumbnail,
)
from sklearn_dl.inspection._stream import image_shape_of

_CELL, _PICTURE, _HEADING = 0.52, 1.15, 0.25  # inches
_LONGEST_NAME = 1.3  # inches
_AXIS_LABEL = 0.3  # inches of "label" and "prediction", with gaps
_FONT = 9
_MOST_CLASSES = 12


class MostConfusedDisplay:
    """Confusion matrix beside the pairs of classes that are confused most often.

    Left, a row per label and a column per prediction: in the cells the number of
    images, in colour their share of the images of the label. With many classes those of
    the most confused pairs are shown. Right, a row per pair with example images, the
    most confident mistakes first.

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
        Of the matrix.
    axes_ : ndarray of matplotlib Axes, shape (n_pairs, n_examples)
        Of the images.
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
            Of images.
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
        return cls._drawn(
            y,
            estimator.predict(X),
            X,
            estimator,
            (n_pairs, n_examples),
            max_classes,
            image_shape_of(estimator),
            ax,
        )

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
        limits = (n_pairs, n_examples)
        return cls._drawn(y_true, y_pred, X, None, limits, max_classes, image_shape, ax)

    @classmethod
    def _drawn(cls, y, predicted, X, estimator, limits, max_classes, image_shape, ax):
        for name, value in zip(("n_pairs", "n_examples"), limits, strict=True):
            check_count(name, value)
        check_count("max_classes", max_classes)
        y, predicted = np.asarray(y).ravel(), np.asarray(predicted).ravel()
        classes = np.unique(np.concatenate([y, predicted]))
        counts = confusion_matrix(y, predicted, labels=classes)
        matrix = pd.DataFrame(counts, index=classes, columns=classes)
        source = as_source(X, image_shape=image_shape)
        if len(source) != len(y):
            raise ValueError(f"X has {len(source)} images, but y has {len(y)} labels.")
        pairs = most_confused(y, predicted, k=None, n_examples=len(y))
        shown = pairs.head(limits[0])
        examples = shown["examples"].tolist()
        if estimator is not None and examples:
            examples = _by_confidence(estimator, X, shown["prediction"], examples)
        images = [
            [thumbnail(source, row) for row in rows[: limits[1]]] for rows in examples
        ]
        return cls(matrix, pairs, images).plot(max_classes=max_classes, ax=ax)

    def plot(
        self, *, max_classes: int = _MOST_CLASSES, ax=None
    ) -> "MostConfusedDisplay":
        """Draw.

        Parameters
        ----------
        max_classes : int, default=12
            Of more classes, those of the most confused pairs are shown.
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
        from matplotlib.gridspec import GridSpecFromSubplotSpec

        check_count("max_classes", max_classes)
        shown = self._classes(max_classes)
        n_rows = len(self.images)
        n_columns = max((len(images) for images in self.images), default=0)
        side = max(2.2, _CELL * len(shown))
        longest = max(width_of(fitted(c, _LONGEST_NAME, _FONT), _FONT) for c in shown)
        left, right = side + longest + 0.6, max(n_columns * _PICTURE, 2.9)
        figsize = (
            left + right + 0.5,
            max(side + longest + 1.15, (_PICTURE + _HEADING) * n_rows + 0.1),
        )
        given = ax is not None
        if ax is None:
            ax = grid_of_axes(None, [1.0], 1, "MostConfusedDisplay", figsize)[0, 0]
        place, figure = subplot_place(ax), ax.figure
        if n_rows:
            grid = GridSpecFromSubplotSpec(
                1, 2, place, width_ratios=(left, right), wspace=0.1
            )
            place = grid[0]
            ratios = [_HEADING, _PICTURE] * n_rows
            parts = GridSpecFromSubplotSpec(
                2 * n_rows, n_columns, grid[1], height_ratios=ratios
            )
            # The headings have Axes of their own, as wide as all the images of a pair.
            over = [figure.add_subplot(parts[2 * r, :]) for r in range(n_rows)]
            axes = [
                figure.add_subplot(parts[2 * r + 1, c])
                for r in range(n_rows)
                for c in range(n_columns)
            ]
            self.axes_ = np.array(axes, dtype=object).reshape(n_rows, n_columns)
        else:
            self.axes_, over = np.empty((0, 0), dtype=object), []
        self.ax_ = figure.add_subplot(place)
        self.figure_ = figure
        self._draw_matrix(shown, given)
        self._draw_pairs(over)
        if not given:
            # Of squares the first layout takes too much room for granted.
            for _ in range(3):
                figure.get_layout_engine().execute(figure)
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

    def _draw_matrix(self, shown: list[Any], given: bool) -> None:
        ax = self.ax_
        counts = self.matrix.loc[shown, shown].to_numpy()
        totals = np.maximum(self.matrix.loc[shown].to_numpy().sum(1), 1)
        shares = counts / totals[:, None]
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        box, dpi = ax.get_window_extent(), ax.figure.dpi
        longest, side = _LONGEST_NAME, min(box.width, box.height) / dpi
        bare = given and ax.figure.get_layout_engine() is None
        if given:
            longest = min(longest, 0.3 * side)  # what names take, cells don't have
            side -= longest + (_AXIS_LABEL if bare else 0)
        cell = side / len(shown)
        font = float(np.clip(54 * cell, 4, _FONT))
        texts = {}
        for place, n in np.ndenumerate(counts):
            share = f"\n{100 * shares[place]:.0f} %" if len(shown) <= 6 else ""
            texts[place] = f"{n}{share}" if n else ""
        lines = "\n".join(texts.values()).split("\n")
        widest = max(width_of(line, font) for line in set(lines))
        for (row, column), text in texts.items():
            if not text or widest > 0.8 * cell:  # no room for numbers
                continue
            ax.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=font,
                color="white" if shares[row, column] > 0.55 else "black",
            )
        names = fitted_apart(shown, longest, font)
        places = np.arange(len(shown))
        ax.set_yticks(places, names, fontsize=font)
        upright = max(width_of(name, font) for name in names) > 0.85 * cell
        ax.set_xticks(places, names, fontsize=font, rotation=90 if upright else 0)
        ax.tick_params(length=0)
        if bare:
            line = 1.5 * font / 72
            _shrink(ax, longest, longest if upright else line)
        small = min(font + 1, 10)
        ax.set_ylabel("label", fontsize=small)
        ax.set_xlabel("prediction", fontsize=small)
        title = "number of images"
        if len(shown) < len(self.matrix):
            title += f" ({len(shown)} of {len(self.matrix)} classes)"
        size = _FONT if box.width > 2 * dpi else 7
        note = "colour: share of the label's images"
        if width_of(note, size) <= 1.25 * box.width / dpi:
            title += f"\n{note}"
        elif len(shown) < len(self.matrix):
            title = f"{len(shown)} of {len(self.matrix)} classes"
        ax.set_title(title, fontsize=size)

    def _draw_pairs(self, over: list[Any]) -> None:
        self.headings_ = []
        for ax, axes, images, (_, pair) in zip(
            over, self.axes_, self.images, self.pairs.iterrows(), strict=False
        ):
            total = round(pair["n"] / pair["rate"])
            width = axes_width(np.array([ax])) / 1.08  # letters on pixels are wider
            font = _FONT if width > 2.5 else 7
            all_of_them = f": {pair['n']} of {total} ({100 * pair['rate']:.0f} %)"
            for numbers in (all_of_them, f": {pair['n']}", ""):
                room = (width - width_of(f" → {numbers}", font)) / 2
                if room > 0.5:
                    break
            names = fitted_apart([pair["truth"], pair["prediction"]], room, font)
            heading = " → ".join(names) + numbers
            text = ax.text(0, 0, heading, fontsize=font, va="bottom")
            text.set_in_layout(False)
            self.headings_.append(text)
            ax.set_axis_off()
            for axis in axes:
                axis.set_axis_off()
            for axis, image in zip(axes, images, strict=False):
                show_image(axis, image, colour=WRONG)


def _shrink(ax: Any, left: float, bottom: float) -> None:
    """Leave inches for names, and for what the axis is, within the Axes' place."""
    place, figure = ax.get_position(original=True), ax.figure
    x = min((left + _AXIS_LABEL) * figure.dpi / figure.bbox.width, 0.8 * place.width)
    y = min(
        (bottom + _AXIS_LABEL) * figure.dpi / figure.bbox.height, 0.8 * place.height
    )
    ax.set_position((place.x0 + x, place.y0 + y, place.width - x, place.height - y))
