"""Scikit-learn's linear models on features, as layers of a graph."""

from typing import Any

import numpy as np
import torch
from torch import nn

from sklearn_dl.persistence._errors import ModelFileError

_WITH_SCORES = ("LinearSVC", "RidgeClassifier", "SGDClassifier")
_REGRESSORS = ("LinearRegression", "LinearSVR", "Ridge", "SGDRegressor")


class _Fixed(nn.Module):
    """A layer of numbers in float64, in which scikit-learn computes."""

    def __init__(self, **values: Any):
        super().__init__()
        for name, value in values.items():
            self.register_buffer(name, torch.from_numpy(np.array(value, float)))


class Affine(_Fixed):
    """``x @ weight + shift``, (n, k) of (n, d)."""

    weight: torch.Tensor
    shift: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (n, k) of (n, d)."""
        return x.double() @ self.weight + self.shift


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
    """Return the steps of a pipeline after the features as layers, and their output.

    The steps are StandardScaler, any number of times, and a linear model; the output is
    one of "probabilities", "scores" and "targets".
    """
    *scalers, last = [step for step in steps if step not in ("passthrough", None)]
    center: Any = 0.0
    scale: Any = 1.0  # of all scalers together: (x - center) / scale
    for scaler in scalers:
        if type(scaler).__name__ != "StandardScaler":
            raise _cannot(scaler, "before the last step only StandardScaler can be")
        center = center + scale * (scaler.mean_ if scaler.with_mean else 0.0)
        scale = scale * (scaler.scale_ if scaler.with_std else 1.0)

    def affine(model: Any) -> Affine:
        coef = np.atleast_2d(model.coef_) / scale
        shift = model.intercept_ - coef @ np.broadcast_to(center, coef.shape[1])
        return Affine(weight=coef.T, shift=shift)

    name = type(last).__name__
    if name == "CalibratedClassifierCV":
        member, platt = _calibrated(last)
        return nn.Sequential(affine(member), platt), "probabilities"
    if name in _WITH_SCORES:
        return affine(last), "scores"
    if name in _REGRESSORS:
        return affine(last), "targets"
    if name != "LogisticRegression":
        known = f"{', '.join(_WITH_SCORES)}; regressors {', '.join(_REGRESSORS)}"
        raise _cannot(last, f"classifiers can be LogisticRegression, {known}")
    binary = len(last.classes_) == 2
    finish = Platt(slope=[-1.0], shift=[0.0]) if binary else nn.Softmax(dim=1)
    return nn.Sequential(affine(last), finish), "probabilities"


def _calibrated(model: Any) -> tuple[Any, Platt]:
    """Return the one model that was calibrated, and its sigmoids."""
    members = model.calibrated_classifiers_
    inner = members[0].estimator
    inner = getattr(inner, "estimator", inner)  # within a FrozenEstimator
    wanted = len(members) == 1 and members[0].method == "sigmoid"
    if not wanted or type(inner).__name__ not in _WITH_SCORES:
        form = "CalibratedClassifierCV(..., ensemble=False, method='sigmoid')"
        known = ", ".join(_WITH_SCORES)
        raise _cannot(model, f"calibrated ones can be {form} of {known}")
    found = members[0].calibrators
    return inner, Platt(slope=[c.a_ for c in found], shift=[c.b_ for c in found])


def _cannot(step: Any, instead: str) -> ModelFileError:
    return ModelFileError(
        f"{type(step).__name__} can't be exported: {instead}. Or use `save`, which "
        "takes any of scikit-learn."
    )
