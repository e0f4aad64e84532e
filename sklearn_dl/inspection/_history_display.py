"""The history of a training as a picture."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError

from sklearn_dl import _plots

# Panel, label, colour and line of each column.
CURVES = {
    "train_loss": ("loss", "training", _plots.BLUE, "-"),
    "valid_loss": ("loss", "validation", _plots.VERMILLION, "-"),
    "train_top1": ("accuracy", "training", _plots.BLUE, "-"),
    "valid_top1": ("accuracy", "validation", _plots.VERMILLION, "-"),
    "train_top5": ("accuracy", "training, top 5", _plots.BLUE, "--"),
    "valid_top5": ("accuracy", "validation, top 5", _plots.VERMILLION, "--"),
    "valid_score": ("score", "validation", _plots.VERMILLION, "-"),
    "lr": ("rates", "rate of the head", _plots.BLACK, "-"),
    "backbone_lr": ("rates", "rate of the backbone", _plots.PURPLE, "--"),
}
_WIDE = 30.0  # a largest loss of as many times the smallest is drawn on a log scale


class TrainingHistoryDisplay:
    """Picture of a training: losses, scores and learning rates over its epochs.

    Panels under each other: the loss; the accuracy (top 1, and top 5 above 5 classes);
    what `scoring` measured, where it is something else; and the learning rates on a
    logarithmic scale. A green line marks the epoch whose weights early stopping kept
    (without it they are those at the end), a dotted one the end of a training that
    stopped before its last epoch, and grey ground the epochs in which the head was
    trained alone. Hatched are epochs whose loss was no finite number.

    Parameters
    ----------
    history : DataFrame
        One row per epoch, with ``train_loss``; drawn, where it has them, are
        ``epoch``, ``valid_loss``, ``valid_score``, ``train_top1``, ``valid_top1``,
        ``train_top5``, ``valid_top5``, ``lr`` and ``backbone_lr`` (0 while the head is
        trained alone).
    best_epoch, max_epochs : int, default=None
        The epoch whose weights were kept, and how many were asked for.
    stop_reason : str, default=""
        Why training ended.
    score_name : str, default="score"
        What ``valid_score`` is.

    Attributes
    ----------
    axes_ : dict of str to matplotlib Axes
        The panels: "loss", and "accuracy", "score" and "rates" where there are such.
    ax_, figure_ : matplotlib Axes and Figure
        The panel of the loss, and the whole.

    Raises
    ------
    ValueError
        If the history has no epoch, or no ``train_loss``.

    Examples
    --------
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.inspection import TrainingHistoryDisplay
    >>> history = pd.DataFrame({"train_loss": [0.7, 0.4], "lr": [0.01, 0.01]})
    >>> display = TrainingHistoryDisplay(history, best_epoch=2)
    >>> list(display.plot(ax=Figure().add_subplot()).axes_)
    ['loss', 'rates']
    """

    def __init__(
        self,
        history: pd.DataFrame,
        *,
        best_epoch: int | None = None,
        stop_reason: str = "",
        max_epochs: int | None = None,
        score_name: str = "score",
    ):
        if "train_loss" not in history:
            raise ValueError(
                f"history has no column 'train_loss', only {list(history.columns)}."
            )
        if not len(history):
            raise ValueError("history has no epoch: training ended within its first.")
        self.history, self.stop_reason = history, stop_reason
        self.best_epoch, self.max_epochs = best_epoch, max_epochs
        self.score_name = score_name

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax=None) -> "TrainingHistoryDisplay":
        """Return a drawn display of how a fitted estimator was trained.

        Parameters
        ----------
        estimator : ImageClassifier or ImageRegressor
            Fitted.
        ax : matplotlib Axes, default=None
            See `plot`.

        Raises
        ------
        TypeError, NotFittedError
            If it is another kind of estimator, or `fit` was not called.
        """
        name = type(estimator).__name__
        if not (hasattr(estimator, "backbone") and hasattr(estimator, "max_epochs")):
            raise TypeError(
                f"It takes an ImageClassifier or ImageRegressor, got {name}; of a "
                "search give best_estimator_, of a pipeline its last step."
            )
        if not hasattr(estimator, "history_"):
            raise NotFittedError(f"This {name} is not fitted: call fit first.")
        scoring = estimator.scoring
        if scoring is None:
            scoring = "accuracy" if hasattr(estimator, "classes_") else "R²"
        display = cls(
            estimator.history_,
            best_epoch=getattr(estimator, "best_epoch_", None),
            stop_reason=estimator.stop_reason_,
            max_epochs=estimator.max_epochs,
            score_name=getattr(scoring, "__name__", str(scoring)),
        )
        return display.plot(ax=ax)

    def plot(self, *, line_kw: dict | None = None, ax=None) -> "TrainingHistoryDisplay":
        """Draw, and return the display.

        Parameters
        ----------
        line_kw : dict, default=None
            Passed to matplotlib's `plot` for each curve.
        ax : matplotlib Axes, default=None
            A subplot, which is divided into the panels; None makes a new figure.
        """
        epochs, panels = self._epochs, self._panels()
        n = len(panels)
        figure = _plots.figure_of("TrainingHistoryDisplay", ax, (7.0, 1.0 + 1.5 * n))
        axes = figure.subplots(n, 1, squeeze=False, sharex=True)[:, 0]
        self.axes_ = dict(zip(panels, axes, strict=True))
        self.ax_, self.figure_ = axes[0], figure.figure
        letters = _plots.letters_in(figure, 1, n)
        few = _plots.size_of(figure)[1] < 1.2 * n  # numbers have room
        dots: dict[str, Any] = {"linewidth": 1.6, "markersize": 3.5}
        dots["marker"] = "o" if len(epochs) <= 40 else ""
        names = {"score": self.score_name, "rates": "learning rate"}
        for part, axis in self.axes_.items():
            values = self.history[panels[part]].to_numpy(dtype=float, copy=True)
            values[~np.isfinite(values) | ((values <= 0) & (part == "rates"))] = np.nan
            for column, curve in zip(panels[part], values.T, strict=True):
                _, label, colour, style = CURVES[column]
                look = {"color": colour, "linestyle": style, "label": label, **dots}
                axis.plot(epochs, curve, **_plots.options("line", look, line_kw))
            self._mark(axis)
            known, name = values[~np.isnan(values)], names.get(part, part)
            wide = len(known) and 0 < _WIDE * known.min() < known.max()
            if len(known) and (part == "rates" or (part == "loss" and wide)):
                _scale_by_decades(axis, known, few)
                name += ", log scale"
            else:
                axis.margins(y=0.12)
                score = self.score_name if part == "score" else part
                _plots.end_at(axis, "y", _plots.limits_of(score, known))
                axis.yaxis.get_major_locator().set_params(min_n_ticks=1)
            look = {"loc": "left", "fontsize": letters, "y": 1.0, "pad": 3}
            axis.set_title(_plots.plain(name), **look)
            axis.grid(axis="y", color="0.92")
            _plots.tidy(axis, letters)
        axes[-1].set_xlabel("epoch", fontsize=letters)
        axes[-1].set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes[-1].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        _plots.head(figure, self._title(), letters)
        return self

    @property
    def _epochs(self) -> np.ndarray:
        numbers = range(1, len(self.history) + 1)
        return np.asarray(self.history.get("epoch", numbers), dtype=int)

    @property
    def _diverged(self) -> np.ndarray:
        """The epochs whose loss is no finite number."""
        bad = ~np.isfinite(self.history["train_loss"].to_numpy(dtype=float))
        if "valid_loss" in self.history:
            loss = self.history["valid_loss"].to_numpy(dtype=float)
            # An epoch that wasn't validated, as in `partial_fit`, has no score either.
            scores = self.history.filter(regex="^valid_(?!loss$)")
            if not len(scores.columns):
                scores = self.history[["valid_loss"]].ffill()
            seen = scores.notna().any(axis=1).to_numpy()
            bad |= np.isinf(loss) | (np.isnan(loss) & seen)
        return self._epochs[bad]

    def _panels(self) -> dict[str, list[str]]:
        """Return the columns of each panel."""
        history, twice = self.history, ["valid_score", "valid_top1"]
        found: dict[str, list[str]] = {}
        for column, (part, *_) in CURVES.items():
            if column in history:
                found.setdefault(part, []).append(column)
        if {*twice} <= {*history} and self.score_name in ("accuracy", "score"):
            if history[twice[0]].equals(history[twice[1]]):
                del found["score"]  # it is drawn as the accuracy
        return found

    def _title(self) -> str:
        last, most = self._epochs[-1], self.max_epochs
        said = f"Trained for {last} epoch{'s' if last > 1 else ''}"
        if most is not None and last < most:
            said = f"Trained for {last} of at most {most} epochs"
        if self.stop_reason:
            said = f"{said}: {self.stop_reason}"
        if len(self._diverged):
            said += f". Diverged: no finite loss in epoch {self._diverged[0]}"
        return said

    def _mark(self, ax) -> None:
        epochs, bad = self._epochs, self._diverged
        if self.best_epoch is not None:
            look: dict[str, Any] = {"color": _plots.GREEN, "linewidth": 3, "alpha": 0.6}
            label = f"weights kept: epoch {self.best_epoch}"
            ax.axvline(self.best_epoch, label=label, **look)
        rates = self.history.get("backbone_lr", pd.Series(dtype=float)).to_numpy(float)
        alone = int((rates > 0).argmax()) if (rates > 0).any() else 0
        if alone:
            label = f"head alone; unfrozen after epoch {epochs[alone - 1]}"
            look = {"color": "0.87", "linewidth": 0, "zorder": 0}
            ax.axvspan(epochs[0] - 0.5, epochs[alone - 1] + 0.5, label=label, **look)
        if self.max_epochs is not None and epochs[-1] < self.max_epochs:
            label = f"stopped after epoch {epochs[-1]}"
            ax.axvline(epochs[-1], color=_plots.BLACK, linestyle=":", label=label)
        look = {"facecolor": "none", "edgecolor": _plots.SKY_BLUE, "hatch": "///"}
        look |= {"linewidth": 0, "zorder": 0, "label": "no finite loss"}
        for run in np.split(bad, np.flatnonzero(np.diff(bad) > 1) + 1):
            if len(run):
                ax.axvspan(run[0] - 0.5, run[-1] + 0.5, **look)


def _scale_by_decades(ax: Any, values: np.ndarray, few: bool) -> None:
    """Draw whole decades on a log scale, with numbers at some or, if few, both ends."""
    ax.set_yscale("log")
    low = np.floor(np.log10(values.min()) - 0.1)
    high = np.ceil(np.log10(values.max()) + 0.1)
    step = int(high - low) if few else int(np.ceil((high - low + 1) / 6))
    ax.set_yticks(10.0 ** np.arange(low, high + 1)[::step])
    ax.minorticks_off()
    ax.set_ylim(10.0**low, 10.0**high)
