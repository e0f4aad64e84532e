"""A robustness report as curves."""

from typing import Any

import numpy as np
import pandas as pd

from sklearn_dl._plots import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY_BLUE,
    VERMILLION,
    end_at,
    figure_of,
    fitted,
    fitted_apart,
    head,
    letters_in,
    limits_of,
    plain,
    size_of,
    tidy,
    wrapped,
)
from sklearn_dl.inspection._report import RobustnessReport
from sklearn_dl.inspection._robustness import robustness_report

_NAMED = 8  # weaknesses in the heading; panels have their stars
_BY_WEAKNESS = (BLUE, ORANGE, VERMILLION)  # within chance, beyond it, beyond the margin
# Of classes, which leave the colours of the whole to it.
_CLASSES = ((GREEN, "--"), (PURPLE, "-."), (SKY_BLUE, ":"), (BLACK, (0, (5, 1))))
_CLEAN = "images as they are"


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
    ax_ : matplotlib Axes
        The first of them.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.inspection import RobustnessDisplay, RobustnessReport
    >>> table = pd.DataFrame(
    ...     {
    ...         "corruption": ["rotation", "blur"],
    ...         "severity": [1.0, 2.0],
    ...         "amount": ["15 degrees", "1.50% of the shorter side"],
    ...         "score": [0.94, 0.8],
    ...         "drop": [0.01, 0.15],
    ...         "low": [-0.01, 0.1],
    ...         "high": [0.03, 0.2],
    ...     }
    ... )
    >>> report = RobustnessReport(table, 0.95, (0.93, 0.97), scoring="accuracy")
    >>> display = RobustnessDisplay(report).plot(ax=Figure().add_subplot())
    >>> display.axes_["blur"].get_title(loc="left")
    'blur **'
    """

    def __init__(self, report: RobustnessReport):
        self.report = report

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X,
        y,
        *,
        report_kw: dict | None = None,
        value="score",
        ax=None,
    ) -> "RobustnessDisplay":
        """Draw how far the score of a fitted estimator falls on corrupted images.

        Parameters
        ----------
        estimator : classifier or regressor
            Fitted.
        X : images
            Any form that the estimator takes; not those it was fitted on.
        y : array-like of shape (n,) or (n, n_outputs)
            The truth.
        report_kw : dict, default=None
            Passed to `robustness_report`, as ``{"severities": (1, 2)}``.
        value, ax
            See `plot`.

        Returns
        -------
        RobustnessDisplay
            Drawn; its ``report`` has the numbers.
        """
        report = robustness_report(estimator, X, y, **(report_kw or {}))
        return cls(report).plot(value=value, ax=ax)

    def plot(
        self, corruptions=None, *, value: str = "score", line_kw=None, ax=None
    ) -> "RobustnessDisplay":
        """Draw.

        Parameters
        ----------
        corruptions : str or list of str, default=None
            Those to draw; None draws all.
        value : {"score", "drop"}, default="score"
            Whether to draw scores, or what they lost: in points, hundredths, where the
            score is a share such as accuracy.
        line_kw : dict, default=None
            Passed to matplotlib's `plot` for each curve.
        ax : matplotlib Axes, default=None
            A subplot, which is divided into the panels; None makes a new figure.

        Returns
        -------
        RobustnessDisplay
            This one.

        Raises
        ------
        ValueError
            If the report doesn't have a corruption, `value` is another one, or ax is
            not a subplot.
        """
        if value not in ("score", "drop"):
            raise ValueError(f"value must be 'score' or 'drop', got {value!r}.")
        names = self._names(corruptions)
        n, least = len(names), min(len(names), 3 if len(names) <= 9 else 4)
        # As few empty places as can be, and not too many rows.
        columns = min(range(least, min(n, 5) + 1), key=lambda c: (-n % c, -c))
        rows = -(-n // columns)
        size = (max(1.75 * columns + 0.6, 4.2), 1.4 * rows + 1.6)
        figure = figure_of("RobustnessDisplay", ax, size)
        (width, height), letters = size_of(figure), letters_in(figure, columns, rows)
        width *= 0.85 / columns
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        self.axes_ = dict(zip(names, axes.flat, strict=False))
        self.ax_, self.figure_ = axes[0, 0], figure.figure
        spacious = height > 0.8 * rows + 1  # else curves matter more than captions
        for name, axis in self.axes_.items():
            self._draw(axis, name, value, spacious, line_kw or {})
            stars = f" {'*' * self._weakness(name)}".rstrip()
            title = fitted(name, 0.9 * width, letters, after=stars)
            look = {"fontsize": letters, "fontweight": "bold" if stars else "normal"}
            axis.set_title(title, loc="left", y=1.0, pad=3, **look)
            tidy(axis, letters)
            if spacious:
                caption = wrapped(self._caption(name), width, letters - 1)
                axis.set_xlabel(caption, fontsize=letters - 1, color="0.3", labelpad=2)
        for axis in axes.flat[n:]:
            axis.set_axis_off()
        for axis in axes.flat[max(n - columns, 0) : n]:
            axis.tick_params(labelbottom=True)
        self.ax_.locator_params(axis="y", nbins=3 if spacious else 1, min_n_ticks=1)
        if value == "score":
            end_at(self.ax_, "y", self._limits)
        self._set_severities(width)
        figure.supxlabel("severity", fontsize=letters)
        unit = ", points" if self._unit == 100 else ""
        label = plain(self.report.scoring) if value == "score" else f"drop{unit}"
        figure.supylabel(label, fontsize=letters)
        head(figure, self._title(names), letters)
        return self

    def _names(self, corruptions: Any) -> list[str]:
        """Return the corruptions to draw."""
        known = self.report.table["corruption"].unique().tolist()
        names = known if corruptions is None else corruptions
        names = [names] if isinstance(names, str) else list(names)
        if not names or not {*names} <= {*known}:
            raise ValueError(
                f"corruptions must be of those in the report, {', '.join(known)}; got "
                f"{corruptions!r}."
            )
        return names

    def _draw(self, ax, name: str, value: str, spacious: bool, line_kw: dict) -> None:
        """Draw a corruption in its panel, and the recalls of classes."""
        report, weakness = self.report, self._weakness(name)
        clean, colour = report.clean_score, _BY_WEAKNESS[weakness]
        start: dict[str, Any] = {"color": "0.35", "linestyle": "--", "linewidth": 1}
        ax.axhline(clean if value == "score" else 0.0, **start, label=_CLEAN)
        ax.grid(axis="y", color="0.92")
        for label, look in self._classes().items() if spacious else ():
            rows = report.classes[report.classes["class"] == label]
            recall = (rows["score"] + rows["drop"]).iloc[0]
            x, y, *_ = self._curve(rows, name, recall, value)
            dash = {"marker": "_", "markersize": 12} if len(x) == 1 else {}
            ax.plot(x, y, **look, **dash)
        x, y, low, high = self._curve(report.table, name, clean, value)
        band: dict[str, Any] = {"color": colour, "label": self._labels[3]}
        if len(x) == 1:
            ax.vlines(x, low, high, alpha=0.45, linewidth=3, **band)
        else:
            ax.fill_between(x, low, high, alpha=0.25, linewidth=0, **band)
        look = {"color": colour, "linewidth": 1.5 + 0.4 * weakness, "marker": "o"}
        look |= {"markersize": 3.5, "label": self._labels[weakness]}
        ax.plot(x, y, **{**look, **line_kw})

    def _curve(self, table: pd.DataFrame, name: str, clean: float, value: str) -> Any:
        """Return severities from 0, values and their bounds; of one without: at 1."""
        rows = table[table["corruption"] == name].sort_values("severity")
        drops = rows[["drop", "low", "high"]].to_numpy(dtype=float).T
        x = np.r_[0.0, rows["severity"]]
        found = np.c_[np.zeros(3), drops] * self._unit
        if value == "score":
            found = clean - np.c_[np.zeros(3), drops]
            found[1:] = found[1:].clip(*self._limits)
        if np.isnan(x[-1]):
            return np.ones(1), *found[:, 1:]
        return x, *found

    def _classes(self) -> dict[Any, dict]:
        """Return the looks of the classes that fall most, in their order."""
        table = self.report.classes
        if table is None:
            return {}
        falls = table.groupby("class", sort=False)["drop"].max()
        most = falls.nlargest(len(_CLASSES)).index
        drawn = [label for label in falls.index if label in most]
        names = fitted_apart(drawn, 1.6, 8.0)
        return {
            label: {
                "color": colour,
                "ls": dashes,
                "lw": 1.2,
                "label": f"recall of {text}",
            }
            for label, text, (colour, dashes) in zip(
                drawn, names, _CLASSES, strict=False
            )
        }

    def _set_severities(self, width: float) -> None:
        """Write as many severities under the axes as have room in a width in inches."""
        from matplotlib.ticker import FixedLocator, FormatStrFormatter

        found = sorted({0.0, 1.0, *self.report.table["severity"].dropna()})
        self.ax_.set_xlim(-0.05 * found[-1], 1.08 * found[-1])
        locator = FixedLocator(found, nbins=max(int(width / 0.3), 2))
        self.ax_.xaxis.set_major_locator(locator)
        self.ax_.xaxis.set_major_formatter(FormatStrFormatter("%g"))

    @property
    def _limits(self) -> tuple[float, float]:
        scores = [self.report.clean_score, *self.report.table["score"]]
        return limits_of(self.report.scoring, scores)

    @property
    def _unit(self) -> float:
        """What a drop is multiplied by: that of a share is said in points."""
        return 100.0 if self._limits == (0, 1) else 1.0

    @property
    def _labels(self) -> tuple[str, ...]:
        """What the legend says of each weakness, and of the bands."""
        margin = f"beyond {self._unit * self.report.margin:g}"
        margin += " points **" if self._unit == 100 else " **"
        band = f"{self.report.confidence_level:.0%} interval of the drop"
        return "within chance", "beyond chance *", margin, band

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

    def _title(self, names: list[str]) -> str:
        report = self.report
        said = f"{report.scoring} {report.clean_score:.3f} on the {_CLEAN}"
        if report.n_images:
            said += f" ({report.n_images:,})"
        weak = dict.fromkeys(report.weaknesses["corruption"])  # the largest drop first
        for degree in (2, 1):
            found = [n for n in weak if n in names and self._weakness(n) == degree]
            if found:
                text, stars = self._labels[degree].rsplit(" ", 1)
                said += f". {text.capitalize()} ({stars}): {', '.join(found[:_NAMED])}"
            if len(found) > _NAMED:
                said += f" and {len(found) - _NAMED} more"
        said += "." if {*weak} & {*names} else ". No drop is beyond chance."
        if report.classes is not None:
            left_out = report.classes["class"].nunique() - len(self._classes())
            said += f" {left_out} classes that fall less are not drawn." * bool(
                left_out
            )
        return said
