"""Optimisers by name, and the groups of parameters they work on."""

from collections.abc import Callable

import torch
from torch import nn

from sklearn_dl.training._module import BackboneWithHead

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


def resolve_optimizer(optimizer: str | Callable) -> tuple[Callable, dict]:
    """Return the class and the arguments that an `optimizer` parameter stands for."""
    if isinstance(optimizer, str):
        cls, arguments, _ = OPTIMIZERS[optimizer]
        return cls, arguments
    return optimizer, {}


def default_lr(optimizer: str | Callable) -> float:
    """Return the learning rate of an optimiser whose user gave none.

    Examples
    --------
    >>> from sklearn_dl.training import default_lr
    >>> default_lr("momentum"), default_lr("adamw")
    (0.01, 0.001)
    """
    return OPTIMIZERS[optimizer][2] if isinstance(optimizer, str) else 1e-3


def parameter_groups(
    network: BackboneWithHead, *, lr: float, backbone_lr: float, weight_decay: float
) -> list[dict]:
    """Return the groups of trainable parameters of a `BackboneWithHead`.

    Weights decay; biases, norms and other vectors don't, nor do class tokens,
    position embeddings and layer scales.
    """
    groups = []
    parts: list[tuple[nn.Module, float]]
    parts = [(network.head, lr), (network.backbone, backbone_lr)]
    for part, rate in parts:
        trainable = [p for p in part.parameters() if p.requires_grad]
        for decay, chosen in (
            (weight_decay, [p for p in trainable if _is_weight(p)]),
            (0.0, [p for p in trainable if not _is_weight(p)]),
        ):
            if chosen:
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
    return groups


def _is_weight(parameter: nn.Parameter) -> bool:
    # (1, 1, D), (1, tokens, D) and (C, 1, 1) are vectors, laid out to be broadcast.
    broadcast = parameter.ndim == 3 and 1 in (parameter.shape[0], parameter.shape[2])
    return parameter.ndim > 1 and not broadcast
