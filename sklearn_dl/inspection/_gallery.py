"""The worst and the best predictions as pictures."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.multiclass import type_of_target

from sklearn_dl._images import as_source
from sklearn_dl._plots import picture_axes
from sklearn_dl.inspection._losses import top_losses
from sklearn_dl.inspection._pictures import (
    DOUBTED,
    LINE,
    RIGHT,
    WIDTH,
    WRONG,
    Line,
    check_count,
    row_heights,
    set_title,
    show_image,
    thumbnail,
)
from sklearn_dl.inspection._scores import (
    GivenClasses,
    GivenNumbers,
    refuse_missing,
)
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
    >>> display = TopLossesDisplay.from_predictions(
    ...     ["ant", "ant", "bee"],
    ...     [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]],
    ...     X,
    ...     k=2,
    ...     ax=Figure().add_subplot(),
    ... )
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
        source = _source(X, image_shape_of(estimator))
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
        if task == "auto":
            numbers = type_of_target(y_true).startswith("continuous")
            task = "regression" if numbers else "classification"
        y_pred = np.asarray(y_pred, dtype=float)
        given: Any = GivenNumbers()
        if task == "classification":
            labels = np.unique(y_true) if classes is None else np.asarray(classes)
            if y_pred.ndim != 2 or y_pred.shape[1] != len(labels):
                raise ValueError(
                    f"y_pred has the shape {y_pred.shape}, not one column of "
                    f"probabilities for each of {len(labels)} classes."
                )
            given = _Probabilities()
            given.classes_ = labels
        given.values = y_pred
        rows = _first(top_losses(given, X, y_true, k=None), k, kind)
        source, title = _source(X, image_shape), _TITLES[kind]
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
        title : str, default=""
            Heading.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, channels) of rows of pixels.
        n_columns, ax
            See `plot`.

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
        ax : matplotlib Axes or array of them, default=None
            One for each image; a single subplot is divided. None makes a new figure.

        Returns
        -------
        TopLossesDisplay
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
        heights = row_heights(self.images, n_columns)
        if np.ndim(ax) and np.size(ax) < len(heights) * n_columns:
            n_columns, heights = n, [max(heights)]
        rows = [row for _, row in self.table.iterrows()]
        lines, colours = [_lines(row) for row in rows], [_colour(row) for row in rows]
        above = LINE * max(map(len, lines)) + 0.1
        size = (n_columns * WIDTH, sum(WIDTH * h + above for h in heights) + 0.5)
        self.axes_, place = picture_axes(
            "TopLossesDisplay", ax, heights, n_columns, size
        )
        self.figure_ = place.whole
        for axis in self.axes_.flat[n:]:
            axis.set_axis_off()
        for axis, image, colour, text in zip(
            self.axes_.flat, self.images, colours, lines, strict=False
        ):
            show_image(axis, image, colour)
            set_title(axis, text, place.width / n_columns)
        if place.figure is not None:
            place.head(self.title, _handles(colours), place.letters())
        return self


def _handles(colours: list[str | None]) -> list[Any]:
    """Return what the frames mean."""
    from matplotlib.patches import Patch

    look: dict[str, Any] = {"fill": False, "linewidth": 2.5}
    return [
        Patch(edgecolor=colour, label=name, **look)
        for colour, name in _FRAMES.items()
        if colour in colours
    ]


def _source(X: Any, image_shape: Any) -> Any:
    try:
        return as_source(X, image_shape=image_shape)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"X holds no images that can be shown: {error} Give from_table the table "
            "of top_losses, or from_predictions the predictions, with the images as X."
        ) from error


def _first(table: pd.DataFrame, k: int, kind: str) -> pd.DataFrame:
    """Return the worst rows of a table that begins with them, or the best."""
    rows = table if kind == "worst" else table.iloc[::-1]
    return rows.head(k).reset_index(drop=True)


class _Probabilities(GivenClasses):
    """Answers with probabilities that were predicted before."""

    def predict_proba(self, X):
        return self.values


def _check(k: Any, kind: Any) -> None:
    check_count("k", k)
    if kind not in ("worst", "best"):
        raise ValueError(f"kind must be 'worst' or 'best', got {kind!r}.")


def _colour(row: pd.Series) -> str | None:
    if "prediction" not in row or isinstance(row["truth"], float):
        return None  # numbers are never quite right
    if row.get("label_error", False) or "suggestion" in row:
        return DOUBTED
    return RIGHT if row["truth"] == row["prediction"] else WRONG


def _lines(row: pd.Series) -> list[Line]:
    """Return what is written of an image."""
    file = [str(row.get("path") or "").replace("\\", "/").rsplit("/", 1)[-1]]
    file = file if file[0] else []
    if "probability" not in row:
        return [*_numbers(row), f"row {row['row']}", *file]
    sure = row["probability"]
    chance = "" if sure != sure else f" {100 * sure:.0f} %"
    measure = f"loss {row['loss']:.2g}, " if "loss" in row else ""
    return [
        ("predicted ", str(row["prediction"]), chance),
        ("label ", str(row["truth"]), ""),
        f"{measure}row {row['row']}",
        *file,
    ]


def _numbers(row: pd.Series) -> list[Line]:
    names = [name for name in row.index if name.startswith("truth")]
    truth = [float(row[name]) for name in names]
    predicted = [float(row[name.replace("truth", "prediction")]) for name in names]
    texts = [", ".join(f"{v:.3g}" for v in values) for values in (predicted, truth)]
    off = ", ".join(f"{p - t:+.3g}" for p, t in zip(predicted, truth, strict=True))
    return [
        ("predicted ", texts[0], ""),
        ("true ", texts[1], ""),
        ("error ", off, ""),
    ]
