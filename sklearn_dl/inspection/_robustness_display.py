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
    fitted,
    fitted_apart,
    limits_of,
    place_of,
    plain,
    tidy,
    wrapped,
)
from sklearn_dl.inspection._report import RobustnessReport
from sklearn_dl.inspection._robustness import robustness_report
from sklearn_dl.inspection._robustness_curves import (
    caption_of,
    draw_class,
    draw_curve,
    draw_start,
    handle,
    set_severities,
    shared_handles,
)

_NAME, _SEVERITY = "corruption", "severity"  # columns of the report
_NAMED = 8  # weaknesses in the heading; panels have their stars
_BY_WEAKNESS = (BLUE, ORANGE, VERMILLION)  # within chance, beyond it, beyond the margin
_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY_BLUE)
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 2)))
_MARKERS = "osD^vP"
# Of classes, which leave the colours of the whole to it.
_CLASS_COLOURS = (GREEN, PURPLE, SKY_BLUE, BLACK)


class RobustnessDisplay:
    """Picture of how a score falls the further images are corrupted.

    A panel for each corruption, in the order of the report: the score over the severity
    of the corruption, from the images as they are (severity 0), with the interval of
    the drop as a band, as far as scores go (an accuracy ends at 1), and the score of
    the images as they are as a dashed line. What falls beyond chance (its interval
    excludes 0) is orange and has one star; what falls beyond the report's margin is red
    and has two. Corruptions without a severity are a dot with its interval. Where the
    report has classes, thin lines are their recalls.

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
        report_kw: dict | None = None,
        value: str = "score",
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
        corruptions, value, ax
            See `plot`.

        Returns
        -------
        RobustnessDisplay
            Drawn.
        """
        return cls(report).plot(corruptions, value=value, ax=ax)

    def plot(
        self,
        corruptions=None,
        *,
        value: str = "score",
        line_kw: dict | None = None,
        ax=None,
    ) -> "RobustnessDisplay":
        """Draw.

        Parameters
        ----------
        corruptions : str or list of str, default=None
            At most 6, which are drawn together in one panel, each in its colour and
            without its classes. None draws all, each in its own panel.
        value : {"score", "drop"}, default="score"
            Whether to draw scores, or what they lost: in points, hundredths, where the
            score is a share such as accuracy.
        line_kw : dict, default=None
            Passed to matplotlib's `plot` for each curve.
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
        if value not in ("score", "drop"):
            raise ValueError(f"value must be 'score' or 'drop', got {value!r}.")
        curves = {
            str(name): self._curve(rows, self.report.clean_score, value)
            for name, rows in self.report.table.groupby(_NAME, sort=False)
        }
        if corruptions is None:
            return self._plot_each(curves, value, line_kw or {}, ax)
        names = [corruptions] if isinstance(corruptions, str) else list(corruptions)
        for name in names:
            if name not in curves:
                raise ValueError(
                    f"The report has no corruption {name!r}; it has "
                    f"{', '.join(curves)}."
                )
        if not 1 <= len(set(names)) <= len(_COLOURS):
            raise ValueError(
                f"corruptions must name 1 to {len(_COLOURS)} of them, got {len(names)}."
            )
        curves = {name: curves[name] for name in names}
        return self._plot_together(curves, value, line_kw or {}, ax)

    def _plot_each(self, curves: dict[str, pd.DataFrame], value, line_kw, ax):
        n = len(curves)
        # As few empty places as can be, and not too many rows.
        least = min(n, 3 if n <= 9 else 4)
        columns = min(range(least, min(n, 5) + 1), key=lambda c: (-n % c, -c))
        rows = -(-n // columns)
        place = place_of(
            "RobustnessDisplay",
            ax,
            (max(1.75 * columns + 0.6, 4.2), 1.4 * rows + 1.6),
        )
        letters, width = place.letters(columns, rows), 0.85 * place.width / columns
        axes = place.figure.subplots(
            rows, columns, squeeze=False, sharex=True, sharey=True
        )
        self.axes_ = dict(zip(curves, axes.flat, strict=False))
        self.ax_, self.figure_ = axes[0, 0], place.whole
        classes, table = self._classes(), self.report.classes
        spacious = place.height > 0.8 * rows + 1
        for (name, curve), axis in zip(curves.items(), axes.flat, strict=False):
            weakness = self._weakness(name)
            colour = _BY_WEAKNESS[weakness]
            draw_start(axis, curve)
            for label, look in classes.items():
                assert table is not None
                chosen = table[(table[_NAME] == name) & (table["class"] == label)]
                clean = float((chosen["score"] + chosen["drop"]).iloc[0])
                draw_class(axis, self._curve(chosen, clean, value), look)
            look = {"color": colour, "linewidth": 1.5 + 0.4 * weakness}
            draw_curve(axis, curve, {**look, "marker": "o", **line_kw})
            axis.set_title(
                fitted(name, 0.9 * width, letters, after=f" {'*' * weakness}".rstrip()),
                loc="left",
                fontsize=letters,
                y=1.0,  # else matplotlib searches for ticks above, at each drawing
                pad=3,
                fontweight="bold" if weakness else "normal",
            )
            tidy(axis, letters)
            if spacious:  # else curves matter more than captions
                caption = wrapped(caption_of(curve), width, letters - 1)
                axis.set_xlabel(caption, fontsize=letters - 1, color="0.3", labelpad=2)
        for axis in axes.flat[n:]:
            axis.set_axis_off()
        for axis in axes.flat[max(n - columns, 0) : n]:
            axis.tick_params(labelbottom=True)
        self.ax_.locator_params(axis="y", nbins=3 if spacious else 1, min_n_ticks=1)
        self._end(value)
        set_severities(self.ax_, curves, width)
        place.figure.supxlabel("severity", fontsize=letters)
        place.figure.supylabel(self._label(value), fontsize=letters)
        weakest = {self._weakness(name): axis for name, axis in self.axes_.items()}
        names = ("within chance", "beyond chance *", f"{self._margin} **")
        handles = [
            handle(names[k], color=_BY_WEAKNESS[k], marker="o", markersize=3)
            for k in sorted(weakest, reverse=True)
        ]
        handles += shared_handles(self.report.confidence_level)
        for name, look in zip(
            fitted_apart(list(classes), 1.6, letters), classes.values(), strict=True
        ):
            handles.append(handle(f"recall of {name}", **look))
        left_out = 0 if table is None else table["class"].nunique() - len(classes)
        place.head(self._title(curves, left_out), handles, letters)
        return self

    def _plot_together(self, curves: dict[str, pd.DataFrame], value, line_kw, ax):
        place = place_of("RobustnessDisplay", ax, (6.4, 4.6))
        self.ax_, self.figure_ = place.figure.subplots(), place.whole
        self.axes_ = dict.fromkeys(curves, self.ax_)
        letters, handles = place.letters(), []
        draw_start(self.ax_, next(iter(curves.values())))
        once = [name for name, curve in curves.items() if curve["x"].isna().all()]
        for n, (name, curve) in enumerate(curves.items()):
            look = {"color": _COLOURS[n], "linestyle": _DASHES[n], "linewidth": 1.9}
            look |= {"marker": _MARKERS[n], **line_kw}
            beside = 1.0 + 0.1 * (once.index(name) + 1) if name in once else 1.0
            draw_curve(self.ax_, curve, look, beside)
            label = f"{name} {'*' * self._weakness(name)}".rstrip()
            handles.append(handle(f"{label} ({caption_of(curve)})", **look))
        tidy(self.ax_, letters)
        self.ax_.set_xlabel("severity", fontsize=letters)
        self.ax_.set_ylabel(self._label(value), fontsize=letters)
        self._end(value)
        set_severities(self.ax_, curves, 0.85 * place.width)
        handles += shared_handles(self.report.confidence_level)
        place.head(self._title(curves), handles, letters)
        return self

    def _end(self, value: str) -> None:
        """Let the axis of scores end where they do."""
        if value == "score":
            end_at(self.ax_, "y", self._limits)

    def _curve(self, rows: pd.DataFrame, clean: float, value: str) -> pd.DataFrame:
        """Return ``x``, ``value``, ``low``, ``high`` and ``amount`` by severity."""
        start, unit = clean, -1.0
        if value == "drop":
            start, unit = 0.0, self._unit
        rows = rows.iloc[np.argsort(rows[_SEVERITY].to_numpy(), kind="stable")]
        names = {"value": "drop", "low": "low", "high": "high"}
        table: dict[str, Any] = {
            k: start + unit * rows[name].to_numpy() for k, name in names.items()
        }
        if value == "score":
            for name in ("low", "high"):
                table[name] = table[name].clip(*self._limits)
        table |= {"x": rows[_SEVERITY].to_numpy(), "amount": rows.get("amount", "")}
        curve = pd.DataFrame(table).reset_index(drop=True)
        curve.attrs["start"] = start
        return curve

    @property
    def _unit(self) -> float:
        """What a drop is multiplied by: that of a share is said in points."""
        return 100.0 if self._limits == (0, 1) else 1.0

    @property
    def _limits(self) -> tuple[float, float]:
        scores = [self.report.clean_score, *self.report.table["score"]]
        return limits_of(self.report.scoring, scores)

    def _label(self, value: str) -> str:
        if value == "score":
            return plain(self.report.scoring)
        return "drop, points" if self._unit == 100 else "drop"

    @property
    def _margin(self) -> str:
        margin = f"beyond {self._unit * self.report.margin:g}"
        return f"{margin} points" if self._unit == 100 else margin

    def _weakness(self, name: str) -> int:
        """Return 2 for a drop beyond the margin, 1 for one beyond chance, else 0."""
        low = self.report.table.loc[self.report.table[_NAME] == name, "low"]
        return int((low > 0).any()) + int((low > self.report.margin).any())

    def _title(self, names: Any, left_out: int = 0) -> str:
        report = self.report
        said = f"{report.scoring} {report.clean_score:.3f} on the images as they are"
        if report.n_images:
            said += f" ({report.n_images:,})"
        found = report.weaknesses[_NAME]  # the largest drop first
        weak = list(dict.fromkeys(found[found.isin(names)]))
        severe = f"{self._margin.capitalize()} (**)"
        for text, degree in ((severe, 2), ("Beyond chance (*)", 1)):
            chosen = [name for name in weak if self._weakness(name) == degree]
            if chosen:
                said += f". {text}: {', '.join(chosen[:_NAMED])}"
                more = len(chosen) - _NAMED
                said += f" and {more} more" if more > 0 else ""
        said += "." if weak else ". No drop is beyond chance."
        if left_out:
            said += f" {left_out} classes that fall less are not drawn."
        return said

    def _classes(self) -> dict[Any, dict]:
        """Return the looks of the classes that fall most, in their order."""
        table = self.report.classes
        if table is None:
            return {}
        falls = table.groupby("class", sort=False)["drop"].max()
        order = falls.sort_values(ascending=False, kind="stable").index
        most = {*order[: len(_CLASS_COLOURS)]}
        drawn = [label for label in falls.index if label in most]
        looks = zip(_CLASS_COLOURS, _DASHES[1:], strict=False)
        return {
            label: {"color": colour, "linestyle": dashes, "linewidth": 1.2}
            for label, (colour, dashes) in zip(drawn, looks, strict=False)
        }
