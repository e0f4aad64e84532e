"""Training in several processes at once, each with its share of every batch.

Every process has all rows, and the same network. Of a batch it reads and computes its
own rows alone; gradients, losses and outputs are summed over the processes, so that all
take the same step, that of one process with the whole batch.
"""

from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from sklearn_dl.training._callbacks import EpochProgress
from sklearn_dl.training._checkpoint import Checkpoint
from sklearn_dl.training._net import EstimatorNet, StopTraining, noting_interrupts
from sklearn_dl.training._regime import learned_state, trains_batch_norm
from sklearn_dl.training._tensorboard import TensorBoard

# What a process tells the others with the sums of a batch.
_SIGNALS = ("interrupt", "stop")


class SharedNoise(TorchFunctionMode):
    """Draws the dropout of a whole batch, of which a process applies its own rows.

    So all processes draw alike, and as one process would that has the whole batch.
    """

    def __init__(self, own: slice, n_rows: int):
        super().__init__()
        self.own, self.n_rows = own, n_rows

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Call a function of torch, with noise for the whole batch in its place."""
        kwargs = kwargs or {}
        if function in _DROPOUTS:
            return self._dropout(function, *args, **kwargs)
        if function is torch.Tensor.bernoulli_ and self._is_batch(args[0]):
            values, *rest = args
            whole = self._whole(values).bernoulli_(*rest, **kwargs)
            return values.copy_(whole[self.own])
        return function(*args, **kwargs)

    def _dropout(self, function, input, p=0.5, training=True, inplace=False):
        if not training or p in (0.0, 1.0) or not self._is_batch(input):
            return function(input, p, training, inplace)
        noise = self._whole(input)
        if function is not functional.dropout:  # whole channels
            noise = noise[(...,) + (slice(1),) * (input.ndim - 2)].contiguous()
        noise = noise.bernoulli_(1 - p).div_(1 - p)[self.own]
        return input.mul_(noise) if inplace else input * noise

    def _is_batch(self, values: torch.Tensor) -> bool:
        return values.ndim > 1 and len(values) == self.own.stop - self.own.start

    def _whole(self, values: torch.Tensor) -> torch.Tensor:
        """Return room for a value of each row of the batch, laid out as `values` is."""
        values = values.detach()
        return torch.empty_like(values[:1].expand(self.n_rows, *values.shape[1:]))


_DROPOUTS = {
    functional.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.dropout3d,
}


class DistributedNet(EstimatorNet):
    """A net whose processes train the same network, each on its share of a batch.

    Callbacks see the outputs, targets and the loss of the whole batch, the same in all
    processes, and its own share of the pixels or features. A Ctrl-C, or a callback that
    ends training, in one process ends it in all, before the next step.
    """

    def initialize_module(self):
        """Take the network, and the weights that the first process has."""
        super().initialize_module()
        if trains_batch_norm(self.module_):
            raise ValueError(
                "Training in several processes can't train BatchNorm, whose statistics "
                "are of a whole batch: use Trainable(..., freeze_batch_norm=True), and "
                "no BatchNorm in the head."
            )
        self._signals = dict.fromkeys(_SIGNALS, 0.0)
        state = learned_state(self)
        for tensor in state.values():
            distributed.broadcast(tensor, src=0)
        self.module_.load_state_dict(state, strict=False)
        return self

    def initialize_callbacks(self):
        """Take the callbacks; what people look at, the first process writes."""
        super().initialize_callbacks()
        if not self.group.first:
            watched = (EpochProgress, TensorBoard)
            kept = [one for one in self.callbacks_ if not isinstance(one[1], watched)]
            self.callbacks_ = kept
        for _, callback in self.callbacks_:
            if isinstance(callback, Checkpoint):
                callback.writes = self.group.first
        return self

    @property
    def group(self) -> Any:
        """The processes that train together."""
        return self.recipe.execution.group

    def train_step_single(self, batch, **fit_params):
        """Compute the gradients of the own rows, and take the sums over all."""
        inputs, target = batch
        n_rows = len(target)
        own, read = self.group.share(n_rows), self.group.read(n_rows)
        with SharedNoise(read, n_rows):
            step = self.compute_gradients((_own(inputs, read), target[read]))
        share = (own.stop - own.start) / n_rows
        parameters = [p for g in self.optimizer_.param_groups for p in g["params"]]
        there = torch.tensor([float(p.grad is not None) for p in parameters])
        grads = [
            torch.zeros_like(p) if p.grad is None else p.grad.mul_(share)
            for p in parameters
        ]
        outputs = _placed(step["y_pred"], own, n_rows)
        *grads, there, loss, outputs = self._summed(
            *grads, there, step["loss"] * share, outputs
        )
        for p, grad, n_there in zip(parameters, grads, there.tolist(), strict=True):
            # Fused optimisers read gradients in the order of the memory of p.
            p.grad = torch.empty_like(p).copy_(grad) if n_there else None
        self.scaler_.unscale_(self.optimizer_)
        return {"loss": loss, "y_pred": outputs}

    def validation_step(self, batch, **fit_params):
        """Compute the outputs of the own rows; the loss is that of all."""
        inputs, target = batch
        n_rows = len(target)
        own, read = self.group.share(n_rows), self.group.read(n_rows)
        self._set_training(False)
        with torch.no_grad():
            found = self.infer(_own(inputs, read), **fit_params)
            (outputs,) = self._summed(_placed(found, own, n_rows))
            loss = self.get_loss(outputs, target, X=inputs, training=False)
        return {"loss": loss, "y_pred": outputs}

    def _summed(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """Return sums over the processes, in one go; end where one of them asks to."""
        execution = self.recipe.execution
        signals = torch.tensor([self._signals[name] for name in _SIGNALS])
        tensors = (*tensors, signals)
        flat = [
            t.detach().to(execution.device, execution.module_dtype) for t in tensors
        ]
        total = self.group.sum(torch.cat([t.flatten() for t in flat]))
        parts = total.split([t.numel() for t in flat])
        *sums, asked = [p.view_as(t) for p, t in zip(parts, tensors, strict=True)]
        interrupted, stopped = asked.tolist()
        if interrupted:
            raise KeyboardInterrupt
        if stopped:
            self.stop_ = True
            raise StopTraining
        return sums

    def partial_fit(self, X, y=None, classes=None, **fit_params):
        """Train; a Ctrl-C in one process ends training in all."""
        with noting_interrupts(self._note_interrupt):
            super().partial_fit(X, y, classes, **fit_params)
            try:
                self._summed()  # a Ctrl-C that came behind the last step
            except KeyboardInterrupt:
                self.interrupted_ = True
            except StopTraining:
                pass
        return self

    def stop_now(self, reason: str = "") -> None:
        """End training of all processes before the next step."""
        self.stop_reason_ = reason or self.stop_reason_
        self._signals["stop"] = 1.0

    def notify(self, method_name: str, **kwargs) -> None:
        """Call a hook of all callbacks; what one process decides, all do."""
        try:
            super().notify(method_name, **kwargs)
        except StopTraining:
            self.stop_now()
        if method_name == "on_train_begin":  # which reads checkpoints
            self.group.check_same("checkpoint", np.array([len(self.history)]))
        if method_name == "on_epoch_end":
            stops = self.stop_ or self._signals["stop"]
            self.stop_ = bool(self.group.sum(torch.tensor(float(stops))))
            if self.stop_:
                raise StopTraining

    def _note_interrupt(self) -> bool:
        """Let a Ctrl-C wait for the next sum, which tells all; a second one acts."""
        again = bool(self._signals["interrupt"])
        self._signals["interrupt"] = 1.0
        return again


def _own(inputs: dict[str, torch.Tensor], own: slice) -> dict[str, torch.Tensor]:
    """Return the own rows of a batch, whose pixels and features are own already."""
    return {
        name: values if name in ("x", "features", "maps") else values[own]
        for name, values in inputs.items()
    }


def _placed(values: torch.Tensor, own: slice, n_rows: int) -> torch.Tensor:
    """Return the outputs of the own rows among zeros for the others."""
    placed = values.new_zeros(n_rows, *values.shape[1:])
    placed[own] = values[: own.stop - own.start]
    return placed
