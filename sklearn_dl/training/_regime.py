"""Transfer regimes: what is trained when, and at which rates."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from sklearn_dl.training._module import BackboneWithHead
from sklearn_dl.training._trainable import Trainable


@dataclass(frozen=True)
class Regime:
    """A transfer regime: what is trained, first and later.

    Parameters
    ----------
    trainable : "head", "all", int, str or sequence of str
        As `Backbone.freeze` takes it.
    lr : float
        Rate of the head.
    backbone_lr : float or (float, float)
        Rate of the trained stages; or of the first and of the last of them, with
        those between on a geometric scale.
    freeze_batch_norm : bool, default=False
        Whether the BatchNorm statistics of trained stages keep still.
    warmup_epochs : int, default=0
        Epochs in which the head is trained alone, before the rest.
    warmup_lr : float or None, default=None
        Rate of the head in those epochs; None takes `lr`.
    """

    trainable: Any
    lr: float
    backbone_lr: float | tuple[float, float]
    freeze_batch_norm: bool = False
    warmup_epochs: int = 0
    warmup_lr: float | None = None

    @classmethod
    def of(
        cls,
        network: BackboneWithHead,
        trainable: Any,
        *,
        lr: float,
        backbone_lr: Any,
        warmup_epochs: int,
        warmup_lr: float | None,
        max_epochs: int,
    ) -> "Regime":
        """Return the regime that an estimator's parameters stand for, and begin it.

        Raises
        ------
        ValueError
            If a rate is not one, a stage doesn't exist, or the warm-up leaves no epoch.
        """
        pretrained, trainable = network.backbone.pretrained, Trainable.of(trainable)
        if backbone_lr is None:
            backbone_lr = lr / 100 if pretrained else lr
        elif isinstance(backbone_lr, tuple | list):
            backbone_lr = _pair_of_rates(backbone_lr)
        # Small batches spoil the statistics of good weights; random ones need theirs.
        still = trainable.freeze_batch_norm
        still = pretrained if still == "auto" else bool(still)
        regime = cls(trainable.stages, lr, backbone_lr, still, warmup_epochs, warmup_lr)
        regime.set_phase(network, warming_up=False)
        if not network.trains_backbone:
            return replace(regime, warmup_epochs=0, warmup_lr=None)
        if 0 < warmup_epochs >= max_epochs:
            raise ValueError(
                f"warmup_epochs={warmup_epochs} must be below max_epochs={max_epochs}, "
                "which counts them too."
            )
        return regime

    def set_phase(self, network: BackboneWithHead, warming_up: bool) -> None:
        """Freeze and unfreeze what this phase of training asks for."""
        network.backbone.freeze(
            "head" if warming_up else self.trainable,
            freeze_batch_norm=self.freeze_batch_norm,
        )

    def learned(self, network: BackboneWithHead) -> frozenset[str]:
        """Return the names of the parameters that some phase trains.

        The network is left as the last phase has it.
        """
        self.set_phase(network, warming_up=False)
        part: nn.Module = network if network.trains_backbone else network.head
        prefix = "" if part is network else "head."
        trained = part.named_parameters(prefix.removesuffix("."))
        return frozenset(name for name, p in trained if p.requires_grad)


def trains_backbone(trainable: Any) -> bool:
    """Tell whether a value of the estimators' `trainable` names backbone stages."""
    stages = Trainable.of(trainable).stages
    return stages != "head" if isinstance(stages, str) else bool(stages)


def trains_batch_norm(network: BackboneWithHead) -> bool:
    """Tell whether training moves the statistics of some BatchNorm."""
    network.train()
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    part: nn.Module = network if network.trains_backbone else network.head
    return any(isinstance(m, norms) and m.training for m in part.modules())


def learned_state(net) -> dict[str, torch.Tensor]:
    """Return copies of what training changes: learned parameters, and buffers."""
    network = net.module_
    if all(name.startswith("head.") for name in net.learned_):
        head = network.head.state_dict(prefix="head.")
        return {name: tensor.detach().clone() for name, tensor in head.items()}
    parameters = {name for name, _ in network.named_parameters()}
    return {
        name: tensor.detach().clone()
        for name, tensor in network.state_dict().items()
        if name in net.learned_ or name not in parameters
    }


def _pair_of_rates(pair) -> tuple[float, float]:
    if len(pair) != 2 or not all(
        isinstance(r, int | float | np.number) and r is not True and r > 0 for r in pair
    ):
        raise ValueError(
            f"backbone_lr={pair!r} is not a rate above 0, nor a pair of rates for the "
            "first and the last trained stage."
        )
    return float(pair[0]), float(pair[1])
