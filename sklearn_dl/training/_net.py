"""The skorch net that an estimator composes."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import torch
from skorch.history import History
from torch import nn

from sklearn_dl._runtime import (
    Interrupts,
    keyed_generator,
    module_dtype,
    reseed,
)
from sklearn_dl.backbones import place
from sklearn_dl.training._optimizers import Optimizer, parameter_groups
from sklearn_dl.training._regime import Regime
from sklearn_dl.training._step import SteppingNet


class StopTraining(Exception):
    """Raised inside the loop when a callback asked for the end of training."""


class EstimatorNet(SteppingNet):
    """A skorch net over a ready-built network, with weights for the samples.

    Parameters
    ----------
    module : callable
        Returns the network; see `build_net`.
    preprocessing : Preprocessing
        Its ``normalize`` is applied to pixels on the device.
    regime : Regime
        What is trained when, and at which rates.
    update : Optimizer
        Shapes the gradients before each step.
    weight_decay : float
        Of weights; see `parameter_groups`.
    dtype : torch.dtype
        Of the arithmetic.
    kind : {"classes", "labels", "targets"}
        What the outputs are of.
    seed : int
        Of everything random in training.
    resumable : bool
        Whether a later run has the same seed.
    run_id : callable
        Returns a digest of parameters and data.
    **kwargs : dict
        Everything that skorch's ``NeuralNet`` takes.

    Attributes
    ----------
    stop_ : bool
        Set by a callback to end training after the epoch.
    stop_reason_ : str
        Why a callback ended training; empty where none did.
    interrupted_ : bool
        Whether the user interrupted training (Ctrl-C).
    warming_up_ : bool
        Whether the head is trained alone, before the rest.
    phase_epoch_, phase_epochs_ : int
        Epochs done in this phase (the warm-up, or what follows), and planned for it.
    steps_per_epoch_ : int
        Training batches of an epoch.
    epochs_left_ : int
        Epochs that are still to run, when training begins.
    learned_ : frozenset of str
        Names of the parameters that some phase trains.
    """

    def __init__(
        self,
        module: Callable[[], nn.Module],
        *args,
        preprocessing,
        regime: Regime,
        update: Optimizer,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
        kind: str = "classes",
        seed: int = 0,
        resumable: bool = False,
        run_id: Callable[[], str] | None = None,
        **kwargs,
    ):
        self.preprocessing = preprocessing
        self.regime = regime
        self.update = update
        self.weight_decay = weight_decay
        self.dtype = dtype
        self.kind = kind
        self.seed = seed
        self.resumable = resumable
        self.run_id = run_id
        self.stop_ = False
        self.stop_reason_ = ""
        self.interrupted_ = False
        self.warming_up_ = False
        self.start_ = 0  # epochs of fits before
        self._interrupts = Interrupts()
        super().__init__(module, *args, **kwargs)

    def initialize_module(self):
        """Take the network, in the precision and layout it computes in."""
        super().initialize_module()
        dtype = module_dtype(self.dtype)
        self.module_ = place(self.module_, torch.device(self.device), dtype)
        self.learned_ = self.regime.learned(self.module_)
        self.warming_up_ = self.regime.warmup_epochs > 0
        if self.warming_up_:
            self.regime.set_phase(self.module_, warming_up=True)
        return self

    def initialize_criterion(self):
        """Take the loss, in the precision that the outputs have."""
        super().initialize_criterion()
        self.criterion_.to(module_dtype(self.dtype))
        return self

    def initialize_optimizer(self, *args, **kwargs):
        """Give the optimiser the trainable parameters, in their groups."""
        _, arguments = self.get_params_for_optimizer("optimizer", [])
        lr = self.regime.lr
        if self.warming_up_ and self.regime.warmup_lr is not None:
            lr = self.regime.warmup_lr
        groups = parameter_groups(
            self.module_,
            lr=lr,
            backbone_lr=self.regime.backbone_lr,
            weight_decay=self.weight_decay,
        )
        self.optimizer_ = self.optimizer(groups, **{**arguments, "lr": lr})
        # Gradients of half precision underflow unless the loss is scaled up.
        self.scaler_ = torch.amp.GradScaler(
            torch.device(self.device).type, enabled=self.dtype == torch.float16
        )
        return self

    @property
    def resumable_(self) -> bool:
        """Whether a later run can go on from a checkpoint of this one."""
        return self.resumable

    @property
    def fingerprint_(self) -> str:
        """Digest of the parameters, the data and the seed of this training."""
        assert self.run_id is not None
        return self.run_id()

    @property
    def phase_epoch_(self) -> int:
        """Epochs done in this phase."""
        return self._epochs_done - (
            0 if self.warming_up_ else self.regime.warmup_epochs
        )

    @property
    def phase_epochs_(self) -> int:
        """Epochs planned for this phase."""
        warmup = self.regime.warmup_epochs
        return warmup if self.warming_up_ else self.max_epochs - warmup

    @property
    def epochs_left_(self) -> int:
        """Epochs still to run."""
        return self.max_epochs - self._epochs_done

    @property
    def _epochs_done(self) -> int:
        """Epochs of this training that came to their end."""
        done = len(self.history) - self.start_
        running = done > 0 and "train_loss" not in self.history[-1]
        return done - running

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Count from the epochs of earlier fits."""
        self.start_ = len(self.history)
        self._open_phase()

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Unfreeze after the warm-up, and draw what this epoch draws."""
        super().on_epoch_begin(net, dataset_train, dataset_valid, **kwargs)
        self._open_phase()
        epoch = len(self.history)
        for rows in (dataset_train, dataset_valid):
            if rows is not None:
                rows.start_epoch(epoch)
                waits = rows.pixels is not None and not self.warming_up_
                if waits and self.module_.trains_backbone:
                    rows.use_pixels()
        key = int(keyed_generator(self.seed, epoch).integers(2**62))
        reseed(key, torch.device(self.device))

    def _open_phase(self) -> None:
        """Train what this epoch trains, with an optimiser of its own."""
        warming_up = self._epochs_done < self.regime.warmup_epochs
        if warming_up == self.warming_up_:
            return
        self.warming_up_ = warming_up
        self.regime.set_phase(self.module_, warming_up)
        self.initialize_optimizer()

    def get_iterator(self, dataset, training=False):
        """Return the batches of a dataset; remember how many training has."""
        iterator = super().get_iterator(dataset, training=training)
        if training:
            self.steps_per_epoch_ = len(iterator)
        return iterator

    def training_state(self) -> dict[str, Any]:
        """Return what a run that is resumed needs: tensors and plain values."""
        callbacks = {
            name: callback.state_dict()
            for name, callback in self.callbacks_
            if hasattr(callback, "state_dict")
        }
        return {
            "module": self.module_.state_dict(),
            "optimizer": self.optimizer_.state_dict(),
            "scaler": self.scaler_.state_dict(),
            "history": self.history.to_list(),
            "start": self.start_,
            "warming_up": self.warming_up_,
            "seed": self.seed,
            "callbacks": callbacks,
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `training_state` returned."""
        self.history = History(copy.deepcopy(state["history"]))
        self.start_ = state["start"]
        self.seed = state["seed"]
        # The phase of the last step: the next epoch's may be another.
        self.warming_up_ = state["warming_up"]
        self.regime.set_phase(self.module_, self.warming_up_)
        self.initialize_optimizer()
        self.module_.load_state_dict(state["module"])
        self.optimizer_.load_state_dict(state["optimizer"])
        self.scaler_.load_state_dict(state["scaler"])
        for name, callback in self.callbacks_:
            if name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][name])

    def forget_training(self, *, keep_optimizer: bool) -> None:
        """Drop what only training needs: data, callbacks, the optimiser's state."""
        self.callbacks_: list = []
        self.callbacks = None
        self.train_split = None
        self.run_id = None
        # Its scale is found by trial: a stream of short fits must not begin anew.
        self.scaler_state_ = self.scaler_.state_dict() if keep_optimizer else {}
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
        net.criterion_.cpu()
        for state in net.optimizer_.state.values():
            for name, value in state.items():
                if isinstance(value, torch.Tensor):
                    state[name] = value.cpu()
        return net

    def stop_now(self, reason: str = "") -> None:
        """End training at once, from a callback: the epoch is left unfinished."""
        self.stop_ = True
        self.stop_reason_ = reason or self.stop_reason_
        raise StopTraining

    def notify(self, method_name: str, **kwargs) -> None:
        """Call a hook of all callbacks, then stop if one of them asked for it."""
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt as interrupt:
            if self._interrupts.came:
                raise
            self.stop_ = True  # this is how a skorch callback ends training
            if method_name in ("on_train_begin", "on_train_end"):
                return  # outside of the loop
            raise StopTraining from interrupt
        if method_name == "on_epoch_end" and self.stop_:
            raise StopTraining

    def partial_fit(self, X, y=None, classes=None, **fit_params):
        """Train, and know Ctrl-C from a callback's way to end training."""
        with self._interrupts.watched():
            return super().partial_fit(X, y, classes, **fit_params)

    def fit_loop(self, X, y=None, epochs=None, **kwargs):
        """Train, and remember whether the user interrupted it."""
        if self.stop_:
            return self
        try:
            return super().fit_loop(X, y, self.epochs_left_, **kwargs)
        except StopTraining:
            pass
        except KeyboardInterrupt:
            self.interrupted_ = True
        if len(self.history) and "train_loss" not in self.history[-1]:
            del self.history[-1]  # an epoch that didn't come to its end
        return self


def history_frame(net: EstimatorNet) -> pd.DataFrame:
    """Return the history as one row per epoch: losses, scores, rates, seconds."""
    skipped = ("batches", "_batch_count", "_best")
    rows = [
        {name: value for name, value in epoch.items() if not name.endswith(skipped)}
        for epoch in net.history
    ]
    if not rows:  # training ended within its first epoch
        return pd.DataFrame(columns=["epoch", "lr", "dur", "train_loss"])
    return pd.DataFrame(rows)
