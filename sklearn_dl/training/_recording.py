"""Recording of the loss of every training step."""

import math
from dataclasses import KW_ONLY, dataclass

from skorch.callbacks import Callback


@dataclass(repr=False, eq=False)
class BatchLosses(Callback):
    """Record of the loss and the learning rate of each training step.

    Parameters
    ----------
    n_steps : int or None, default=None
        Ends training after as many steps; None never does.
    smoothing : float, default=0.8
        Weight of the past in the running mean of the losses, at least 0 and below 1.
        The mean is corrected for its start at zero.
    divergence : float or None, default=None
        Ends training when the running mean is no number, or above this many times the
        best one so far; None never does.

    Attributes
    ----------
    lrs_ : list of float
        The head's rate in each step.
    losses_ : list of float
        The loss of each batch, before its step.
    smoothed_ : list of float
        Their running mean.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.training import BatchLosses
    >>> images = np.zeros((40, 32, 32, 3), "uint8")
    >>> losses = BatchLosses(n_steps=3)
    >>> model = ImageClassifier(
    ...     "mobilenet_v3_small", weights="builtin", image_size=32, callbacks=[losses]
    ... )
    >>> _ = model.fit(images, [0, 1] * 20)
    >>> len(losses.losses_)
    3
    """

    n_steps: int | None = None
    _: KW_ONLY
    smoothing: float = 0.8
    divergence: float | None = None

    def on_train_begin(self, net, **kwargs):
        """Start from nothing."""
        self.lrs_: list[float] = []
        self.losses_: list[float] = []
        self.smoothed_: list[float] = []
        self.sum_ = 0.0
        self.best_ = math.inf
        self.lr_ = math.nan

    def on_grad_computed(self, net, **kwargs):
        """Note the rate that the step is about to be taken with."""
        groups = net.optimizer_.param_groups
        self.lr_ = next(g["lr"] for g in groups if g["name"] == "head")

    def on_batch_end(self, net, *, training=False, loss=None, **kwargs):
        """Keep the loss of a training batch; end training when it is time."""
        if not training:
            return
        self.lrs_.append(float(self.lr_))
        self.losses_.append(float(loss.detach()))
        kept = self.smoothing
        self.sum_ = kept * self.sum_ + (1 - kept) * self.losses_[-1]
        mean = self.sum_ / (1 - kept ** len(self.losses_))
        self.smoothed_.append(mean)
        self.best_ = min(self.best_, mean)
        if self.divergence is not None:
            # Written so that losses below zero, which some modules give, do no harm.
            limit = self.best_ + (self.divergence - 1) * abs(self.best_)
            if not mean <= limit:
                net.stop_now("the loss diverged")
        if len(self.losses_) == self.n_steps:
            net.stop_now(f"{self.n_steps} steps")
