"""Transfer regimes: a backbone with a head, and what of it is trained when."""

import copy
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import nn

from sklearn_dl._plain import PlainParameters
from sklearn_dl.backbones import Backbone


class BackboneWithHead(nn.Module):
    """A backbone's features through a head.

    The one network serves all ways of training: from pixels, through the backbone;
    from features that the frozen backbone gave before; and from the maps of its frozen
    prefix, which enter the layer `entry`.
    """

    backbone: Backbone  # maps (b, n_channels, height, width) to (b, n_features)
    head: nn.Module  # maps those to (b, n_outputs); see `Head`
    entry: str = ""

    def __init__(self, backbone: Backbone, head: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(
        self,
        x: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        maps: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the head's outputs, (b, n_outputs), for one of the three."""
        if maps is not None:
            return self.on_maps(maps, self.entry)
        if features is None:
            assert x is not None
            if self.training and not (self.backbone.trains or x.requires_grad):
                with torch.no_grad():  # evaluation may want gradients of its maps
                    features = self.backbone(x)
            else:
                features = self.backbone(x)
        return self.head(features)

    def on_maps(self, maps: torch.Tensor, entry: str) -> torch.Tensor:
        """Return the head's outputs for maps that enter a layer of the backbone."""
        return self.head(self.backbone.rest(maps, entry))

    def as_it_is(self) -> "BackboneWithHead":
        """Return the network around a settled backbone; see `Backbone.as_it_is`."""
        backbone = self.backbone.as_it_is()
        if backbone is self.backbone:
            return self
        view = copy.copy(self)
        vars(view)["_modules"] = {**self._modules, "backbone": backbone}
        return view


class Trainable(PlainParameters, BaseEstimator):
    """The part of a network that is trained.

    A value of the estimators' `trainable` that a grid reaches into, as in
    ``trainable__stages``. A plain value stands for its `stages`.

    Parameters
    ----------
    stages : str, int or sequence of str, default="head"
        ``"head"``: the head alone. ``"all"``: everything. An int k: the head and the
        last k stages of the backbone. Names: the head and these stages (see
        `Backbone.stages`).
    freeze_batch_norm : bool or "auto", default="auto"
        Whether the BatchNorm statistics of the trained stages keep still. ``"auto"``:
        those of pretrained weights do, which small batches would spoil; those of
        random weights move. Statistics of other stages never move.

    Examples
    --------
    >>> from sklearn_dl import ImageClassifier
    >>> from sklearn_dl.training import Trainable
    >>> model = ImageClassifier(trainable=Trainable("all", freeze_batch_norm=True))
    >>> model.set_params(trainable__stages=2).trainable
    Trainable(freeze_batch_norm=True, stages=2)
    """

    def __init__(self, stages: Any = "head", *, freeze_batch_norm: bool | str = "auto"):
        self.stages = stages
        self.freeze_batch_norm = freeze_batch_norm

    @classmethod
    def of(cls, trainable: Any) -> "Trainable":
        """Return any value of the estimators' `trainable` as one of these.

        Raises
        ------
        ValueError
            Naming the setting that is not valid.
        """
        chosen = trainable if isinstance(trainable, cls) else cls(trainable)
        stages, still = chosen.stages, chosen.freeze_batch_norm
        number = isinstance(stages, Integral) and not isinstance(stages, bool)
        if not (number and stages >= 0) and not isinstance(stages, str | list | tuple):
            raise ValueError(
                f"trainable={stages!r} must be 'head', 'all', a number of stages, or "
                "names of stages."
            )
        if still not in (True, False, "auto"):
            raise ValueError(
                f"freeze_batch_norm={still!r} must be True, False or 'auto'."
            )
        return chosen


@dataclass(frozen=True)
class Regime:
    """A transfer regime: what is trained, first and later."""

    trainable: Any  # as `Backbone.freeze` takes it
    lr: float  # of the head
    # Of the trained stages; or of the first and the last, in a geometric scale.
    backbone_lr: float | tuple[float, float]
    freeze_batch_norm: bool = False  # whether statistics of trained stages keep still
    warmup_epochs: int = 0  # in which the head is trained alone, before the rest
    warmup_lr: float | None = None  # of the head in those epochs; None takes `lr`

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

        The network gets a backbone of its own where that is to be trained.
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
        stages = trainable.stages
        trains = stages != "head" if isinstance(stages, str) else bool(stages)
        if trains and network.backbone.shared:  # others predict with it
            network.backbone = copy.deepcopy(network.backbone)
        regime.set_phase(network, warming_up=False)
        if not trains and warmup_epochs:
            raise ValueError(
                f"warmup_epochs={warmup_epochs} is for a backbone that trains later "
                f"than its head, but trainable={stages!r} trains the head alone: leave "
                "it at 0, or train stages too."
            )
        if not trains:
            return replace(regime, warmup_lr=None)
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
        every = network.named_parameters()
        return frozenset(name for name, p in every if p.requires_grad)


def trains_batch_norm(network: BackboneWithHead) -> bool:
    """Tell whether training moves the statistics of some BatchNorm."""
    network.train()
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    part: nn.Module = network if network.backbone.trains else network.head
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
