"""From an estimator's parameters to a skorch net."""

import copy
import multiprocessing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from skorch.helper import predefined_split
from torch import nn

from sklearn_dl.backbones import named_parameters
from sklearn_dl.training._averaging import WeightAveraging
from sklearn_dl.training._callbacks import (
    EarlyStopping,
    EpochProgress,
    TaskContexts,
    TrainingAccuracy,
    ValidationScore,
    check_callbacks,
)
from sklearn_dl.training._checkpoint import Checkpoint
from sklearn_dl.training._data import RowLoader, TrainingRows, whole_batch
from sklearn_dl.training._module import BackboneWithHead
from sklearn_dl.training._net import EstimatorNet
from sklearn_dl.training._optimizers import WAYS_OF_THE_STEP, Optimizer
from sklearn_dl.training._regime import Regime
from sklearn_dl.training._schedule import LearningRates, Schedule


class Ready:
    """Hands over what was built before once, so that the net doesn't hold it twice."""

    def __init__(self, module: nn.Module):
        self.module: nn.Module | None = module

    def __call__(self) -> nn.Module:
        if self.module is None:
            raise RuntimeError(
                "The net of a fitted estimator can't be initialised again; "
                "fit the estimator instead."
            )
        module, self.module = self.module, None
        return module


# What the estimators set, and by which of their parameters where the name differs.
_OURS = {
    "batch_size",
    "callbacks",
    "criterion",
    "device",
    "dtype",
    "kind",
    "lr",
    "max_epochs",
    "module",
    "optimizer",
    "optimizer__lr",
    "optimizer__weight_decay",
    "preprocessing",
    "regime",
    "resumable",
    "run_id",
    "seed",
    "train_split",
    "update",
    "weight_decay",
}
_OURS_BY_NAME = {
    "criterion": "loss",
    "dataset": "X and y in fit",
    "dtype": "precision",
    "kind": "y in fit",
    "module": "backbone",
    "optimizer__lr": "lr",
    "optimizer__weight_decay": "weight_decay",
    "regime": "trainable",
    "resumable": "random_state",
    "run_id": "random_state",
    "seed": "random_state",
    "train_split": "early_stopping or X_val",
    "update": "optimizer",
}


def build_net(
    network: BackboneWithHead,
    *,
    criterion: nn.Module,
    optimizer: Optimizer,
    regime: Regime,
    weight_decay: float,
    kind: str,
    batch_size: int,
    n_samples: int,
    max_epochs: int,
    validation: TrainingRows | None,
    callbacks: list,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    resumable: bool,
    run_id: Callable[[], str] | None,
    random_rows: bool,
    net_params: Mapping[str, Any],
) -> EstimatorNet:
    """Return a skorch net, initialised and ready for ``partial_fit``.

    `net_params` can set everything that skorch takes and the estimator has no
    parameter for. `random_rows` tells whether the rows change from epoch to epoch.
    """
    net_params = _within_this_process(net_params)
    optimizer_class, optimizer_arguments = optimizer.factory(
        device, scaled=dtype == torch.float16
    )
    if any(f"optimizer__{name}" in net_params for name in WAYS_OF_THE_STEP):
        optimizer_arguments.pop("fused", None)
    size = net_params.get("iterator_train__batch_size", batch_size)
    drop_last = _drops_last(
        network, regime, n_samples, n_samples if size == -1 else size
    )
    arguments: dict[str, Any] = {
        "optimizer": optimizer_class,
        **{f"optimizer__{name}": v for name, v in optimizer_arguments.items()},
        "lr": regime.lr,
        "max_epochs": max_epochs,
        "batch_size": batch_size,
        "iterator_train": RowLoader,
        "iterator_valid": RowLoader,
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
        if net_params.get(f"{iterator}__num_workers"):
            # The system's own way: joblib's processes make it theirs, which fails.
            way = multiprocessing.get_all_start_methods()[0]
            context = multiprocessing.get_context(way)
            arguments[f"{iterator}__multiprocessing_context"] = context
    if net_params.get("iterator_train__persistent_workers") and random_rows:
        raise ValueError(
            "iterator_train__persistent_workers=True would repeat the first epoch's "
            "rows: leave it out with augment, mix or warmup_epochs."
        )
    arguments.update(net_params)
    net = EstimatorNet(
        Ready(network),
        criterion=Ready(criterion),
        preprocessing=network.backbone.preprocessing,
        regime=regime,
        update=optimizer,
        weight_decay=weight_decay,
        dtype=dtype,
        kind=kind,
        seed=seed,
        resumable=resumable,
        run_id=run_id,
        **arguments,
    )
    return net.initialize()


def _within_this_process(net_params: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out loader workers where a process may have no children.

    Such are the workers of Dask and of `multiprocessing.Pool`. Threads decode there.
    """
    if not multiprocessing.current_process().daemon:
        return dict(net_params)
    workers = ("num_workers", "persistent_workers", "pin_memory", "prefetch_factor")
    names = {f"{i}__{w}" for i in ("iterator_train", "iterator_valid") for w in workers}
    return {name: value for name, value in net_params.items() if name not in names}


def build_callbacks(
    users: Iterable,
    *,
    schedule: Schedule,
    score: Callable[[np.ndarray], dict[str, float]] | None,
    count_right: bool,
    early_stopping: EarlyStopping | None,
    progress: bool,
    report: TaskContexts | None,
) -> list:
    """Return the callbacks of a net, by name where they are ours.

    The user's come last: one that ends training hides nothing from the others. But
    averages of weights come first, so that early stopping sees them and has the last
    word, and checkpoints after all: they keep what the others know.
    """
    ours = {
        "valid_score": None if score is None else ValidationScore(score),
        "train_top1": TrainingAccuracy() if count_right else None,
        "learning_rates": LearningRates(schedule),
        "early_stopping": early_stopping,
        "progress": EpochProgress() if progress else None,
        "task_contexts": report,
    }
    chosen = [(name, callback) for name, callback in ours.items() if callback]
    return sorted([*chosen, *check_callbacks(users)], key=_place)


def _place(callback) -> int:
    kind = callback[1] if isinstance(callback, tuple) else callback
    kind = kind if isinstance(kind, type) else type(kind)
    if issubclass(kind, WeightAveraging):
        return -1
    return int(issubclass(kind, Checkpoint))


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


def _drops_last(
    network: BackboneWithHead, regime: Regime, n_rows: int, batch_size: int
) -> bool:
    """Tell whether a last batch is left out: BatchNorm can't train on one row."""
    if not regime.trains_batch_norm(network):
        return False
    if n_rows == 1 or batch_size == 1:
        raise ValueError(
            f"BatchNorm can't train on one row at a time (n_samples={n_rows}, "
            f"batch_size={batch_size}); use trainable='head' or freeze_batch_norm=True "
            "and no BatchNorm in the head."
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
    if previous.scaler_state_ and net.scaler_.is_enabled():
        net.scaler_.load_state_dict(previous.scaler_state_)


def _named(net: EstimatorNet) -> list[list[str]]:
    """Return the names of the parameters in each of the optimiser's groups."""
    names = {id(p): name for name, p in named_parameters(net.module_).items()}
    groups = net.optimizer_.param_groups
    return [[names[id(p)] for p in group["params"]] for group in groups]
