"""The network without its last layer."""

import hashlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sklearn_dl.backbones._names import unknown_name
from sklearn_dl.backbones._preprocessing import CallablePreprocessing, Preprocessing
from sklearn_dl.backbones._stages import modules_by_stage
from sklearn_dl.backbones._surgery import pool, run
from sklearn_dl.backbones._walk import named_tensors, walk
from sklearn_dl.runtime import stable_text

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_INTERNAL = frozenset([*vars(nn.Module()), "_compiled_call_impl"])


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
        self._hooks = _hooks(module)  # the network's own; later ones only watch
        self._ledger = _Ledger()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features (n, n_features) of normalised images (n, 3, h, w)."""
        if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            _TALLY.images += len(x)
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
        tensors = named_tensors(self.module)
        for stage, names in self.stages.items():
            for name in names:
                tensors[name].requires_grad_(stage in chosen)
        modules = {prefix.removesuffix("."): part for prefix, part in walk(self.module)}
        if self._parts.keys() != modules.keys():
            self._parts = modules_by_stage(self.module, self.stages)
        frozen = frozenset(self.stages) - chosen
        self._fixed = [
            name
            for name, stages in self._parts.items()
            if (stages and stages <= frozen)
            or (freeze_batch_norm and isinstance(modules[name], _BATCH_NORM))
        ]
        self._ledger.open(self.module, self._movable())
        self.train(self.training)

    @property
    def trains(self) -> bool:
        """Whether some parameter is to be trained."""
        parts = (part for _, part in walk(self.module))
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
        The digest of a backbone that is frozen as by ``freeze("head")`` is kept until a
        tensor is replaced or written to. torch doesn't tell of what is written through
        ``parameter.data``, nor is a changed setting of a submodule looked for once the
        digest is known.

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
        known = self._ledger.identity(self.module)
        if known is None:
            known = _digest(self)
            if not self._movable():  # a fused optimiser's step leaves no trace
                self._ledger.remember(self.module, known)
        return known

    def _borrow(self, lender: Any) -> None:
        """Note that every tensor stands on storage of a lender, as others' do."""
        self._ledger.borrow(self.module, lender)
        self._ledger.open(self.module, self._movable())

    def _movable(self) -> set[str]:
        """Return the names of the tensors that training may change."""
        fixed = frozenset(self._fixed)
        movable = set()
        for prefix, part in walk(self.module):
            for name, tensor in part._parameters.items():
                if tensor is not None and tensor.requires_grad:
                    movable.add(prefix + name)
            if prefix.removesuffix(".") not in fixed:
                movable.update(
                    prefix + n for n, t in part._buffers.items() if t is not None
                )
        return movable

    def _apply(self, fn, recurse: bool = True) -> "Backbone":
        super()._apply(fn, recurse)
        self._ledger.settle(self.module)
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
        if "" in self._fixed:  # the whole network
            self.training = mode
            if any(part.training for _, part in walk(self.module)):
                self.module.eval()
            return self
        super().train(mode)
        for name in self._fixed:
            self.module.get_submodule(name).training = False
        return self

    def extra_repr(self) -> str:
        """Show name, width and stages."""
        return f"{self.name!r}, n_features={self.n_features}, stages={[*self.stages]}"


class _Ledger:
    """Whose memory a network's tensors stand on; its identity till they change.

    Attributes
    ----------
    lent : frozenset of str
        The names of the tensors whose storage others read too.
    origin : object or None
        What finds that storage again, while the network uses all of it.
    """

    def __init__(self) -> None:
        self.lent: frozenset[str] = frozenset()
        self.origin: Any = None
        # The identity, the stamps, and what keeps the addresses from being given to
        # other tensors.
        self._known: tuple[str, list, Any] | None = None

    def borrow(self, module: nn.Module, lender: Any) -> None:
        self.lent, self.origin = lender.names, lender
        self._known = lender.identity, lender.stamps, lender
        # It runs before anything goes into any part, whichever module is told to load,
        # and knows the module without keeping it alive.
        module._register_load_state_dict_pre_hook(self.open_loaded, with_module=True)

    def open_loaded(self, module, state_dict, prefix, *args) -> None:
        names = {name for name in self.lent if prefix + name in state_dict}
        self.open(module, names)

    def open(self, module: nn.Module, names: set[str]) -> None:
        """Make ready for writing to tensors: give them storage of their own."""
        if not names:
            return
        self._known = None
        if names := names & self.lent:
            tensors = named_tensors(module)
            distinct = {id(tensors[name]): tensors[name] for name in names}
            with torch.inference_mode(False):
                for tensor in distinct.values():
                    tensor.data = tensor.data.clone()
            self.lent, self.origin = self.lent - names, None

    def settle(self, module: nn.Module) -> None:
        """Let go of what tensors left behind when they were moved or cast."""
        if self._known is not None and self.identity(module) is None:
            self._known = self.origin = None

    def remember(self, module: nn.Module, identity: str) -> None:
        tensors = list(named_tensors(module).values())
        stamps = [stamp(tensor) for tensor in tensors]
        self._known = identity, stamps, [tensor.detach() for tensor in tensors]

    def identity(self, module: nn.Module) -> str | None:
        """Return what was remembered, None if a tensor has changed since."""
        if self._known is None:
            return None
        identity, stamps, _ = self._known
        tensors = named_tensors(module).values()
        same = len(tensors) == len(stamps) and all(
            # Writing to an inference tensor leaves no trace.
            stamp(tensor) == known and not tensor.is_inference()
            for tensor, known in zip(tensors, stamps, strict=True)
        )
        return identity if same else None

    def __getstate__(self) -> dict[str, Any]:
        # A copy has storage of its own. `lent` stays: where two networks are written
        # into one file, torch lets their copies share it again.
        return {"lent": self.lent, "origin": None, "_known": None}


def stamp(tensor: torch.Tensor) -> tuple:
    """Return what tells of a tensor whether it was replaced or written to."""
    version = 0 if tensor.is_inference() else tensor._version
    form = tensor.device, tensor.dtype, tensor.shape, tensor.stride()
    return tensor.data_ptr(), version, *form


def _hooks(module: nn.Module) -> list[tuple[str, Any]]:
    """Return what runs before and after the submodules of a network."""
    return [
        (name, hook)
        for name, part in module.named_modules()
        for hooks in (part._forward_pre_hooks, part._forward_hooks)
        for hook in hooks.values()
    ]


def _digest(backbone: Backbone) -> str:
    digest = hashlib.sha256()
    digest.update(f"{_architecture(backbone)}\n".encode())
    with torch.inference_mode(False), torch.no_grad():
        for name, tensor in named_tensors(backbone.module).items():
            if not name.endswith("num_batches_tracked"):
                digest.update(f"{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _architecture(backbone: Backbone) -> str:
    parts = [
        (name, type(part), {k: v for k, v in vars(part).items() if k not in _INTERNAL})
        for name, part in backbone.module.named_modules(remove_duplicate=False)
    ]
    point = backbone.layer, backbone.pooling, backbone._channels_last
    return stable_text([point, parts, backbone._hooks])
