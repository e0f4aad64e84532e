"""Experiments as a picture."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sklearn_dl._plots import (
    BLUE,
    GREEN,
    VERMILLION,
    fitted,
    import_pyplot,
    plain,
    width_of,
)

if TYPE_CHECKING:
    from sklearn_dl.model_selection._experiments import Experiments

_STEP, _BEST, _FELL = BLUE, GREEN, VERMILLION
_NAMES, _TEXTS = 0.35, 0.4  # of the width, at most
_HINTED = 1.08  # letters on a screen's pixels are up to so much wider
_GAP = 0.08  # inches, beside names and texts
# Points of letters, and how much stands beside a row: what comes first that has room.
_LOOKS = ((9.0, 3), (7.0, 3), (7.0, 2), (7.0, 1), (5.0, 1))


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
            Where to draw; None makes a figure. Where its figure has no layout engine,
            they shrink, so that names and numbers have room in their place.

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
        box, dpi = ax.get_window_extent(), ax.figure.dpi
        width, line = box.width / dpi, box.height / dpi / len(rows)
        size, texts = self._fitted_texts(width, line)
        room = _NAMES * width / _HINTED
        names = [fitted(name, room, size) for name in self.table["name"]]
        ax.set_yticks(rows, names, fontsize=size)
        ax.set_ylim(len(rows) - 0.5, -0.5)  # the first on top
        beside = ax.get_yaxis_transform()
        for row, text in enumerate(texts):
            ax.text(1.02, row, text, transform=beside, va="center", fontsize=size)
        sides = _widest(names, size) + _GAP, _widest(texts, size) + _GAP
        inner = max((width - sum(sides)) / 1.02, 0.1 * width)
        if ax.figure.get_layout_engine() is None:
            _shrink(ax, sides[0], inner)
            width = inner + 2 * min(sides)  # about the middle of the Axes
        steps = int(np.clip(inner / (0.085 * size), 1, 8))
        ax.locator_params(axis="x", nbins=steps, min_n_ticks=1)
        metric = self.table["metric"].iloc[0]
        label = f"{plain(metric)}, with one spread to each side"
        if _HINTED * width_of(label, size + 1) > width:
            label = fitted(metric, width / _HINTED, size + 1)
        ax.set_xlabel(label, fontsize=size + 1)
        ax.tick_params(axis="x", labelsize=size)
        ax.grid(axis="x", color="0.9")
        ax.set_axisbelow(True)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        self.ax_ = ax
        self.figure_ = ax.figure
        return self

    def _fitted_texts(self, width: float, line: float) -> tuple[float, list[str]]:
        """Return the size of letters, and texts that have room beside the rows."""
        for size, most in _LOOKS:
            texts = ["  ".join(parts[:most]) for parts in self._numbers()]
            if size <= 60 * line and _widest(texts, size) <= _TEXTS * width:
                break
        return min(size, max(60 * line, 1.0)), texts

    def _numbers(self) -> list[list[str]]:
        """Return what stands beside each row: score, gain and seconds."""
        found = []
        for _, row in self.table.iterrows():
            parts = [_text(row["score"])]
            gain = row["gain"]
            if not np.isnan(gain):
                nothing = abs(gain) < 1e-9 * abs(row["score"])  # rounding alone
                parts.append(_text(0.0 if nothing else gain, "+"))
            if not np.isnan(row["seconds"]):
                parts.append(f"{row['seconds']:.0f} s")
            found.append(parts)
        return found


def _text(value: float, sign: str = "") -> str:
    small = 0 < abs(value) < 0.001
    return f"{value:{sign}.2g}" if small else f"{value:{sign}.3f}"


def _widest(texts: list[str], size: float) -> float:
    """Return the width of the widest text on a screen, in inches."""
    return _HINTED * max(width_of(text, size) for text in texts)


def _shrink(ax: Any, left: float, inner: float) -> None:
    """Give Axes a width, after inches at the left, within their place."""
    place = ax.get_position(original=True)
    inch = ax.figure.bbox.width / ax.figure.dpi  # of the whole
    ax.set_position((place.x0 + left / inch, place.y0, inner / inch, place.height))
