"""The skorch net that trains an estimator's network."""

import copy
import multiprocessing
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, LoadInitState, ParamMapper
from skorch.helper import predefined_split
from skorch.history import History
from torch import nn

from sklearn_dl._runtime import (
    Execution,
    free_cached_blocks,
    give_way,
    is_out_of_memory,
    keyed_generator,
    raise_no_room,
    reseed,
)
from sklearn_dl.backbones import place
from sklearn_dl.training._averaging import WeightAveraging
from sklearn_dl.training._callbacks import check_callbacks, class_of
from sklearn_dl.training._checkpoint import Checkpoint
from sklearn_dl.training._dataset import RowLoader, TrainingRows, sent, whole_batch
from sklearn_dl.training._optimizers import (
    WAYS_OF_THE_STEP,
    Optimizer,
    parameter_groups,
)
from sklearn_dl.training._regime import (
    BackboneWithHead,
    Regime,
    learned_state,
    trains_batch_norm,
)

_TARGET = "_target"


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    regime: Regime  # what is trained when, and at which rates
    optimizer: Optimizer
    execution: Execution  # device, precision and batch size
    kind: str  # of outputs: "multiclass", "multilabel-indicator" or "continuous"
    seed: int  # of everything random in training
    max_epochs: int
    # What a later run of the same has too; None where the seed is drawn anew.
    fingerprint: str | None = None


@contextmanager
def noting_interrupts(note: Callable[[], bool]) -> Iterator[None]:
    """Call `note` at a Ctrl-C in a block; where it says so, the handler before acts."""
    handler = signal.getsignal(signal.SIGINT)
    # Other threads get no signals, and may not set handlers.
    main = threading.current_thread() is threading.main_thread()
    if not main or not callable(handler):
        yield
        return

    def noted(number, frame):
        if note():
            handler(number, frame)

    signal.signal(signal.SIGINT, noted)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is noted:
            signal.signal(signal.SIGINT, handler)


class StopTraining(Exception):
    """Raised inside the loop when a callback asked for the end of training."""


class EstimatorNet(NeuralNet):
    """A skorch net over a ready-built network, with weights for the samples."""

    learned_: frozenset[str]  # the names of the parameters that some phase trains
    steps_per_epoch_: int  # training batches

    def __init__(
        self, module: Callable[[], nn.Module], *args, recipe: Recipe, **kwargs
    ):
        self.recipe = recipe
        self.stop_ = False  # set by a callback to end training after the epoch
        self.stop_reason_ = ""  # why a callback did
        self.interrupted_ = False  # by the user's Ctrl-C
        self.warming_up_ = False  # the head is trained alone, before the rest
        # A batch goes in so many; above 1 after the device's memory didn't suffice.
        self.parts_ = 1
        self.start_ = 0  # epochs of fits before
        self._ctrl_c_came = False
        super().__init__(module, *args, **kwargs)

    @property
    def preprocessing(self) -> Any:
        """What the images need before they enter the network."""
        return self.module_.backbone.preprocessing

    def initialize_module(self):
        """Take the network, in the precision and layout it computes in."""
        super().initialize_module()
        execution, regime = self.recipe.execution, self.recipe.regime
        for name, part in self.module_.named_children():
            placed = place(part, execution.device, execution.module_dtype)
            setattr(self.module_, name, placed)
        self.module_.eval()
        self.learned_ = regime.learned(self.module_)
        self.warming_up_ = regime.warmup_epochs > 0
        if self.warming_up_:
            regime.set_phase(self.module_, warming_up=True)
        return self

    def initialize_optimizer(self, *args, **kwargs):
        """Give the optimiser the trainable parameters, in their groups."""
        _, arguments = self.get_params_for_optimizer("optimizer", [])
        regime, execution = self.recipe.regime, self.recipe.execution
        lr = regime.lr
        if self.warming_up_ and regime.warmup_lr is not None:
            lr = regime.warmup_lr
        groups = parameter_groups(
            self.module_,
            lr=lr,
            backbone_lr=regime.backbone_lr,
            weight_decay=self.recipe.optimizer.weight_decay,
        )
        self.optimizer_ = self.optimizer(groups, **{**arguments, "lr": lr})
        # Gradients of half precision underflow unless the loss is scaled up.
        half = execution.dtype == torch.float16
        self.scaler_ = torch.amp.GradScaler(execution.device.type, enabled=half)
        return self

    @property
    def fingerprint_(self) -> str | None:
        """What finds the checkpoints of this training again, if anything does."""
        return self.recipe.fingerprint

    # From epoch to epoch.

    @property
    def phase_epoch_(self) -> int:
        """Epochs done in this phase: the warm-up, or what follows."""
        before = 0 if self.warming_up_ else self.recipe.regime.warmup_epochs
        return self._epochs_done - before

    @property
    def phase_epochs_(self) -> int:
        """Epochs planned for this phase."""
        warmup = self.recipe.regime.warmup_epochs
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

    def on_epoch_begin(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Unfreeze after the warm-up, and draw what this epoch draws."""
        super().on_epoch_begin(net, dataset_train, dataset_valid, **kwargs)
        warming_up = self._epochs_done < self.recipe.regime.warmup_epochs
        if warming_up != self.warming_up_:  # another phase, with its own optimiser
            self.warming_up_ = warming_up
            self.recipe.regime.set_phase(self.module_, warming_up)
            self.initialize_optimizer()
        backbone = self.module_.backbone
        if not (backbone.trains or backbone.shared):
            backbone.unsettle()  # a callback may write to it
            if all(leaves_alone(callback) for _, callback in self.callbacks_):
                backbone.settle()
        epoch = len(self.history)
        for rows in (dataset_train, dataset_valid):
            if rows is not None:
                if not self.warming_up_ and self.module_.backbone.trains:
                    rows.thaw()
                rows.start_epoch(epoch)
        key = int(keyed_generator(self.recipe.seed, epoch).integers(2**62))
        reseed(key, self.recipe.execution.device)

    def get_iterator(self, dataset, training=False):
        """Return the batches of a dataset; remember how many training has."""
        iterator = super().get_iterator(dataset, training=training)
        if training:
            self.steps_per_epoch_ = len(iterator)
        return iterator

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
            if self._ctrl_c_came:
                raise
            self.stop_ = True  # this is how a skorch callback ends training
            if method_name in ("on_train_begin", "on_train_end"):
                return  # outside of the loop
            raise StopTraining from interrupt
        if method_name == "on_epoch_end" and self.stop_:
            raise StopTraining

    def partial_fit(self, X, y=None, classes=None, **fit_params):
        """Train, and know Ctrl-C from a callback's way to end training."""
        with noting_interrupts(self._note_ctrl_c):
            return super().partial_fit(X, y, classes, **fit_params)

    def _note_ctrl_c(self) -> bool:
        self._ctrl_c_came = True
        return True

    def fit_loop(self, X, y=None, epochs=None, **kwargs):
        """Train, and remember whether the user interrupted it."""
        if self.stop_:
            return self
        try:
            epochs = self.max_epochs - self._epochs_done
            return super().fit_loop(X, y, epochs, **kwargs)
        except StopTraining:
            pass
        except KeyboardInterrupt:
            self.interrupted_ = True
        if len(self.history) and "train_loss" not in self.history[-1]:
            del self.history[-1]  # an epoch that didn't come to its end
        return self

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run an epoch; what a GPU computes is waited for at its end, not each batch.

        Until then the history holds the losses of the batches as tensors.
        """
        if iterator is None:
            return
        name, losses = f"{prefix}_loss", []
        batch_count = 0
        try:
            for batch in iterator:
                self.notify("on_batch_begin", batch=batch, training=training)
                step = step_fn(batch, **fit_params)
                loss = step["loss"].detach()
                losses.append(loss)
                self.history.record_batch(
                    name, loss if self.computes_ahead_ else loss.item()
                )
                self.history.record_batch(f"{prefix}_batch_size", len(batch[1]))
                self.notify("on_batch_end", batch=batch, training=training, **step)
                batch_count += 1
                give_way()
        finally:
            if self.computes_ahead_ and losses:
                values = torch.stack(losses).tolist()
                batches = [b for b in self.history[-1, "batches"] if name in b]
                for row, value in zip(batches, values, strict=False):  # interrupted
                    row[name] = value
        self.history.record(f"{prefix}_batch_count", batch_count)

    @property
    def computes_ahead_(self) -> bool:
        """Whether the device is given work before that of earlier batches is done."""
        return self.recipe.execution.device.type != "cpu"

    # One batch.

    def prepared(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return what the module takes for one batch: normalised, on the device."""
        execution = self.recipe.execution
        name = next(name for name in ("features", "maps", "x") if name in inputs)
        values = sent(inputs[name], execution.device)
        if name != "x":  # a copy: layers may write into a map
            return {name: values.to(execution.module_dtype, copy=name == "maps")}
        values = self.module_.backbone.preprocessing.normalize(values)
        layout = {"memory_format": torch.channels_last}
        return {name: values.to(dtype=execution.module_dtype, **layout)}

    def infer(self, x: Mapping[str, torch.Tensor], **fit_params) -> torch.Tensor:
        """Return the outputs for one batch of pixels or of features.

        Without gradients, as in validation, the batch goes in parts where the device's
        memory doesn't suffice.
        """
        if torch.is_grad_enabled() or self.module_.training:
            return self._outputs(x)
        n_rows = len(next(iter(x.values())))
        return self._fitting(
            n_rows, lambda: torch.cat([self._outputs(p) for p in self._parts(x)])
        )

    def _outputs(self, x: Mapping[str, torch.Tensor]) -> torch.Tensor:
        values = self.prepared(x)
        with self.recipe.execution.autocast():
            return self.module_(**values).to(self.recipe.execution.module_dtype)

    def _parts(self, x: Mapping[str, torch.Tensor]) -> list[dict[str, Any]]:
        """Return a batch in `parts_` parts, or as many as it has rows."""
        n_rows = len(next(iter(x.values())))
        parts = max(1, min(self.parts_, n_rows))
        ends = [n_rows * k // parts for k in range(parts + 1)]
        slices = map(slice, ends[:-1], ends[1:])
        return [{name: v[rows] for name, v in x.items()} for rows in slices]

    def get_loss(self, y_pred, y_true, X=None, training=False) -> torch.Tensor:
        """Return the mean over the batch of the weighted losses of the rows.

        Weights have mean 1 over the training rows, so the mean is over rows, not
        over weights: a heavy batch pulls harder than a light one. A mixed image has
        the losses of both its classes, by their shares.
        """
        losses = self._losses(y_pred, y_true, X["sample_weight"])
        if "mix_target" not in X:
            return losses.mean()
        others = self._losses(y_pred, X["mix_target"], X["mix_weight"])
        share = sent(X["mix_share"], losses.device, losses.dtype)
        return (share * losses + (1 - share) * others).mean()

    def _losses(self, y_pred, target, weight) -> torch.Tensor:
        """Return the weighted loss of each row."""
        dtype = y_pred.dtype if target.is_floating_point() else target.dtype
        found = self.criterion_(y_pred, sent(target, y_pred.device, dtype))
        found = found.reshape(len(found), -1).mean(1)
        return found * sent(weight, found.device, found.dtype)

    def train_step_single(self, batch, **fit_params) -> dict[str, torch.Tensor]:
        """Compute the gradients of one batch."""
        step = self.compute_gradients(batch, **fit_params)
        self.scaler_.unscale_(self.optimizer_)
        return step

    def compute_gradients(self, batch, **fit_params) -> dict[str, torch.Tensor]:
        """Compute the gradients of one batch, scaled in half precision.

        Where the device's memory doesn't suffice, the batch goes in parts whose
        gradients add up, from then on.
        """
        if not self.module_.training:
            self._set_training(True)
        inputs, target = batch
        compute = partial(self._gradients, inputs, target)
        return self._fitting(len(target), compute)

    def _fitting(self, n_rows: int, compute: Callable[[], Any]) -> Any:
        """Call until it fits into memory, in twice as many parts each time."""
        while True:
            try:
                return compute()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                training = self.module_.training
                least = 2 if training and trains_batch_norm(self.module_) else 1
                if n_rows < 2 * least * self.parts_:
                    few = "one image"
                    if least == 2:
                        few = "the two images that BatchNorm needs"
                    raise_no_room(error, self.recipe.execution.device, f"for {few}")
            # Outside of the handler, which would hold on to what there was no room for.
            self._zero_grad_optimizer()
            free_cached_blocks(self.recipe.execution.device)
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

    def _gradients(self, inputs, target) -> dict[str, Any]:
        """Add up the gradients of the parts of a batch."""
        losses: list[torch.Tensor] = []
        outputs: list[torch.Tensor] = []
        parts = [{**inputs, _TARGET: target}]
        if self.parts_ > 1:
            parts = self._parts(parts[0])
        for part in parts:
            wanted = part.pop(_TARGET)
            y_pred = self._outputs(part)
            loss = self.get_loss(y_pred, wanted, X=part, training=True)
            for _, callback in self.callbacks_:
                if hasattr(callback, "loss_term"):
                    loss = loss + callback.loss_term(self, part, y_pred)
            if len(parts) > 1:
                loss = loss * (len(y_pred) / len(target))
            self.scaler_.scale(loss).backward()
            losses.append(loss.detach())
            outputs.append(y_pred.detach())
        if len(losses) == 1:
            return {"loss": losses[0], "y_pred": outputs[0]}
        return {"loss": torch.stack(losses).sum(), "y_pred": torch.cat(outputs)}

    def _step_optimizer(self, step_fn):
        def shaped():
            loss = step_fn()
            self.recipe.optimizer.shape_gradients(self.optimizer_)
            return loss

        take = shaped if self.recipe.optimizer.shapes_gradients else step_fn
        if not self.scaler_.is_enabled():
            return super()._step_optimizer(take)
        take()
        self.scaler_.step(self.optimizer_)
        self.scaler_.update()
        return None

    # What is kept of a training, and how another goes on from it.

    def training_state(self) -> dict[str, Any]:
        """Return what a run that is resumed needs: tensors and plain values."""
        callbacks = {
            name: callback.state_dict()
            for name, callback in self.callbacks_
            if hasattr(callback, "state_dict")
        }
        return {
            "module": learned_state(self),
            "optimizer": self.optimizer_.state_dict(),
            "scaler": self.scaler_.state_dict(),
            "history": self.history.to_list(),
            "start": self.start_,
            "warming_up": self.warming_up_,
            "callbacks": callbacks,
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `training_state` returned."""
        self.history = History(copy.deepcopy(state["history"]))
        self.start_ = state["start"]
        # The phase of the last step: the next epoch's may be another.
        self.warming_up_ = state["warming_up"]
        self.recipe.regime.set_phase(self.module_, self.warming_up_)
        self.initialize_optimizer()
        self.module_.load_state_dict(state["module"], strict=False)
        self.optimizer_.load_state_dict(state["optimizer"])
        self.scaler_.load_state_dict(state["scaler"])
        for name, callback in self.callbacks_:
            if name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][name])

    def continue_from(self, history: pd.DataFrame, previous: "EstimatorNet | None"):
        """Go on with a history, and with the optimiser's state where it fits."""
        self.history = History(
            {**row, "batches": []} for row in history.to_dict("records")
        )
        if previous is None:
            return
        same = type(self.optimizer_) is type(previous.optimizer_)
        if same and self._named_groups() == previous._named_groups():
            state = copy.deepcopy(previous.optimizer_.state_dict()["state"])
            new = self.optimizer_.state_dict()
            self.optimizer_.load_state_dict({**new, "state": state})
        if previous.scaler_state_ and self.scaler_.is_enabled():
            self.scaler_.load_state_dict(previous.scaler_state_)

    def _named_groups(self) -> list[list[str]]:
        """Return the names of the parameters in each of the optimiser's groups."""
        names = {id(p): name for name, p in self.module_.named_parameters()}
        groups = self.optimizer_.param_groups
        return [[names.get(id(p), "") for p in group["params"]] for group in groups]

    def forget_training(self) -> None:
        """Drop what a training that goes on later doesn't need: data, callbacks."""
        self.callbacks_: list = []
        self.callbacks = None
        self.train_split = None
        # Its scale is found by trial: a stream of short fits must not begin anew.
        self.scaler_state_ = self.scaler_.state_dict()
        self.scaler_ = None

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


# What the estimators set, and by which of their parameters where the name differs.
_OURS = {
    *("batch_size", "callbacks", "criterion", "dataset", "device", "lr", "max_epochs"),
    *("dtype", "module", "optimizer", "preprocessing", "recipe", "train_split"),
    *("optimizer__lr", "optimizer__weight_decay"),
}
_OURS_BY_NAME = {
    "criterion": "loss",
    "dataset": "X and y in fit",
    "dtype": "precision",
    "module": "backbone",
    "optimizer__lr": "lr",
    "optimizer__weight_decay": "optimizer=Optimizer(weight_decay=...)",
    "train_split": "early_stopping or X_val",
}


def check_net_params(
    net_params: Mapping[str, Any], n_samples: int, batch_size: int
) -> None:
    """Raise where `net_params` takes what belongs to the estimator, or can't work."""
    taken = sorted(
        name
        for name in map(str, net_params)
        if name in _OURS or name.split("__")[0] in ("criterion", "dataset", "module")
    )
    if taken:
        instead = [
            _OURS_BY_NAME.get(name) or _OURS_BY_NAME.get(name.split("__")[0], name)
            for name in taken
        ]
        raise ValueError(
            f"net_params={taken} belongs to parameters of the estimator itself: "
            f"set {', '.join(instead)}."
        )
    size = net_params.get("iterator_train__batch_size", batch_size)
    if net_params.get("iterator_train__drop_last") and size > n_samples:
        raise ValueError(
            f"iterator_train__drop_last=True with {n_samples} rows and a batch of "
            f"{size} leaves nothing to train on."
        )
    for iterator in ("iterator_train", "iterator_valid"):
        workers = net_params.get(f"{iterator}__num_workers")
        if net_params.get(f"{iterator}__pin_memory") and not workers:
            raise ValueError(
                f"{iterator}__pin_memory=True needs {iterator}__num_workers: without "
                "workers, images may be on the device already."
            )


def build_net(
    network: BackboneWithHead,
    criterion: nn.Module,
    recipe: Recipe,
    rows: TrainingRows,
    validation: TrainingRows | None,
    *,
    callbacks: list,
    net_params: Mapping[str, Any],
) -> EstimatorNet:
    """Return a skorch net, initialised and ready for ``partial_fit``.

    `net_params` can set everything that skorch takes and the estimator has no
    parameter for.
    """
    execution = recipe.execution
    if multiprocessing.current_process().daemon:
        net_params = _without_workers(net_params)
    optimizer_class, optimizer_arguments = recipe.optimizer.factory(
        execution.device, scaled=execution.dtype == torch.float16
    )
    if any(f"optimizer__{name}" in net_params for name in WAYS_OF_THE_STEP):
        optimizer_arguments.pop("fused", None)
    size = net_params.get("iterator_train__batch_size", execution.step_size)
    size = len(rows) if size == -1 else size
    arguments: dict[str, Any] = {
        "optimizer": optimizer_class,
        **{f"optimizer__{name}": v for name, v in optimizer_arguments.items()},
        "lr": recipe.regime.lr,
        "max_epochs": recipe.max_epochs,
        "batch_size": execution.step_size,
        "iterator_train": RowLoader,
        "iterator_valid": RowLoader,
        "iterator_train__shuffle": True,
        "iterator_train__collate_fn": whole_batch,
        "iterator_valid__collate_fn": whole_batch,
        "iterator_train__drop_last": trains_batch_norm(network)
        and _drops_last(len(rows), size),
        "train_split": None if validation is None else predefined_split(validation),
        "callbacks": callbacks,
        "callbacks__print_log": None,
        "device": str(execution.device),
        "verbose": 0,
    }
    for iterator in ("iterator_train", "iterator_valid"):
        if net_params.get(f"{iterator}__num_workers"):
            # The system's own way: joblib's processes make it theirs, which fails.
            way = multiprocessing.get_all_start_methods()[0]
            context = multiprocessing.get_context(way)
            arguments[f"{iterator}__multiprocessing_context"] = context
    changes = rows.random or recipe.regime.warmup_epochs > 0
    if net_params.get("iterator_train__persistent_workers") and changes:
        raise ValueError(
            "iterator_train__persistent_workers=True would repeat the first epoch's "
            "rows: leave it out with augment or warmup_epochs."
        )
    arguments.update(net_params)
    kind, group = EstimatorNet, execution.group
    if group is not None:
        kind = group.net_class
    net = kind(
        lambda: network,
        criterion=lambda: criterion.to(execution.module_dtype),
        recipe=recipe,
        **arguments,
    ).initialize()
    # Or the net would hold them twice. It can't be initialised again.
    net.module, net.criterion = type(network), type(criterion)
    return net


def _without_workers(net_params: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out loader workers, where a process may have no children.

    Such are the workers of Dask and of `multiprocessing.Pool`. Threads decode there.
    """
    workers = ("num_workers", "persistent_workers", "pin_memory", "prefetch_factor")
    names = {f"{i}__{w}" for i in ("iterator_train", "iterator_valid") for w in workers}
    return {name: value for name, value in net_params.items() if name not in names}


def _drops_last(n_rows: int, batch_size: int) -> bool:
    """Tell whether a last batch is left out: BatchNorm can't train on one row."""
    if n_rows == 1 or batch_size == 1:
        raise ValueError(
            f"BatchNorm can't train on one row at a time (n_samples={n_rows}, "
            f"batch_size={batch_size}); use trainable='head' or "
            "Trainable(..., freeze_batch_norm=True), and no BatchNorm in the head."
        )
    return n_rows % batch_size == 1


def ordered_callbacks(ours: Mapping[str, Callback], users: Iterable) -> list:
    """Return the callbacks of a net, those by name that the parameters stand for.

    The user's come last: one that ends training hides nothing from the others. But
    averages of weights come first, so that early stopping sees them and has the last
    word, and checkpoints after all: they keep what the others know.
    """
    users = sorted(check_callbacks(users), key=is_checkpoint)
    first = [c for c in users if issubclass(class_of(c), WeightAveraging)]
    return [*first, *ours.items(), *(c for c in users if c not in first)]


def is_ours(callback) -> bool:
    """Tell whether a callback is of this library, and so leaves frozen parts alone."""
    return class_of(callback).__module__.startswith("sklearn_dl.")


def leaves_alone(callback) -> bool:
    """Tell whether a callback has no part of the network once training has ended."""
    return class_of(callback).__module__.startswith(("sklearn_dl.", "skorch."))


def takes_maps(callback) -> bool:
    """Tell whether a callback needs no pixels, and leaves a frozen prefix alone."""
    writes = issubclass(class_of(callback), LoadInitState | ParamMapper)
    one = callback[1] if isinstance(callback, tuple) else callback
    return leaves_alone(callback) and not (
        writes or getattr(one, "needs_pixels", False)
    )


def is_checkpoint(callback) -> bool:
    """Tell whether a user's callback is a `Checkpoint`."""
    return issubclass(class_of(callback), Checkpoint)
