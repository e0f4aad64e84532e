"""An average of the weights over training."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from numbers import Real
from typing import Any

import torch
from skorch.callbacks import Callback
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sklearn_dl.training._callbacks import check_count


@dataclass(repr=False, eq=False)
class WeightAveraging(Callback):
    """Average of the weights over the steps of training, which predicts.

    After each step ``average = decay * average + (1 - decay) * weights`` [1]_, over
    what is trained then, and over the running statistics of BatchNorm (whole numbers
    are copied). What is unfrozen later joins with its weights after its first step.
    Validation, and all that looks at the network at the end of an epoch, sees the
    average, which stays in the network after training, also where it was interrupted.

    Parameters
    ----------
    decay : float, default=0.999
        Above 0 and below 1; the average reaches back over some ``1 / (1 - decay)``
        steps.
    warmup : bool, default=True
        Whether the decay starts low, or the weights of the first steps would stay in
        a short training: after n steps it is ``min(decay, (1 + n) / (10 + n))``,
        counted anew when something is unfrozen.
    start_epoch : int, default=1
        The epoch, as counted in the history, from which on weights are averaged.

    References
    ----------
    .. [1] B. T. Polyak and A. B. Juditsky, "Acceleration of stochastic approximation
       by averaging", SIAM Journal on Control and Optimization 30(4), 1992.

    Examples
    --------
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.training import WeightAveraging
    >>> model = ImageClassifier(callbacks=[WeightAveraging(0.99)])
    """

    decay: float = 0.999
    _: KW_ONLY
    warmup: bool = True
    start_epoch: int = 1

    def initialize(self) -> "WeightAveraging":
        """Check the parameters and start from nothing, for a new net."""
        if not isinstance(self.decay, Real) or not 0 < self.decay < 1:
            raise ValueError(f"decay={self.decay!r} must be above 0 and below 1.")
        check_count("start_epoch", self.start_epoch)
        self._forget()
        return self

    def _forget(self) -> None:
        self.average_: dict[str, torch.Tensor] = {}
        self.trained_: dict[str, torch.Tensor] = {}  # while the average is in place
        self.in_place_ = False
        self.steps_ = 0
        self.moving_: dict[str, torch.Tensor] = {}  # what this epoch trains

    def on_epoch_begin(self, net, **kwargs):
        """Put the trained weights back."""
        self.moving_ = {}
        if self.in_place_:
            self.in_place_ = False  # first: an interruption may come between
            _copy(self.trained_, net.module_)
            self.trained_ = {}

    def on_batch_begin(self, net, *, training=False, **kwargs):
        """Validate with the average."""
        if not training:
            self._put_in_place(net)

    def on_batch_end(self, net, *, training=False, **kwargs):
        """Average after a step."""
        if training and net.history[-1, "epoch"] >= self.start_epoch:
            self._average(net.module_)

    def on_epoch_end(self, net, **kwargs):
        """Show the average to whatever looks at the network now."""
        self._put_in_place(net)

    def on_train_end(self, net, **kwargs):
        """Leave the average in the network."""
        self._put_in_place(net)
        self._forget()

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that is resumed needs."""
        trained = dict(self.trained_) if self.in_place_ else {}
        average = dict(self.average_)
        return {"average": average, "trained": trained, "steps": self.steps_}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._forget()
        self.average_ = {name: t.clone() for name, t in state["average"].items()}
        self.trained_ = {name: t.clone() for name, t in state["trained"].items()}
        self.in_place_ = bool(self.trained_)
        self.steps_ = state["steps"]

    @torch.no_grad()
    def _average(self, module: nn.Module) -> None:
        if not self.moving_:
            self.moving_ = _moving(module)
            for name in self.average_.keys() & self.moving_.keys():
                average = self.average_[name]
                self.average_[name] = average.to(self.moving_[name].device)
        joining = self.moving_.keys() - self.average_.keys()
        for name in joining:
            self.average_[name] = self.moving_[name].detach().clone()
        self.steps_ = 0 if joining else self.steps_
        self.steps_ += 1
        decay = float(self.decay)
        if self.warmup:
            decay = min(decay, self.steps_ / (9 + self.steps_))
        floats = [n for n, t in self.moving_.items() if t.is_floating_point()]
        averages = [self.average_[name] for name in floats]
        tensors = [self.moving_[name].detach() for name in floats]
        if floats:
            get_ema_multi_avg_fn(decay)(averages, tensors, None)
        for name in self.moving_.keys() - set(floats):
            self.average_[name].copy_(self.moving_[name])

    def _put_in_place(self, net) -> None:
        if self.average_ and not self.in_place_:
            tensors = _tensors(net.module_)
            self.trained_ = {n: tensors[n].detach().clone() for n in self.average_}
            _copy(self.average_, net.module_)
            self.in_place_ = True


def _moving(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters that are trained, and the buffers that may move."""
    moving: dict = {n: p for n, p in module.named_parameters() if p.requires_grad}
    for name, part in module.named_modules():
        if part.training:  # what is frozen is in eval mode
            moving |= part.named_buffers(name, recurse=False)
    return moving


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


@torch.no_grad()
def _copy(values: Mapping[str, torch.Tensor], module: nn.Module) -> None:
    # In place: the optimiser holds these very tensors.
    tensors = _tensors(module)
    for name, value in values.items():
        tensors[name].copy_(value)
