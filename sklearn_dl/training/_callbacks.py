"""Callbacks of the net that the estimators' own parameters stand for."""

import copy
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from tqdm.auto import tqdm

from sklearn_dl.training._dataset import sent
from sklearn_dl.training._regime import learned_state


def check_callbacks(callbacks: Iterable) -> list:
    """Return the user's callbacks as a list; raise where one isn't skorch's."""
    for callback in callbacks:
        if not issubclass(class_of(callback), Callback):
            raise ValueError(
                f"callbacks has {callback!r}, which is neither a callback of skorch "
                "nor a pair (name, callback). Callbacks of scikit-learn go to "
                "set_callbacks."
            )
    return list(callbacks)


def class_of(callback) -> type:
    """Return the class of a callback: an instance, a class, or a pair with a name."""
    kind = callback[1] if isinstance(callback, tuple) else callback
    return kind if isinstance(kind, type) else type(kind)


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise where a parameter of a callback is no int of at least `least`."""
    integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not integer or value < least:
        raise ValueError(f"{name}={value!r} must be an int of at least {least}.")


@dataclass(repr=False, eq=False)
class ValidationScore(Callback):
    """Scores of the validation rows, from the outputs of the epoch's pass.

    `score` maps these outputs, (n_validation, n_outputs), to a dict of floats by name.
    """

    score: Callable[[np.ndarray], dict[str, float]]

    def on_epoch_begin(self, net, **kwargs):
        self.outputs_: list[torch.Tensor] = []

    def on_batch_end(self, net, *, training=False, y_pred=None, **kwargs):
        """Keep the outputs of a validation batch, on the device."""
        if not training:
            self.outputs_.append(y_pred.detach())

    def on_epoch_end(self, net, **kwargs):
        outputs = torch.cat(self.outputs_).cpu().numpy()
        for name, value in self.score(outputs).items():
            net.history.record(name, value)
        self.outputs_ = []


class TrainingAccuracy(Callback):
    """Top-1 and, above 5 classes, top-5 accuracy on the training batches.

    The images are as the network saw them, augmented, before the step that learned
    from them. The class of a mixed image is that of its larger part.
    """

    def on_epoch_begin(self, net, **kwargs):
        self.right_: dict[str, list[torch.Tensor]] = {"top1": [], "top5": []}
        self.rows_ = 0

    def on_batch_end(self, net, *, batch=None, training=False, y_pred=None, **kwargs):
        """Count the right answers of a batch; the sum stays on the device."""
        if not training:
            return
        inputs, target = batch
        if "mix_target" in inputs:
            first = inputs["mix_share"] >= 0.5
            target = torch.where(first, target, inputs["mix_target"])
        y_pred, target = y_pred.detach(), sent(target, y_pred.device)
        self.right_["top1"].append((y_pred.argmax(1) == target).sum())
        if y_pred.shape[1] > 5:
            among_5 = y_pred.topk(5).indices == target[:, None]
            self.right_["top5"].append(among_5.sum())
        self.rows_ += len(target)

    def on_epoch_end(self, net, **kwargs):
        for name, right in self.right_.items():
            if right:
                accuracy = int(torch.stack(right).sum()) / self.rows_
                net.history.record(f"train_{name}", accuracy)


@dataclass(repr=False, eq=False)
class EarlyStopping(Callback):
    """End of training when a value of the history stops improving; the best is kept.

    An epoch improves when its value of `monitor` in the history is better than the
    best so far by more than `tol`. After `n_iter_no_change` epochs in a row without
    improvement training ends. The weights of the best epoch (`best_epoch_`, from 1)
    are put back at the end of training, also where it ended for another reason.
    """

    monitor: str
    lower_is_better: bool
    n_iter_no_change: int
    tol: float

    def on_train_begin(self, net, **kwargs):
        self.best_ = -np.inf  # the best value, the threshold for stopping
        self.kept_ = -np.inf  # the value of the weights kept
        self.weights_: dict[str, torch.Tensor] = {}
        self.best_epoch_ = 0
        self.misses_ = 0

    def on_epoch_end(self, net, **kwargs):
        value = net.history[-1, self.monitor] * (-1 if self.lower_is_better else 1)
        if value > self.kept_:
            self.kept_ = value
            self.weights_ = learned_state(net)
            self.best_epoch_ = net.history[-1, "epoch"]
        if value > self.best_ + self.tol:
            self.best_ = value
            self.misses_ = 0
        elif not net.warming_up_:  # what comes after the warm-up has its own chance
            self.misses_ += 1
        if self.misses_ >= self.n_iter_no_change:
            net.stop_ = True
            net.stop_reason_ = (
                f"{self.monitor} didn't improve by more than {self.tol:g} in "
                f"{self.misses_} epochs; the best was epoch {self.best_epoch_}"
            )

    def on_train_end(self, net, **kwargs):
        if not self.best_epoch_ and len(net.history):
            warnings.warn(
                f"{self.monitor} was never a number, so early stopping chose no epoch: "
                "the last weights stay. Check scoring and the validation rows.",
                ConvergenceWarning,
                stacklevel=2,
            )
        net.module_.load_state_dict(self.weights_, strict=False)
        self.weights_ = {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that is resumed needs."""
        return {name: getattr(self, name) for name in self._state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for name in self._state:
            setattr(self, name, state[name])

    _state: ClassVar = ("best_", "kept_", "weights_", "best_epoch_", "misses_")


def warn_of_divergence(net, epoch: int, chance: float) -> None:
    """Warn where the loss of an epoch is far above the chance loss."""
    loss = net.history[epoch - 1, "train_loss"]
    if not loss <= 10 * chance:
        warnings.warn(
            f"Training diverged: the loss is {loss:.3g} after {epoch} epochs; that of "
            f"chance is {chance:.3g}. Lower lr, or check the pixels.",
            ConvergenceWarning,
            stacklevel=6,
        )


class EpochProgress(Callback):
    """Progress bar for the whole training, in images."""

    def on_train_begin(self, net, **kwargs):
        self.bar_: Any = None  # opened when the first epoch tells the number of rows

    def on_epoch_begin(self, net, dataset_train=None, **kwargs):
        if self.bar_ is None:
            total = len(dataset_train) * net.epochs_left_
            self.bar_ = tqdm(total=total, unit="img", desc="training")
        phase = " (head)" if net.warming_up_ else ""
        self.bar_.set_description(f"epoch {len(net.history)}{phase}", refresh=False)

    def on_batch_end(self, net, *, batch=None, training=False, **kwargs):
        if training:
            self.bar_.update(len(batch[1]))

    def on_epoch_end(self, net, **kwargs):
        row, names = net.history[-1], ("train_loss", "valid_loss", "valid_score")
        shown = {name: f"{row[name]:.4g}" for name in names if name in row}
        self.bar_.set_postfix(shown, refresh=False)

    def on_train_end(self, net, **kwargs):
        if self.bar_ is not None:
            self.bar_.close()
        self.bar_ = None


@dataclass(repr=False, eq=False)
class TaskContexts(Callback):
    """Contexts of the epochs for scikit-learn's callbacks (1.9 and later).

    `context` is that of the whole fit, `data` has ``X``, ``y`` and ``metadata`` for the
    hooks.
    """

    context: Any
    estimator: Any
    data: dict

    def on_epoch_begin(self, net, **kwargs):
        self.epoch_ = self.context.subcontext(task_name="epoch")
        self.epoch_.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def on_epoch_end(self, net, **kwargs):
        """Close it, and stop when a callback says so."""
        stop = self.epoch_.call_on_fit_task_end(
            estimator=self.estimator,
            # Copies: training goes on with these.
            reconstruction_attributes=lambda: copy.deepcopy(fitted_attributes(net)),
            **self.data,
        )
        net.stop_ = net.stop_ or bool(stop)


def fitted_attributes(net) -> dict[str, Any]:
    """Return the attributes of an estimator whose training ends now."""
    skipped = ("batches", "_batch_count", "_best")
    rows = [
        {name: value for name, value in epoch.items() if not name.endswith(skipped)}
        for epoch in net.history
    ]
    # No row where training ended within its first epoch.
    columns = None if rows else ["epoch", "lr", "dur", "train_loss"]
    return {
        "_network": net.module_,
        "preprocessing_": net.module_.backbone.preprocessing,
        "n_iter_": len(net.history),
        "history_": pd.DataFrame(rows, columns=columns),
    }
