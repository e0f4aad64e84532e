"""The highest losses as pictures."""

from typing import Any

import numpy as np
import pandas as pd

from sklearn_dl import _plots
from sklearn_dl._images import as_source
from sklearn_dl._labels import refuse_missing
from sklearn_dl.inspection import _pictures
from sklearn_dl.inspection._losses import paths_of, top_losses
from sklearn_dl.inspection._scores import given
from sklearn_dl.inspection._stream import image_shape_of

_RIGHT, _DOUBTED = _plots.BLUE, _plots.PURPLE
_FRAMES: dict[Any, str] = {None: "", _RIGHT: "right", _DOUBTED: "label in doubt"}
_FRAMES[_pictures.WRONG] = "mistake"


class TopLossesDisplay:
    """Gallery of images with what was predicted of them, as `top_losses` orders them.

    Above each image stand the prediction and its probability, the label, the loss, the
    row of X and the name of the file. Mistakes have an orange frame, right predictions
    a blue one, and labels that `label_errors` doubts a purple one. Of regressors the
    signed error stands in place of the loss, and there are no frames.

    Parameters
    ----------
    table : DataFrame
        Rows of what `top_losses` or `label_errors` returned, in the order of pictures.
    X : images
        Those that the table was made of.
    title : str, default="Highest losses"
        Heading.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, channels) of rows of pixels.

    Attributes
    ----------
    images : list of ndarray of uint8, shape (h, w, 3)
        Those of the rows.
    axes_ : ndarray of matplotlib Axes, shape (n_rows, n_columns)
        One for each image; those without one are hidden.
    figure_ : matplotlib Figure

    Raises
    ------
    ValueError
        If columns or rows are missing, or X doesn't have the rows.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.inspection import TopLossesDisplay
    >>> X = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), "uint8")
    >>> y, proba = ["ant", "ant", "bee"], [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> ax = Figure().add_subplot()
    >>> display = TopLossesDisplay.from_predictions(y, proba, X, k=2, ax=ax)
    >>> display.axes_[0, 0].get_title().splitlines()
    ['predicted bee 80%', 'label ant', 'loss 1.6, row 1']
    """

    def __init__(
        self, table: pd.DataFrame, X, *, title="Highest losses", image_shape=None
    ):
        if "row" not in table or not any(str(c).startswith("truth") for c in table):
            raise ValueError(
                f"The table must be of top_losses or label_errors; it has the columns "
                f"{table.columns.tolist()}."
            )
        if not len(table):
            raise ValueError("The table has no row, so there is nothing to show.")
        source, last = as_source(X, image_shape=image_shape), int(table["row"].max())
        if last >= len(source):
            raise ValueError(f"The table has row {last}, but X has {len(source)}.")
        self.table = table
        self.images = [_pictures.thumbnail(source, int(row)) for row in table["row"]]
        self.title = title

    @classmethod
    def from_estimator(
        cls, estimator: Any, X, y, *, k: int = 12, cv=None, n_columns: int = 4, ax=None
    ) -> "TopLossesDisplay":
        """Return a drawn display of the highest losses of an estimator.

        Parameters
        ----------
        estimator, X, y, k, cv
            As in `top_losses`; X must hold images.
        n_columns, ax
            See `plot`.

        Raises
        ------
        ValueError, TypeError, NotFittedError
            As `top_losses`, and if X holds no images: a table for a pipeline with other
            columns, for example.
        """
        table = top_losses(estimator, X, y, k=k, cv=cv)
        try:
            source = as_source(X, image_shape=image_shape_of(estimator))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"X holds no images that can be shown: {error} Give "
                "TopLossesDisplay the table of top_losses, with the images as X."
            ) from error
        return cls(table, source).plot(n_columns=n_columns, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y_true,
        y_pred,
        X,
        *,
        classes=None,
        k=12,
        n_columns=4,
        image_shape=None,
        ax=None,
    ) -> "TopLossesDisplay":
        """Return a drawn display of predictions that were made before.

        Parameters
        ----------
        y_true : array-like of shape (n,), or (n, n_outputs) of numbers
            Labels or numbers.
        y_pred : array-like of shape (n, n_classes), or as `y_true`
            Probabilities of the classes; or, in the shape of `y_true`, numbers, of
            which not both are whole.
        X : images
            The n images, in any form that the estimators take.
        classes : array-like of shape (n_classes,), default=None
            Classes of the columns; None takes the sorted labels in `y_true`.
        k : int, default=12
            How many images.
        image_shape, n_columns, ax
            See `TopLossesDisplay` and `plot`.

        Raises
        ------
        ValueError
            If the lengths or the number of classes differ, `y_true` has missing values,
            or predicted labels are given without probabilities.
        """
        refuse_missing(y_true)
        numbers = np.shape(y_pred) == np.shape(y_true)
        kinds = {np.asarray(values).dtype.kind for values in (y_true, y_pred)}
        if numbers and (classes is not None or not {"f"} <= kinds <= {*"iuf"}):
            raise ValueError(
                "y_pred has the shape of y_true and is read as numbers, but these are "
                "labels. For classes give probabilities of the shape (n, n_classes); "
                "for numbers give y_pred as floats, and no classes."
            )
        values = np.asarray(y_pred, dtype=float)
        if not numbers:
            classes = np.unique(y_true) if classes is None else np.array(classes)
            if values.shape[1:] != classes.shape:
                raise ValueError(
                    f"y_pred has the shape {values.shape}, not one column of "
                    f"probabilities for each of {len(classes)} classes."
                )
        answers = given(values, classes)
        table = top_losses(answers, np.arange(len(values)), y_true, k=k)
        display = cls(table, X, image_shape=image_shape)
        table["path"] = paths_of(X, table["row"])
        return display.plot(n_columns=n_columns, ax=ax)

    def plot(self, *, n_columns: int = 4, ax=None) -> "TopLossesDisplay":
        """Draw, and return the display.

        Parameters
        ----------
        n_columns : int, default=4
            Images side by side.
        ax : matplotlib Axes, default=None
            A subplot, which is divided; None makes a new figure.
        """
        n_columns = max(1, min(n_columns, len(self.images)))
        rows = [row for _, row in self.table.iterrows()]
        titles = [_lines(row) for row in rows]
        figure, self.axes_ = _pictures.picture_axes(
            "TopLossesDisplay", ax, self.images, titles, n_columns
        )
        self.figure_ = figure.figure
        for axis, image, row in zip(self.axes_.flat, self.images, rows, strict=False):
            colour = _colour(row)
            _pictures.show_image(axis, image, colour, _FRAMES[colour])
        _plots.head(figure, self.title, _plots.letters_in(figure))
        return self


def _colour(row: pd.Series) -> str | None:
    if "prediction" not in row or isinstance(row["truth"], float):
        return None  # numbers are never quite right
    if row.get("label_error", False) or "suggestion" in row:
        return _DOUBTED
    return _RIGHT if row["truth"] == row["prediction"] else _pictures.WRONG


def _lines(row: pd.Series) -> list[_pictures.Line]:
    """Return what is written of an image."""
    lines: list[_pictures.Line] = []
    if "probability" in row:
        sure = "" if pd.isna(row["probability"]) else f" {row['probability']:.0%}"
        lines = [("predicted ", row["prediction"], sure), ("label ", row["truth"], "")]
        measure = f"loss {row['loss']:.2g}, " if "loss" in row else ""
    else:
        truth = row.filter(regex="^truth").to_numpy(float)
        predicted = row.filter(regex="^prediction").to_numpy(float)
        for what, values, form in (
            ("predicted ", predicted, ".3g"),
            ("true ", truth, ".3g"),
            ("error ", predicted - truth, "+.3g"),
        ):
            lines.append((what, ", ".join(f"{v:{form}}" for v in values), ""))
        measure = ""
    file = str(row.get("path") or "").replace("\\", "/").rsplit("/", 1)[-1]
    return [*lines, f"{measure}row {row['row']}", *([file] if file else [])]
