"""The network of a fitted estimator, as the estimator itself holds it."""

from typing import Any

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
