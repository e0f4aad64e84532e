"""A robustness report as curves."""

from typing import Any

import pandas as pd

from sklearn_dl._plots import fitted, plain, width_of
from sklearn_dl.inspection._panels import panels, tidy
from sklearn_dl.inspection._report import RobustnessReport
from sklearn_dl.inspection._robustness import robustness_report
from sklearn_dl.inspection._robustness_curves import (
    BY_SEVERITY,
    COLOURS,
    class_styles,
    draw_class,
    draw_curve,
    draw_start,
    legend_of_corruptions,
    legend_of_panels,
    say_amount,
    set_ticks,
    starred,
)

_NAMED = 8  # weaknesses in the heading; panels have their stars
# Scores from 0 to 1, whose drops are said in points.
_SHARES = (
    *("accuracy", "average_precision", "balanced_accuracy", "f1", "jaccard"),
    *("precision", "recall", "roc_auc", "top_k_accuracy"),
)


class RobustnessDisplay:
    """Picture of how a score falls the further images are corrupted.

    A panel for each corruption, in the order of the report: the score over the severity
    of the corruption, from the images as they are (severity 0), with the interval of
    the drop as a band, and the score of the images as they are as a dashed line. What
    falls beyond chance (its interval excludes 0) is orange and has one star; what falls
    beyond the report's margin is red and has two. Corruptions without a severity are a
    dot with its interval. Where the report has classes, thin lines are their recalls.

    Make one with `from_estimator` or `from_report`.

    Parameters
    ----------
    report : RobustnessReport
        What `robustness_report` returned.

    Attributes
    ----------
    axes_ : dict of str to matplotlib Axes
        By corruption; with `corruptions`, all are the same.
    ax_ : matplotlib Axes
        The first of them.
    figure_ : matplotlib Figure

    See Also
    --------
    robustness_report : The numbers, and what they mean.

    Examples
    --------
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.inspection import RobustnessDisplay, RobustnessReport
    >>> table = pd.DataFrame(
    ...     {
    ...         "corruption": ["rotation", "rotation", "blur"],
    ...         "severity": [1.0, 2.0, 2.0],
    ...         "amount": ["15 degrees", "30 degrees", "1.50% of the shorter side"],
    ...         "score": [0.95, 0.94, 0.8],
    ...         "drop": [0.0, 0.01, 0.15],
    ...         "low": [-0.01, -0.01, 0.1],
    ...         "high": [0.01, 0.03, 0.2],
    ...         "augmentation": ["rotation", "rotation", "blur"],
    ...     }
    ... )
    >>> report = RobustnessReport(table, 0.95, (0.93, 0.97), scoring="accuracy")
    >>> display = RobustnessDisplay.from_report(report, ax=Figure().add_subplot())
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
        corruptions=None,
        severities=(0.5, 1.0, 2.0),
        scoring=None,
        options=None,
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
        corruptions, severities, scoring, options : default=None
            As in `robustness_report`.
        ax : matplotlib Axes, default=None
            See `plot`.

        Returns
        -------
        RobustnessDisplay
            Drawn; its ``report`` has the numbers.
        """
        report = robustness_report(
            estimator,
            X,
            y,
            corruptions=corruptions,
            severities=severities,
            scoring=scoring,
            options=options,
        )
        return cls(report).plot(ax=ax)

    @classmethod
    def from_report(
        cls,
        report: RobustnessReport,
        *,
        corruptions=None,
        value: str = "score",
        ax=None,
    ) -> "RobustnessDisplay":
        """Draw what `robustness_report` returned.

        Parameters
        ----------
        report : RobustnessReport
            What to draw.
        corruptions : str or list of str, default=None
            See `plot`.
        value : {"score", "drop"}, default="score"
            See `plot`.
        ax : matplotlib Axes, default=None
            See `plot`.

        Returns
        -------
        RobustnessDisplay
            Drawn.
        """
        return cls(report).plot(corruptions, value=value, ax=ax)

    def plot(self, corruptions=None, *, value: str = "score", ax=None):
        """Draw.

        Parameters
        ----------
        corruptions : str or list of str, default=None
            At most 6, which are drawn together in one panel, each in its colour and
            without its classes. None draws all, each in its own panel.
        value : {"score", "drop"}, default="score"
            Whether to draw scores, or what they lost: in points, hundredths, where the
            score is a share such as accuracy.
        ax : matplotlib Axes, default=None
            A subplot, which is divided into the panels. None makes a new figure.

        Returns
        -------
        RobustnessDisplay
            This one.

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If the report doesn't have a corruption, there are too many, `value` is
            another one, or ax is not a subplot.
        """
        curves = self._curves(value)
        if corruptions is None:
            return self._plot_each(curves, value, ax)
        names = [corruptions] if isinstance(corruptions, str) else list(corruptions)
        for name in names:
            if name not in curves:
                raise ValueError(
                    f"The report has no corruption {name!r}; it has "
                    f"{', '.join(curves)}."
                )
        if not 1 <= len(set(names)) <= len(COLOURS):
            raise ValueError(
                f"corruptions must name 1 to {len(COLOURS)} of them, got {len(names)}."
            )
        return self._plot_together({name: curves[name] for name in names}, value, ax)

    def _curves(self, value: str) -> dict[str, pd.DataFrame]:
        """Return each corruption's ``x``, ``value``, ``low``, ``high``, ``amount``."""
        if value not in ("score", "drop"):
            raise ValueError(f"value must be 'score' or 'drop', got {value!r}.")
        found = {}
        for name, rows in self.report.table.groupby("corruption", sort=False):
            found[str(name)] = self._curve(rows, self.report.clean_score, value)
        return found

    def _curve(self, rows: pd.DataFrame, clean: float, value: str) -> pd.DataFrame:
        start, sign, unit = clean, -1.0, 1.0
        if value == "drop":
            start, sign, unit = 0.0, 1.0, self._unit
        curve = pd.DataFrame(
            {
                "x": rows["severity"].to_numpy(dtype=float),
                "value": start + sign * unit * rows["drop"].to_numpy(),
                "low": start + sign * unit * rows["low"].to_numpy(),
                "high": start + sign * unit * rows["high"].to_numpy(),
            }
        )
        if "amount" in rows:
            curve["amount"] = rows["amount"].to_numpy()
        return curve.sort_values("x", ignore_index=True)

    @property
    def _unit(self) -> float:
        shares = any(self.report.scoring.startswith(name) for name in _SHARES)
        return 100.0 if shares else 1.0

    def _label(self, value: str) -> str:
        if value == "score":
            return plain(self.report.scoring)
        return "drop, points" if self._unit == 100 else "drop"

    @property
    def _margin(self) -> str:
        margin = f"beyond {self._unit * self.report.margin:g}"
        return f"{margin} points" if self._unit == 100 else margin

    def _severity(self, name: str) -> int:
        """Return 2 for a severe weakness, 1 for one beyond chance, else 0."""
        low = self.report.table.loc[self.report.table["corruption"] == name, "low"]
        return int((low > 0).any()) + int((low > self.report.margin).any())

    def _title(self, names) -> str:
        report = self.report
        shown = report.weaknesses[report.weaknesses["corruption"].isin(names)]
        said = f"{report.scoring} {report.clean_score:.3f} on the images as they are"
        if report.n_images:
            said += f" ({report.n_images:,})"
        weak = list(dict.fromkeys(shown["corruption"]))  # the largest drop first
        groups = {
            f"{self._margin.capitalize()} (**)": [
                n for n in weak if self._severity(n) > 1
            ],
            "Beyond chance (*)": [n for n in weak if self._severity(n) == 1],
        }
        for text, found in groups.items():
            if found:
                more = len(found) - _NAMED
                said += f". {text}: {', '.join(found[:_NAMED])}"
                said += f" and {more} more" if more > 0 else ""
        return said + ("." if weak else ". No drop is beyond chance.")

    def _plot_each(self, curves: dict[str, pd.DataFrame], value: str, ax):
        n = len(curves)
        # As few empty places as can be, and not too many rows.
        least = min(n, 3 if n <= 9 else 4)
        columns = min(range(least, min(n, 5) + 1), key=lambda c: (-n % c, -c))
        rows = -(-n // columns)
        classes, left_out = self._classes()
        title = self._title(curves)
        if left_out:
            title += f" {left_out} classes that fall less are not drawn."
        axes, fontsize, cell = panels(
            "RobustnessDisplay",
            ax,
            shape=(rows, columns),
            size=(max(1.75 * columns + 0.6, 4.2), 1.5 * rows + 0.3),
            title=title,
            handles=lambda: legend_of_panels(
                {self._severity(name) for name in curves},
                self._margin,
                classes,
                self.report.confidence_level,
            ),
            gap=0.45,
            sharex=True,
            sharey=True,
        )
        self.axes_ = dict(zip(curves, axes.flat, strict=False))
        self.ax_ = axes[0, 0]
        self.figure_ = self.ax_.figure
        width, height = 0.85 * cell[0], 0.85 * cell[1]
        for name, axis in self.axes_.items():
            severity = self._severity(name)
            colour = BY_SEVERITY[severity]
            draw_start(axis, self._start(value))
            for label, style in classes.items():
                draw_class(axis, self._class_curve(name, label, value), style)
            draw_curve(axis, curves[name], colour, self._start(value), thick=severity)
            heading = axis.set_title(
                fitted(starred(name, severity), width, fontsize),
                loc="left",
                fontsize=fontsize,
                pad=3,
            )
            if severity:
                heading.set_fontweight("bold")
            tidy(axis, fontsize)
            say_amount(axis, curves[name], width, fontsize)
        for axis in axes.flat[n:]:
            axis.set_axis_off()
        for column in range(columns):
            lowest = axes.flat[(n - 1 - column) // columns * columns + column]
            lowest.tick_params(labelbottom=True)
            lowest.set_xlabel(f"{lowest.get_xlabel()}\nstrength")
        for axis in axes[:, 0]:
            label = self._label(value)  # the heading names the score too
            short = width_of(label, fontsize) > height
            axis.set_ylabel("score" if short else label, fontsize=fontsize)
        set_ticks(self.ax_, curves, (width, cell[1] - 0.08 * fontsize), fontsize)
        return self

    def _plot_together(self, curves: dict[str, pd.DataFrame], value: str, ax):
        axes, fontsize, cell = panels(
            "RobustnessDisplay",
            ax,
            shape=(1, 1),
            size=(6.4, 3.8),
            title=self._title(curves),
            handles=lambda: legend_of_corruptions(
                curves,
                {name: self._severity(name) for name in curves},
                self.report.confidence_level,
            ),
        )
        self.ax_ = axes[0, 0]
        self.axes_ = dict.fromkeys(curves, self.ax_)
        self.figure_ = self.ax_.figure
        draw_start(self.ax_, self._start(value))
        once = [n for n, c in curves.items() if c["x"].isna().all()]
        for n, name in enumerate(curves):
            draw_curve(
                self.ax_,
                curves[name],
                COLOURS[n],
                self._start(value),
                thick=1,
                style=n,
                place=0.1 * (once.index(name) + 1) if name in once else 0.0,
            )
        tidy(self.ax_, fontsize)
        self.ax_.set_xlabel("severity", fontsize=fontsize)
        self.ax_.set_ylabel(self._label(value), fontsize=fontsize)
        set_ticks(self.ax_, curves, (0.85 * cell[0], cell[1]), fontsize)
        return self

    def _start(self, value: str) -> float:
        return self.report.clean_score if value == "score" else 0.0

    def _classes(self) -> tuple[dict[Any, tuple], int]:
        """Return a colour and dashes for each class drawn, and how many are not."""
        table = self.report.classes
        if table is None:
            return {}, 0
        falls = table.groupby("class", sort=False)["drop"].max()
        drawn = class_styles(falls)
        return drawn, len(falls) - len(drawn)

    def _class_curve(self, name: str, label: Any, value: str) -> pd.DataFrame:
        table = self.report.classes
        assert table is not None
        rows = table[(table["corruption"] == name) & (table["class"] == label)]
        clean = float((rows["score"] + rows["drop"]).iloc[0])
        curve = self._curve(rows, clean, value)
        curve.attrs["start"] = clean if value == "score" else 0.0
        return curve
