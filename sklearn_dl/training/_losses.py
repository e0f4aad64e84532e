"""Losses by name, of torch and of the user, with one value for each row or output."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import nn

from sklearn_dl._plain import PlainParameters


class LogLoss(PlainParameters, BaseEstimator):
    """Cross-entropy of the classes, or of each label, with smoothed targets.

    A value of the estimators' `loss` that a grid reaches into, as in
    ``loss__label_smoothing``. ``LogLoss()`` is the same as ``"log_loss"``.

    Parameters
    ----------
    label_smoothing : float, default=0.0
        a of the smoothed targets [1]_, at least 0 and below 1: for k classes
        ``(1 - a) * one_hot + a / k``, for labels ``(1 - a) * target + a / 2``.

    References
    ----------
    .. [1] C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens and Z. Wojna, "Rethinking the
       Inception architecture for computer vision", CVPR, 2016.

    Examples
    --------
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.training import LogLoss
    >>> model = ImageClassifier(loss=LogLoss())
    >>> model.set_params(loss__label_smoothing=0.1).loss
    LogLoss(label_smoothing=0.1)
    """

    def __init__(self, label_smoothing: float = 0.0):
        self.label_smoothing = label_smoothing


class HingeLoss(nn.Module):
    """Hinge loss of the classes, as Crammer and Singer have it, or of each label.

    For classes [1]_ it is ``max(0, 1 + max(other outputs) - output of the class)``,
    what `sklearn.metrics.hinge_loss` averages over rows; for labels ``max(0, 1 - z)``
    where the label is present, ``max(0, 1 + z)`` where it is absent.

    Parameters
    ----------
    label_smoothing : float, default=0.0
        The loss is the expected one where, with this probability, the class is drawn
        anew among all classes (or the label among 0 and 1).
    reduction : {"mean", "sum", "none"}, default="mean"
        As in torch's losses; the estimators take the losses of rows.

    References
    ----------
    .. [1] K. Crammer and Y. Singer, "On the algorithmic implementation of multiclass
       kernel-based vector machines", JMLR 2, 2001.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dl.training import HingeLoss
    >>> outputs = torch.tensor([[2.0, 0.5], [0.2, 0.0]])
    >>> HingeLoss(reduction="none")(outputs, torch.tensor([0, 1]))
    tensor([0.0000, 1.2000])
    """

    def __init__(self, label_smoothing: float = 0.0, *, reduction: str = "mean"):
        super().__init__()
        self.label_smoothing = label_smoothing
        self.reduction = reduction

    def forward(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the losses of outputs (b, k) for classes (b,) or labels (b, k)."""
        smoothing = self.label_smoothing
        if target.is_floating_point():
            target = (1 - smoothing) * target + smoothing / 2
            present, absent = (1 - outputs).relu(), (1 + outputs).relu()
            return _reduced(target * present + (1 - target) * absent, self.reduction)
        if outputs.shape[1] == 1:  # no other class
            return _reduced(0 * outputs[:, 0], self.reduction)
        first, second = outputs.topk(2, dim=1).values.split(1, dim=1)
        # Where two outputs share the top, each is the other's rival.
        rival = torch.where(outputs == first, second, first)
        losses = (1 + rival - outputs).relu()  # (b, k), one for each class
        chosen = losses.gather(1, target[:, None])[:, 0]
        if smoothing:
            chosen = (1 - smoothing) * chosen + smoothing * losses.mean(1)
        return _reduced(chosen, self.reduction)


class EpsilonInsensitiveLoss(nn.Module):
    """Absolute error beyond a margin, as in support vector regression [1]_.

    ``max(0, |target - output| - epsilon)``, scikit-learn's ``"epsilon_insensitive"``.

    Parameters
    ----------
    epsilon : float, default=0.1
        Errors up to this cost nothing; in standard deviations of the target, as
        `ImageRegressor` scales targets.
    reduction : {"mean", "sum", "none"}, default="mean"
        As in torch's losses; the estimators take the losses of rows.

    References
    ----------
    .. [1] V. Vapnik, "The Nature of Statistical Learning Theory", Springer, 1995.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dl.training import EpsilonInsensitiveLoss
    >>> loss = EpsilonInsensitiveLoss(0.5, reduction="none")
    >>> loss(torch.tensor([1.0, 1.0]), torch.tensor([1.25, 3.0]))
    tensor([0.0000, 1.5000])
    """

    def __init__(self, epsilon: float = 0.1, *, reduction: str = "mean"):
        super().__init__()
        self.epsilon = epsilon
        self.reduction = reduction

    def forward(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the losses of outputs and targets of one shape."""
        losses = ((target - outputs).abs() - self.epsilon).relu()
        return _reduced(losses, self.reduction)


def _reduced(losses: torch.Tensor, reduction: str) -> torch.Tensor:
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


_MODULES: dict[str, dict[str, Callable[..., nn.Module]]] = {
    "multiclass": {"log_loss": nn.CrossEntropyLoss, "hinge": HingeLoss},
    "multilabel-indicator": {"log_loss": nn.BCEWithLogitsLoss, "hinge": HingeLoss},
    "continuous": {
        "squared_error": nn.MSELoss,
        "absolute_error": nn.L1Loss,
        "huber": nn.HuberLoss,
        "epsilon_insensitive": EpsilonInsensitiveLoss,
    },
}


def resolve_loss(
    loss: str | LogLoss | Callable, *, kind: str, label_weight: np.ndarray | None = None
) -> nn.Module:
    """Return the module that a `loss` parameter stands for, without reduction.

    It maps outputs (b, k) and a target to losses, (b,) or (b, k). `label_weight`,
    (k, 2), weighs each label's loss where the label is absent and where it is present.
    """
    smoothing = 0.0
    if isinstance(loss, LogLoss | HingeLoss):
        smoothing = loss.label_smoothing
        if not 0 <= smoothing < 1:
            raise ValueError(
                f"label_smoothing={smoothing!r} must be at least 0 and below 1."
            )
    if isinstance(loss, str | LogLoss):
        name = loss if isinstance(loss, str) else "log_loss"
        if name not in _MODULES[kind]:
            raise ValueError(
                f"loss={loss!r} is not one of: {', '.join(sorted(_MODULES[kind]))}; "
                "nor a loss of torch."
            )
        options = {"label_smoothing": smoothing} if kind == "multiclass" else {}
        module = _MODULES[kind][name](reduction="none", **options)
    else:
        _check_kind(loss, kind)
        module = _RowLosses(_without_reduction(loss))
        smoothing = 0.0  # `HingeLoss` smooths by itself
    if kind == "multilabel-indicator" and (smoothing or label_weight is not None):
        return _LabelLoss(module, smoothing, label_weight)
    return module


def _without_reduction(loss) -> Callable:
    """Return a copy of the user's loss that doesn't reduce."""
    right = not isinstance(loss, type) or issubclass(loss, nn.Module)
    if not (right and callable(loss)):
        raise ValueError(f"loss={loss!r} is neither a name nor a loss of torch.")
    module: Any = loss
    if isinstance(loss, type):
        try:
            module = loss()
        except TypeError as error:
            raise ValueError(
                f"loss={loss!r} can't be made without arguments ({error}); give an "
                "instance."
            ) from error
    module = copy.deepcopy(module)
    if hasattr(module, "reduction"):
        module.reduction = "none"
    return module


def _check_kind(loss, kind: str) -> None:
    """Raise for a loss of torch that can't train outputs of this kind."""
    cls = loss if isinstance(loss, type) else type(loss)
    if not issubclass(cls, nn.Module):
        return
    if issubclass(cls, nn.NLLLoss):
        raise ValueError(
            f"loss={loss!r} wants logarithms of probabilities; the outputs are logits: "
            "use 'log_loss' or torch's CrossEntropyLoss."
        )
    classes = (nn.CrossEntropyLoss, nn.MultiMarginLoss)
    numbers = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)
    wrong = numbers if kind == "multiclass" else classes
    if issubclass(cls, wrong):
        raise ValueError(
            f"loss={loss!r} is not for {kind}: use one of "
            f"{', '.join(sorted(_MODULES[kind]))}, or a loss of torch for them."
        )


class _RowLosses(nn.Module):
    """The user's loss, with its result checked."""

    def __init__(self, loss: Callable):
        super().__init__()
        self.loss = loss

    def forward(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        try:
            losses = self.loss(outputs, target)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            error.add_note(
                f"loss={self.loss!r} was given outputs of shape "
                f"{tuple(outputs.shape)} and a target of shape {tuple(target.shape)}, "
                f"{target.dtype}."
            )
            raise
        if losses.ndim == 0 or len(losses) != len(outputs):
            raise ValueError(
                f"loss={self.loss!r} returned a loss of shape {tuple(losses.shape)} "
                f"for {len(outputs)} rows; weights need one loss for each row: return "
                "it without reduction, or give the loss a `reduction` attribute as "
                "torch's have."
            )
        return losses


class _LabelLoss(nn.Module):
    """A loss of labels with smoothed targets, and weights of absence and presence."""

    weight: torch.Tensor | None

    def __init__(self, loss: nn.Module, smoothing: float, label_weight):
        super().__init__()
        self.loss = loss
        self.smoothing = smoothing
        weight = None if label_weight is None else torch.as_tensor(label_weight)
        self.register_buffer("weight", weight)

    def forward(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        smoothed = (1 - self.smoothing) * target + self.smoothing / 2
        losses = self.loss(outputs, smoothed)
        if self.weight is None:
            return losses
        if losses.shape != target.shape:
            raise ValueError(
                f"class_weight needs a loss for each label, {tuple(target.shape)}, but "
                f"the loss returned {tuple(losses.shape)}."
            )
        absent, present = self.weight.to(losses).unbind(1)
        return losses * torch.lerp(absent, present, target.to(losses))


def chance_loss(
    loss: str | LogLoss | Callable, *, kind: str, n_outputs: int
) -> float | None:
    """Return the loss of a prediction that doesn't look at the image.

    That is one of even probabilities, or of the mean of targets of variance 1 (there
    it is an upper bound, but for the squared error). None for a loss of the user.
    """
    if loss == "log_loss" or isinstance(loss, LogLoss):
        return math.log(2 if kind == "multilabel-indicator" else n_outputs)
    if not isinstance(loss, str):
        return None
    return 0.5 if loss == "huber" else 1.0


def gives_margins(loss) -> bool:
    """Tell whether a loss trains margins, which are no logarithms of probabilities."""
    cls = loss if isinstance(loss, type) else type(loss)
    margins = (HingeLoss, nn.MultiMarginLoss, nn.MultiLabelMarginLoss)
    return loss == "hinge" or issubclass(cls, margins)
