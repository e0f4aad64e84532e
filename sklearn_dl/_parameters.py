"""Parameters of the estimators: what they may be, and how they are set."""

import inspect
import os
from enum import Enum
from functools import wraps
from numbers import Integral, Real
from typing import Any

import torch
from sklearn.metrics import get_scorer_names
from sklearn.utils._param_validation import Interval, StrOptions

from sklearn_dl._extraction import FeatureCache
from sklearn_dl._images import Channels
from sklearn_dl._runtime import PRECISIONS
from sklearn_dl.augmentation import Augment
from sklearn_dl.training import (
    OPTIMIZERS,
    SCHEDULES,
    Head,
    LogLoss,
    Optimizer,
    Schedule,
    Trainable,
)

_POSITIVE = Interval(Real, 0, None, closed="neither")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_COUNT = Interval(Integral, 1, None, closed="left")
_FROM_ZERO = Interval(Integral, 0, None, closed="left")

BACKBONE_CONSTRAINTS: dict[str, Any] = {
    "backbone": [str, callable],
    "weights": [str, os.PathLike, Enum, None],
    "layer": [str, tuple, list],
    "preprocessing": "no_validation",
    "image_size": [_COUNT, tuple, list, None],
    "image_shape": [tuple, list, Channels, None],
    "tta": [
        StrOptions({"flip", "five_crop", "ten_crop"}),
        Interval(Integral, 2, None, closed="left"),
        callable,
        None,
    ],
    "batch_size": [_COUNT, StrOptions({"auto"})],
    "device": [str, torch.device, list, tuple],
    "precision": [StrOptions(set(PRECISIONS))],
    "cache": [str, os.PathLike, FeatureCache, None],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}

TRAINING_CONSTRAINTS: dict[str, Any] = {
    "head": [Head, None],
    "loss": "no_validation",  # `resolve_loss` knows the names
    "trainable": [str, _FROM_ZERO, list, tuple, Trainable],
    "warmup_epochs": [_FROM_ZERO],
    "lr": [_POSITIVE, None],
    "backbone_lr": [_POSITIVE, tuple, list, None],
    "augment": "no_validation",  # `resolve_augment` knows the names
    "max_epochs": [_COUNT],
    "optimizer": [StrOptions(set(OPTIMIZERS)), callable, Optimizer],
    "schedule": [StrOptions(set(SCHEDULES)), callable, Schedule],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [_COUNT],
    "tol": [_NOT_NEGATIVE],
    "scoring": [StrOptions(set(get_scorer_names())), callable, None],
    "warm_start": ["boolean"],
    "callbacks": [list, tuple, None],
    "net_params": [dict, None],
}

# What a network is built from: a warm start can't change it.
NETWORK_PARAMETERS = (
    "backbone",
    "weights",
    "layer",
    "preprocessing",
    "image_size",
    "head",
)

# Objects that a grid reaches into also where the parameter has a plain value.
_OBJECTS: dict[str, Any] = {
    "head": Head,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "augment": Augment,
    "trainable": Trainable,
    "loss": LogLoss,
}
# Parameters that there were: a parameter that those who had them have today, and what
# is written in their place.
_REMOVED = {
    "freeze_batch_norm": (
        "trainable",
        "trainable=Trainable('all', freeze_batch_norm=True)",
    ),
    "label_smoothing": ("class_weight", "loss=LogLoss(label_smoothing=0.1)"),
    "mix": ("augment", "augment=['standard', 'mixup'] or Augment(..., mix='mixup')"),
    "mix_alpha": ("augment", "augment=Augment(..., mix='mixup', mix_alpha=0.2)"),
    "normalize": ("preprocessing", "preprocessing='data' or preprocessing=(mean, std)"),
    "pooling": ("layer", "layer=('pooled', 'max')"),
    "weight_decay": ("optimizer", "optimizer=Optimizer('adamw', weight_decay=1e-4)"),
}


def refuse_removed(function):
    """Return a function that tells of parameters it had before what they are now."""
    names = inspect.signature(function).parameters

    @wraps(function)
    def checked(*args, **kwargs):
        if said := _removed(kwargs, names):
            raise TypeError(said)
        if "classifier" in names and args and hasattr(args[0], "get_params"):
            kind = args[0] if isinstance(args[0], type) else type(args[0])
            raise TypeError(  # what it took first before
                f"{function.__name__} takes the backbone first: write "
                f"classifier={kind.__name__}(...)."
            )
        return function(*args, **kwargs)

    return checked


def _removed(given, names) -> str:
    """Return what to write in place of removed parameters, if one is given."""
    for name in given:
        owner, instead = _REMOVED.get(name, ("", ""))
        if owner in names and name not in names:
            return f"There is no {name} any more: write {instead}."
    return ""


class NestedParameters:
    """Lets `set_params` reach into parameters that hold no object yet."""

    def set_params(self, **params):
        """Set parameters.

        ``head__dropout`` and its like work also where `head`, `loss`, `trainable`,
        `optimizer`, `schedule` or `augment` hold a plain value: ``optimizer__l1`` with
        ``optimizer="adam"`` makes it ``Optimizer("adam", l1=...)``.

        Parameters
        ----------
        **params : dict
            Parameters of the estimator, and of the objects among them.

        Returns
        -------
        self : object
            This estimator.
        """
        if said := _removed(params, self.get_params(deep=False)):
            raise ValueError(said)
        for name, cls in _OBJECTS.items():
            start = f"{name}__"
            inner = {key.removeprefix(start) for key in params if key.startswith(start)}
            if not inner:
                continue
            value = params.get(name, getattr(self, name, None))
            if hasattr(value, "get_params") or not hasattr(self, name):
                continue
            plain = value is None or (isinstance(value, str) and value == "log_loss")
            if name == "loss" and not plain:
                raise ValueError(
                    f"loss__ reaches into a LogLoss; loss={value!r} has its own "
                    "settings."
                )
            # Without augmentation there may be mixing all the same.
            mixes = name == "augment" and inner <= {"mix", "mix_alpha"}
            params[name] = cls() if plain and not mixes else cls(value)
        return super().set_params(**params)  # type: ignore[misc]
