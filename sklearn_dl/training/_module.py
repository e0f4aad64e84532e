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
    head : nn.Linear
        Maps (b, n_features) to (b, n_outputs).
    """

    backbone: Backbone
    head: nn.Linear

    def __init__(self, backbone: Backbone, head: nn.Linear):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(
        self, x: torch.Tensor | None = None, features: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the head's outputs, (b, n_outputs), for pixels or for features."""
        return self.head(self.backbone(x) if features is None else features)


def check_batch_norm(network: BackboneWithHead, n_rows: int) -> None:
    """Raise where BatchNorm would have to train on a single row."""
    network.train()
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    if n_rows == 1 and any(
        isinstance(module, norms) and module.training for module in network.modules()
    ):
        raise ValueError(
            "n_samples=1 is too few to train BatchNorm; "
            "use trainable='head' or freeze_batch_norm=True."
        )
