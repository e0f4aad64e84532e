"""One batch of training: inputs, loss, gradients, step."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from skorch import NeuralNet

from sklearn_dl._runtime import (
    autocast,
    free_cached_blocks,
    is_out_of_memory,
    module_dtype,
)
from sklearn_dl.training._module import trains_batch_norm

_TARGET = "_target"


def sent(
    values: torch.Tensor, device: torch.device, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Return values on a device; a GPU copies while the host goes on."""
    return values.to(device, dtype, non_blocking=device.type == "cuda")


class _Unread(torch.Tensor):
    """A loss that stays on its device when it is asked for its value."""

    def item(self):
        """Return the tensor without its class."""
        return self.as_subclass(torch.Tensor)


class SteppingNet(NeuralNet):
    """What `EstimatorNet` does with each batch.

    Attributes
    ----------
    parts_ : int
        In how many parts a batch goes through the network; above 1 after the device's
        memory didn't suffice.
    """

    parts_ = 1
    preprocessing: Any
    update: Any
    dtype: torch.dtype
    scaler_: Any

    def prepared(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return what the module takes for one batch: normalised, on the device."""
        device = torch.device(self.device)
        name = "features" if "features" in inputs else "x"
        values = sent(inputs[name], device)
        dtype = module_dtype(self.dtype)
        if name == "features":
            return {name: values.to(dtype)}
        values = self.preprocessing.normalize(values)
        return {name: values.to(dtype=dtype, memory_format=torch.channels_last)}

    def infer(self, x: Mapping[str, torch.Tensor], **fit_params) -> torch.Tensor:
        """Return the outputs for one batch of pixels or of features.

        Without gradients, as in validation, the batch goes in parts where the device's
        memory doesn't suffice.
        """
        if torch.is_grad_enabled() or self.module_.training:
            return self._outputs(x)
        n_rows = len(next(iter(x.values())))
        return self._fitting(
            n_rows, 1, lambda: torch.cat([self._outputs(p) for p in self._parts(x)])
        )

    def _outputs(self, x: Mapping[str, torch.Tensor]) -> torch.Tensor:
        values = self.prepared(x)
        with autocast(torch.device(self.device), self.dtype):
            return self.module_(**values).to(module_dtype(self.dtype))

    def _parts(self, x: Mapping[str, torch.Tensor]) -> Iterator[dict[str, Any]]:
        """Yield a batch in `parts_` parts, or as many as it has rows."""
        n_rows = len(next(iter(x.values())))
        parts = max(1, min(self.parts_, n_rows))
        ends = [n_rows * k // parts for k in range(parts + 1)]
        for rows in map(slice, ends[:-1], ends[1:]):
            yield {name: value[rows] for name, value in x.items()}

    def get_loss(self, y_pred, y_true, X=None, training=False) -> torch.Tensor:
        """Return the mean over the batch of the weighted losses of the rows.

        Weights have mean 1 over the training rows, so the mean is over rows, not
        over weights: a heavy batch pulls harder than a light one. A mixed image has
        the losses of both its classes, by their shares.
        """
        losses = self._losses(y_pred, y_true, X["sample_weight"])
        if "mix_target" in X:
            share = sent(X["mix_share"], losses.device, losses.dtype)
            other = self._losses(y_pred, X["mix_target"], X["mix_weight"])
            losses = share * losses + (1 - share) * other
        return losses.mean()

    def _losses(self, y_pred, y_true, weight) -> torch.Tensor:
        """Return the weighted loss of each row."""
        dtype = y_pred.dtype if y_true.is_floating_point() else y_true.dtype
        losses = self.criterion_(y_pred, sent(y_true, y_pred.device, dtype))
        losses = losses.reshape(len(losses), -1).mean(1)
        return losses * sent(weight, losses.device, losses.dtype)

    def train_step_single(self, batch, **fit_params) -> dict[str, torch.Tensor]:
        """Compute the gradients of one batch, scaled in half precision.

        Where the device's memory doesn't suffice, the batch goes in parts whose
        gradients add up, from then on.
        """
        if not self.module_.training:  # once an epoch: it visits every submodule
            self._set_training(True)
        inputs, target = batch
        least = 2 if trains_batch_norm(self.module_) else 1
        return self._fitting(
            len(target), least, lambda: self._gradients(inputs, target, fit_params)
        )

    def _fitting(self, n_rows: int, least: int, compute: Callable[[], Any]) -> Any:
        """Call until it fits into memory, in twice as many parts each time.

        A part has `least` rows at least.
        """
        while True:
            try:
                return compute()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or n_rows < 2 * least * self.parts_:
                    raise
            # Outside of the handler, which would hold on to what there was no room for.
            self._zero_grad_optimizer()
            free_cached_blocks(torch.device(self.device))
            if self.parts_ == 1:
                warnings.warn(
                    f"{self.device} has not enough memory to train on {n_rows} "
                    "images at once; each batch goes in parts, whose gradients add up. "
                    "BatchNorm, where it is trained, takes its statistics from each "
                    "part. A smaller batch_size saves the attempt.",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self.parts_ *= 2

    def _gradients(self, inputs, target, fit_params) -> dict[str, Any]:
        """Add up the gradients of the parts of a batch."""
        losses: list[torch.Tensor] = []
        outputs: list[torch.Tensor] = []
        parts = list(self._parts({**inputs, _TARGET: target}))
        for part in parts:
            wanted = part.pop(_TARGET)
            y_pred = self.infer(part, **fit_params)
            loss = self.get_loss(y_pred, wanted, X=part, training=True)
            for _, callback in self.callbacks_:
                if hasattr(callback, "loss_term"):
                    loss = loss + callback.loss_term(self, part, y_pred)
            if len(parts) > 1:
                loss = loss * (len(y_pred) / len(target))
            self.scaler_.scale(loss).backward()
            losses.append(loss.detach())
            outputs.append(y_pred.detach())
        self.scaler_.unscale_(self.optimizer_)
        if len(losses) == 1:
            return {"loss": losses[0], "y_pred": outputs[0]}
        return {"loss": torch.stack(losses).sum(), "y_pred": torch.cat(outputs)}

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run an epoch; what a GPU computes is waited for at its end, not each batch.

        Until then the history holds the losses of the batches as tensors.
        """
        arguments = training, prefix
        if iterator is None or not self.computes_ahead_:
            super().run_single_epoch(iterator, *arguments, step_fn, **fit_params)
            return
        losses: list[torch.Tensor] = []

        def step(batch, **params):
            done = step_fn(batch, **params)
            losses.append(done["loss"].detach())
            return {**done, "loss": losses[-1].as_subclass(_Unread)}

        try:
            super().run_single_epoch(iterator, *arguments, step, **fit_params)
        finally:
            if losses:
                values, name = torch.stack(losses).tolist(), f"{prefix}_loss"
                batches = [b for b in self.history[-1, "batches"] if name in b]
                for batch, value in zip(batches, values, strict=False):  # interrupted
                    batch[name] = value

    def notify(self, method_name: str, **kwargs) -> None:
        """Call a hook of all callbacks."""
        loss = kwargs.get("loss")
        if isinstance(loss, _Unread):  # callbacks may want its value
            kwargs["loss"] = loss.as_subclass(torch.Tensor)
        super().notify(method_name, **kwargs)

    @property
    def computes_ahead_(self) -> bool:
        """Whether the device is given work before that of earlier batches is done."""
        return torch.device(self.device).type != "cpu"

    def _step_optimizer(self, step_fn):
        def shaped():
            loss = step_fn()
            self.update.shape_gradients(self.optimizer_)
            return loss

        if not self.scaler_.is_enabled():
            return super()._step_optimizer(shaped)
        shaped()
        self.scaler_.step(self.optimizer_)
        self.scaler_.update()
        return None
