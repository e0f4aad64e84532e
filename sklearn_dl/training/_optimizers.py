"""Optimisers by name, and the groups of parameters they work on."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from numbers import Real
from typing import Any

import torch
from sklearn.base import BaseEstimator
from torch import nn

from sklearn_dl._plain import PlainParameters
from sklearn_dl.backbones import further_kernels
from sklearn_dl.training._regime import BackboneWithHead

# name: (class, arguments, learning rate that suits it)
OPTIMIZERS: dict[str, tuple[type[torch.optim.Optimizer], dict, float]] = {
    "sgd": (torch.optim.SGD, {}, 1e-2),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}, 1e-2),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, 1e-2),
    "adagrad": (torch.optim.Adagrad, {}, 1e-2),
    "rmsprop": (torch.optim.RMSprop, {}, 1e-3),
    "adam": (torch.optim.Adam, {}, 1e-3),
    "adamw": (torch.optim.AdamW, {}, 1e-3),
}
# What torch steps in one pass over each tensor, by device.
_FUSED: dict[str, tuple[type, ...]]
_FUSED = {"cuda": (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)}
_FUSED["cpu"] = (*_FUSED["cuda"], torch.optim.Adagrad)
# The arguments by which a user chooses the way of the step.
WAYS_OF_THE_STEP = ("fused", "foreach", "differentiable")


@dataclass(repr=False, eq=False)
class Optimizer(PlainParameters, BaseEstimator):
    """An optimiser with the settings of its step.

    A value of the estimators' `optimizer` that a grid reaches into, as in
    ``optimizer__weight_decay``. The rates stay with the estimator: `lr`,
    `backbone_lr`.

    Parameters
    ----------
    method : str or callable, default="momentum"
        One of "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam" and "adamw";
        or a class such as `SAM` or one of torch's, called with groups of parameters
        and ``lr=``.
    weight_decay : float, default=1e-4
        Torch's `weight_decay`, twice the factor of an L2 penalty where the method
        isn't "adamw". It is for weights alone: biases, norms and other vectors don't
        decay.
    l1 : float, default=0.0
        Strength of the L1 penalty: its subgradient, ``l1 * sign(w)``, is added to the
        gradient of each weight; biases, norms and other vectors have none. Reported
        losses don't hold it.
    max_grad_norm : float or None, default=None
        The gradient of all parameters together is scaled down to this norm where it
        is longer [1]_.
    max_grad_value : float or None, default=None
        Each element of the gradient is clipped to this size; before the norm.
    options : dict or None, default=None
        Arguments of the class, such as ``{"betas": (0.9, 0.99)}``.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training
       recurrent neural networks", ICML, 2013.

    Examples
    --------
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.training import Optimizer
    >>> model = ImageClassifier(optimizer=Optimizer("adamw", max_grad_norm=1.0))
    >>> model.set_params(optimizer__weight_decay=0.05).optimizer
    Optimizer(max_grad_norm=1.0, method='adamw', weight_decay=0.05)
    """

    method: str | Callable = "momentum"
    _: KW_ONLY
    weight_decay: float = 1e-4
    l1: float = 0.0
    max_grad_norm: float | None = None
    max_grad_value: float | None = None
    options: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, optimizer: "str | Callable | Optimizer") -> "Optimizer":
        """Return any value of the estimators' `optimizer` as one of these, checked."""
        chosen = optimizer if isinstance(optimizer, cls) else cls(optimizer)
        method = chosen.method
        known = isinstance(method, str) and method in OPTIMIZERS
        if not (known or callable(method)) or method is cls:
            names = ", ".join(OPTIMIZERS)
            raise ValueError(
                f"optimizer={method!r} is not a class, nor one of: {names}."
            )
        for name in ("weight_decay", "l1", "max_grad_norm", "max_grad_value"):
            value, limit = getattr(chosen, name), name.startswith("max")
            number = isinstance(value, Real) and not isinstance(value, bool)
            good = number and (value > 0 if limit else value >= 0)
            if not (good or (limit and value is None)):
                right = "above 0, or None" if limit else "a number of at least 0"
                raise ValueError(f"{name}={value!r} must be {right}.")
        if not isinstance(chosen.options, dict | None):
            raise ValueError(f"options={chosen.options!r} must be a dict or None.")
        ours = {"params", "lr", "weight_decay"} & set(chosen.options or ())
        if ours:
            raise ValueError(
                f"options={sorted(ours)} belongs to parameters: lr of the estimator, "
                "weight_decay of Optimizer."
            )
        return chosen

    @property
    def default_lr(self) -> float:
        """Learning rate of the head for a user who gave none."""
        method: Any = self.method
        options = dict(self.options or {})
        if isinstance(method, functools.partial):
            method, options = method.func, {**method.keywords, **options}
        if getattr(method, "takes_base", False):  # its rate is that of its base
            method = options.get("base", "momentum")
        if isinstance(method, str):
            return OPTIMIZERS[method][2]
        rates = {cls: rate for cls, _, rate in OPTIMIZERS.values()}
        return rates.get(method, 1e-3)

    def factory(
        self, device: torch.device | str, *, scaled: bool = False
    ) -> tuple[Callable, dict[str, Any]]:
        """Return the class and its arguments; by name, fused where torch has that.

        Not with scaled gradients (float16): where they overflow in the first step, a
        fused step with momentum leaves its buffers as they came from the allocator.
        """
        options = dict(self.options or {})
        if not isinstance(self.method, str):
            return self.method, options
        cls, arguments, _ = OPTIMIZERS[self.method]
        fuses = not scaled and cls in _FUSED.get(torch.device(device).type, ())
        if fuses and not any(name in options for name in WAYS_OF_THE_STEP):
            arguments = {**arguments, "fused": True}
        return cls, {**arguments, **options}

    @property
    def shapes_gradients(self) -> bool:
        """Whether gradients are changed before a step."""
        return bool(self.l1 or self.max_grad_value or self.max_grad_norm)

    def shape_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Add the L1 penalty to the gradients of an optimiser, then clip them."""
        parameters = [p for g in optimizer.param_groups for p in g["params"]]
        parameters = [p for p in parameters if p.grad is not None]
        if self.l1:
            for parameter in filter(is_weight, parameters):
                parameter.grad.add_(parameter.detach().sign(), alpha=self.l1)
        if self.max_grad_value is not None:
            nn.utils.clip_grad_value_(parameters, self.max_grad_value)
        if self.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)


def parameter_groups(
    network: BackboneWithHead,
    *,
    lr: float,
    backbone_lr: float | tuple[float, float],
    weight_decay: float,
) -> list[dict]:
    """Return the groups of trainable parameters, in which weights alone decay.

    Each has a name: "head", "backbone", or "backbone/<stage>" where stages have rates.
    Kernels of channels behind red, green and blue are as new as the head: they learn
    at its rate, as "channels".
    """
    parts = [("head", list(network.head.parameters()), lr)]
    backbone = dict(network.backbone.named_parameters())
    if isinstance(backbone_lr, tuple):
        stages = {
            stage: [backbone[f"module.{name}"] for name in names]
            for stage, names in network.backbone.stages.items()
        }
        trained = [s for s, ps in stages.items() if any(p.requires_grad for p in ps)]
        first, last = backbone_lr
        for position, stage in enumerate(trained):
            # One stage alone is the last one.
            way = position / (len(trained) - 1) if len(trained) > 1 else 1.0
            rate = first * (last / first) ** way
            parts.append((f"backbone/{stage}", stages[stage], rate))
    else:
        parts.append(("backbone", list(backbone.values()), backbone_lr))
    new: list[nn.Parameter] = []
    if any(name.endswith(".further") for name in backbone):
        new = further_kernels(network.backbone)
    parts.append(("channels", new, lr))
    groups = []
    for name, parameters, rate in parts:
        trainable = [p for p in parameters if p.requires_grad]
        if name != "channels":
            trainable = [p for p in trainable if not any(p is one for one in new)]
        for decay, weights in ((weight_decay, True), (0.0, False)):
            chosen = [p for p in trainable if is_weight(p) == weights]
            if chosen:
                group = {"params": chosen, "lr": rate, "weight_decay": decay}
                groups.append({**group, "name": name})
    return groups


def is_weight(parameter: torch.Tensor) -> bool:
    """Tell whether a parameter is a weight, which decays: no bias, norm or vector."""
    # (1, 1, D), (1, tokens, D) and (C, 1, 1) are vectors, laid out to be broadcast.
    broadcast = parameter.ndim == 3 and 1 in (parameter.shape[0], parameter.shape[2])
    return parameter.ndim > 1 and not broadcast
