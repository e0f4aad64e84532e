"""A `Diversity` as a picture."""

from typing import Any

import numpy as np

from sklearn_dl._plots import BLACK, GREEN, SKY_BLUE, VERMILLION, import_pyplot
from sklearn_dl.ensemble._diversity import Diversity, diversity

_BAR, _VOTE, _SOFT, _INDEPENDENT = SKY_BLUE, VERMILLION, GREEN, BLACK

_TITLES = {
    "correlation": "correlation of errors",
    "disagreement": "disagreement",
    "both_wrong": "share of rows both get wrong",
    "overlap": "share of errors in common",
    "q_statistic": "Q statistic",
}
_LONGEST_NAME = 32


class DiversityDisplay:
    """Picture of what the members of an ensemble do on data.

    Each row is a member. Left, what it has in common with each of the others; right,
    its error with one standard error to each side, and as vertical lines the error of
    the vote, that of the mean probabilities, and that which the vote would have if the
    members were independent. The vote gains where its line lies left of all bars' ends.

    Make one with `from_estimators`, `from_predictions` or `from_diversity`.

    Parameters
    ----------
    diversity : Diversity
        What `diversity` returned.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Of the pairs.
    error_ax_ : matplotlib Axes
        Of the errors.
    figure_ : matplotlib Figure

    See Also
    --------
    diversity : The numbers, and what they mean.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.ensemble import DiversityDisplay
    >>> votes = {"a": [1, 0, 0, 1], "b": [1, 1, 0, 0], "c": [0, 1, 1, 1]}
    >>> display = DiversityDisplay.from_predictions(
    ...     votes, [1, 1, 0, 1], ax=Figure().add_subplot()
    ... )
    >>> display.ax_.get_title()
    'correlation of errors'
    """

    def __init__(self, diversity: Diversity):
        self.diversity = diversity

    @classmethod
    def from_estimators(
        cls,
        members: Any,
        X,
        y,
        *,
        weights=None,
        soft: bool = True,
        task: str = "auto",
        value: str = "correlation",
        ax=None,
    ) -> "DiversityDisplay":
        """Draw what fitted estimators do on (X, y).

        Parameters
        ----------
        members : dict, list or fitted ensemble
            See `diversity`.
        X : array-like, images or None
            What the members take.
        y : array-like of shape (n_rows,)
            The true labels or numbers.
        weights : array-like of shape (n_members,), default=None
            See `diversity`.
        soft : bool, default=True
            See `diversity`.
        task : {"auto", "classification", "regression"}, default="auto"
            See `diversity`.
        value : str, default="correlation"
            See `plot`.
        ax : matplotlib Axes or pair of them, default=None
            See `plot`.

        Returns
        -------
        DiversityDisplay
            Drawn.
        """
        found = diversity(members, X, y, weights=weights, soft=soft, task=task)
        return cls(found).plot(value, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        predictions: dict,
        y,
        *,
        weights=None,
        task: str = "auto",
        value: str = "correlation",
        ax=None,
    ) -> "DiversityDisplay":
        """Draw what predictions tell of those who made them.

        Parameters
        ----------
        predictions : dict of str to array-like of shape (n_rows,)
            Of each member, by its name.
        y : array-like of shape (n_rows,)
            The true labels or numbers.
        weights : array-like of shape (n_members,), default=None
            See `diversity`.
        task : {"auto", "classification", "regression"}, default="auto"
            See `diversity`.
        value : str, default="correlation"
            See `plot`.
        ax : matplotlib Axes or pair of them, default=None
            See `plot`.

        Returns
        -------
        DiversityDisplay
            Drawn.
        """
        found = diversity(predictions, None, y, weights=weights, task=task)
        return cls(found).plot(value, ax=ax)

    @classmethod
    def from_diversity(
        cls, diversity: Diversity, *, value: str = "correlation", ax=None
    ) -> "DiversityDisplay":
        """Draw what `diversity` returned.

        Parameters
        ----------
        diversity : Diversity
            What to draw.
        value : str, default="correlation"
            See `plot`.
        ax : matplotlib Axes or pair of them, default=None
            See `plot`.

        Returns
        -------
        DiversityDisplay
            Drawn.
        """
        return cls(diversity).plot(value, ax=ax)

    def plot(self, value: str = "correlation", *, ax=None) -> "DiversityDisplay":
        """Draw.

        Parameters
        ----------
        value : str, default="correlation"
            The column of the diversity's ``pairs`` to show.
        ax : matplotlib Axes or pair of them, default=None
            Axes for the pairs and for the errors; one is divided into two. None makes
            a new figure.

        Returns
        -------
        DiversityDisplay
            This one.

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If there is no such column, or one ax is not a subplot.
        """
        self.diversity.matrix(value)  # raises before anything is drawn
        self.ax_, self.error_ax_ = self._axes(ax)
        self.figure_ = self.ax_.figure
        _draw_pairs(self.ax_, self.diversity, value)
        _draw_names(self.ax_, list(self.diversity.members.index))
        _draw_errors(self.error_ax_, self.diversity)
        return self

    def _axes(self, ax) -> tuple:
        pyplot = import_pyplot("DiversityDisplay")
        from matplotlib.gridspec import GridSpecFromSubplotSpec

        if ax is None:
            names = self.diversity.members.index
            n = len(names)
            side = float(np.clip(0.5 * n, 2.2, 10))
            label = 0.075 * min(max(map(len, names)), _LONGEST_NAME)
            figure = pyplot.figure(
                figsize=(label + side + 4.2, side + 1.4), layout="constrained"
            )
            first, second = figure.subplots(1, 2, width_ratios=(side, 3.2))
            return first, second
        if np.ndim(ax) == 0:
            place = ax.get_subplotspec()
            if place is None:
                raise ValueError("ax must be a subplot, or a pair of any Axes.")
            ax.set_axis_off()
            grid = GridSpecFromSubplotSpec(1, 2, place)
            return tuple(ax.figure.add_subplot(grid[column]) for column in (0, 1))
        first, second = ax
        return first, second


def _draw_pairs(ax, found: Diversity, value: str) -> None:
    table = found.matrix(value).to_numpy()
    n = len(table)
    shown = np.where(np.eye(n, dtype=bool), np.nan, table)
    signed = value in ("correlation", "q_statistic")
    # Distances of regressors are in the unit of y, the rest reaches 1 at most.
    distances = value == "disagreement" and found.task == "regression"
    top = max(np.nanmax(shown), 1e-300) if distances else 1.0
    image = ax.imshow(
        shown,
        cmap="PuOr_r" if signed else "cividis",
        vmin=-1.0 if signed else 0.0,
        vmax=top,
        aspect="auto",
    )
    ax.set_title(_TITLES[value], fontsize=10)
    form = ".3g" if distances else ".2f"
    texts = {
        (row, column): "-" if np.isnan(number) else f"{number:{form}}"
        for (row, column), number in np.ndenumerate(shown)
        if row != column
    }
    if n > 20 or max(map(len, texts.values())) > 6:  # no room for numbers in the cells
        ax.figure.colorbar(image, ax=ax, location="bottom", aspect=40)
        return
    for (row, column), text in texts.items():
        dark = _is_dark(image.cmap(image.norm(shown[row, column])))
        colour = "white" if dark else "black"
        ax.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)


def _is_dark(colour) -> bool:
    red, green, blue, alpha = colour
    return alpha * (0.299 * red + 0.587 * green + 0.114 * blue) + 1 - alpha < 0.5


def _draw_names(ax, names: list[str]) -> None:
    """Write names beside the rows, and numbers below the columns."""
    labels = []
    for number, name in enumerate(names, 1):
        if len(name) > _LONGEST_NAME:
            half = _LONGEST_NAME // 2
            name = f"{name[: half - 1]}…{name[-half:]}"
        labels.append(name if name.endswith(f" {number}") else f"{name}  {number}")
    step = -(-len(names) // 30)  # not all of many find room
    shown = range(0, len(names), step)
    ax.set_yticks(shown, labels[::step], fontsize=9)
    ax.set_xticks(shown, [str(row + 1) for row in shown], fontsize=9)
    ax.tick_params(length=0)


def _draw_errors(ax, found: Diversity) -> None:
    n = len(found.members)
    rows = np.arange(n)
    members = found.members
    ax.barh(rows, members["error"], color=_BAR, height=0.7)
    ax.errorbar(
        members["error"],
        rows,
        xerr=members["standard_error"],
        fmt="none",
        ecolor="#444444",
        elinewidth=1,
    )
    lines = [
        (found.vote_error, "vote", _VOTE, "-"),
        (found.soft_vote_error, "mean probabilities", _SOFT, "--"),
        (found.independent_error, "if independent", _INDEPENDENT, ":"),
    ]
    if found.task == "regression":
        lines[0] = (found.vote_error, "mean", _VOTE, "-")
    for error, name, colour, style in lines:
        if error is not None:
            label = f"{name} {error:.3g}"
            ax.axvline(error, color=colour, linestyle=style, linewidth=2, label=label)
    ax.set_ylim(n - 0.5, -0.5)  # the rows of the pairs
    ax.set_yticks([])
    ax.set_xlim(left=0)
    ax.set_title("error" if found.task == "classification" else "RMSE", fontsize=10)
    ax.locator_params(axis="x", nbins=4)
    ax.tick_params(labelsize=9)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9, frameon=False)
