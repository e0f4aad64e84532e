"""Networks of fitted estimators, for those who look into them."""

from typing import Any

from torch import nn


def network_of(estimator: Any) -> nn.Module | None:
    """Return the network of a fitted estimator; others may have it too: don't write.

    A `BackboneWithHead`, the `Backbone` of an extractor, or None before `fit`.
    """
    own = vars(estimator)
    if isinstance(network := own.get("_network", own.get("_backbone")), nn.Module):
        return network
    return own.get("_network", own.get("_backbone"))
