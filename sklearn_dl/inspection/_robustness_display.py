"""A robustness report as curves."""

from typing import Any

import numpy as np
import pandas as pd

from sklearn_dl import _plots
from sklearn_dl.inspection._report import RobustnessReport

_NAMED = 8  # weaknesses in the heading; panels have their stars
# Within chance, beyond it, beyond the margin.
_COLOURS = (_plots.BLUE, _plots.ORANGE, _plots.VERMILLION)
# Of classes, which leave the colours of the whole to it.
_CLASSES: dict[str, Any] = {_plots.GREEN: "--", _plots.PURPLE: "-."}
_CLASSES |= {_plots.SKY_BLUE: ":", _plots.BLACK: (0, (5, 1))}


class RobustnessDisplay:
    """Picture of how a score falls the further images are corrupted.

    A panel for each corruption, in the order of the report: the score over the severity
    of the corruption, from the images as they are (severity 0), with the interval of
    the drop as a band, as far as scores go (an accuracy ends at 1), and the score of
    the images as they are as a dashed line. What falls beyond chance (its interval
    excludes 0) is orange and has one star; what falls beyond the report's margin is red
    and has two. Corruptions without a severity are a dot with its interval. Where the
    report has classes, thin lines are the recalls of those that fall most.

    Parameters
    ----------
    report : RobustnessReport
        What `robustness_report` returned.

    Attributes
    ----------
    axes_ : dict of str to matplotlib Axes
        By corruption.
    ax_, figure_ : matplotlib Axes and Figure
        The first of them, and the whole.

    Examples
    --------
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.inspection import RobustnessDisplay, RobustnessReport
    >>> rows = [("blur", 2.0, "1.50% of the shorter side", 0.8, 0.15, 0.1, 0.2)]
    >>> names = ["corruption", "severity", "amount", "score", "drop", "low", "high"]
    >>> table = pd.DataFrame(rows, columns=names)
    >>> report = RobustnessReport(table, 0.95, (0.93, 0.97), scoring="accuracy")
    >>> display = RobustnessDisplay(report).plot(ax=Figure().add_subplot())
    >>> display.axes_["blur"].get_title(loc="left")
    'blur **'
    """

    def __init__(self, report: RobustnessReport):
        self.report = report

    def plot(self, corruptions=None, *, line_kw=None, ax=None) -> "RobustnessDisplay":
        """Draw, and return the display.

        Parameters
        ----------
        corruptions : str or list of str, default=None
            Those to draw; None draws all.
        line_kw : dict, default=None
            Passed to matplotlib's `plot` for each curve.
        ax : matplotlib Axes, default=None
            A subplot, which is divided into the panels; None makes a new figure.

        Raises
        ------
        ValueError
            If the report doesn't have a corruption.
        """
        known = self.report.table["corruption"].unique().tolist()
        names = known if corruptions is None else np.atleast_1d(corruptions).tolist()
        if not names or not {*names} <= {*known}:
            all_of_them = ", ".join(known)
            raise ValueError(f"corruptions must be of {all_of_them}; got {names}.")
        n, least = len(names), min(len(names), 3 if len(names) <= 9 else 4)
        # As few empty places as can be, and not too many rows.
        columns = min(range(least, min(n, 5) + 1), key=lambda c: (-n % c, -c))
        rows = -(-n // columns)
        size = (max(1.75 * columns + 0.6, 4.2), 1.4 * rows + 1.6)
        figure = _plots.figure_of("RobustnessDisplay", ax, size)
        letters = _plots.letters_in(figure, columns, rows)
        width, height = _plots.size_of(figure)
        width *= 0.85 / columns
        spacious = height > 0.8 * rows + 1  # else curves matter more than words
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        self.axes_ = dict(zip(names, axes.flat, strict=False))
        self.ax_, self.figure_ = axes[0, 0], figure.figure
        for name, axis in self.axes_.items():
            axis.grid(axis="y", color="0.92")
            if spacious:
                self._draw_classes(axis, name)
                caption = _plots.wrapped(self._caption(name), width, letters - 1)
                axis.set_xlabel(caption, color="0.3", labelpad=2)
            self._draw(axis, name, line_kw)
            stars = f" {'*' * self._weakness(name)}".rstrip()
            room = (0.7 if stars else 0.8) * width  # bold letters are wider
            title = _plots.fitted(name, room, letters, after=stars)
            look = {"fontsize": letters, "fontweight": "bold" if stars else "normal"}
            axis.set_title(title, loc="left", y=1.0, pad=3, **look)
            _plots.tidy(axis, letters)
            axis.xaxis.label.set_fontsize(letters - 1)
        for axis in axes.flat[n:]:
            axis.set_axis_off()
        for axis in axes.flat[max(n - columns, 0) : n]:
            axis.tick_params(labelbottom=True)
        severities = sorted({0.0, 1.0, *self.report.table["severity"].dropna()})
        self.ax_.set_xlim(-0.05 * severities[-1], 1.08 * severities[-1])
        step = int(np.ceil(len(severities) * 0.3 / width))  # as many as have room
        severities = severities[::step]
        self.ax_.set_xticks(severities, [f"{severity:g}" for severity in severities])
        self.ax_.locator_params(axis="y", nbins=3 if spacious else 1, min_n_ticks=1)
        _plots.end_at(self.ax_, "y", self._limits)
        figure.supxlabel("severity", fontsize=letters)
        figure.supylabel(_plots.plain(self.report.scoring), fontsize=letters)
        title = self._title(names, len(_CLASSES) if spacious else 0)
        _plots.head(figure, title, letters)
        return self

    def _draw(self, ax, name: str, line_kw: dict | None) -> None:
        """Draw what becomes of the whole."""
        weakness, report = self._weakness(name), self.report
        x, y, low, high = self._curve(report.table, name, report.clean_score)
        look: dict[str, Any] = {"color": "0.35", "linestyle": "--", "linewidth": 1}
        ax.axhline(report.clean_score, label="images as they are", **look)
        look = {"color": _COLOURS[weakness], "linewidth": 1.5 + 0.4 * weakness}
        band = {"label": f"{report.confidence_level:.0%} interval of the drop"}
        if len(x) == 1:
            ax.vlines(x, low, high, alpha=0.45, **{**look, **band, "linewidth": 3})
        else:
            ax.fill_between(
                x, low, high, alpha=0.25, **{**look, **band, "linewidth": 0}
            )
        look |= {"marker": "o", "markersize": 3.5, "label": self._degrees[weakness]}
        ax.plot(x, y, **_plots.options("line", look, line_kw))

    def _draw_classes(self, ax, name: str) -> None:
        """Draw the recalls of those that fall most, in their order."""
        table = self.report.classes
        if table is None:
            return
        falls = table.groupby("class", sort=False)["drop"].max()
        shown = falls[falls.index.isin(falls.nlargest(len(_CLASSES)).index)].index
        names = _plots.fitted_apart(shown.tolist(), 1.6, 9.0)
        drawn = zip(shown, names, _CLASSES.items(), strict=False)
        for label, said, (colour, dashes) in drawn:
            rows = table[table["class"] == label]
            clean = (rows["score"] + rows["drop"]).iloc[0]
            x, y, *_ = self._curve(rows, name, clean)
            look = {"color": colour, "linestyle": dashes, "linewidth": 1.2}
            look |= {"marker": "_", "markersize": 12} if len(x) == 1 else {}
            ax.plot(x, y, label=f"recall of {said}", **look)

    def _curve(self, table: pd.DataFrame, name: str, clean: float) -> Any:
        """Return severities from 0, scores and their bounds; of one without: at 1."""
        rows = table[table["corruption"] == name].sort_values("severity")
        drops = rows[["drop", "low", "high"]].to_numpy(float).T
        x, found = np.r_[0.0, rows["severity"]], clean - np.c_[np.zeros(3), drops]
        found[1:] = found[1:].clip(*self._limits)
        return (np.ones(1), *found[:, 1:]) if np.isnan(x[-1]) else (x, *found)

    @property
    def _limits(self) -> tuple[float, float]:
        scores = [self.report.clean_score, *self.report.table["score"]]
        return _plots.limits_of(self.report.scoring, scores)

    @property
    def _degrees(self) -> tuple[str, str, str]:
        """What the legend says of each weakness: of a share, in points."""
        margin = f"{self.report.margin:g}"
        if self._limits == (0, 1):
            margin = f"{100 * self.report.margin:g} points"
        return "within chance", "beyond chance *", f"beyond {margin} **"

    def _weakness(self, name: str) -> int:
        """Return 2 for a drop beyond the margin, 1 for one beyond chance, else 0."""
        low = self.report.table.loc[self.report.table["corruption"] == name, "low"]
        return int((low > 0).any()) + int((low > self.report.margin).any())

    def _caption(self, name: str) -> str:
        """Say in words what the highest severity is."""
        table = self.report.table
        last = table[table["corruption"] == name].sort_values("severity").iloc[-1]
        once = np.isnan(last["severity"])
        return last["amount"] if once else f"at {last['severity']:g}: {last['amount']}"

    def _title(self, names: list[str], n_classes: int) -> str:
        report = self.report
        said = f"{report.scoring} {report.clean_score:.3f} on the images as they are"
        if report.n_images:
            said += f" ({report.n_images:,})"
        weak = dict.fromkeys(report.weaknesses["corruption"])  # the largest drop first
        for degree in (2, 1):
            found = [n for n in weak if n in names and self._weakness(n) == degree]
            if found:
                text, stars = self._degrees[degree].rsplit(" ", 1)
                said += f". {text.capitalize()} ({stars}): {', '.join(found[:_NAMED])}"
            if len(found) > _NAMED:
                said += f" and {len(found) - _NAMED} more"
        said += "." if {*weak} & {*names} else ". No drop is beyond chance."
        n = 0 if report.classes is None else report.classes["class"].nunique()
        if n > n_classes:
            said += f" {n - n_classes} of {n} classes are not drawn."
        return said
