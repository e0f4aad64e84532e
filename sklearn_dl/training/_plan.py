"""The rates of one phase of training, by torch's schedulers."""

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, ReduceLROnPlateau

if TYPE_CHECKING:
    from sklearn_dl.training._schedule import Schedule

# How Smith's cycle is laid out in torch: lr / 25 at its start, the highest rate
# after 30 % of the steps, and a 250,000th of it at the end.
_CYCLE_START = 25.0
_CYCLE_END = 25.0 * 1e4


class Plan:
    """The rates of one phase, by torch's scheduler over stand-ins.

    The scheduler drives an optimizer of its own. So it leaves nothing behind in the
    real one ("initial_lr", a wrapped ``step``), and asks nothing of it but groups.
    """

    def __init__(
        self,
        schedule: "Schedule",
        rates: list[float],
        n_epochs: int,
        steps_per_epoch: int,
    ):
        self.start = list(rates)
        self.n_steps = n_epochs * steps_per_epoch
        groups = [{"params": [torch.zeros(1)], "lr": rate} for rate in rates]
        self.optimizer = torch.optim.SGD(groups, momentum=0.9)
        self.scheduler: Any = self._scheduler(schedule, steps_per_epoch)
        self.optimizer.step()  # a scheduler warns when nothing was trained before it

    def _scheduler(self, schedule: "Schedule", steps_per_epoch: int):
        lowest = schedule.min_share
        if schedule.kind == "plateau":
            monitor = schedule.monitor
            loss = monitor is None or monitor.endswith("loss")
            return ReduceLROnPlateau(
                self.optimizer,
                mode="min" if loss else "max",
                factor=schedule.factor(),
                patience=schedule.patience,
                min_lr=[lowest * rate for rate in self.start],
                eps=0.0,  # torch's default ignores the small rates of a backbone
            )
        if schedule.kind == "one_cycle" and self.n_steps == 1:
            # Torch gives a cycle of one step its last rate, almost nothing.
            return LambdaLR(self.optimizer, lambda step: 1.0)
        if schedule.kind == "one_cycle":
            start = max(1 / _CYCLE_START, lowest)
            return OneCycleLR(
                self.optimizer,
                max_lr=list(self.start),
                total_steps=self.n_steps,
                cycle_momentum=schedule.cycle_momentum,
                div_factor=1 / start,
                final_div_factor=start / max(1 / _CYCLE_END, lowest),
            )
        return LambdaLR(
            self.optimizer,
            lambda step: schedule.share(step, self.n_steps, steps_per_epoch),
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
        return copy.deepcopy(
            {
                "start": self.start,
                "rates": self.rates,
                "momentum": self.momentum,
                "scheduler": self.scheduler.state_dict(),
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(copy.deepcopy(state["scheduler"]))
        groups = self.optimizer.param_groups
        for group, rate in zip(groups, state["rates"], strict=True):
            group["lr"] = rate
            group["momentum"] = state["momentum"]
