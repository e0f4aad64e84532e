"""What the parameters of the estimators may be, and how they are set."""

import os
from enum import Enum
from numbers import Integral, Real
from typing import Any

import torch
from sklearn.metrics import get_scorer_names
from sklearn.utils._param_validation import Interval, StrOptions

from sklearn_dl._extraction import FeatureCache
from sklearn_dl._runtime import PRECISIONS
from sklearn_dl.augmentation import Augment
from sklearn_dl.training import OPTIMIZERS, SCHEDULES, Head, Optimizer, Schedule

_POSITIVE = Interval(Real, 0, None, closed="neither")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_COUNT = Interval(Integral, 1, None, closed="left")
_FROM_ZERO = Interval(Integral, 0, None, closed="left")

BACKBONE_CONSTRAINTS: dict[str, Any] = {
    "backbone": [str, callable],
    "weights": [str, os.PathLike, Enum, None],
    "layer": [str],
    "pooling": [StrOptions({"avg", "max", "flatten", "cls"}), None],
    "preprocessing": "no_validation",
    "image_size": [_COUNT, tuple, list, None],
    "image_shape": [tuple, list, None],
    "normalize": [StrOptions({"weights", "data"}), tuple, list],
    "tta": [
        StrOptions({"flip", "five_crop", "ten_crop"}),
        Interval(Integral, 2, None, closed="left"),
        callable,
        None,
    ],
    "batch_size": [_COUNT, StrOptions({"auto"})],
    "device": [str, torch.device],
    "precision": [StrOptions(set(PRECISIONS))],
    "cache": [str, os.PathLike, FeatureCache, None],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}

TRAINING_CONSTRAINTS: dict[str, Any] = {
    "head": [Head, None],
    "loss": "no_validation",  # `resolve_loss` knows the names
    "trainable": [str, _FROM_ZERO, list, tuple],
    "warmup_epochs": [_FROM_ZERO],
    "freeze_batch_norm": ["boolean", StrOptions({"auto"})],
    "lr": [_POSITIVE, None],
    "backbone_lr": [_POSITIVE, tuple, list, None],
    "augment": "no_validation",  # `resolve_augment` knows the names
    "mix": [StrOptions({"mixup", "cutmix", "both"}), None],
    "mix_alpha": [_POSITIVE, None],
    "max_epochs": [_COUNT],
    "optimizer": [StrOptions(set(OPTIMIZERS)), callable, Optimizer],
    "schedule": [StrOptions(set(SCHEDULES)), callable, Schedule],
    "weight_decay": [_NOT_NEGATIVE],
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
    "pooling",
    "preprocessing",
    "image_size",
    "normalize",
    "head",
)


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the names of parameters whose values differ."""
    # Arrays and networks have no plain equality.
    return [
        name
        for name, value in one.items()
        if value is not other[name] and repr(value) != repr(other[name])
    ]


# Objects that a grid reaches into also where the parameter has a plain value.
_OBJECTS: dict[str, Any] = {
    "head": Head,
    "optimizer": Optimizer,
    "schedule": Schedule,
    "augment": Augment,
}


class NestedParameters:
    """Lets `set_params` reach into parameters that hold no object yet."""

    def set_params(self, **params):
        """Set parameters.

        ``head__dropout`` and its like work also where `head`, `optimizer`, `schedule`
        or `augment` hold a plain value: ``optimizer__l1`` with ``optimizer="adam"``
        makes it ``Optimizer("adam", l1=...)``.

        Parameters
        ----------
        **params : dict
            Parameters of the estimator, and of the objects among them.

        Returns
        -------
        self : object
            This estimator.
        """
        for name, cls in _OBJECTS.items():
            value = params.get(name, getattr(self, name))
            nested = any(key.startswith(f"{name}__") for key in params)
            if nested and not hasattr(value, "get_params"):
                params[name] = cls() if value is None else cls(value)
        return super().set_params(**params)  # type: ignore[misc]
