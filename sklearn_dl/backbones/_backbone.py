"""The network without its last layer."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from sklearn_dl.backbones._names import unknown_name
from sklearn_dl.backbones._preprocessing import CallablePreprocessing, Preprocessing
from sklearn_dl.backbones._stages import modules_by_stage
from sklearn_dl.backbones._surgery import pool, run

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


class Backbone(nn.Module):
    """A network that turns normalised images into features.

    Made by :func:`load_backbone`.

    Attributes
    ----------
    module : torch.nn.Module
        The cut network.
    name : str
        Torchvision's name, or that of the callable.
    n_features : int
        The width of the output.
    preprocessing : Preprocessing or CallablePreprocessing
        What the images need before they enter.
    pretrained : bool
        Whether weights were loaded.
    stages : dict of str to list of str
        The names of the parameters (as ``module.named_parameters()`` has them) of each
        stage, ordered from input to output; each parameter once.
    min_size : int
        The smallest side of an input in pixels, 1 if unknown.
    layer, pooling : str or None
        Where the features are taken, and how a map or tokens become a vector.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dl.backbones import load_backbone
    >>> backbone = load_backbone("squeezenet1_1", weights=None)
    >>> list(backbone.stages)
    ['stage1', 'stage2', 'stage3']
    >>> backbone.freeze(["stage3"])
    >>> len([p for p in backbone.parameters() if p.requires_grad])
    24
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        n_features: int,
        preprocessing: Preprocessing | CallablePreprocessing,
        pretrained: bool,
        stages: dict[str, list[str]],
        min_size: int = 1,
        layer: str = "pre_logits",
        pooling: str | None = None,
        channels_last: bool = False,
    ):
        super().__init__()
        self.module = module
        self.name = name
        self.n_features = n_features
        self.preprocessing = preprocessing
        self.pretrained = pretrained
        self.stages = stages
        self.min_size = min_size
        self.layer = layer
        self.pooling = pooling
        self._channels_last = channels_last  # the layer gives (n, h, w, C)
        self._fixed: list[str] = []  # submodules that stay in evaluation mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features (n, n_features) of normalised images (n, 3, h, w)."""
        return pool(run(self.module, x), self.pooling, self._channels_last)

    def freeze(
        self,
        trainable: str | int | Sequence[str],
        *,
        freeze_batch_norm: bool = False,
    ) -> None:
        """Choose what training may change.

        A frozen stage gets no gradients and stays in evaluation mode as a whole:
        BatchNorm, Dropout and StochasticDepth behave as in prediction, whatever `train`
        is told.

        Parameters
        ----------
        trainable : "head", "all", int, str or sequence of str
            Nothing of the backbone; all of it; the last k stages; or stages by name.
        freeze_batch_norm : bool, default=False
            Keep the BatchNorm layers of the trainable stages in evaluation mode too.

        Raises
        ------
        ValueError
            If a stage does not exist.
        """
        chosen = self._trainable_stages(trainable)
        params = dict(self.module.named_parameters())
        for stage, names in self.stages.items():
            for name in names:
                params[name].requires_grad_(stage in chosen)
        frozen = frozenset(self.stages) - chosen
        self._fixed = [
            name
            for name, stages in modules_by_stage(self.module, self.stages).items()
            if (stages and stages <= frozen)
            or (
                freeze_batch_norm
                and isinstance(self.module.get_submodule(name), _BATCH_NORM)
            )
        ]
        self.train(self.training)

    def _trainable_stages(self, trainable) -> frozenset[str]:
        names = list(self.stages)
        if isinstance(trainable, int | np.integer) and not isinstance(trainable, bool):
            if not 0 <= trainable <= len(names):
                raise ValueError(
                    f"trainable={trainable}, but {self.name!r} has {len(names)} "
                    f"stages: {', '.join(names)}."
                )
            return frozenset(names[len(names) - trainable :])
        if isinstance(trainable, str) and trainable in ("head", "all"):
            return frozenset(names if trainable == "all" else ())
        wanted = [trainable] if isinstance(trainable, str) else trainable
        if not isinstance(wanted, list | tuple | set | frozenset):
            raise ValueError(
                "trainable must be 'head', 'all', a number of stages or names of "
                f"stages, got {trainable!r}."
            )
        for name in wanted:
            if name not in names:
                hint = f"The stages of {self.name!r}: {', '.join(names)}."
                raise ValueError(unknown_name("stage", name, names, hint))
        return frozenset(wanted)

    def train(self, mode: bool = True) -> "Backbone":
        """Set training mode, except for the frozen part."""
        super().train(mode)
        for name in self._fixed:
            self.module.get_submodule(name).training = False
        return self

    def extra_repr(self) -> str:
        """Show name, width and stages."""
        return f"{self.name!r}, n_features={self.n_features}, stages={[*self.stages]}"
