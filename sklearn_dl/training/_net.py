"""The skorch net that an estimator composes."""

import copy
import dis
import multiprocessing
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from skorch import NeuralNet
from skorch.helper import predefined_split
from torch import nn

from sklearn_dl.runtime import autocast, module_dtype
from sklearn_dl.training._data import TrainingRows, whole_batch
from sklearn_dl.training._module import BackboneWithHead, trains_batch_norm
from sklearn_dl.training._optimizers import parameter_groups, resolve_optimizer


class StopTraining(Exception):
    """Raised inside the loop when a callback asked for the end of training."""


class EstimatorNet(NeuralNet):
    """A skorch net over a ready-built network, with weights for the samples.

    Parameters
    ----------
    module : callable
        Returns the network; see `build_net`.
    preprocessing : Preprocessing
        Its ``normalize`` is applied to pixels on the device.
    dtype : torch.dtype
        Of the arithmetic.
    backbone_lr, weight_decay : float
        See `parameter_groups`.
    **kwargs : dict
        Everything that skorch's ``NeuralNet`` takes.

    Attributes
    ----------
    stop_ : bool
        Set by a callback to end training after the epoch.
    interrupted_ : bool
        Whether the user interrupted training (Ctrl-C).
    """

    def __init__(
        self,
        module: Callable[[], nn.Module],
        *args,
        preprocessing=None,
        dtype: torch.dtype = torch.float32,
        backbone_lr: float = 1e-4,
        weight_decay: float = 0.0,
        **kwargs,
    ):
        self.preprocessing = preprocessing
        self.dtype = dtype
        self.backbone_lr = backbone_lr
        self.weight_decay = weight_decay
        self.stop_ = False
        self.interrupted_ = False
        super().__init__(module, *args, **kwargs)

    def initialize_module(self):
        """Take the network, in the precision and layout it computes in."""
        super().initialize_module()
        self.module_.to(module_dtype(self.dtype), memory_format=torch.channels_last)
        return self

    def initialize_optimizer(self, *args, **kwargs):
        """Give the optimiser the trainable parameters, in their groups."""
        _, arguments = self.get_params_for_optimizer("optimizer", [])
        groups = parameter_groups(
            self.module_,
            lr=arguments["lr"],
            backbone_lr=self.backbone_lr,
            weight_decay=self.weight_decay,
        )
        self.optimizer_ = self.optimizer(groups, **arguments)
        # Gradients of half precision underflow unless the loss is scaled up.
        self.scaler_ = torch.amp.GradScaler(
            torch.device(self.device).type, enabled=self.dtype == torch.float16
        )
        return self

    def infer(self, x: Mapping[str, torch.Tensor], **fit_params) -> torch.Tensor:
        """Return the outputs for one batch of pixels or of features."""
        device = torch.device(self.device)
        dtype = module_dtype(self.dtype)
        name = "features" if "features" in x else "x"
        values = x[name].to(device, non_blocking=True)
        if name == "x":
            values = self.preprocessing.normalize(values)
            values = values.to(dtype=dtype, memory_format=torch.channels_last)
        with autocast(device, self.dtype):
            return self.module_(**{name: values.to(dtype)}).to(dtype)

    def get_loss(self, y_pred, y_true, X=None, training=False) -> torch.Tensor:
        """Return the mean over the batch of the weighted losses of the rows.

        Weights have mean 1 over the training rows, so the mean is over rows, not
        over weights: a heavy batch pulls harder than a light one.
        """
        dtype = y_pred.dtype if y_true.is_floating_point() else y_true.dtype
        y_true = y_true.to(y_pred.device, dtype, non_blocking=True)
        losses = self.criterion_(y_pred, y_true)
        losses = losses.reshape(len(losses), -1).mean(1)
        weight = X["sample_weight"].to(losses.device, losses.dtype)
        return (losses * weight).mean()

    def train_step_single(self, batch, **fit_params) -> dict[str, torch.Tensor]:
        """Compute the gradients of one batch, scaled in half precision."""
        if not self.module_.training:  # once an epoch: it visits every submodule
            self._set_training(True)
        inputs, target = batch
        y_pred = self.infer(inputs, **fit_params)
        loss = self.get_loss(y_pred, target, X=inputs, training=True)
        self.scaler_.scale(loss).backward()
        self.scaler_.unscale_(self.optimizer_)
        return {"loss": loss, "y_pred": y_pred}

    def _step_optimizer(self, step_fn):
        if not self.scaler_.is_enabled():
            return super()._step_optimizer(step_fn)
        step_fn()
        self.scaler_.step(self.optimizer_)
        self.scaler_.update()
        return None

    def forget_training(self, *, keep_optimizer: bool) -> None:
        """Drop what only training needs: data, callbacks, the optimiser's state."""
        self.callbacks_: list = []
        self.callbacks = None
        self.train_split = None
        self.scaler_ = None
        self.optimizer_.zero_grad(set_to_none=True)
        if not keep_optimizer:
            self.optimizer_.state.clear()

    def on_cpu(self) -> "EstimatorNet":
        """Return the net on the CPU, a copy where it is on another device."""
        if torch.device(self.device).type == "cpu":
            return self
        net = copy.deepcopy(self)
        net.device = "cpu"
        net.module_.cpu()
        for state in net.optimizer_.state.values():
            for name, value in state.items():
                if isinstance(value, torch.Tensor):
                    state[name] = value.cpu()
        return net

    def notify(self, method_name: str, **kwargs) -> None:
        """Call a hook of all callbacks, then stop if one of them asked for it."""
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt as interrupt:
            if not _raised_by_statement(interrupt):
                raise
            self.stop_ = True  # this is how a skorch callback ends training
            if method_name in ("on_train_begin", "on_train_end"):
                return  # outside of the loop
            raise StopTraining from interrupt
        if method_name == "on_epoch_end" and self.stop_:
            raise StopTraining

    def fit_loop(self, X, y=None, epochs=None, **kwargs):
        """Train, and remember whether the user interrupted it."""
        if self.stop_:
            return self
        try:
            return super().fit_loop(X, y, epochs, **kwargs)
        except StopTraining:
            pass
        except KeyboardInterrupt:
            self.interrupted_ = True
        if len(self.history) and "train_loss" not in self.history[-1]:
            del self.history[-1]  # an epoch that didn't come to its end
        return self


def _raised_by_statement(error: BaseException) -> bool:
    """Tell whether a ``raise`` statement raised an error, not a signal (Ctrl-C)."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    code = traceback.tb_frame.f_code.co_code
    return code[traceback.tb_lasti] == dis.opmap["RAISE_VARARGS"]


class _Ready:
    """Hands over a network once, so that the net doesn't hold it twice."""

    def __init__(self, network: nn.Module):
        self.network: nn.Module | None = network

    def __call__(self) -> nn.Module:
        if self.network is None:
            raise RuntimeError(
                "The net of a fitted estimator can't be initialised again; "
                "fit the estimator instead."
            )
        network, self.network = self.network, None
        return network


# What the estimators set, and by which of their parameters where the name differs.
_OURS = {
    "backbone_lr",
    "batch_size",
    "callbacks",
    "criterion__reduction",
    "device",
    "dtype",
    "lr",
    "max_epochs",
    "module",
    "optimizer",
    "optimizer__lr",
    "optimizer__weight_decay",
    "preprocessing",
    "train_split",
    "weight_decay",
}
_OURS_BY_NAME = {
    "criterion__reduction": "sample_weight in fit",
    "dtype": "precision",
    "module": "backbone",
    "optimizer__lr": "lr",
    "optimizer__weight_decay": "weight_decay",
    "train_split": "early_stopping or X_val",
}


def build_net(
    network: BackboneWithHead,
    *,
    criterion: type[nn.Module],
    optimizer: str | Callable,
    lr: float,
    backbone_lr: float,
    weight_decay: float,
    batch_size: int,
    n_samples: int,
    max_epochs: int,
    validation: TrainingRows | None,
    callbacks: list,
    device: torch.device,
    dtype: torch.dtype,
    net_params: Mapping[str, Any],
) -> EstimatorNet:
    """Return a skorch net, initialised and ready for ``partial_fit``.

    `net_params` can set everything that skorch takes and the estimator has no
    parameter for.
    """
    ours = _OURS & net_params.keys()
    if taken := sorted(ours | {n for n in net_params if n.startswith("module__")}):
        instead = [_OURS_BY_NAME.get(name, name) for name in taken]
        raise ValueError(
            f"net_params={taken} belongs to parameters of the estimator itself: "
            f"set {', '.join(instead)}."
        )
    optimizer_class, optimizer_arguments = resolve_optimizer(optimizer)
    size = net_params.get("iterator_train__batch_size", batch_size)
    drop_last = _drops_last(network, n_samples, n_samples if size == -1 else size)
    if net_params.get("iterator_train__drop_last") and size > n_samples:
        raise ValueError(
            f"iterator_train__drop_last=True with {n_samples} rows and a batch of "
            f"{size} leaves nothing to train on."
        )
    arguments: dict[str, Any] = {
        "criterion": criterion,
        "criterion__reduction": "none",
        "optimizer": optimizer_class,
        **{f"optimizer__{name}": v for name, v in optimizer_arguments.items()},
        "lr": lr,
        "max_epochs": max_epochs,
        "batch_size": batch_size,
        "iterator_train__shuffle": True,
        "iterator_train__collate_fn": whole_batch,
        "iterator_valid__collate_fn": whole_batch,
        "iterator_train__drop_last": drop_last,
        "train_split": None if validation is None else predefined_split(validation),
        "callbacks": callbacks,
        "callbacks__print_log": None,
        "device": str(device),
        "verbose": 0,
    }
    for iterator in ("iterator_train", "iterator_valid"):
        workers = net_params.get(f"{iterator}__num_workers")
        if net_params.get(f"{iterator}__pin_memory") and not workers:
            raise ValueError(
                f"{iterator}__pin_memory=True needs {iterator}__num_workers: without "
                "workers, images may be on the device already."
            )
        if workers:
            # The system's own way: joblib's processes make it theirs, which fails.
            way = multiprocessing.get_all_start_methods()[0]
            context = multiprocessing.get_context(way)
            arguments[f"{iterator}__multiprocessing_context"] = context
    arguments.update(net_params)
    net = EstimatorNet(
        _Ready(network),
        preprocessing=network.backbone.preprocessing,
        dtype=dtype,
        backbone_lr=backbone_lr,
        weight_decay=weight_decay,
        **arguments,
    )
    return net.initialize()


def _drops_last(network: BackboneWithHead, n_rows: int, batch_size: int) -> bool:
    """Tell whether a last batch is left out: BatchNorm can't train on one row."""
    if not trains_batch_norm(network):
        return False
    if n_rows == 1 or batch_size == 1:
        raise ValueError(
            f"BatchNorm can't train on one row at a time (n_samples={n_rows}, "
            f"batch_size={batch_size}); use trainable='head' or freeze_batch_norm=True."
        )
    return n_rows % batch_size == 1


def continue_training(net: EstimatorNet, previous: EstimatorNet) -> None:
    """Let a net go on from another one over the same network.

    The history goes on, and so does the optimiser's state where it fits.
    """
    net.history = copy.deepcopy(previous.history)
    if type(net.optimizer_) is type(previous.optimizer_) and _named(net) == _named(
        previous
    ):
        state = copy.deepcopy(previous.optimizer_.state_dict()["state"])
        new = net.optimizer_.state_dict()
        net.optimizer_.load_state_dict({**new, "state": state})


def _named(net: EstimatorNet) -> list[list[str]]:
    """Return the names of the parameters in each of the optimiser's groups."""
    names = {id(p): name for name, p in net.module_.named_parameters()}
    groups = net.optimizer_.param_groups
    return [[names[id(p)] for p in group["params"]] for group in groups]


def history_frame(net: EstimatorNet) -> pd.DataFrame:
    """Return the history as one row per epoch: losses, scores, seconds."""
    skipped = ("batches", "_batch_count", "_best")
    rows = [
        {name: value for name, value in epoch.items() if not name.endswith(skipped)}
        for epoch in net.history
    ]
    return pd.DataFrame(rows)
