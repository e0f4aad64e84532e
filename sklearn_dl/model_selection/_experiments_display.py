"""Experiments as a picture."""

from typing import Any

import numpy as np
import pandas as pd

from sklearn_dl import _plots


class ExperimentsDisplay:
    """Picture of what was tried: a row per experiment, from the first to the last.

    A dot is a score, the line through it reaches one spread to each side, as far as
    scores go; beside it stand the score, its gain and the seconds. The best is green,
    its score a dotted line; what scored less than what it is compared with is orange.

    Parameters
    ----------
    table : DataFrame
        ``name``, ``metric``, ``score``, ``spread``, ``gain`` and ``seconds``.
    metric : str, default=None
        Whose experiments are drawn; None takes that of the last one.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure

    Raises
    ------
    ValueError
        If there is no experiment of the metric.
    """

    def __init__(self, table: pd.DataFrame, metric: str | None = None):
        known = table["metric"].unique().tolist()
        self.metric: Any = table["metric"].iloc[-1] if known and not metric else metric
        if self.metric not in known:
            raise ValueError(f"No experiment has metric={metric!r}, only {known}.")
        self.table = table[table["metric"] == self.metric]

    def plot(self, *, ax: Any = None) -> "ExperimentsDisplay":
        """Draw into matplotlib's Axes, None for a new figure; return the display."""
        table, n = self.table, len(self.table)
        figure = _plots.figure_of("ExperimentsDisplay", ax, (7.5, 1.1 + 0.32 * n))
        width, height = _plots.size_of(figure)
        self.figure_, ax = figure.figure, figure.subplots()
        high = (height - 0.6) / n  # of a row; of many not all have room for letters
        size = float(np.clip(58 * high, 5.0, 9.0 if width > 5.5 else 7.0))
        step = int(np.ceil(size / 58 / high))
        rows, score = np.arange(n), table["score"].to_numpy(dtype=float)
        spread = table["spread"].fillna(0.0).to_numpy(dtype=float)
        colours = np.where(table["gain"] < 0, _plots.VERMILLION, _plots.BLUE)
        colours[score.argmax()] = _plots.GREEN
        limits = _plots.limits_of(self.metric, score)
        ax.hlines(rows, *np.clip([score - spread, score + spread], *limits), colours)
        ax.scatter(score, rows, c=colours, zorder=3)
        ax.axvline(score.max(), color=_plots.GREEN, linestyle=":", linewidth=1)
        names = _plots.fitted_apart([*table["name"]], 0.27 * width, size)
        ax.set_yticks(rows[::step], names[::step])
        ax.set_ylim(n - 0.5, -0.5)  # the first on top
        _plots.end_at(ax, "x", limits)
        beside = {"transform": ax.get_yaxis_transform(), "va": "center"}
        numbers = table[["score", "gain", "seconds"]].to_numpy(dtype=float)
        for row, values in list(enumerate(numbers))[::step]:
            texts = [_text(values[0]), _text(values[1], "+"), f"{values[2]:.0f} s"]
            texts = [text for text in texts if "nan" not in text]
            text = "  ".join(texts if width > 3.9 else texts[:1])
            ax.text(1.02, row, text, fontsize=size, **beside)
        ax.locator_params(axis="x", nbins=int(np.clip(3 * width / size, 1, 8)))
        said = f"{self.metric}, with one spread to each side"
        ax.set(xlabel=_plots.wrapped(said, 0.5 * width, size))
        ax.grid(axis="x", color="0.9")
        _plots.spell_out(ax)
        _plots.tidy(ax, size + 1)
        self.ax_ = ax
        return self


def _text(value: float, sign: str = "") -> str:
    return f"{value:{sign}.2g}" if 0 < abs(value) < 0.001 else f"{value:{sign}.3f}"
