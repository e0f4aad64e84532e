"""What is trained when, and at which rates."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sklearn_dl.backbones import named_parameters, named_tensors
from sklearn_dl.training._module import BackboneWithHead, trains_batch_norm


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
        *,
        trainable,
        lr: float,
        backbone_lr,
        freeze_batch_norm: bool | str,
        warmup_epochs: int,
        warmup_lr: float | None,
        max_epochs: int,
    ) -> "Regime":
        """Return the regime that an estimator's parameters stand for.

        Raises
        ------
        ValueError
            If a rate is not one, a stage doesn't exist, or the warm-up leaves no epoch.
        """
        pretrained = network.backbone.pretrained
        if backbone_lr is None:
            backbone_lr = lr / 100 if pretrained else lr
        elif isinstance(backbone_lr, tuple | list):
            backbone_lr = _pair_of_rates(backbone_lr)
        # Small batches spoil the statistics of good weights; random ones need theirs.
        if freeze_batch_norm == "auto":
            freeze_batch_norm = pretrained
        regime = cls(
            trainable,
            lr,
            backbone_lr,
            freeze_batch_norm=bool(freeze_batch_norm),
            warmup_epochs=warmup_epochs,
            warmup_lr=warmup_lr,
        )
        regime.set_phase(network, warming_up=False)
        if network.trains_backbone:
            if 0 < warmup_epochs >= max_epochs:
                raise ValueError(
                    f"warmup_epochs={warmup_epochs} must be below "
                    f"max_epochs={max_epochs}, which counts them too."
                )
            return regime
        return replace(regime, warmup_epochs=0, warmup_lr=None)

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
        parameters = named_parameters(network).items()
        return frozenset(name for name, p in parameters if p.requires_grad)

    def trains_batch_norm(self, network: BackboneWithHead) -> bool:
        """Tell whether some phase moves the statistics of a BatchNorm.

        The network is as the last phase has it, and stays so.
        """
        return trains_batch_norm(network)


def learned_state(net) -> dict[str, torch.Tensor]:
    """Return copies of what training changes: learned parameters, and buffers."""
    network = net.module_
    frozen = named_parameters(network).keys() - net.learned_
    trains_backbone = any(name.startswith("backbone.") for name in net.learned_)
    return {
        name: tensor.detach().clone()
        for name, tensor in named_tensors(network).items()
        if name not in frozen and (trains_backbone or not name.startswith("backbone."))
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
