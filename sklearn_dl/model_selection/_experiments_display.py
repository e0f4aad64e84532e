"""Experiments as a picture."""

from typing import Any

import numpy as np
import pandas as pd

from sklearn_dl._plots import (
    BLUE,
    GREEN,
    VERMILLION,
    end_at,
    fitted_apart,
    import_pyplot,
    lay_out,
    limits_of,
    size_of,
    tidy,
    wrapped,
)


class ExperimentsDisplay:
    """Picture of what was tried: a row per experiment, from the first to the last.

    A dot is a score, the line through it reaches one spread to each side, as far as
    scores go (an accuracy ends at 1); beside it stand the score, its gain and the
    seconds. The best is green and its score a dotted line through all rows; what scored
    less than the experiment it is compared with is orange.

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
    >>> log = Experiments()
    >>> _ = log.record("baseline", [0.90, 0.92], metric="accuracy")
    >>> _ = log.record("more epochs", [0.93, 0.95], metric="accuracy")
    >>> ax = Figure().add_subplot()
    >>> display = ExperimentsDisplay.from_experiments(log, ax=ax)
    >>> display.ax_.get_xlabel()
    'accuracy, with one spread to each side'
    """

    def __init__(self, table: pd.DataFrame):
        self.table = table

    @classmethod
    def from_experiments(
        cls, experiments: Any, *, metric: str | None = None, ax=None
    ) -> "ExperimentsDisplay":
        """Draw experiments.

        Parameters
        ----------
        experiments : Experiments
            The log.
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
        table, n = self.table, len(self.table)
        if ax is None:
            figure = import_pyplot("ExperimentsDisplay").figure(
                figsize=(7.5, 1.1 + 0.32 * n), layout="constrained"
            )
            ax = figure.subplots()
        lay_out(ax.figure)
        width, height = size_of(ax)
        size = 9.0 if width > 4.5 else 7.0
        size = float(np.clip(60 * height / n, 2.0, size))  # as high as a row at most
        rows, score = np.arange(n), table["score"].to_numpy(dtype=float)
        spread = np.nan_to_num(table["spread"].to_numpy(dtype=float))
        colours = np.where(table["gain"] < 0, VERMILLION, BLUE)
        colours[score.argmax()] = GREEN
        limits = limits_of(table["metric"].iloc[0], score)
        reach = np.clip([score - spread, score + spread], *limits)
        ax.hlines(rows, *reach, colours)
        ax.scatter(score, rows, c=colours, zorder=3)
        ax.axvline(score.max(), color=GREEN, linestyle=":", linewidth=1)
        names = fitted_apart(table["name"].tolist(), 0.35 * width, size)
        ax.set_yticks(rows, names)
        ax.set_ylim(n - 0.5, -0.5)  # the first on top
        end_at(ax, "x", limits)
        beside = ax.get_yaxis_transform()
        for row, parts in enumerate(self._numbers()):
            text = "  ".join(parts if width > 3 else parts[:1])
            ax.text(1.02, row, text, transform=beside, va="center", fontsize=size)
        ax.locator_params(axis="x", nbins=int(np.clip(4 * width / size, 1, 8)))
        label = f"{table['metric'].iloc[0]}, with one spread to each side"
        ax.set_xlabel(wrapped(label, 0.6 * width, size))
        ax.grid(axis="x", color="0.9")
        tidy(ax, size + 1)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _numbers(self) -> list[list[str]]:
        """Return what stands beside each row: score, gain and seconds."""
        found = []
        for _, row in self.table.iterrows():
            parts, gain = [_text(row["score"])], row["gain"]
            if not np.isnan(gain):
                parts.append(_text(gain, "+"))
            if not np.isnan(row["seconds"]):
                parts.append(f"{row['seconds']:.0f} s")
            found.append(parts)
        return found


def _text(value: float, sign: str = "") -> str:
    small = 0 < abs(value) < 0.001
    return f"{value:{sign}.2g}" if small else f"{value:{sign}.3f}"
