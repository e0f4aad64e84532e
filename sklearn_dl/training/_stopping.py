"""Stopping rules, beyond a number of epochs and early stopping."""

import copy
import math
import time
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval, validate_parameter_constraints
from skorch.callbacks import Callback

_COUNT = Interval(Integral, 1, None, closed="left")
_POSITIVE = [Interval(Real, 0, None, closed="neither"), None]
_NOT_NEGATIVE = [Interval(Real, 0, None, closed="left"), None]
_NUMBER = [Interval(Real, None, None, closed="neither"), None]


@dataclass(kw_only=True, repr=False, eq=False)
class StoppingRules(Callback):
    """Rules that end a training, and tell which of them did.

    Each rule is off unless its parameter is set, and at least one must be. The
    network keeps the weights it has then; with ``early_stopping=True`` those of the
    best epoch, as always. While the head is trained alone (``warmup_epochs``), the
    rules on improvement and on the gradient don't count.

    Parameters
    ----------
    max_steps : int, default=None
        Training steps (batches). Where they end within an epoch, training does too,
        and the history leaves that epoch out.
    max_seconds : float, default=None
        Seconds of training, validation included; over all runs of one that is
        resumed. Checked before each step and after each epoch.
    target_score : float, default=None
        Ends when ``valid_score`` is at least this. Needs validation rows.
    target_loss : float, default=None
        Ends when `monitor` is at most this.
    min_improvement : float, default=None
        Ends after `n_iter_no_change` epochs in a row whose loss lies less than this
        under the lowest one before, or not under it.
    min_relative_improvement : float, default=None
        The same, relative to the lowest loss before.
    n_iter_no_change : int, default=5
        For the rules on improvement.
    monitor : str, default="train_loss"
        Loss in the history that the rules look at, such as "valid_loss".
    min_grad_norm : float, default=None
        Ends when the mean over an epoch of the norms of the batches' gradients, over
        all parameters together, before clipping, is below this.

    Attributes
    ----------
    reason_ : str
        Why training ended, empty where no rule ended it; as the estimator's
        ``stop_reason_``.

    Raises
    ------
    ValueError
        When training begins: if no rule is set, a value is not valid, or the history
        will not have what a rule looks at.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.training import StoppingRules
    >>> X = np.random.default_rng(0).integers(0, 256, (8, 32, 32), dtype=np.uint8)
    >>> rules = StoppingRules(max_steps=6)
    >>> model = ImageClassifier(
    ...     "mobilenet_v3_small", weights="builtin", image_size=32, max_epochs=9,
    ...     batch_size=4, callbacks=[rules],
    ... ).fit(X, [0, 1] * 4)
    >>> model.n_iter_, rules.reason_
    (3, 'max_steps=6 were taken')
    """

    _parameter_constraints: ClassVar[dict] = {
        "max_steps": [_COUNT, None],
        "max_seconds": _POSITIVE,
        "target_score": _NUMBER,
        "target_loss": _NUMBER,
        "min_improvement": _NOT_NEGATIVE,
        "min_relative_improvement": _NOT_NEGATIVE,
        "n_iter_no_change": [_COUNT],
        "monitor": [str],
        "min_grad_norm": _POSITIVE,
    }

    max_steps: int | None = None
    max_seconds: float | None = None
    target_score: float | None = None
    target_loss: float | None = None
    min_improvement: float | None = None
    min_relative_improvement: float | None = None
    n_iter_no_change: int = 5
    monitor: str = "train_loss"
    min_grad_norm: float | None = None

    def initialize(self):
        """Check the parameters."""
        given = self.get_params(deep=False)
        validate_parameter_constraints(
            self._parameter_constraints, given, caller_name=type(self).__name__
        )
        rules = sorted(set(given) - {"n_iter_no_change", "monitor"})
        if all(given[name] is None for name in rules):
            raise ValueError(f"StoppingRules has no rule: set one of {rules}.")
        return self

    def on_train_begin(self, net, **kwargs):
        """Start from nothing."""
        self.reason_ = ""
        self.steps_ = 0
        self.seconds_ = 0.0  # of the runs before this one
        self.started_ = time.monotonic()
        self.best_: float | None = None
        self.misses_ = {"min_improvement": 0, "min_relative_improvement": 0}
        self.norms_: Any = None

    def on_epoch_begin(self, net, dataset_valid=None, **kwargs):
        """Forget the gradients of the epoch before."""
        self.norms_ = None
        if self.target_score is not None and dataset_valid is None:
            raise ValueError(
                f"target_score={self.target_score} needs validation rows: use "
                "early_stopping=True, or give X_val and y_val."
            )

    def on_batch_begin(self, net, *, training=False, **kwargs):
        """End within an epoch, before a step too many."""
        # Not after the step before: other callbacks have yet to see its end.
        if training and (reason := self._used_up()):
            self.reason_ = net.stop_reason_ = reason
            net.stop_now()

    def on_batch_end(self, net, *, training=False, **kwargs):
        """Count a step."""
        self.steps_ += bool(training)

    def on_grad_computed(self, net, named_parameters, **kwargs):
        """Add up the norms of the gradients; the sum stays on the device."""
        if self.min_grad_norm is None or net.warming_up_:
            return
        gradients = [p.grad for _, p in named_parameters if p.grad is not None]
        norms = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in gradients]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        # float16 skips batches whose gradient overflows.
        finite = torch.isfinite(norm)
        term = torch.stack([torch.where(finite, norm, 0.0), finite.to(norm.dtype)])
        self.norms_ = term if self.norms_ is None else self.norms_ + term

    def on_epoch_end(self, net, **kwargs):
        """Look at the epoch."""
        row = net.history[-1]
        if self.monitor not in row:
            raise ValueError(
                f"monitor={self.monitor!r} of StoppingRules is not in the history; "
                "use 'train_loss', or give validation rows for 'valid_loss'."
            )
        loss = row[self.monitor]
        if not net.warming_up_:
            self._count_misses(loss)
        score = row.get("valid_score", math.nan)
        reason = self._used_up() or self._reached(loss, score) or self._flat()
        if reason:
            self.reason_ = net.stop_reason_ = reason
            net.stop_ = True

    def _used_up(self) -> str:
        if self.max_steps is not None and self.steps_ >= self.max_steps:
            return f"max_steps={self.max_steps} were taken"
        seconds = self._seconds()
        if self.max_seconds is not None and seconds >= self.max_seconds:
            return f"max_seconds={self.max_seconds:g} passed ({seconds:.1f} s)"
        return ""

    def _reached(self, loss: float, score: float) -> str:
        if self.target_score is not None and score >= self.target_score:
            return f"valid_score {score:.4g} reached target_score={self.target_score:g}"
        if self.target_loss is not None and loss <= self.target_loss:
            return f"{self.monitor} {loss:.4g} reached target_loss={self.target_loss:g}"
        return ""

    def _flat(self) -> str:
        for name, misses in self.misses_.items():
            if misses >= self.n_iter_no_change:
                return (
                    f"{self.monitor} improved on its lowest, {self.best_:.4g}, by less "
                    f"than {name}={getattr(self, name):g} in {misses} epochs in a row"
                )
        if self.min_grad_norm is not None and self.norms_ is not None:
            total, count = self.norms_.tolist()
            if count and total / count < self.min_grad_norm:
                return (
                    f"the mean norm of the gradient, {total / count:.3g}, is below "
                    f"min_grad_norm={self.min_grad_norm:g}"
                )
        return ""

    def _count_misses(self, loss: float) -> None:
        """Compare the loss with the lowest before; a loss of nan is a miss."""
        if self.best_ is None:
            self.best_ = math.inf if math.isnan(loss) else loss
            return
        gain = self.best_ - loss
        units = {"min_improvement": 1.0, "min_relative_improvement": abs(self.best_)}
        for name, unit in units.items():
            least = getattr(self, name)
            if least is not None:
                met = gain > 0 and gain >= least * unit
                self.misses_[name] = 0 if met else self.misses_[name] + 1
        self.best_ = loss if loss < self.best_ else self.best_

    def _seconds(self) -> float:
        return self.seconds_ + time.monotonic() - self.started_

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that is resumed needs."""
        state = {name: getattr(self, f"{name}_") for name in self._state}
        return copy.deepcopy({**state, "seconds": self._seconds()})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for name in (*self._state, "seconds"):
            setattr(self, f"{name}_", copy.deepcopy(state[name]))
        self.started_ = time.monotonic()

    _state: ClassVar = ("reason", "steps", "best", "misses")
