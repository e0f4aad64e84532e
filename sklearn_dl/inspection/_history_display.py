"""The history of a training as a picture."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.exceptions import NotFittedError

from sklearn_dl._plots import BLACK, BLUE, GREEN, PURPLE, VERMILLION
from sklearn_dl.inspection._panels import decades, few_ticks, legend_above, panels, tidy

_LOSSES = {"train_loss": "training", "valid_loss": "validation"}
_ACCURACIES = {
    "train_top1": "training",
    "valid_top1": "validation",
    "train_top5": "training, top 5",
    "valid_top5": "validation, top 5",
}
_RATES = {"lr": "head", "backbone_lr": "backbone"}
_STYLES: dict[str, tuple[str, str]] = {
    "training": (BLUE, "-"),
    "validation": (VERMILLION, "-"),
    "training, top 5": (BLUE, "--"),
    "validation, top 5": (VERMILLION, "--"),
    "head": (BLACK, "-"),
    "backbone": (PURPLE, "--"),
}
_MARKED = 40  # epochs up to which each one has a dot
_WIDE = 30.0  # a largest loss of as many times the smallest is drawn on a log scale


class TrainingHistoryDisplay:
    """Picture of a training: losses, scores and learning rates over its epochs.

    Panels under each other: the loss; the accuracy (top 1, and top 5 above 5 classes);
    what `scoring` measured, where it is something else; and the learning rates on a
    logarithmic scale. A green line marks the epoch whose weights early stopping kept
    (without it they are those at the end), a dotted one the end of a training that
    stopped before its last epoch, and grey ground the epochs in which the head was
    trained alone, before the backbone was unfrozen. The heading says why training
    ended.

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
        Of the loss.
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
        reason, scoring = estimator.stop_reason_, params["scoring"]
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
        history : DataFrame
            One row per epoch, as ``history_``.
        best_epoch, stop_reason, max_epochs, score_name
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

    def plot(self, *, ax=None) -> "TrainingHistoryDisplay":
        """Draw.

        Parameters
        ----------
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
        parts = self._parts()
        axes, fontsize, cell = panels(
            "TrainingHistoryDisplay",
            ax,
            shape=(len(parts), 1),
            size=(7.0, 0.6 + 1.55 * len(parts)),
            title=self._title(),
            handles=lambda: self._handles(parts["loss"]),
            gap=0.34,
            sharex=True,
        )
        self.axes_ = dict(zip(parts, axes[:, 0], strict=True))
        self.ax_ = self.axes_["loss"]
        self.figure_ = self.ax_.figure
        # Without its title, and its share of what is under the last one.
        height = cell[1] - (0.03 + 0.05 / len(parts)) * fontsize
        steps = few_ticks(height, fontsize)
        for part, axis in self.axes_.items():
            self._draw(axis, parts[part])
            self._mark(axis)
            axis.margins(y=0.12)
            axis.locator_params(axis="y", nbins=steps, min_n_ticks=1)
            name, values = self._name(part), self._positive(list(parts[part]))
            if part == "rates" or (part == "loss" and self._wide(values)):
                name += ", log scale"
                axis.set_yscale("log")
                if len(values):
                    decades(axis, values, max(steps - 1, 1))
            axis.set_title(name, loc="left", fontsize=fontsize, pad=3)
            axis.grid(axis="y", color="0.92")
            axis.set_axisbelow(True)
            tidy(axis, fontsize)
        self._explain(fontsize)
        bottom = axes[-1, 0]
        bottom.set_xlabel("epoch", fontsize=fontsize)
        first, last = self._epochs[0], self._epochs[-1]
        bottom.set_xlim(first - 0.5, last + 0.5)
        bottom.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
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
        rates = np.nan_to_num(self.history["backbone_lr"].to_numpy(dtype=float))
        trained = np.flatnonzero(rates > 0)
        if not len(trained) or trained[0] == 0:
            return None
        return int(self._epochs[trained[0] - 1])

    @property
    def _stopped(self) -> bool:
        """Whether training ended before it was to."""
        asked = self.max_epochs
        return asked is not None and int(self._epochs[-1]) < asked

    def _parts(self) -> dict[str, dict[str, str]]:
        """Return the panels: which columns each one has, and their names."""
        history = self.history
        score = {}
        if "valid_score" in history:
            same = (
                self.score_name in ("accuracy", "score")
                and "valid_top1" in history
                and np.array_equal(
                    history["valid_score"], history["valid_top1"], equal_nan=True
                )
            )
            score = {} if same else {"valid_score": "validation"}
        asked = {
            "loss": _LOSSES,
            "accuracy": _ACCURACIES,
            "score": score,
            "rates": _RATES,
        }
        found = {
            part: {name: label for name, label in names.items() if name in history}
            for part, names in asked.items()
        }
        return {part: names for part, names in found.items() if names}

    def _name(self, part: str) -> str:
        names = {"score": self.score_name, "rates": "learning rate"}
        return names.get(part, part)

    def _positive(self, columns: list[str]) -> np.ndarray:
        values = self.history[columns].to_numpy(dtype=float)
        return values[np.isfinite(values) & (values > 0)]

    def _wide(self, losses: np.ndarray) -> bool:
        """Tell whether losses are so far apart that they need a log scale."""
        below = (self.history.filter(list(_LOSSES)) <= 0).to_numpy().any()
        return len(losses) > 0 and not below and losses.max() > _WIDE * losses.min()

    def _title(self) -> str:
        last = int(self._epochs[-1])
        said = f"Trained for {last} epoch{'s' if last > 1 else ''}"
        if self._stopped:
            said = f"Trained for {last} of at most {self.max_epochs} epochs"
        return f"{said}: {self.stop_reason}" if self.stop_reason else said

    def _handles(self, losses: dict[str, str]) -> list:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        handles: list[Any] = [
            Line2D([], [], color=_STYLES[label][0], label=label)
            for label in losses.values()
        ]
        if self.best_epoch is not None:
            label = f"weights kept: epoch {self.best_epoch}"
            handles.append(Line2D([], [], color=GREEN, linewidth=3, label=label))
        if self._alone is not None:
            label = f"head alone; unfrozen after epoch {self._alone}"
            handles.append(Patch(color=_GROUND, label=label))
        if self._stopped:
            label = f"stopped after epoch {self._epochs[-1]}"
            handles.append(Line2D([], [], color=BLACK, linestyle=":", label=label))
        return handles

    def _explain(self, fontsize: float) -> None:
        """Say what is dashed; the heading tells what the colours are."""
        from matplotlib.lines import Line2D

        rates = self.axes_.get("rates")
        if rates is not None and "backbone_lr" in self.history:
            legend_above(rates, rates.get_legend_handles_labels()[0], fontsize)
        if {"train_top5", "valid_top5"} & set(self.history):
            dashes: dict[str, Any] = {"top 1": "-", "top 5": "--"}
            handles = [
                Line2D([], [], color="0.3", linestyle=style, label=name)
                for name, style in dashes.items()
            ]
            legend_above(self.axes_["accuracy"], handles, fontsize)

    def _draw(self, ax, columns: dict[str, str]) -> None:
        epochs = self._epochs
        for column, label in columns.items():
            colour, style = _STYLES[label]
            values = self.history[column].to_numpy(dtype=float)
            if column in _RATES:
                values = np.where(values > 0, values, np.nan)
            ax.plot(
                epochs,
                np.where(np.isfinite(values), values, np.nan),
                color=colour,
                linestyle=style,
                linewidth=1.6,
                marker="o" if len(epochs) <= _MARKED else "",
                markersize=3.5 if len(epochs) > 3 else 5,
                label=label,
            )

    def _mark(self, ax) -> None:
        if self._alone is not None:
            ax.axvspan(
                self._epochs[0] - 0.5, self._alone + 0.5, color=_GROUND, zorder=0
            )
        if self.best_epoch is not None:
            ax.axvline(self.best_epoch, color=GREEN, linewidth=3, alpha=0.6, zorder=1)
        if self._stopped:
            ax.axvline(self._epochs[-1], color=BLACK, linestyle=":", zorder=1)


_GROUND = "#DDDDDD"
