"""Learning-rate schedules, computed by torch's schedulers."""

import copy
import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from skorch.callbacks import Callback
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

from sklearn_dl._plain import PlainParameters

SCHEDULES = ("constant", "cosine", "exponential", "one_cycle", "plateau", "step")


@dataclass(repr=False, eq=False)
class Schedule(PlainParameters, BaseEstimator):
    """Change of the learning rates from step to step, or from epoch to epoch.

    Every group of parameters has its own rate, ``lr`` or ``backbone_lr``; a schedule
    multiplies all of them by the same factor. It covers the epochs in which
    everything is trained: with ``warmup_epochs``, it starts after them, and the rate
    of the head is constant while the head is trained alone. Each fit starts it anew.

    Parameters
    ----------
    kind : str or callable, default="cosine"
        - "constant": the rates stay. Nothing is written to the optimizer, so a
          callback can set the rates.
        - "step": per epoch; multiplied by `gamma` every `step_size` epochs.
        - "exponential": per epoch; the rate of epoch k, from 1, is
          ``lr * gamma ** (k - 1)``.
        - "cosine": per step; half a cosine from 1 down to `min_factor` [1]_.
        - "one_cycle": per step; from ``lr / 25`` up to ``lr`` in the first 30 % of
          the steps, then down to almost nothing [2]_. Momentum stays as it is,
          unless `cycle_momentum` is set.
        - "plateau": per epoch; multiplied by `gamma` once `monitor` hasn't improved
          for more than `patience` epochs in a row.
        - a callable ``f(step, n_steps)``: per step; returns the factor. `step`
          counts from 0.
    warmup_lr : float, default=None
        Rate of the head while it is trained alone; None takes ``lr``.
    warmup_steps : int or float, default=0
        Steps in which the rates rise linearly to what the schedule says; a float is a
        fraction of all steps. Not for "one_cycle", which has its own rise, nor for
        "plateau". A cosine begins after them.
    warmup_start : float, default=0.01
        Factor that the rise starts from.
    step_size : int, default=10
        Epochs between the steps of "step".
    gamma : float, default=None
        Factor of "step", "plateau" (None takes 0.1) and "exponential" (0.9).
    min_factor : float, default=0.0
        Lowest factor. Holds for all but the warm-up.
    patience : int, default=3
        Epochs without improvement that "plateau" bears.
    monitor : str, default=None
        Column of the history that "plateau" watches: lower is better where the name
        ends with "loss", else higher. None takes "valid_loss" where there are
        validation rows, else "train_loss".
    cycle_momentum : bool, default=False
        Whether "one_cycle" moves the momentum (Adam's first beta) against the rate,
        from 0.95 to 0.85 and back, as its paper does.

    References
    ----------
    .. [1] Loshchilov, I. and Hutter, F. (2017). SGDR: Stochastic gradient descent
       with warm restarts. ICLR.
    .. [2] Smith, L. N. (2018). A disciplined approach to neural network
       hyper-parameters: Part 1. arXiv:1803.09820.

    Examples
    --------
    >>> from sklearn_dl.training import Schedule
    >>> Schedule("exponential", gamma=0.5).factors(4)
    array([1.   , 0.5  , 0.25 , 0.125])
    >>> Schedule("cosine", warmup_steps=2, warmup_start=0.5).factors(3, 2).round(2)
    array([0.5 , 0.75, 1.  , 0.85, 0.5 , 0.15])
    """

    _parameter_constraints: ClassVar[dict] = {
        "kind": [StrOptions(set(SCHEDULES)), callable],
        "warmup_lr": [Interval(Real, 0, None, closed="neither"), None],
        "warmup_steps": [
            Interval(Integral, 0, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="left"),
        ],
        "warmup_start": [Interval(Real, 0, 1, closed="right")],
        "step_size": [Interval(Integral, 1, None, closed="left")],
        "gamma": [Interval(Real, 0, 1, closed="neither"), None],
        "min_factor": [Interval(Real, 0, 1, closed="both")],
        "patience": [Interval(Integral, 0, None, closed="left")],
        "monitor": [str, None],
        "cycle_momentum": ["boolean"],
    }

    kind: str | Callable[[int, int], float] = "cosine"
    _: KW_ONLY
    warmup_lr: float | None = None
    warmup_steps: int | float = 0
    warmup_start: float = 0.01
    step_size: int = 10
    gamma: float | None = None
    min_factor: float = 0.0
    patience: int = 3
    monitor: str | None = None
    cycle_momentum: bool = False

    def factors(self, n_epochs: int, steps_per_epoch: int = 1) -> np.ndarray:
        """Return the factor of the rates at every step, to look at or to plot.

        The array has n_epochs * steps_per_epoch elements. ValueError where kind is
        "plateau", or a parameter is not valid.
        """
        resolve_schedule(self)
        if self.kind == "plateau":
            raise ValueError(
                "kind='plateau' follows the losses: its factors aren't known before "
                "training."
            )
        plan = _Plan(self, [1.0], n_epochs, steps_per_epoch)
        factors = []
        for _ in range(n_epochs * steps_per_epoch):
            factors.append(plan.rates[0])
            plan.step()
        return np.array(factors)

    def factor_at(self, step: int, n_steps: int, steps_per_epoch: int) -> float:
        """Return the factor of a step, from 0, for the kinds that have a formula."""
        warmup = self.warmup_steps
        if isinstance(warmup, float):
            warmup = round(warmup * n_steps)
        rise = 1.0
        if step < warmup:
            rise = self.warmup_start + (1 - self.warmup_start) * step / warmup
        epoch, factor = step // steps_per_epoch, 1.0
        if callable(self.kind):
            factor = float(self.kind(step, n_steps))
            if not 0 <= factor < math.inf:
                raise ValueError(
                    f"schedule={self.kind!r} gave {factor} at step {step} of "
                    f"{n_steps}: it must give a factor of the rate, 0 or more."
                )
        elif self.kind == "step":
            factor = self._gamma ** (epoch // self.step_size)
        elif self.kind == "exponential":
            factor = self._gamma**epoch
        elif self.kind == "cosine":
            done = max(step - warmup, 0) / max(n_steps - warmup, 1)
            half = (1 + math.cos(math.pi * min(done, 1.0))) / 2
            factor = self.min_factor + (1 - self.min_factor) * half
        return rise * max(factor, self.min_factor)

    @property
    def _gamma(self) -> float:
        if self.gamma is not None:
            return self.gamma
        return 0.9 if self.kind == "exponential" else 0.1


class _Plan:
    """The rates of one phase, by torch's scheduler over stand-ins.

    The scheduler drives an optimizer of its own, so it leaves nothing behind in the
    real one ("initial_lr", a wrapped ``step``).
    """

    def __init__(
        self, schedule: Schedule, rates: list[float], n_epochs: int, epoch_steps: int
    ):
        self.start = list(rates)
        self.n_steps = n_epochs * epoch_steps
        groups = [{"params": [torch.zeros(1)], "lr": rate} for rate in rates]
        self.optimizer = torch.optim.SGD(groups, momentum=0.9)
        self.scheduler: Any = self._scheduler(schedule, epoch_steps)
        self.optimizer.step()  # a scheduler warns when nothing was trained before it

    def _scheduler(self, schedule: Schedule, steps_per_epoch: int):
        lowest = schedule.min_factor
        if schedule.kind == "plateau":
            loss = (schedule.monitor or "loss").endswith("loss")
            return ReduceLROnPlateau(
                self.optimizer,
                mode="min" if loss else "max",
                factor=schedule._gamma,
                patience=schedule.patience,
                min_lr=[lowest * rate for rate in self.start],
                eps=0.0,  # torch's default ignores the small rates of a backbone
            )
        # Torch gives a cycle of one step its last rate, almost nothing.
        if schedule.kind == "one_cycle" and self.n_steps > 1:
            start, end = max(1 / 25, lowest), max(1 / 250_000, lowest)  # as torch's own
            return OneCycleLR(
                self.optimizer,
                max_lr=list(self.start),
                total_steps=self.n_steps,
                cycle_momentum=schedule.cycle_momentum,
                div_factor=1 / start,
                final_div_factor=start / end,
            )
        return LambdaLR(
            self.optimizer,
            lambda step: schedule.factor_at(step, self.n_steps, steps_per_epoch),
        )

    @property
    def rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    @property
    def momentum(self) -> float:
        return self.optimizer.param_groups[0]["momentum"]

    def step(self, *value: float) -> None:
        if not value and self.scheduler.last_epoch + 1 >= self.n_steps:
            return  # the last step was taken: there is no rate after it
        self.scheduler.step(*value)

    def state_dict(self) -> dict[str, Any]:
        parts = {"optimizer": self.optimizer, "scheduler": self.scheduler}
        states = {name: part.state_dict() for name, part in parts.items()}
        return copy.deepcopy({"start": self.start, **states})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(copy.deepcopy(state["scheduler"]))


def resolve_schedule(schedule: str | Callable | Schedule) -> Schedule:
    """Return the `Schedule` that a `schedule` parameter stands for, checked."""
    if isinstance(schedule, type):
        raise ValueError(
            f"schedule={schedule!r} is a class: use {schedule.__name__}(), one of "
            f"{', '.join(SCHEDULES)}, or a callable."
        )
    if not isinstance(schedule, Schedule):
        schedule = Schedule(schedule)
    schedule._validate_params()
    if schedule.warmup_steps and schedule.kind in ("one_cycle", "plateau"):
        raise ValueError(
            f"warmup_steps={schedule.warmup_steps} doesn't go with "
            f"kind={schedule.kind!r}: leave it at 0, or use kind='cosine'."
        )
    return schedule


@dataclass(repr=False, eq=False)
class LearningRates(Callback):
    """Learning rates by a schedule, and a record of those each epoch started with.

    Records ``lr``, the rate of the head, and ``backbone_lr``, the largest one of the
    backbone's stages: 0 while the head is trained alone, absent where the backbone
    is never trained.
    """

    schedule: str | Callable | Schedule = "constant"

    def on_train_begin(self, net, **kwargs):
        """Start from nothing."""
        self.schedule_ = resolve_schedule(self.schedule)
        self.optimizer_: Any = None
        self.plan_: _Plan | None = None
        self.state_: dict[str, Any] = {}  # of a run that is resumed

    def on_epoch_begin(self, net, **kwargs):
        """Begin anew with each new optimizer; record the rates."""
        if net.optimizer_ is not self.optimizer_:
            self.optimizer_ = net.optimizer_
            self.plan_ = self._plan(net)
            if self.plan_ is not None:
                self._apply(net)
        rates: dict[str, list[float]] = {"lr": [], "backbone_lr": []}
        for group in net.optimizer_.param_groups:
            backbone = group["name"].startswith("backbone")
            rates["backbone_lr" if backbone else "lr"].append(float(group["lr"]))
        if net.warming_up_:
            rates["backbone_lr"].append(0.0)
        for name, values in rates.items():
            if values:
                net.history.record(name, max(values))

    def _plan(self, net) -> _Plan | None:
        state, self.state_ = self.state_, {}
        constant = self.schedule_.kind == "constant" and not self.schedule_.warmup_steps
        if net.warming_up_ or constant:
            return None
        # A resumed run may be at the start of a phase: the state is of the one before.
        if net.phase_epoch_ == 0:
            state = {}
        groups = net.optimizer_.param_groups
        rates = state.get("start") or [float(group["lr"]) for group in groups]
        plan = _Plan(self.schedule_, rates, net.phase_epochs_, net.steps_per_epoch_)
        if state:
            plan.load_state_dict(state)
        return plan

    def on_batch_end(self, net, *, training=False, **kwargs):
        """Move on by a step."""
        if training and self.plan_ is not None and self.schedule_.kind != "plateau":
            self.plan_.step()
            self._apply(net)

    def on_epoch_end(self, net, **kwargs):
        """Show the epoch's value to a schedule that watches it."""
        if self.plan_ is None or self.schedule_.kind != "plateau":
            return
        row = net.history[-1]
        default = "valid_loss" if "valid_loss" in row else "train_loss"
        name = self.schedule_.monitor or default
        if name not in row:
            known = [n for n, v in row.items() if isinstance(v, Real)]
            raise ValueError(
                f"monitor={name!r} of the schedule is not in the history, which has "
                f"{', '.join(sorted(known))}."
            )
        self.plan_.step(row[name])
        self._apply(net)

    def _apply(self, net) -> None:
        """Write the rates of the plan into the optimizer."""
        assert self.plan_ is not None
        groups = net.optimizer_.param_groups
        for group, rate in zip(groups, self.plan_.rates, strict=True):
            group["lr"] = rate
            if self.schedule_.kind != "one_cycle" or not self.schedule_.cycle_momentum:
                continue
            if "betas" in group:
                group["betas"] = (self.plan_.momentum, *group["betas"][1:])
            elif "momentum" in group:
                group["momentum"] = self.plan_.momentum
            else:
                raise ValueError(
                    f"cycle_momentum=True, but {type(net.optimizer_).__name__} has no "
                    "momentum; use another optimizer, or cycle_momentum=False."
                )

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedule is: numbers and lists."""
        return {} if self.plan_ is None else self.plan_.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, at the next epoch."""
        self.state_ = state
