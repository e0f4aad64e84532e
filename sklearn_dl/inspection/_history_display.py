"""The history of a training as a picture."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError

from sklearn_dl._plots import (
    BLACK,
    BLUE,
    GREEN,
    PURPLE,
    SKY_BLUE,
    VERMILLION,
    end_at,
    figure_of,
    head,
    letters_in,
    limits_of,
    plain,
    size_of,
    tidy,
)

# The columns of each panel: their names, colours and lines.
_PANELS: dict[str, dict[str, tuple[str, str, str]]] = {
    "loss": {
        "train_loss": ("training", BLUE, "-"),
        "valid_loss": ("validation", VERMILLION, "-"),
    },
    "accuracy": {
        "train_top1": ("training", BLUE, "-"),
        "valid_top1": ("validation", VERMILLION, "-"),
        "train_top5": ("training, top 5", BLUE, "--"),
        "valid_top5": ("validation, top 5", VERMILLION, "--"),
    },
    "score": {"valid_score": ("validation", VERMILLION, "-")},
    "rates": {
        "lr": ("rate of the head", BLACK, "-"),
        "backbone_lr": ("rate of the backbone", PURPLE, "--"),
    },
}
_WIDE = 30.0  # a largest loss of as many times the smallest is drawn on a log scale


class TrainingHistoryDisplay:
    """Picture of a training: losses, scores and learning rates over its epochs.

    Panels under each other: the loss; the accuracy (top 1, and top 5 above 5 classes);
    what `scoring` measured, where it is something else; and the learning rates on a
    logarithmic scale. A green line marks the epoch whose weights early stopping kept
    (without it they are those at the end), a dotted one the end of a training that
    stopped before its last epoch, and grey ground the epochs in which the head was
    trained alone. Hatched are epochs whose loss was no finite number. The heading says
    why training ended, and where it diverged.

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
    ax_ : matplotlib Axes
        The panel of the loss.
    figure_ : matplotlib Figure

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
        self.history = history
        self.best_epoch = best_epoch
        self.stop_reason = stop_reason
        self.max_epochs = max_epochs
        self.score_name = score_name

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax=None) -> "TrainingHistoryDisplay":
        """Draw how a fitted estimator was trained.

        Parameters
        ----------
        estimator : ImageClassifier or ImageRegressor
            Fitted.
        ax : matplotlib Axes, default=None
            See `plot`.

        Returns
        -------
        TrainingHistoryDisplay
            Drawn.

        Raises
        ------
        TypeError, NotFittedError
            If it is another kind of estimator, or `fit` was not called.
        """
        params = estimator.get_params() if hasattr(estimator, "get_params") else {}
        if not {"backbone", "max_epochs"} <= params.keys():
            raise TypeError(
                "TrainingHistoryDisplay takes an ImageClassifier or ImageRegressor, "
                f"got {type(estimator).__name__}; of a search give best_estimator_, of "
                "a pipeline its last step."
            )
        if not hasattr(estimator, "history_"):
            raise NotFittedError(
                f"This {type(estimator).__name__} is not fitted: call fit first."
            )
        scoring = params["scoring"]
        if scoring is None:
            scoring = "accuracy" if hasattr(estimator, "classes_") else "R²"
        display = cls(
            estimator.history_,
            best_epoch=getattr(estimator, "best_epoch_", None),
            stop_reason=estimator.stop_reason_,
            max_epochs=params["max_epochs"],
            score_name=getattr(scoring, "__name__", str(scoring)),
        )
        return display.plot(ax=ax)

    def plot(self, *, line_kw: dict | None = None, ax=None) -> "TrainingHistoryDisplay":
        """Draw.

        Parameters
        ----------
        line_kw : dict, default=None
            Passed to matplotlib's `plot` for each curve.
        ax : matplotlib Axes, default=None
            A subplot, which is divided into the panels; None makes a new figure.

        Returns
        -------
        TrainingHistoryDisplay
            This one.

        Raises
        ------
        ValueError
            If ax is not a subplot.
        """
        history, epochs, panels = self.history, self._epochs, self._panels()
        n = len(panels)
        figure = figure_of("TrainingHistoryDisplay", ax, (7.0, 1.0 + 1.5 * n))
        axes = figure.subplots(n, 1, squeeze=False, sharex=True)[:, 0]
        self.axes_ = dict(zip(panels, axes, strict=True))
        self.ax_, self.figure_ = axes[0], figure.figure
        letters, few = letters_in(figure, 1, n), size_of(figure)[1] < n
        dots: dict[str, Any] = {"linewidth": 1.6, "markersize": 3.5 if n > 3 else 5}
        dots["marker"] = "o" if len(epochs) <= 40 else ""
        names = {"score": self.score_name, "rates": "learning rate"}
        for part, axis in self.axes_.items():
            values = history[list(panels[part])].to_numpy(dtype=float, copy=True)
            values[~np.isfinite(values) | ((values <= 0) & (part == "rates"))] = np.nan
            looks = panels[part].values()
            for curve, (label, colour, style) in zip(values.T, looks, strict=True):
                look = {"color": colour, "linestyle": style, "label": label, **dots}
                axis.plot(epochs, curve, **{**look, **(line_kw or {})})
            self._mark(axis)
            known, name = values[~np.isnan(values)], plain(names.get(part, part))
            wide = len(known) and 0 < _WIDE * known.min() < known.max()
            if len(known) and (part == "rates" or (part == "loss" and wide)):
                _scale_by_decades(axis, known, few)
                name += ", log scale"
            else:
                axis.margins(y=0.12)
                score = self.score_name if part == "score" else part
                end_at(axis, "y", limits_of(score, known))
                axis.yaxis.get_major_locator().set_params(min_n_ticks=1)
            axis.set_title(name, loc="left", fontsize=letters, y=1.0, pad=3)
            axis.grid(axis="y", color="0.92")
            tidy(axis, letters)
        axes[-1].set_xlabel("epoch", fontsize=letters)
        axes[-1].set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes[-1].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        head(figure, self._title(), letters)
        return self

    @property
    def _epochs(self) -> np.ndarray:
        numbers = pd.Series(range(1, len(self.history) + 1))
        return np.asarray(self.history.get("epoch", numbers), dtype=int)

    @property
    def _stopped(self) -> bool:
        """Whether training ended before it was to."""
        return self.max_epochs is not None and self._epochs[-1] < self.max_epochs

    @property
    def _diverged(self) -> np.ndarray:
        """The epochs whose loss is no finite number."""
        bad = ~np.isfinite(self.history["train_loss"].to_numpy(dtype=float))
        if "valid_loss" in self.history:  # NaN where an epoch wasn't validated
            bad |= np.isinf(self.history["valid_loss"].to_numpy(dtype=float))
        return self._epochs[bad]

    def _panels(self) -> dict[str, dict[str, tuple[str, str, str]]]:
        """Return the columns that each panel has, and their looks."""
        history, score = self.history, self.history.get("valid_score")
        found = {
            part: {name: look for name, look in columns.items() if name in history}
            for part, columns in _PANELS.items()
        }
        drawn = score is not None and score.equals(history.get("valid_top1"))
        if drawn and self.score_name in ("accuracy", "score"):
            del found["score"]  # it is drawn as the accuracy
        return {part: columns for part, columns in found.items() if columns}

    def _title(self) -> str:
        last = self._epochs[-1]
        said = f"Trained for {last} epoch{'s' if last > 1 else ''}"
        if self._stopped:
            said = f"Trained for {last} of at most {self.max_epochs} epochs"
        if self.stop_reason:
            said = f"{said}: {self.stop_reason}"
        if len(self._diverged):
            said += f". Diverged: no finite loss in epoch {self._diverged[0]}"
        return said

    def _mark(self, ax) -> None:
        epochs, bad = self._epochs, self._diverged
        if self.best_epoch is not None:
            look: dict[str, Any] = {"color": GREEN, "linewidth": 3, "alpha": 0.6}
            look["label"] = f"weights kept: epoch {self.best_epoch}"
            ax.axvline(self.best_epoch, zorder=1, **look)
        if "backbone_lr" in self.history:
            trained = np.flatnonzero(self.history["backbone_lr"].to_numpy(float) > 0)
            if len(trained) and trained[0] > 0:
                last = epochs[trained[0] - 1]
                look = {"label": f"head alone; unfrozen after epoch {last}"}
                look |= {"color": "0.87", "linewidth": 0, "zorder": 0}
                ax.axvspan(epochs[0] - 0.5, last + 0.5, **look)
        if self._stopped:
            label = f"stopped after epoch {epochs[-1]}"
            ax.axvline(epochs[-1], color=BLACK, linestyle=":", zorder=1, label=label)
        look = {"facecolor": "none", "edgecolor": SKY_BLUE, "hatch": "///"}
        look |= {"linewidth": 0, "zorder": 0, "label": "no finite loss"}
        for run in np.split(bad, np.flatnonzero(np.diff(bad) > 1) + 1):
            if len(run):
                ax.axvspan(run[0] - 0.5, run[-1] + 0.5, **look)


def _scale_by_decades(ax: Any, values: np.ndarray, few: bool) -> None:
    """Draw whole decades on a log scale, with numbers at some or, if few, both ends."""
    ax.set_yscale("log")
    low = np.floor(np.log10(values.min()) - 0.1)
    high = np.ceil(np.log10(values.max()) + 0.1)
    decades = np.arange(low, high + 1)
    step = len(decades) - 1 if few else int(np.ceil(len(decades) / 6))
    ax.set_yticks(10.0 ** decades[::step])
    ax.minorticks_off()
    ax.set_ylim(10.0**low, 10.0**high)
