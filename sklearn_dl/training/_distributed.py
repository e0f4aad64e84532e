"""Training in several processes at once, each with its share of every batch.

Every process has all rows, and the same network. Of a batch it reads and computes its
own rows alone; gradients, losses and outputs are summed over the processes, so that all
take the same step, that of one process with the whole batch.
"""

import zlib
from contextlib import suppress
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from sklearn_dl.training._callbacks import EpochProgress
from sklearn_dl.training._checkpoint import Checkpoint
from sklearn_dl.training._dataset import TrainingRows
from sklearn_dl.training._net import EstimatorNet, StopTraining, noting_interrupts
from sklearn_dl.training._regime import learned_state, trains_batch_norm
from sklearn_dl.training._tensorboard import TensorBoard


class SharedNoise(TorchFunctionMode):
    """Draws a whole batch's noise, of which a process applies its own rows.

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
        if function is torch.randn_like and self._is_batch(args[0]):
            return self._whole(args[0]).normal_()[self.own]
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
        state = learned_state(self)
        self.group.take_first(state.values())
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

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run an epoch, in which this process reads its own rows alone."""
        rows = getattr(iterator, "dataset", None)
        try:
            if isinstance(rows, TrainingRows):
                rows.read_share = self.group.read
            super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)
        finally:
            if isinstance(rows, TrainingRows):  # callbacks read whole batches
                rows.read_share = None

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
            target, *grads, there, step["loss"] * share, outputs
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
            (outputs,) = self._summed(target, _placed(found, own, n_rows))
            loss = self.get_loss(outputs, target, X=inputs, training=False)
        return {"loss": loss, "y_pred": outputs}

    def _summed(self, target, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """Return sums over the processes, in one go, of what is of the same rows.

        End where one of the processes asks to.
        """
        execution = self.recipe.execution
        flat = [
            t.detach().to(execution.device, execution.module_dtype) for t in tensors
        ]
        like = zlib.crc32(target.cpu().numpy().tobytes())
        total = self.group.sum(torch.cat([t.flatten() for t in flat]), like)
        self._stop_if_asked()
        parts = total.split([t.numel() for t in flat])
        return [p.view_as(t) for p, t in zip(parts, tensors, strict=True)]

    def partial_fit(self, X, y=None, classes=None, **fit_params):
        """Train; a Ctrl-C in one process ends training in all."""
        with noting_interrupts(self._note_interrupt):
            super().partial_fit(X, y, classes, **fit_params)
            try:
                self.group.agree()  # a Ctrl-C that came behind the last step
            except KeyboardInterrupt:
                self.interrupted_ = True
        return self

    def stop_now(self, reason: str = "") -> None:
        """End training of all processes before the next step."""
        self.group.stop(reason)

    def notify(self, method_name: str, **kwargs) -> None:
        """Call a hook of all callbacks; what one process decides, all do."""
        try:
            super().notify(method_name, **kwargs)
        except StopTraining:
            if self.group.interrupted:  # by features that all share out
                raise KeyboardInterrupt from None
            self.stop_now(self.stop_reason_)
        if method_name not in ("on_train_begin", "on_epoch_end"):
            return
        if self.stop_:
            self.stop_now(self.stop_reason_)
        if method_name == "on_epoch_end":
            self.group.agree()
            self._stop_if_asked()
            return
        self.group.check_same(checkpoint=len(self.history))  # which was read by now
        with suppress(StopTraining):  # outside of the loop
            self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self.group.stopped:
            self.stop_ = True
            self.stop_reason_ = self.group.stop_reason
            raise StopTraining

    def _note_interrupt(self) -> bool:
        """Let a Ctrl-C wait for the next sum, which tells all; a second one acts."""
        again = self.group.interrupted
        self.group.interrupted = True
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
