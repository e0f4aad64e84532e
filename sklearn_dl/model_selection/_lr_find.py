"""Learning-rate range test: one short training with growing rates."""

import math
import warnings
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, validate_params

from sklearn_dl._plots import BLUE, VERMILLION, end_at, import_pyplot, limits_of
from sklearn_dl.model_selection._regimes import NETWORKS
from sklearn_dl.training import BatchLosses, Optimizer

_POSITIVE = Interval(Real, 0, None, closed="neither")


@dataclass(eq=False)
class LearningRateFinder:
    """Curve of a learning-rate range test by `lr_find`, with the rates it suggests.

    Attributes
    ----------
    lrs_ : ndarray of float64, shape (n_steps_done,)
        The rate of the head in each step, growing.
    losses_ : ndarray of float64, shape (n_steps_done,)
        The training loss of each step's batch, before the step.
    smoothed_ : ndarray of float64, shape (n_steps_done,)
        Their running mean, which lags about four steps behind them.
    suggestion_ : float or None
        ``suggestions_["steepest"]``.
    suggestions_ : dict of str to float or None
        ``"steepest"``: the middle of the decade of rates over which the loss falls
        fastest, before the lowest point of the running mean. ``"minimum"``: a tenth of
        the rate at that point, usually larger. Both None where the loss never fell.
    ax_, figure_ : matplotlib's Axes and Figure
        Where `plot` drew.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl.model_selection import LearningRateFinder
    >>> lrs = np.geomspace(1e-4, 1e0, 41)
    >>> losses = 1 / (1 + np.exp(2 * np.log10(lrs / 1e-2))) + lrs**2
    >>> finder = LearningRateFinder(lrs, losses, losses)
    >>> round(finder.suggestion_, 4)
    0.01
    """

    lrs_: np.ndarray
    losses_: np.ndarray
    smoothed_: np.ndarray
    suggestions_: dict[str, float | None] = field(init=False)
    ax_: Any = field(init=False, default=None, repr=False)
    figure_: Any = field(init=False, default=None, repr=False)

    def __post_init__(self):
        self.suggestions_ = _suggestions(self.lrs_, self.losses_, self.smoothed_)

    @property
    def suggestion_(self) -> float | None:
        """The rate to train with."""
        return self.suggestions_["steepest"]

    def plot(self, ax=None) -> "LearningRateFinder":
        """Draw the losses, their running mean and the suggestions.

        A dot is the lowest point of the running mean, the dashed line a tenth of its
        rate.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        self : LearningRateFinder

        Raises
        ------
        ImportError
            If matplotlib is missing: ``pip install 'sklearn_dl[plots]'``.
        """
        pyplot = import_pyplot("plot")
        if ax is None:
            _, ax = pyplot.subplots()
        ax.plot(self.lrs_, self.losses_, ".", color="0.7", label="batch")
        ax.plot(self.lrs_, self.smoothed_, color=BLUE, label="running mean")
        if self.suggestion_ is not None:
            lowest = np.nanargmin(self.smoothed_)
            rate, loss = self.lrs_[lowest], self.smoothed_[lowest]
            ax.plot(rate, loss, "o", color=VERMILLION, label=f"minimum: {rate:.2g}")
            for label, style in (("steepest", "-"), ("minimum / 10", "--")):
                rate = self.suggestions_[label.split()[0]]
                look = {"color": VERMILLION, "linestyle": style}
                ax.axvline(rate, label=f"{label}: {rate:.2g}", **look)
        # The explosion at the end would flatten the rest.
        finite = self.smoothed_[np.isfinite(self.smoothed_)]
        if len(finite):
            low, high = finite.min(), max(finite[0], np.median(finite))
            margin = 0.5 * (high - low) or 0.5
            ax.set_ylim(low - margin, high + margin)
            end_at(ax, "y", limits_of("loss", self.losses_))
        ax.set(xscale="log", xlabel="Learning rate of the head", ylabel="Training loss")
        ax.legend()
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _suggestions(lrs, losses, smoothed) -> dict[str, float | None]:
    """Return the rates that a curve suggests."""
    nothing: dict[str, float | None] = {"steepest": None, "minimum": None}
    if not np.isfinite(smoothed).any():
        return nothing
    lowest = int(np.nanargmin(smoothed))
    if lrs[lowest] < 10 * lrs[0]:
        return nothing  # what rises after the first decade fell by chance
    x = np.log10(lrs[: lowest + 1])
    slopes: dict[int, float] = {}
    for i in range(lowest + 1):
        near = np.abs(x - x[i]) <= 0.5 + 1e-9
        # Half a decade to the left must be there; to the right it may turn first.
        if x[i] - x[0] >= 0.5 - 1e-9 and near.sum() > 2:
            slopes[i] = np.polyfit(x[near], losses[: lowest + 1][near], 1)[0]
    if not slopes or min(slopes.values()) >= 0:
        return nothing
    steepest = min(slopes, key=slopes.__getitem__)
    return {"steepest": float(lrs[steepest]), "minimum": float(lrs[lowest]) / 10}


@validate_params(
    {
        "estimator": NETWORKS,
        "lr_min": [_POSITIVE],
        "lr_max": [_POSITIVE],
        "n_steps": [Interval(Integral, 10, None, closed="left")],
        "divergence": [Interval(Real, 1, None, closed="neither")],
    },
    prefer_skip_nested_validation=False,
)
def lr_find(
    estimator,
    X,
    y,
    *,
    lr_min=1e-6,
    lr_max=10.0,
    n_steps=100,
    divergence=4.0,
    sample_weight=None,
) -> LearningRateFinder:
    """Find a learning rate by a short training whose rate grows at every step [1]_.

    A clone is trained. Its rate grows geometrically; that of the backbone keeps its
    ratio to it. There is no warm-up of the head, no early stopping and no validation;
    of the estimator's `callbacks` only those that add a term to the loss take part. All
    else is the estimator's own.

    Parameters
    ----------
    estimator : ImageClassifier or ImageRegressor
        With the optimiser and the regime that the rate is for.
    X : images, in any form that `fit` takes
    y : array-like of shape (n,) or (n, n_outputs)
    lr_min, lr_max : float, default=1e-6 and 10.0
        Rates of the head in the first and the last step.
    n_steps : int, default=100
        Number of steps, at least 10 and two for each decade of rates. Few rows are gone
        through several times.
    divergence : float, default=4.0
        Training ends once the running mean of the losses is above this many times its
        best.
    sample_weight : array-like of shape (n,), default=None

    Returns
    -------
    LearningRateFinder

    Raises
    ------
    ValueError
        If a parameter is not valid, or `fit` would refuse X or y.

    Warns
    -----
    ConvergenceWarning
        If the loss never fell, so that there is no suggestion.

    Notes
    -----
    Losses of single batches are noisy: another ``random_state`` may move the
    suggestion by a factor of 2 or 3. It is a start for a search, not its end. The
    head of a regressor on a frozen backbone starts where ridge regression ends: its
    curve is flat until it rises, there may be no suggestion, and the default is right.

    References
    ----------
    .. [1] L. N. Smith, "Cyclical learning rates for training neural networks", WACV,
       2017.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.model_selection import lr_find
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 128, (32, 32, 32, 3), "uint8")
    >>> images[16:] += 100
    >>> model = ImageClassifier(
    ...     "mobilenet_v3_small", weights="builtin", image_size=32, batch_size=16,
    ...     random_state=0,
    ... )
    >>> finder = lr_find(model, images, ["dark"] * 16 + ["light"] * 16)
    >>> 1e-5 < finder.suggestion_ < 1e-1
    True
    >>> model = model.set_params(lr=finder.suggestion_)
    """
    if lr_min >= lr_max:
        raise ValueError(f"lr_min={lr_min} must be below lr_max={lr_max}.")
    decades = np.log10(lr_max / lr_min)
    if n_steps < 2 * decades + 1:
        raise ValueError(
            f"n_steps={n_steps} is too few for the {decades:.1f} decades from "
            f"{lr_min:g} to {lr_max:g}: take {math.ceil(2 * decades + 1)} or more."
        )
    recorder = BatchLosses(n_steps, divergence=divergence)
    rates = np.geomspace(lr_min, lr_max, n_steps)
    model = clone(estimator)
    lr = model.lr or Optimizer.of(model.optimizer).default_lr
    own = [c[1] if isinstance(c, tuple) else c for c in model.callbacks or ()]
    off = {"warmup_epochs": 0, "early_stopping": False, "warm_start": False}
    model.set_params(
        # The schedule multiplies all rates, so the backbone's keep their ratio.
        schedule=lambda step, _: float(rates[min(step, n_steps - 1)]) / lr,
        callbacks=[*(c for c in own if hasattr(c, "loss_term")), recorder],
        max_epochs=n_steps,  # of at least one step each; the recorder ends training
        verbose=0,
        **off,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is to diverge
        model.fit(X, y, sample_weight=sample_weight)
    columns = (recorder.lrs_, recorder.losses_, recorder.smoothed_)
    finder = LearningRateFinder(*map(np.array, columns))
    if finder.suggestion_ is None:
        warnings.warn(
            f"The loss never fell between the rates {lr_min:g} and {lr_max:g}, so "
            "there is no suggestion: lower lr_min, take more steps, or, where a "
            "regressor's head starts near its goal, keep the default rate.",
            ConvergenceWarning,
            stacklevel=3,
        )
    return finder
