"""The network of a fitted estimator, as the estimator itself holds it."""

from typing import Any

import torch
from torch import nn

from sklearn_dl.backbones import Backbone
from sklearn_dl.training import BackboneWithHead

# Attributes that hold a network, or a trainer around it.
HELD = frozenset({"_network", "_backbone", "_net"})


def network_of(estimator: Any) -> Any:
    """Return what an estimator predicts with, which nobody may change.

    A `BackboneWithHead`, the `Backbone` of an extractor, or None where it isn't fitted.
    """
    state = vars(estimator)
    return state.get("_network", state.get("_backbone"))


def set_network(estimator: Any, network: BackboneWithHead | Backbone) -> None:
    """Give an estimator what it predicts with."""
    name = "_backbone" if isinstance(network, Backbone) else "_network"
    vars(estimator)[name] = network


def trained_stages(backbone: Backbone) -> list[str]:
    """Return the names of the stages that training changes."""
    moving = {n for n, p in backbone.module.named_parameters() if p.requires_grad}
    return [stage for stage, names in backbone.stages.items() if moving & {*names}]


def dtype_of(module: nn.Module) -> torch.dtype:
    """Return the precision of a network."""
    every = (tensor.dtype for tensor in module.state_dict().values())
    return next((dtype for dtype in every if dtype.is_floating_point), torch.float32)
