"""Pairs of classes that a classifier takes for each other."""

import warnings
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, validate_params
from sklearn.utils.validation import check_is_fitted

from sklearn_dl import _plots
from sklearn_dl._images import as_source
from sklearn_dl.inspection._losses import METHODS
from sklearn_dl.inspection._pictures import WRONG, check_count, show_image, thumbnail
from sklearn_dl.inspection._scores import answers_of, as_column, check_labels
from sklearn_dl.inspection._stream import image_shape_of

_CELL, _PICTURE = 0.52, 1.4  # inches of a cell, and of an image with its heading


@validate_params(
    {
        "k": [Interval(Integral, 1, None, closed="left"), None],
        "n_examples": [Interval(Integral, 0, None, closed="left")],
    },
    prefer_skip_nested_validation=False,
)
def most_confused(
    estimator_or_y_true, X_or_y_pred, y=None, /, *, k=10, n_examples=6
) -> pd.DataFrame:
    """Return the pairs of classes that are confused most often, with examples.

    Called as ``most_confused(estimator, X, y)`` or ``most_confused(y_true, y_pred)``.

    Parameters
    ----------
    estimator_or_y_true : fitted classifier, or array-like of shape (n,)
        The classifier; or the labels.
    X_or_y_pred : images, or array-like of shape (n,)
        Any form that the classifier takes; or its predictions.
    y : array-like of shape (n,), default=None
        The labels, with a classifier.
    k : int or None, default=10
        How many pairs; None for all.
    n_examples : int, default=6
        Rows given of each pair at most.

    Returns
    -------
    DataFrame
        One row per pair, by falling number, then rate: ``truth``, ``prediction``, ``n``
        (images of the first that were taken for the second), ``rate`` (their share of
        the images of the first) and ``examples``, a list of rows of X: the most
        confident mistakes first where a classifier with `predict_proba` or
        `decision_function` is given, else in their order. Empty without a mistake.

    Raises
    ------
    ValueError
        If the lengths differ, or there are several labels per image.
    NotFittedError
        If the classifier isn't fitted.

    Examples
    --------
    >>> from sklearn_dl.inspection import most_confused
    >>> y_true = ["ant", "ant", "ant", "bee", "bee", "wasp", "wasp"]
    >>> y_pred = ["ant", "bee", "ant", "bee", "wasp", "bee", "bee"]
    >>> most_confused(y_true, y_pred)
      truth prediction  n      rate examples
    0  wasp        bee  2  1.000000   [5, 6]
    1   bee       wasp  1  0.500000      [4]
    2   ant        bee  1  0.333333      [1]
    """
    estimator, truth, predicted = answers_of(estimator_or_y_true, X_or_y_pred, y)
    predicted = check_labels(predicted, len(predicted))
    truth = check_labels(truth, len(predicted))
    n = len(truth)
    codes, names = pd.factorize(np.concatenate([truth, predicted]), sort=True)
    table = pd.DataFrame({"truth": codes[:n], "prediction": codes[n:]})
    wrong = table[table["truth"] != table["prediction"]]
    groups = wrong.groupby(["truth", "prediction"]).groups
    pairs = np.array([*groups], dtype=int).reshape(-1, 2)
    counts = np.array([len(rows) for rows in groups.values()], dtype=int)
    found = pd.DataFrame(
        {
            "truth": as_column(names[pairs[:, 0]]),
            "prediction": as_column(names[pairs[:, 1]]),
            "n": counts,
            "rate": counts / np.bincount(codes[:n])[pairs[:, 0]],
            "examples": pd.Series([[*rows] for rows in groups.values()], dtype=object),
        }
    )
    found = found.sort_values(["n", "rate"], ascending=False, kind="stable")
    found = found.head(len(found) if k is None else k).reset_index(drop=True)
    if estimator is not None and n_examples and len(found):
        found["examples"] = by_confidence(
            estimator, X_or_y_pred, found["prediction"], found["examples"]
        )
    found["examples"] = [rows[:n_examples] for rows in found["examples"]]
    return found


def by_confidence(estimator, X, predictions, examples) -> list[list[int]]:
    """Return the rows of each pair, the surest prediction first."""
    name = next((name for name in METHODS if hasattr(estimator, name)), None)
    if name is None:
        return list(examples)
    rows = np.concatenate([np.array(part) for part in examples])
    scores = np.asarray(getattr(estimator, name)(_safe_indexing(X, rows)))
    classes = list(estimator.classes_)
    if scores.ndim == 1:
        scores = np.stack([-scores, scores], axis=1)
    if scores.shape[1] != len(classes):
        return list(examples)
    table = pd.DataFrame(-scores, index=rows, columns=range(len(classes)))
    return [
        table[classes.index(label)].loc[part].sort_values(kind="stable").index.tolist()
        for label, part in zip(predictions, examples, strict=True)
    ]


class MostConfusedDisplay:
    """Confusion matrix beside the pairs of classes that are confused most often.

    A row per label and a column per prediction: in the cells the number of images, in
    colour their share of the images of the label. With many classes those of the most
    confused pairs are shown. Beside it, or below it where the place is narrow, a row
    per pair with example images, the most confident mistakes first.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
        Labels and predictions.
    X : images
        The n images, in any form that the estimators take.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, channels) of rows of pixels.

    Attributes
    ----------
    matrix : DataFrame
        Numbers of images: labels as index, predictions as columns, of all classes.
    pairs : DataFrame
        What `most_confused` returns of them.
    ax_, figure_ : matplotlib Axes and Figure
        The matrix, and the whole.
    axes_ : ndarray of matplotlib Axes, shape (n_pairs, n_examples)
        The images.
    headings_ : list of matplotlib Text
        Above the images of each pair.

    Raises
    ------
    ValueError
        If the lengths differ.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.inspection import MostConfusedDisplay
    >>> X = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), "uint8")
    >>> y_true, y_pred = ["ant", "ant", "bee", "bee"], ["ant", "bee", "bee", "bee"]
    >>> display = MostConfusedDisplay(y_true, y_pred, X)
    >>> display.plot(ax=Figure().add_subplot()).headings_[0].get_text()
    'ant → bee: 1 of 2 (50%)'
    """

    def __init__(self, y_true, y_pred, X, *, image_shape=None):
        y_true, y_pred = np.asarray(y_true).ravel(), np.asarray(y_pred).ravel()
        self.source = as_source(X, image_shape=image_shape)
        if len(self.source) != len(y_true):
            n, labels = len(self.source), len(y_true)
            raise ValueError(f"X has {n} images, but y has {labels} labels.")
        classes = np.unique(np.concatenate([y_true, y_pred]))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "A single label")  # though all are given
            counts = confusion_matrix(y_true, y_pred, labels=classes)
        names = pd.Index(as_column(classes))
        self.matrix = pd.DataFrame(counts, index=names, columns=names)
        self.pairs = most_confused(y_true, y_pred, k=None, n_examples=len(y_true))

    @classmethod
    def from_estimator(
        cls, estimator: Any, X, y, *, n_pairs=4, n_examples=4, max_classes=12, ax=None
    ) -> "MostConfusedDisplay":
        """Return a drawn display of a classifier; raises as `most_confused`.

        Parameters
        ----------
        estimator : fitted classifier
        X : images
            Any form that `estimator` takes.
        y : array-like of shape (n,)
            Labels.
        n_pairs, n_examples, max_classes, ax
            See `plot`.
        """
        check_is_fitted(estimator)
        display = cls(y, estimator.predict(X), X, image_shape=image_shape_of(estimator))
        first = display.pairs[:n_pairs].copy()
        if len(first):
            ordered = (estimator, X, first["prediction"], first["examples"])
            first["examples"] = by_confidence(*ordered)
            display.pairs = pd.concat([first, display.pairs[n_pairs:]])
        numbers = {"n_pairs": n_pairs, "n_examples": n_examples}
        return display.plot(max_classes=max_classes, ax=ax, **numbers)

    def plot(
        self,
        *,
        n_pairs=4,
        n_examples=4,
        max_classes=12,
        im_kw=None,
        text_kw=None,
        ax=None,
    ) -> "MostConfusedDisplay":
        """Draw, and return the display.

        Parameters
        ----------
        n_pairs, n_examples : int, default=4
            Pairs of classes with images, and images of each, at most.
        max_classes : int, default=12
            Where there are more, those of the most confused pairs are shown.
        im_kw, text_kw : dict, default=None
            Passed to matplotlib's `imshow` for the matrix, and `text` for its numbers.
        ax : matplotlib Axes, default=None
            A subplot, which is divided; None makes a new figure.
        """
        check_count(n_pairs=n_pairs, n_examples=n_examples, max_classes=max_classes)
        rows = [rows[:n_examples] for rows in self.pairs["examples"][:n_pairs]]
        shown, n_rows = self._classes(max_classes), len(rows)
        n_columns = max(map(len, rows), default=0)
        longest = min(max(_plots.width_of(str(name), 9) for name in shown) + 0.3, 2.0)
        side = max(2.2, _CELL * len(shown)) + longest
        right = max(0.85 * _PICTURE * n_columns, 2.9) if n_rows else 0.0
        size = (side + 0.6 + right, max(side + 0.9, _PICTURE * n_rows))
        matrix = figure = _plots.figure_of("MostConfusedDisplay", ax, size)
        self.figure_ = figure.figure
        self.headings_: list[Any] = []
        width, height = _plots.size_of(figure)
        if n_rows and width >= 1.2 * height:
            ratios = (size[0] - right, right)
            matrix, beside = figure.subfigures(1, 2, width_ratios=ratios)
        elif n_rows:  # below the matrix, as many as have room
            n_rows = min(n_rows, max(int(0.6 * height), 1))
            part = min(0.65 * n_rows / height, 0.5)
            matrix, beside = figure.subfigures(2, 1, height_ratios=(1 - part, part))
        self.axes_ = np.empty((n_rows, n_columns), dtype=object)
        if n_rows:
            self._draw_pairs(beside.subfigures(n_rows, 1, squeeze=False)[:, 0], rows)
        self._draw_matrix(matrix, shown, im_kw or {}, text_kw)
        return self

    def _classes(self, max_classes: int) -> list[Any]:
        """Return the classes to show, in their order."""
        known = self.matrix.index.tolist()
        if len(known) <= max_classes:
            return known
        chosen: set[Any] = set()
        for pair in self.pairs[["truth", "prediction"]].itertuples(index=False):
            if len(chosen.union(pair)) <= max_classes:
                chosen.update(pair)
        return [one for one in known if one in chosen] or known[:max_classes]

    def _draw_matrix(self, figure, shown: list[Any], im_kw: dict, text_kw) -> None:
        known = self.matrix.index.tolist()
        rows = [known.index(one) for one in shown]
        counts = self.matrix.to_numpy()[np.ix_(rows, rows)]
        totals = np.maximum(self.matrix.to_numpy()[rows].sum(1), 1)
        shares = counts / totals[:, None]
        texts = {
            cell: f"{n}\n{shares[cell]:.0%}" if len(shown) <= 6 else f"{n}"
            for cell, n in np.ndenumerate(counts)
            if n
        }
        self.ax_, letters = figure.subplots(), _plots.letters_in(figure)
        room, look = _plots.size_of(figure), {"cmap": "Blues", "vmin": 0, "vmax": 1}
        _plots.draw_matrix(
            self.ax_, shares, shown, texts, room, letters, look | im_kw, text_kw
        )
        self.ax_.set_ylabel("label", fontsize=letters)
        self.ax_.set_xlabel("prediction", fontsize=letters)
        said, n = "number of images", len(self.matrix)
        if len(shown) < n:
            said += f" of {len(shown)} of {n} classes"
        _plots.head(figure, f"{said}; colour: share of the label's images", letters)

    def _draw_pairs(self, parts, rows: list[list[int]]) -> None:
        """Draw the images of a pair in each part of a figure, under a heading."""
        width = _plots.size_of(parts[0])[0]
        size = 9.0 if width >= 4.2 else 7.0
        every = zip(parts, self.axes_, rows, self.pairs.itertuples(), strict=False)
        for part, axes, drawn, pair in every:
            axes[:] = part.subplots(1, len(axes), squeeze=False)[0]
            for axis in axes:
                axis.set_axis_off()
            for axis, row in zip(axes, drawn, strict=False):
                show_image(axis, thumbnail(self.source, row), WRONG)
                axis.set_anchor("NW")
            numbers = f": {pair.n}"
            if width >= 2.5:
                numbers += f" of {round(pair.n / pair.rate)} ({pair.rate:.0%})"
            room = (0.95 * width - _plots.width_of(f" → {numbers}", size)) / 2
            names = _plots.fitted_apart([pair.truth, pair.prediction], room, size)
            heading = " → ".join(names) + numbers
            look = {"x": 0.01, "ha": "left", "fontsize": size}
            self.headings_.append(part.suptitle(heading, **look))
