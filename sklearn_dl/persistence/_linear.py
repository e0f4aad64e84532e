"""Scikit-learn's linear models on features, as layers of a graph."""

from typing import Any

import numpy as np
import torch
from torch import nn

from sklearn_dl.persistence._errors import ModelFileError

_DECIDE = "LinearSVC, LogisticRegression, RidgeClassifier and SGDClassifier"
_PREDICT = "LinearRegression, LinearSVR, Ridge and SGDRegressor"
_WITH_SCORES = ("LinearSVC", "RidgeClassifier", "SGDClassifier")


class _Fixed(nn.Module):
    """A layer of numbers in float64, in which scikit-learn computes."""

    def __init__(self, **values: np.ndarray):
        super().__init__()
        for name, value in values.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(value, float)))


class Affine(_Fixed):
    """``x @ weight + shift``."""

    weight: torch.Tensor
    shift: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, k) of (n, d)."""
        return x.double() @ self.weight + self.shift


class Scaled(_Fixed):
    """``(x - mean) / scale`` of each feature."""

    mean: torch.Tensor
    scale: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, d) of (n, d)."""
        return (x.double() - self.mean) / self.scale


class BothSides(nn.Module):
    """Probabilities of two classes of the logit of the second."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, 2) of (n, 1)."""
        second = torch.sigmoid(x)
        return torch.cat([1 - second, second], dim=1)


class Platt(_Fixed):
    """Platt's sigmoids of scores, normalised over the classes."""

    slope: torch.Tensor
    shift: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, k) of (n, k), or (n, 2) of (n, 1)."""
        each = torch.sigmoid(-(x * self.slope + self.shift))
        if each.shape[1] == 1:
            return torch.cat([1 - each, each], dim=1)
        return each / each.sum(1, keepdim=True)


def linear_layers(steps: list[Any]) -> tuple[nn.Module, str]:
    """Return the steps of a pipeline after the features, as layers.

    Parameters
    ----------
    steps : list of estimator
        StandardScaler, any number of times, and a linear model.

    Returns
    -------
    layers : torch.nn.Module
    output : {"probabilities", "scores", "targets"}

    Raises
    ------
    ModelFileError
        Naming a step that has no layers.
    """
    *scalers, last = [step for step in steps if step not in ("passthrough", None)]
    layers: list[nn.Module] = []
    for scaler in scalers:
        if type(scaler).__name__ != "StandardScaler":
            raise _cannot(scaler, "before the last step only StandardScaler can be")
        width = scaler.n_features_in_
        mean = scaler.mean_ if scaler.with_mean else np.zeros(width)
        scale = scaler.scale_ if scaler.with_std else np.ones(width)
        layers.append(Scaled(mean=mean, scale=scale))
    name = type(last).__name__
    if name == "CalibratedClassifierCV":
        layers += _calibrated(last)
        return nn.Sequential(*layers), "probabilities"
    known = (*_WITH_SCORES, "LogisticRegression", "LinearRegression")
    if name not in (*known, "LinearSVR", "Ridge", "SGDRegressor"):
        raise _cannot(last, f"classifiers can be {_DECIDE}; regressors {_PREDICT}")
    layers.append(_affine(last))
    if name in _WITH_SCORES:
        return nn.Sequential(*layers), "scores"
    if name != "LogisticRegression":
        return nn.Sequential(*layers), "targets"
    layers.append(BothSides() if len(last.classes_) == 2 else nn.Softmax(dim=1))
    return nn.Sequential(*layers), "probabilities"


def _affine(model: Any) -> Affine:
    coef = np.atleast_2d(model.coef_)
    shift = np.broadcast_to(model.intercept_, len(coef)).copy()
    return Affine(weight=coef.T, shift=shift)


def _calibrated(model: Any) -> list[nn.Module]:
    members = model.calibrated_classifiers_
    inner = members[0].estimator
    inner = getattr(inner, "estimator", inner)  # within a FrozenEstimator
    wanted = len(members) == 1 and members[0].method == "sigmoid"
    if not wanted or type(inner).__name__ not in _WITH_SCORES:
        raise _cannot(
            model,
            "calibrated ones can be CalibratedClassifierCV(..., ensemble=False, "
            f"method='sigmoid') of {', '.join(_WITH_SCORES)}",
        )
    calibrators = members[0].calibrators
    slope, shift = (
        np.array([getattr(c, n) for c in calibrators]) for n in ("a_", "b_")
    )
    return [_affine(inner), Platt(slope=slope, shift=shift)]


def _cannot(step: Any, instead: str) -> ModelFileError:
    return ModelFileError(
        f"{type(step).__name__} can't be exported: {instead}. Or use `save`, which "
        "takes any of scikit-learn."
    )
