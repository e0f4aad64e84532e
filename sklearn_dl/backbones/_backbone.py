"""The network without its last layer."""

import hashlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sklearn_dl.backbones._folding import InferenceForms, is_predicting
from sklearn_dl.backbones._identity import (
    digest_architecture,
    digest_weights,
    is_settled,
)
from sklearn_dl.backbones._ledger import Ledger
from sklearn_dl.backbones._names import unknown_name
from sklearn_dl.backbones._preprocessing import CallablePreprocessing, Preprocessing
from sklearn_dl.backbones._stages import modules_by_stage
from sklearn_dl.backbones._surgery import pool, run
from sklearn_dl.backbones._walk import named_tensors, walk

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


class _Tally(threading.local):
    images = 0


_TALLY = _Tally()


def images_seen() -> int:
    """Return how many images this thread has taken through backbones so far.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dl.backbones import images_seen, load_backbone
    >>> backbone = load_backbone("squeezenet1_1", weights=None, image_size=32)
    >>> before = images_seen()
    >>> _ = backbone(torch.zeros(2, 3, 32, 32))
    >>> images_seen() - before
    2
    """
    return _TALLY.images


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
        self._parts: dict[str, set[str]] = {}  # the stages that each has a part of
        self._ledger = Ledger()
        self._forms = InferenceForms()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features (n, n_features) of normalised images (n, 3, h, w).

        Within `predicting`, BatchNorm is folded into the convolutions.
        """
        network = self._network
        if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            _TALLY.images += len(x)
            if is_predicting() and self._can_fold():
                ledger, lender = self._ledger, self._ledger.origin
                forms = self._forms if lender is None else lender.forms
                network = forms.of(
                    network,
                    x,
                    fixed=lender is not None,
                    architecture=ledger.architecture,
                )
        return pool(run(network, x), self.pooling, self._channels_last)

    def _can_fold(self) -> bool:
        """Tell whether the network predicts, and is as it was built."""
        ledger = self._ledger
        if ledger.handed_out:  # to one who may hook its parts, or write to them later
            return False
        if ledger.architecture is None and not is_settled(self._network):
            return False
        return not any(part.training for _, part in walk(self._network))

    @property
    def _network(self) -> nn.Module:
        """The cut network, for those who don't change it."""
        network = self._modules["module"]
        assert network is not None
        return network

    def _hand_out(self) -> nn.Module:
        """Return the network to someone who may write to any part of it."""
        network = self._network
        if "_ledger" in vars(self):
            self._ledger.hand_out(network)
        return network

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "module" and "_ledger" in vars(self):
            self._hand_out()  # to whom it belongs that comes instead
            self._forms.forget()
        super().__setattr__(name, value)

    # Whatever leads to the parts of a module goes by one of these.

    def __getattr__(self, name: str) -> Any:
        if name == "module" and "module" in vars(self).get("_modules", ()):
            return self._hand_out()
        return super().__getattr__(name)

    def named_modules(self, memo=None, prefix="", remove_duplicate=True):
        """Yield the submodules; what they hold is this backbone's own from now on."""
        self._hand_out()
        return super().named_modules(memo, prefix, remove_duplicate)

    def named_children(self):
        """Yield the network; what it holds is this backbone's own from now on."""
        self._hand_out()
        return super().named_children()

    def state_dict(self, *args, **kwargs):
        """Return the tensors, which are this backbone's own from now on."""
        self._hand_out()
        return super().state_dict(*args, **kwargs)

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
        tensors = named_tensors(self._network)
        for stage, names in self.stages.items():
            for name in names:
                tensors[name].requires_grad_(stage in chosen)
        modules = {
            prefix.removesuffix("."): part for prefix, part in walk(self._network)
        }
        if self._parts.keys() != modules.keys():
            self._parts = modules_by_stage(self._network, self.stages)
        frozen = frozenset(self.stages) - chosen
        self._fixed = [
            name
            for name, stages in self._parts.items()
            if (stages and stages <= frozen)
            or (freeze_batch_norm and isinstance(modules[name], _BATCH_NORM))
        ]
        self._ledger.open(self._network, self._movable())
        self.train(self.training)

    @property
    def trains(self) -> bool:
        """Whether some parameter is to be trained."""
        parts = (part for _, part in walk(self._network))
        return any(
            p is not None and p.requires_grad
            for part in parts
            for p in part._parameters.values()
        )

    def identity(self) -> str:
        """Return a digest of what the features of the frozen network depend on.

        It covers the architecture (names, types and settings of the submodules, the
        code of classes of your own, the hooks the network came with), the layer, the
        pooling, and all parameters and buffers with their dtypes; not the
        preprocessing. It is the same on every device and in every process.

        Returns
        -------
        str
            64 hexadecimal digits (SHA-256).

        Notes
        -----
        The digest of the tensors is kept, in a backbone that is frozen as by
        ``freeze("head")``, until a tensor is replaced or written to. torch doesn't tell
        of what is written through ``parameter.data``.

        Examples
        --------
        >>> import torch
        >>> from sklearn_dl.backbones import load_backbone
        >>> backbone = load_backbone("squeezenet1_1", weights=None)
        >>> before = backbone.identity()
        >>> backbone.to(memory_format=torch.channels_last).identity() == before
        True
        >>> with torch.no_grad():
        ...     _ = next(backbone.parameters()).mul_(2)
        >>> backbone.identity() == before
        False
        """
        network, ledger = self._network, self._ledger
        weights = ledger.weights(network)
        if weights is None:
            weights = digest_weights(network)
            if not self._movable():  # a fused optimiser's step leaves no trace
                ledger.remember(network, weights)
        architecture = ledger.architecture
        if architecture is None:
            architecture = digest_architecture(self)
            if not ledger.handed_out and is_settled(network):
                ledger.architecture = architecture
        return hashlib.sha256(f"{architecture} {weights}".encode()).hexdigest()

    def _borrow(self, lender: Any) -> None:
        """Note that every tensor stands on storage of a lender, as others' do."""
        self._ledger.borrow(self._network, lender)
        self._ledger.open(self._network, self._movable())

    def _movable(self) -> set[str]:
        """Return the names of the tensors that training may change."""
        fixed = frozenset(self._fixed)
        movable = set()
        for prefix, part in walk(self._network):
            for name, tensor in part._parameters.items():
                if tensor is not None and tensor.requires_grad:
                    movable.add(prefix + name)
            if prefix.removesuffix(".") not in fixed:
                movable.update(
                    prefix + n for n, t in part._buffers.items() if t is not None
                )
        return movable

    def _apply(self, fn, recurse: bool = True) -> "Backbone":
        self._network._apply(fn)
        self._ledger.settle(self._network)
        return self

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
        network = self._network
        self.training = mode
        if "" in self._fixed:  # the whole network
            if any(part.training for _, part in walk(network)):
                network.eval()
            return self
        if mode:
            self._forms.forget()
        network.train(mode)
        for name in self._fixed:
            network.get_submodule(name).training = False
        return self

    def extra_repr(self) -> str:
        """Show name, width and stages."""
        return f"{self.name!r}, n_features={self.n_features}, stages={[*self.stages]}"
