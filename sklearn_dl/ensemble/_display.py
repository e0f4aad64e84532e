"""A `Diversity` as a picture."""

from typing import Any

import numpy as np

from sklearn_dl._plots import (
    BLACK,
    GREEN,
    SKY_BLUE,
    VERMILLION,
    Place,
    fitted_apart,
    place_of,
    size_of,
    tidy,
    width_of,
)
from sklearn_dl.ensemble._diversity import Diversity, diversity

_TITLES = {
    "correlation": "correlation of errors",
    "disagreement": "disagreement",
    "both_wrong": "share of rows both get wrong",
    "overlap": "share of errors in common",
    "q_statistic": "Q statistic",
}
_LONGEST_NAME = 2.2  # inches


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
        The pairs of members.
    error_ax_ : matplotlib Axes
        The errors of the members.
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
        weights, soft, task
            See `diversity`.
        value, ax
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
            Predictions of each member, by its name.
        y : array-like of shape (n_rows,)
            The true labels or numbers.
        weights, task
            See `diversity`.
        value, ax
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
        value, ax
            See `plot`.

        Returns
        -------
        DiversityDisplay
            Drawn.
        """
        return cls(diversity).plot(value, ax=ax)

    def plot(
        self,
        value: str = "correlation",
        *,
        im_kw: dict | None = None,
        text_kw: dict | None = None,
        ax=None,
    ) -> "DiversityDisplay":
        """Draw.

        Parameters
        ----------
        value : str, default="correlation"
            The column of the diversity's ``pairs`` to show.
        im_kw, text_kw : dict, default=None
            Passed to matplotlib's `imshow` for the pairs, and `text` for their numbers.
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
        table = self.diversity.matrix(value)  # raises before anything is drawn
        names = [str(name) for name in table.index]
        n = len(names)
        if np.ndim(ax):
            self.ax_, self.error_ax_ = ax
            width, height = size_of(self.ax_)
            place = Place(None, self.ax_.figure, 2 * width, height)
        else:
            widest = min(max(width_of(name, 9) for name in names), _LONGEST_NAME)
            side = float(np.clip(0.5 * n, 2.2, 10))
            size = (widest + side + 3.2, side + 1.4)
            place = place_of("DiversityDisplay", ax, size)
            ratios = ((widest + side) * place.width / size[0], 3.0)
            self.ax_, self.error_ax_ = place.figure.subplots(1, 2, width_ratios=ratios)
        self.figure_ = place.whole
        letters = place.letters()
        longest = min(_LONGEST_NAME, 0.3 * place.width)
        # Columns have the numbers that stand behind the names of the rows.
        shown = fitted_apart(names, longest, letters)
        labels = [
            name if name.endswith(f" {number}") else f"{name}  {number}"
            for number, name in enumerate(shown, 1)
        ]
        cell = (0.7 * place.width - longest) / n
        for axis, texts, room in (
            (self.ax_.yaxis, labels, 0.7 * place.height / n / 0.2),
            (self.ax_.xaxis, [str(k + 1) for k in range(n)], cell / 0.25),
        ):
            step = int(np.ceil(max(1 / room, n / 25)))  # not all of many find room
            axis.set_ticks(range(0, n, step), texts[::step])
        self.ax_.tick_params(length=0, labelsize=letters)
        self._draw_pairs(table.to_numpy(), value, cell, letters, (im_kw, text_kw))
        self._draw_errors(letters)
        if place.figure is not None:
            place.head("", self.error_ax_.get_legend_handles_labels()[0], letters)
        else:
            self.error_ax_.legend(fontsize=letters, frameon=False)
        return self

    def _draw_pairs(self, table, value: str, cell: float, letters: float, kw) -> None:
        ax, n = self.ax_, len(table)
        shown = np.where(np.eye(n, dtype=bool), np.nan, table)
        signed = value in ("correlation", "q_statistic")
        # Distances of regressors are in the unit of y, the rest reaches 1 at most.
        distances = value == "disagreement" and self.diversity.task == "regression"
        look = {
            "cmap": "PuOr_r" if signed else "cividis",
            "vmin": -1.0 if signed else 0.0,
            "vmax": max(np.nanmax(shown), 1e-300) if distances else 1.0,
            "aspect": "auto",
        }
        image = ax.imshow(shown, **{**look, **(kw[0] or {})})
        ax.set_title(_TITLES[value], fontsize=letters + 1, y=1.0)
        form = ".3g" if distances else ".2f"
        texts = {
            place: "-" if np.isnan(number) else f"{number:{form}}"
            for place, number in np.ndenumerate(shown)
            if place[0] != place[1]
        }
        size = min(letters, 60 * cell)
        if max(width_of(text, size) for text in texts.values()) > cell or size < 6:
            bar = ax.figure.colorbar(
                image, ax=ax, location="bottom", aspect=40, pad=0.02
            )
            bar.ax.tick_params(labelsize=max(letters - 2, 6))
            return  # no room for numbers in the cells
        look = {"ha": "center", "va": "center", "fontsize": size, **(kw[1] or {})}
        for (row, column), text in texts.items():
            red, green, blue, alpha = image.cmap(image.norm(shown[row, column]))
            light = alpha * (0.299 * red + 0.587 * green + 0.114 * blue) + 1 - alpha
            colour = "white" if light < 0.5 else "black"
            ax.text(column, row, text, **{"color": colour, **look})

    def _draw_errors(self, letters: float) -> None:
        ax, found = self.error_ax_, self.diversity
        members, classes = found.members, found.task == "classification"
        rows, n = np.arange(len(members)), len(members)
        reach = {"xerr": members["standard_error"], "ecolor": "#444444"}
        ax.barh(rows, members["error"], color=SKY_BLUE, height=0.7, **reach)
        for error, name, colour, style in (
            (found.vote_error, "vote" if classes else "mean", VERMILLION, "-"),
            (found.soft_vote_error, "mean probabilities", GREEN, "--"),
            (found.independent_error, "if independent", BLACK, ":"),
        ):
            if error is not None:
                label = f"{name} {error:.3g}"
                look = {"color": colour, "linestyle": style, "linewidth": 2}
                ax.axvline(error, label=label, **look)
        ax.set_ylim(n - 0.5, -0.5)  # the rows of the pairs
        ax.set_yticks([])
        ax.set_xlim(left=0)
        ax.set_title("error" if classes else "RMSE", fontsize=letters + 1, y=1.0)
        ax.locator_params(axis="x", nbins=4)
        tidy(ax, letters)
