"""Experiments as a picture."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sklearn_dl._plots import BLUE, GREEN, VERMILLION, import_pyplot

if TYPE_CHECKING:
    from sklearn_dl.model_selection._experiments import Experiments

_STEP, _BEST, _FELL = BLUE, GREEN, VERMILLION
_LONGEST_NAME = 36


class ExperimentsDisplay:
    """Picture of what was tried: a row per experiment, from the first to the last.

    A dot is a score, the line through it reaches one spread to each side; beside it
    stand the score, its gain and the seconds. The best is green and its score a dotted
    line through all rows; what scored less than the experiment it is compared with is
    orange.

    Parameters
    ----------
    table : DataFrame
        Rows of `Experiments.table`, all of one metric.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.model_selection import Experiments, ExperimentsDisplay
    >>> book = Experiments()
    >>> _ = book.record("baseline", [0.90, 0.92], metric="accuracy")
    >>> _ = book.record("more epochs", [0.93, 0.95], metric="accuracy")
    >>> ax = Figure().add_subplot()
    >>> display = ExperimentsDisplay.from_experiments(book, ax=ax)
    >>> display.ax_.get_xlabel()
    'accuracy, with one spread to each side'
    """

    def __init__(self, table: pd.DataFrame):
        self.table = table

    @classmethod
    def from_experiments(
        cls, experiments: "Experiments", *, metric: str | None = None, ax=None
    ) -> "ExperimentsDisplay":
        """Draw experiments.

        Parameters
        ----------
        experiments : Experiments
            The book.
        metric : str or None, default=None
            Whose experiments are drawn; None takes that of the last one.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        ExperimentsDisplay
            Drawn.

        Raises
        ------
        ValueError
            If there is no experiment of the metric.
        ImportError
            If matplotlib is missing.
        """
        table = experiments.table
        known = table["metric"].unique().tolist()
        if metric is None and known:
            metric = table["metric"].iloc[-1]
        if metric not in known:
            raise ValueError(
                f"There is no experiment of metric={metric!r}; there are: {known}."
            )
        return cls(table[table["metric"] == metric]).plot(ax=ax)

    def plot(self, *, ax=None) -> "ExperimentsDisplay":
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        ExperimentsDisplay
            This one.

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        pyplot = import_pyplot("ExperimentsDisplay")
        rows = np.arange(len(self.table))
        if ax is None:
            height = 1.1 + 0.32 * len(rows)
            _, ax = pyplot.subplots(figsize=(7.5, height), layout="constrained")
        score = self.table["score"].to_numpy()
        spread = np.nan_to_num(self.table["spread"].to_numpy(dtype=float))
        best = int(score.argmax())
        for row in range(len(rows)):
            fell = self.table["gain"].iloc[row] < 0
            colour = _BEST if row == best else _FELL if fell else _STEP
            ax.errorbar(
                score[row], row, xerr=spread[row], fmt="o", color=colour, capsize=2
            )
        ax.axvline(score[best], color=_BEST, linestyle=":", linewidth=1)
        ax.set_yticks(rows, [_shortened(name) for name in self.table["name"]])
        ax.set_ylim(len(rows) - 0.5, -0.5)  # the first on top
        beside = ax.get_yaxis_transform()
        for row, text in enumerate(self._texts()):
            ax.text(1.02, row, text, transform=beside, va="center", fontsize=9)
        metric = self.table["metric"].iloc[0]
        ax.set_xlabel(f"{metric}, with one spread to each side")
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        self.ax_ = ax
        self.figure_ = ax.figure
        return self

    def _texts(self) -> list[str]:
        texts = []
        for _, row in self.table.iterrows():
            gain = "" if np.isnan(row["gain"]) else f"  {row['gain']:+.3f}"
            seconds = "" if np.isnan(row["seconds"]) else f"  {row['seconds']:.0f} s"
            texts.append(f"{row['score']:.3f}{gain}{seconds}")
        return texts


def _shortened(name: str) -> str:
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 1]}…"
