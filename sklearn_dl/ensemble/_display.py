"""A `Diversity` as a picture."""

import numpy as np

from sklearn_dl import _plots
from sklearn_dl.ensemble._diversity import Diversity

_TITLES = {
    "correlation": "correlation of errors",
    "disagreement": "disagreement",
    "both_wrong": "share of rows both get wrong",
    "overlap": "share of errors in common",
    "q_statistic": "Q statistic",
}


class DiversityDisplay:
    """Picture of what the members of an ensemble do on data.

    Each row is a member. Left, what it has in common with each of the others; right,
    its error with one standard error to each side, and as vertical lines the error of
    the vote, that of the mean probabilities, and that which the vote would have if the
    members were independent. The vote gains where its line lies left of all bars' ends.

    Parameters
    ----------
    diversity : Diversity
        What `diversity` returned.

    Attributes
    ----------
    ax_, error_ax_ : matplotlib Axes
        The pairs of members, and their errors.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.ensemble import DiversityDisplay, diversity
    >>> votes = {"a": [1, 0, 0, 1], "b": [1, 1, 0, 0], "c": [0, 1, 1, 1]}
    >>> found = diversity(votes, None, [1, 1, 0, 1])
    >>> display = DiversityDisplay(found).plot(ax=Figure().add_subplot())
    >>> display.ax_.get_title()
    'correlation of errors'
    """

    def __init__(self, diversity: Diversity):
        self.diversity = diversity

    def plot(
        self, value: str = "correlation", *, im_kw=None, text_kw=None, ax=None
    ) -> "DiversityDisplay":
        """Draw, and return the display.

        Parameters
        ----------
        value : str, default="correlation"
            The column of the diversity's ``pairs`` to show.
        im_kw, text_kw : dict, default=None
            Passed to matplotlib's `imshow` for the pairs, and `text` for their numbers.
        ax : matplotlib Axes, default=None
            A subplot, which is divided; None makes a new figure.

        Raises
        ------
        ValueError
            If there is no such column.
        """
        table = self.diversity.matrix(value)  # raises before anything is drawn
        names, n = [str(name) for name in table.index], len(table)
        widest = min(max(_plots.width_of(name, 9) for name in names) + 0.3, 2.0)
        side = float(np.clip(0.5 * n, 2.2, 10))
        size = (widest + side + 3.2, side + 1.4)
        figure = _plots.figure_of("DiversityDisplay", ax, size)
        ratios = (1 - 3.0 / size[0], 3.0 / size[0])
        self.ax_, self.error_ax_ = figure.subplots(1, 2, width_ratios=ratios)
        self.figure_ = figure.figure
        letters, (width, height) = _plots.letters_in(figure), _plots.size_of(figure)
        shown = np.where(np.eye(n, dtype=bool), np.nan, table.to_numpy())
        signed = value in ("correlation", "q_statistic")
        # Distances of regressors are in the unit of y, the rest reaches 1 at most.
        distances = value == "disagreement" and self.diversity.task == "regression"
        look = {
            "cmap": "PuOr_r" if signed else "cividis",
            "vmin": -1.0 if signed else 0.0,
            "vmax": max(np.nanmax(shown), 1e-300) if distances else 1.0,
        }
        form = ".3g" if distances else ".2f"
        texts = {
            cell: "-" if np.isnan(number) else f"{number:{form}}"
            for cell, number in np.ndenumerate(shown)
            if cell[0] != cell[1]
        }
        room, look = (ratios[0] * width, height - 0.4), look | (im_kw or {})
        cells = (shown, names, texts, room, letters, look, text_kw)
        if not _plots.draw_matrix(self.ax_, *cells):
            where = {"ax": self.ax_, "location": "bottom", "aspect": 40, "pad": 0.02}
            bar = figure.colorbar(self.ax_.images[0], **where)
            bar.ax.tick_params(labelsize=letters - 2)
            bar.ax.locator_params(nbins=5)
        self.ax_.set_title(_TITLES[value], fontsize=letters + 1, y=1.0)
        self._draw_errors(letters)
        _plots.head(figure, "", letters)
        return self

    def _draw_errors(self, letters: float) -> None:
        ax, found = self.error_ax_, self.diversity
        members, classes = found.members, found.task == "classification"
        rows, n = np.arange(len(members)), len(members)
        reach = {"xerr": members["standard_error"], "ecolor": "#444444"}
        ax.barh(rows, members["error"], color=_plots.SKY_BLUE, height=0.7, **reach)
        for error, name, colour, style in (
            (found.vote_error, "vote" if classes else "mean", _plots.VERMILLION, "-"),
            (found.soft_vote_error, "mean probabilities", _plots.GREEN, "--"),
            (found.independent_error, "if independent", _plots.BLACK, ":"),
        ):
            if error is not None:
                look = {"color": colour, "linestyle": style, "linewidth": 2}
                ax.axvline(error, label=f"{name} {error:.3g}", **look)
        ax.set_ylim(n - 0.5, -0.5)  # the rows of the pairs
        ax.set_yticks([])
        ax.set_xlim(left=0)
        ax.set_title("error" if classes else "RMSE", fontsize=letters + 1, y=1.0)
        ax.locator_params(axis="x", nbins=4)
        _plots.tidy(ax, letters)
