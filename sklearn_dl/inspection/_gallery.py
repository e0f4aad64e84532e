"""The worst and the best predictions as pictures."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.multiclass import type_of_target

from sklearn_dl._images import as_source
from sklearn_dl._plots import head, letters_in
from sklearn_dl.inspection._losses import top_losses
from sklearn_dl.inspection._pictures import (
    DOUBTED,
    RIGHT,
    WRONG,
    Line,
    check_count,
    picture_axes,
    show_image,
    thumbnail,
)
from sklearn_dl.inspection._scores import GivenClasses, GivenNumbers, refuse_missing
from sklearn_dl.inspection._stream import image_shape_of

_TITLES = {"worst": "Worst predictions", "best": "Best predictions"}
_FRAMES = {RIGHT: "right", WRONG: "mistake", DOUBTED: "label in doubt"}


class TopLossesDisplay:
    """Gallery of images with what was predicted of them, as `top_losses` orders them.

    Above each image stand the prediction and its probability, the label, the loss, the
    row of X and the name of the file. Mistakes have an orange frame, right predictions
    a blue one, and labels that `label_errors` doubts a purple one. Of regressors the
    signed error stands in place of the loss, and there are no frames.

    Make one with `from_estimator`, `from_predictions` or `from_table`.

    Parameters
    ----------
    table : DataFrame
        Rows of `top_losses`.
    images : list of ndarray of uint8, shape (h, w, 3)
        The image of each row.
    title : str, default=""
        Heading.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (n_rows, n_columns)
        One for each image; those without one are hidden.
    figure_ : matplotlib Figure

    See Also
    --------
    top_losses : The numbers.
    MostConfusedDisplay : Pairs of classes, with images.

    Examples
    --------
    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.inspection import TopLossesDisplay
    >>> X = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), "uint8")
    >>> y, proba = ["ant", "ant", "bee"], [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
    >>> ax = Figure().add_subplot()
    >>> display = TopLossesDisplay.from_predictions(y, proba, X, k=2, ax=ax)
    >>> print(display.axes_[0, 0].get_title())
    predicted bee 80 %
    label ant
    loss 1.6, row 1
    """

    def __init__(
        self, table: pd.DataFrame, images: list[np.ndarray], *, title: str = ""
    ):
        self.table = table
        self.images = images
        self.title = title

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X,
        y,
        *,
        k: int = 12,
        kind: str = "worst",
        cv=None,
        random_state=0,
        n_columns: int = 4,
        ax=None,
    ) -> "TopLossesDisplay":
        """Draw what an estimator predicts of images.

        Parameters
        ----------
        estimator : classifier or regressor
            Fitted, if `cv` is None.
        X : images
            Any form that `estimator` takes.
        y : array-like of shape (n,), or (n, n_outputs) of a regressor
            Labels or numbers.
        k : int, default=12
            How many images.
        kind : {"worst", "best"}, default="worst"
            The highest losses, the most confident mistakes first; or the lowest.
        cv, random_state
            See `top_losses`.
        n_columns, ax
            See `plot`.

        Returns
        -------
        TopLossesDisplay
            Drawn.

        Raises
        ------
        ValueError, TypeError, NotFittedError
            As `top_losses`, and if `k` or `kind` is not valid, or X holds no images: a
            table for a pipeline with other columns, for example.
        """
        _check(k, kind)
        table = top_losses(estimator, X, y, k=None, cv=cv, random_state=random_state)
        try:
            source = as_source(X, image_shape=image_shape_of(estimator))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"X holds no images that can be shown: {error} Give from_table the "
                "table of top_losses, with the images as X."
            ) from error
        rows, title = _first(table, k, kind), _TITLES[kind]
        return cls.from_table(rows, source, title=title, n_columns=n_columns, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y_true,
        y_pred,
        X,
        *,
        classes=None,
        task: str = "auto",
        k: int = 12,
        kind: str = "worst",
        n_columns: int = 4,
        image_shape=None,
        ax=None,
    ) -> "TopLossesDisplay":
        """Draw predictions that were made before.

        Parameters
        ----------
        y_true : array-like of shape (n,), or (n, n_outputs) of numbers
            Labels or numbers.
        y_pred : array-like of shape (n, n_classes), or as `y_true`
            Probabilities of the classes; or predicted numbers.
        X : images
            The n images, in any form that the estimators take.
        classes : array-like of shape (n_classes,), default=None
            Classes of the columns; None takes the sorted labels in `y_true`.
        task : {"auto", "classification", "regression"}, default="auto"
            ``"auto"`` is regression where `y_true` holds fractions.
        k, kind, n_columns, ax
            See `from_estimator`.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, channels) of rows of pixels.

        Returns
        -------
        TopLossesDisplay
            Drawn.

        Raises
        ------
        ValueError
            If the lengths or the number of classes differ, `y_true` has missing values,
            or an option is not valid.
        """
        _check(k, kind)
        refuse_missing(y_true)
        if task not in ("auto", "classification", "regression"):
            raise ValueError(
                f"task must be 'auto', 'classification' or 'regression', got {task!r}."
            )
        numbers = task == "regression"
        if task == "auto":
            numbers = type_of_target(y_true).startswith("continuous")
        given: Any = GivenNumbers() if numbers else _Probabilities()
        given.values = np.asarray(y_pred, dtype=float)
        if not numbers:
            given.classes_ = np.unique(y_true) if classes is None else np.array(classes)
            if given.values.shape[1:] != given.classes_.shape:
                raise ValueError(
                    f"y_pred has the shape {given.values.shape}, not one column of "
                    f"probabilities for each of {len(given.classes_)} classes."
                )
        rows = _first(top_losses(given, X, y_true, k=None), k, kind)
        source, title = as_source(X, image_shape=image_shape), _TITLES[kind]
        return cls.from_table(rows, source, title=title, n_columns=n_columns, ax=ax)

    @classmethod
    def from_table(
        cls,
        table: pd.DataFrame,
        X,
        *,
        title: str = "",
        n_columns: int = 4,
        image_shape=None,
        ax=None,
    ) -> "TopLossesDisplay":
        """Draw rows of what `top_losses` or `label_errors` returned.

        Parameters
        ----------
        table : DataFrame
            The rows, in the order of the pictures.
        X : images
            Those that the table was made of.
        title, n_columns, image_shape, ax
            See `TopLossesDisplay`, `plot` and `from_predictions`.

        Returns
        -------
        TopLossesDisplay
            Drawn.

        Raises
        ------
        ValueError
            If columns are missing, or X doesn't have the rows.
        """
        if not len(table):
            raise ValueError("The table has no row, so there is nothing to show.")
        if "row" not in table or not any(str(c).startswith("truth") for c in table):
            raise ValueError(
                f"The table must be of top_losses or label_errors; it has the columns "
                f"{table.columns.tolist()}."
            )
        source = as_source(X, image_shape=image_shape)
        last = int(table["row"].max())
        if last >= len(source):
            raise ValueError(f"The table has row {last}, but X has {len(source)}.")
        images = [thumbnail(source, int(row)) for row in table["row"]]
        return cls(table, images, title=title).plot(n_columns=n_columns, ax=ax)

    def plot(self, *, n_columns: int = 4, ax=None) -> "TopLossesDisplay":
        """Draw.

        Parameters
        ----------
        n_columns : int, default=4
            Images side by side.
        ax : matplotlib Axes, default=None
            A subplot, which is divided; None makes a new figure.

        Returns
        -------
        TopLossesDisplay
            This one.

        Raises
        ------
        ImportError, ValueError
            If matplotlib is missing, or ax isn't a subplot.
        """
        n_columns = max(1, min(n_columns, len(self.images)))
        rows = [row for _, row in self.table.iterrows()]
        titles = [_lines(row) for row in rows]
        figure, self.axes_ = picture_axes(
            "TopLossesDisplay", ax, self.images, titles, n_columns
        )
        self.figure_ = figure.figure
        for axis, image, row in zip(self.axes_.flat, self.images, rows, strict=False):
            colour = _colour(row)
            show_image(axis, image, colour, _FRAMES.get(colour, ""))
        head(figure, self.title, letters_in(figure))
        return self


class _Probabilities(GivenClasses):
    """Answers with probabilities that were predicted before."""

    def predict_proba(self, X):
        return self.values


def _check(k: Any, kind: Any) -> None:
    check_count(k=k)
    if kind not in _TITLES:
        raise ValueError(f"kind must be 'worst' or 'best', got {kind!r}.")


def _first(table: pd.DataFrame, k: int, kind: str) -> pd.DataFrame:
    """Return the worst rows of a table that begins with them, or the best."""
    rows = table if kind == "worst" else table.iloc[::-1]
    return rows.head(k).reset_index(drop=True)


def _colour(row: pd.Series) -> str | None:
    if "prediction" not in row or isinstance(row["truth"], float):
        return None  # numbers are never quite right
    if row.get("label_error", False) or "suggestion" in row:
        return DOUBTED
    return RIGHT if row["truth"] == row["prediction"] else WRONG


def _lines(row: pd.Series) -> list[Line]:
    """Return what is written of an image."""
    file = str(row.get("path") or "").replace("\\", "/").rsplit("/", 1)[-1]
    if "probability" in row:
        sure = row["probability"]
        lines: list[Line] = [
            (
                "predicted ",
                str(row["prediction"]),
                "" if sure != sure else f" {sure:.0%}",
            ),
            ("label ", str(row["truth"]), ""),
        ]
        measure = f"loss {row['loss']:.2g}, " if "loss" in row else ""
    else:
        names = [name for name in row.index if name.startswith("truth")]
        truth = np.array([row[name] for name in names], float)
        predicted = np.array(
            [row[name.replace("truth", "prediction")] for name in names], float
        )
        lines, measure = [], ""
        for what, values, form in (
            ("predicted ", predicted, ".3g"),
            ("true ", truth, ".3g"),
            ("error ", predicted - truth, "+.3g"),
        ):
            lines.append((what, ", ".join(f"{v:{form}}" for v in values), ""))
    return [*lines, f"{measure}row {row['row']}", *([file] if file else [])]
