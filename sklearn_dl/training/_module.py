"""The network: a backbone and a new head."""

import torch
from torch import nn

from sklearn_dl.backbones import Backbone


class BackboneWithHead(nn.Module):
    """A backbone's features through a head.

    The one network serves both ways of training: from pixels, through the
    backbone, and from features that the frozen backbone gave before.

    Parameters
    ----------
    backbone : Backbone
        Maps (b, 3, height, width) to (b, n_features).
    head : nn.Module
        Maps (b, n_features) to (b, n_outputs); see `Head`.
    """

    backbone: Backbone
    head: nn.Module

    def __init__(self, backbone: Backbone, head: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(
        self, x: torch.Tensor | None = None, features: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the head's outputs, (b, n_outputs), for pixels or for features."""
        if features is None:
            assert x is not None
            if self.training and not (self.backbone.trains or x.requires_grad):
                with torch.no_grad():  # evaluation may want gradients of its maps
                    features = self.backbone(x)
            else:
                features = self.backbone(x)
        return self.head(features)

    @property
    def trains_backbone(self) -> bool:
        """Whether training changes some parameter of the backbone."""
        return self.backbone.trains
