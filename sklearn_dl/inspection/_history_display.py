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
    limits_of,
    place_of,
    plain,
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
_GROUND = "#DDDDDD"
_MARKED = 40  # epochs up to which each one has a dot
_WIDE = 30.0  # a largest loss of as many times the smallest is drawn on a log scale


class TrainingHistoryDisplay:
    """Picture of a training: losses, scores and learning rates over its epochs.

    Panels under each other: the loss; the accuracy (top 1, and top 5 above 5 classes);
    what `scoring` measured, where it is something else; and the learning rates on a
    logarithmic scale. A green line marks the epoch whose weights early stopping kept
    (without it they are those at the end), a dotted one the end of a training that
    stopped before its last epoch, and grey ground the epochs in which the head was
    trained alone, before the backbone was unfrozen. Hatched are epochs whose loss was
    no finite number. The heading says why training ended, and where it diverged.

    Make one with `from_estimator` or `from_history`.

    Parameters
    ----------
    history : DataFrame
        One row per epoch, with ``train_loss``; drawn, where it has them, are
        ``epoch``, ``valid_loss``, ``valid_score``, ``train_top1``, ``valid_top1``,
        ``train_top5``, ``valid_top5``, ``lr`` and ``backbone_lr`` (0 while the head is
        trained alone).
    best_epoch : int, default=None
        The epoch whose weights were kept.
    stop_reason : str, default=""
        Why training ended.
    max_epochs : int, default=None
        Epochs that were asked for.
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

    See Also
    --------
    sklearn_dl.training.diagnose : What went wrong, in words.

    Examples
    --------
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> from sklearn_dl.inspection import TrainingHistoryDisplay
    >>> history = pd.DataFrame(
    ...     {"train_loss": [0.7, 0.4], "valid_loss": [0.6, 0.5], "lr": [0.01, 0.01]}
    ... )
    >>> display = TrainingHistoryDisplay.from_history(
    ...     history, best_epoch=2, ax=Figure().add_subplot()
    ... )
    >>> list(display.axes_)
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
            raise ValueError(
                "history has no epoch: training ended within its first one."
            )
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
        scoring, reason = params["scoring"], estimator.stop_reason_
        if scoring is None:
            scoring = "accuracy" if hasattr(estimator, "classes_") else "R²"
        display = cls(
            estimator.history_,
            best_epoch=getattr(estimator, "best_epoch_", None),
            stop_reason=reason,
            max_epochs=params["max_epochs"],
            score_name=getattr(scoring, "__name__", str(scoring)),
        )
        return display.plot(ax=ax)

    @classmethod
    def from_history(
        cls,
        history: pd.DataFrame,
        *,
        best_epoch: int | None = None,
        stop_reason: str = "",
        max_epochs: int | None = None,
        score_name: str = "score",
        ax=None,
    ) -> "TrainingHistoryDisplay":
        """Draw a history.

        Parameters
        ----------
        history, best_epoch, stop_reason, max_epochs, score_name
            As in `TrainingHistoryDisplay`.
        ax : matplotlib Axes, default=None
            See `plot`.

        Returns
        -------
        TrainingHistoryDisplay
            Drawn.
        """
        display = cls(
            history,
            best_epoch=best_epoch,
            stop_reason=stop_reason,
            max_epochs=max_epochs,
            score_name=score_name,
        )
        return display.plot(ax=ax)

    def plot(self, *, line_kw: dict | None = None, ax=None) -> "TrainingHistoryDisplay":
        """Draw.

        Parameters
        ----------
        line_kw : dict, default=None
            Passed to matplotlib's `plot` for each curve.
        ax : matplotlib Axes, default=None
            A subplot, which is divided into the panels. None makes a new figure.

        Returns
        -------
        TrainingHistoryDisplay
            This one.

        Raises
        ------
        ImportError
            If matplotlib is missing.
        ValueError
            If ax is not a subplot.
        """
        parts, epochs = self._parts(), self._epochs
        size = (7.0, 1.0 + 1.5 * len(parts))
        place = place_of("TrainingHistoryDisplay", ax, size)
        axes = place.figure.subplots(len(parts), 1, squeeze=False, sharex=True)[:, 0]
        self.axes_ = dict(zip(parts, axes, strict=True))
        self.ax_, self.figure_ = axes[0], place.whole
        letters = place.letters(1, len(parts))
        for (part, columns), axis in zip(parts.items(), axes, strict=True):
            self._draw(axis, columns, line_kw or {})
            self._mark(axis)
            values = self.history[list(columns)].to_numpy(dtype=float)
            log = part == "rates" or (part == "loss" and self._wide)
            if log:
                _whole_decades(axis, values, few=place.height < len(parts))
            else:
                axis.margins(y=0.12)
                score = self.score_name if part == "score" else part
                end_at(axis, "y", limits_of(score, values))
                axis.yaxis.get_major_locator().set_params(min_n_ticks=1)
            names = {"score": self.score_name, "rates": "learning rate"}
            name = plain(names.get(part, part)) + (", log scale" if log else "")
            axis.set_title(name, loc="left", fontsize=letters, y=1.0, pad=3)
            axis.grid(axis="y", color="0.92")
            tidy(axis, letters)
        axes[-1].set_xlabel("epoch", fontsize=letters)
        axes[-1].set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes[-1].xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        named: dict[str, Any] = {}  # each look once
        for axis in axes:
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
                named.setdefault(label, handle)
        place.head(self._title(), list(named.values()), letters)
        return self

    @property
    def _epochs(self) -> np.ndarray:
        if "epoch" in self.history:
            return self.history["epoch"].to_numpy(dtype=int)
        return np.arange(1, len(self.history) + 1)

    @property
    def _alone(self) -> int | None:
        """The last epoch in which the head was trained alone before the rest was."""
        if "backbone_lr" not in self.history:
            return None
        trained = np.flatnonzero(self.history["backbone_lr"].to_numpy(dtype=float) > 0)
        if not len(trained) or trained[0] == 0:
            return None
        return int(self._epochs[trained[0] - 1])

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

    @property
    def _wide(self) -> bool:
        """Whether losses are so far apart that they need a log scale."""
        losses = self.history.filter(list(_PANELS["loss"])).to_numpy(dtype=float)
        losses = losses[np.isfinite(losses)]
        return len(losses) > 0 and 0 < _WIDE * losses.min() < losses.max()

    def _parts(self) -> dict[str, dict[str, tuple[str, str, str]]]:
        """Return the panels: which columns each one has, and their looks."""
        history = self.history
        found = {
            part: {name: look for name, look in columns.items() if name in history}
            for part, columns in _PANELS.items()
        }
        if (
            self.score_name in ("accuracy", "score")
            and {"valid_score", "valid_top1"} <= {*history}
            and np.array_equal(
                history["valid_score"], history["valid_top1"], equal_nan=True
            )
        ):
            found["score"] = {}  # it is drawn as the accuracy
        return {part: columns for part, columns in found.items() if columns}

    def _title(self) -> str:
        last = int(self._epochs[-1])
        said = f"Trained for {last} epoch{'s' if last > 1 else ''}"
        if self._stopped:
            said = f"Trained for {last} of at most {self.max_epochs} epochs"
        if self.stop_reason:
            said = f"{said}: {self.stop_reason}"
        if len(self._diverged):
            said += f". Diverged: no finite loss in epoch {self._diverged[0]}"
        return said

    def _mark(self, ax) -> None:
        epochs, alone, bad = self._epochs, self._alone, self._diverged
        if self.best_epoch is not None:
            label = f"weights kept: epoch {self.best_epoch}"
            look: dict[str, Any] = {"color": GREEN, "linewidth": 3, "alpha": 0.6}
            ax.axvline(self.best_epoch, **look, zorder=1, label=label)
        if alone is not None:
            label = f"head alone; unfrozen after epoch {alone}"
            look = {"color": _GROUND, "linewidth": 0, "zorder": 0}
            ax.axvspan(epochs[0] - 0.5, alone + 0.5, **look, label=label)
        if self._stopped:
            label = f"stopped after epoch {epochs[-1]}"
            ax.axvline(epochs[-1], color=BLACK, linestyle=":", zorder=1, label=label)
        if len(bad):
            look = {"facecolor": "none", "edgecolor": SKY_BLUE, "hatch": "///"}
            for run in np.split(bad, np.flatnonzero(np.diff(bad) > 1) + 1):
                span = (run[0] - 0.5, run[-1] + 0.5)
                ax.axvspan(*span, **look, linewidth=0, zorder=0, label="no finite loss")

    def _draw(self, ax, columns: dict[str, Any], line_kw: dict) -> None:
        epochs = self._epochs
        for column, (label, colour, style) in columns.items():
            values = self.history[column].to_numpy(dtype=float)
            shown = np.isfinite(values)
            if column in _PANELS["rates"]:
                shown &= values > 0
            look: dict[str, Any] = {"color": colour, "linestyle": style, "label": label}
            look |= {"marker": "o" if len(epochs) <= _MARKED else "", "linewidth": 1.6}
            look |= {"markersize": 3.5 if len(epochs) > 3 else 5}
            ax.plot(epochs, np.where(shown, values, np.nan), **{**look, **line_kw})


def _whole_decades(ax: Any, values: np.ndarray, few: bool) -> None:
    """Make a log scale of whole decades, so that it has numbers, or few: two."""
    from matplotlib.ticker import FixedLocator, NullLocator

    ax.set_yscale("log")
    ax.yaxis.set_minor_locator(NullLocator())
    values = np.log10(values[np.isfinite(values) & (values > 0)])
    if len(values):
        ends = (
            10.0 ** np.floor(values.min() - 0.1),
            10.0 ** np.ceil(values.max() + 0.1),
        )
        ax.set_ylim(ends)
        if few:  # matplotlib before 3.11 writes its numbers over each other
            ax.yaxis.set_major_locator(FixedLocator(ends))
