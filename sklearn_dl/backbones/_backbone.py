"""The network without its last layer, and what identifies its features."""

import copy
import hashlib
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from sklearn_dl._runtime import (
    fingerprint_text,
    own_generators,
    package_versions,
    seeded,
)
from sklearn_dl.backbones._cut import (
    Layer,
    Reached,
    pool,
    run,
    split_layer,
    stop_here,
    tensor_of,
)
from sklearn_dl.backbones._fold import ONCE, Pairs, foldable, inference_form
from sklearn_dl.backbones._prefix import (
    Border,
    NoPrefix,
    divides,
    find_border,
    flags_of,
    rest_of,
)
from sklearn_dl.backbones._preprocessing import CallablePreprocessing, Preprocessing
from sklearn_dl.backbones._zoo import unknown_name

_Module = TypeVar("_Module", bound=nn.Module)
_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_KNOWN_CODE = {"torch", "torchvision", "timm", "sklearn_dl"}
_preprocessing_text = lru_cache(maxsize=64)(fingerprint_text)
_INTERNAL = frozenset([*vars(nn.Module()), "_compiled_call_impl"])


class _Tally(threading.local):
    images = 0


_TALLY = _Tally()


def images_seen() -> int:
    """Return how many images this thread has taken through backbones so far."""
    return _TALLY.images


class Kept:
    """What is known of a network that nobody writes to, for all that hold it."""

    def __init__(
        self, settled: bool = False, shared: bool = False, handed: str | None = None
    ):
        self.clear(settled, shared, handed)

    def clear(
        self, settled: bool, shared: bool = False, handed: str | None = None
    ) -> None:
        """Forget all: the network was written to, or moved."""
        self.settled = settled
        self.shared = shared  # others may hold it: it must stay settled
        self.handed = handed  # identity of what was handed out, for `as_it_is`
        self.network: nn.Module | None = None  # where `shared_backbone` gives it
        self.n_bytes = 0  # of that one with its forms
        # The attributes of backbones around it, by what they were asked for by.
        self.shells: dict[tuple, dict[str, Any]] = {}
        self.place: tuple[torch.device, torch.dtype] | None = None
        self.architecture: str | None = None  # the digest of the modules
        self.identity: str | None = None
        self.forms: dict[tuple, nn.Module] = {}  # by device and dtype
        # By the stages that are trained, and the input size; or why there are none.
        self.halves: dict[tuple[frozenset[str], Any], Halves | str] = {}
        self.rests: dict[tuple, nn.Module] = {}  # by entry, form and training flags
        self.trained_on: Halves | None = None  # for predictions from the same maps

    def __reduce__(self):
        # A copy of the network is another one; from one file all get the same.
        return Kept, (self.settled, self.shared, self.handed)


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
    layer : str or (str, str)
        Where the features are taken, with a pooling where it isn't the network's own.
    trains : bool
        Whether `freeze` left some parameter to be trained.

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

    module: nn.Module

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        n_features: int,
        preprocessing: Preprocessing | CallablePreprocessing,
        pretrained: bool,
        stages: dict[str, list[str]],
        layer: Layer = "pre_logits",
        channels_last: bool = False,
    ):
        super().__init__()
        self.module = module
        self.name = name
        self.n_features = n_features
        self.preprocessing = preprocessing
        self.pretrained = pretrained
        self.stages = stages
        point, self._pooling = split_layer(layer)
        self.layer: Layer = point if self._pooling is None else (point, self._pooling)
        self.trains = bool(stages)
        self._channels_last = channels_last  # the layer gives (n, h, w, C)
        self._fixed: list[str] = []  # submodules that stay in evaluation mode
        self._kept = Kept()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the features (n, n_features) of normalised images (n, C, h, w).

        Without gradients a settled backbone computes with BatchNorm folded into the
        convolutions.
        """
        network = self.module
        if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            _TALLY.images += len(x)
            if self._kept.settled and not torch.is_grad_enabled():
                network = self._form(x)
        try:
            out = network(x)
        except Reached as reached:  # where it is cut
            out = reached.output
        if isinstance(out, torch.Tensor) and out.ndim == 2:
            return out
        return self._row(tensor_of(out))

    def _form(self, x: torch.Tensor) -> nn.Module:
        """Return the network in the form that computes as autocast is set now."""
        device, forms = x.device, self._kept.forms
        dtype = x.dtype
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        if (device, dtype) in forms:
            return forms[device, dtype]
        if not is_known(self.module):
            return self.module
        # timm's blocks may leave autocast, where weights must be float32.
        cast = dtype != x.dtype and "timm" not in packages_of(self.module)
        with ONCE.lock:
            if (device, dtype) not in forms:
                pairs = _pairs(self._architecture(), self.module)
                form = inference_form(self.module, pairs, dtype if cast else None)
                forms[device, dtype] = form
                self._kept.n_bytes = bytes_of(self.module, *forms.values())
        return forms[device, dtype]

    def halves(self, trainable: Any) -> "Halves | str":
        """Return the frozen prefix that `freeze` would leave, and where it ends.

        A sentence says why, where the network isn't taken in two. Before it is, the
        halves were compared with the whole on images of noise: they are equal to the
        bit, in evaluation and in training mode with one seed.
        """
        chosen, known = self.trainable_stages(trainable), self._kept.halves
        asked = chosen, self._input_size()
        if asked not in known:
            with own_generators(), ONCE.lock:  # in this order, everywhere
                if asked not in known:
                    try:
                        known[asked] = self._in_two(*asked)
                    except NoPrefix as error:
                        known[asked] = f"{self.name!r} runs as a whole: {error}."
        found = known[asked]
        if isinstance(found, str):
            return found
        prefix = found.prefix.replace_preprocessing(self.preprocessing)
        return replace(found, prefix=prefix)

    def known_halves(self) -> "list[Halves]":
        """Return the halves that were asked for before, the longest prefix first."""
        size, every = self._input_size(), [*self._kept.halves.items()]
        known = [h for (_, of), h in every if of == size and isinstance(h, Halves)]
        known.sort(key=lambda h: -sum(p.numel() for p in h.prefix.parameters()))
        return [
            replace(h, prefix=h.prefix.replace_preprocessing(self.preprocessing))
            for h in known
        ]

    def _input_size(self) -> tuple[int, int] | None:
        """Return the size of all images that enter; None where it isn't known."""
        preprocessing = self.preprocessing
        fixed = isinstance(preprocessing, Preprocessing)
        return preprocessing.output_size if fixed else None

    def _in_two(self, chosen: frozenset[str], size: Any) -> "Halves":
        first = next(iter(self.stages), None)
        if not chosen or first in chosen:
            raise NoPrefix("no stage in front of those that are trained is frozen")
        if not packages_of(self.module) <= _KNOWN_CODE:
            raise NoPrefix("it has code beyond torch, torchvision and timm")
        if size is None:
            raise NoPrefix("its preprocessing leaves the size of images open")
        trained = {name for stage in chosen for name in self.stages[stage]}
        self.eval()
        border = find_border(self.module, trained)
        noise = torch.Generator().manual_seed(0)
        x = torch.randn(2, self.preprocessing.n_channels, *size, generator=noise)
        copied = copy.deepcopy(self).to("cpu", torch.float32)
        _drop_hooks(copied)  # which aren't there to see noise
        copied.freeze(sorted(chosen))
        for training in (False, True):
            copied.train(training)
            try:
                maps = copied._compare(border, x)
            except (RuntimeError, AssertionError, ValueError, TypeError) as error:
                kind = type(error).__name__
                raise NoPrefix(f"trying its halves ended in {kind}") from error
        prefix = Backbone(
            border.prefix_of(self.module),
            name=self.name,
            n_features=math.prod(maps.shape[1:]),
            preprocessing=self.preprocessing,
            pretrained=self.pretrained,
            stages={},
            layer=(border.entry, "flatten"),
        )
        prefix.training, prefix._kept = False, Kept(settled=True, shared=True)
        ordered = maps.ndim == 4 and not maps.is_contiguous()
        return Halves(prefix, border.entry, maps.shape[1:], channels_last=ordered)

    def _compare(self, border: Border, x: torch.Tensor) -> torch.Tensor:
        """Return the maps of images, after a comparison of halves and whole."""
        with torch.inference_mode(False), torch.no_grad():
            with seeded(0):
                wanted = self._row(run(self.module, x))
            with seeded(0):
                maps = run(border.prefix_of(self.module), x)
                found = self.rest(maps.clone(), border.entry)
        if not torch.equal(wanted, found):
            mode = "training" if self.training else "evaluation"
            raise NoPrefix(f"its halves differ from it in {mode} mode")
        return maps

    @property
    def trained_on(self) -> "Halves | None":
        """The halves that the network was trained by, while nobody writes to it.

        Copies, also by pickle, have none.
        """
        return self._kept.trained_on

    @trained_on.setter
    def trained_on(self, halves: "Halves") -> None:
        if self._kept.settled:
            self._kept.trained_on = halves

    def rest(self, maps: torch.Tensor, entry: str) -> torch.Tensor:
        """Return the features for what enters a layer, the `entry` of its halves."""
        network, kept = self.module, self._kept
        if kept.settled and not torch.is_grad_enabled():
            network = self._form(maps)
        asked = entry, id(network), flags_of(network)
        if asked not in kept.rests:
            rest = rest_of(network, entry)
            if network is not self.module:
                # What was folded into a convolution of the prefix isn't in the maps.
                if divides(rest, _pairs(self._architecture(), self.module)):
                    rest = rest_of(self.module, entry)
            kept.rests[asked] = rest
        return self._row(run(kept.rests[asked], maps))

    def _row(self, x: torch.Tensor) -> torch.Tensor:
        return pool(x, self._pooling, self._channels_last)

    @property
    def settled(self) -> bool:
        """Whether nobody writes to the network any more.

        A settled backbone keeps its identity and a form that predicts faster.
        """
        return self._kept.settled

    @property
    def shared(self) -> bool:
        """Whether others may hold the network, so that only a copy can be trained."""
        return self._kept.shared

    def settle(self) -> None:
        """Declare that nobody writes to the network any more; it stays in eval mode.

        `freeze` that leaves something to be trained, and `unsettle`, end it. Copies by
        ``deepcopy`` and pickle are settled too.
        """
        if not self._kept.settled:
            self.eval()
            self._kept.settled = True

    def unsettle(self) -> None:
        """Make ready for writing to the network.

        Raises
        ------
        RuntimeError
            If others hold the network: a copy can be written to.
        """
        if self.shared:
            raise RuntimeError(
                "This network is shared by all who asked for it and stays as it is; "
                "take a copy.deepcopy of the backbone, unsettle that, and change it."
            )
        self._kept.clear(settled=False)

    def as_it_is(self) -> "Backbone":
        """Return what to predict with at once, of a network that was handed out.

        It is settled while that network is what it was then.
        """
        handed = self._kept.handed
        if handed is None:
            return self
        now = object.__new__(Backbone)
        vars(now).update(vars(self.eval()), _kept=Kept())
        now._kept.identity = self.identity()
        now._kept.settled = now._kept.identity == handed
        return now

    def __deepcopy__(self, memo):
        memo[id(self)] = copied = Backbone.__new__(Backbone)
        within = {} if self.shared else memo  # of a shared network each has its own
        for name, value in vars(self).items():
            network = name in ("_modules", "_kept")
            vars(copied)[name] = copy.deepcopy(value, within if network else memo)
        copied._kept.shared = False
        return copied

    def replace_preprocessing(self, preprocessing: Any) -> "Backbone":
        """Return a backbone around the same network with another preprocessing."""
        attributes = {**vars(self), "preprocessing": preprocessing}
        return around(self.module, self._kept, attributes)

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
        RuntimeError
            If something of a shared network is to be trained.
        """
        chosen = self.trainable_stages(trainable)
        if chosen:
            self.unsettle()
        elif self._kept.settled and not self.trains:
            return
        parameters = dict(self.module.named_parameters())
        for stage, names in self.stages.items():
            for name in names:
                parameters[name].requires_grad_(stage in chosen)
        frozen = frozenset(self.stages) - chosen
        parts = dict(self.module.named_modules())
        self._fixed = [
            name
            for name, stages in modules_by_stage(self.module, self.stages).items()
            if (stages and stages <= frozen)
            or (freeze_batch_norm and isinstance(parts[name], _BATCH_NORM))
        ]
        self.trains = bool(chosen)
        self._set_mode()

    def trainable_stages(self, trainable) -> frozenset[str]:
        """Return the names of the stages that `freeze` would leave to be trained."""
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
        self.training = mode
        if not self._kept.settled:  # which is in evaluation mode as a whole
            self._set_mode()
        return self

    def _set_mode(self) -> None:
        mode = self.training and not self._kept.settled and "" not in self._fixed
        self.module.train(mode)
        for name in self._fixed if mode else ():
            self.module.get_submodule(name).training = False

    def identity(self) -> str:
        """Return a digest of what the features of the frozen network depend on.

        It covers the architecture (names, types and settings of the submodules, the
        code of classes of your own, the hooks the network came with), the layer, the
        pooling, and all parameters and buffers with their dtypes; not the
        preprocessing. It is the same on every device and in every process. A settled
        backbone keeps it, unless it has code beyond torch, torchvision and timm
        (classes, hooks, a ``forward`` of its own), which may read what changes.

        Returns
        -------
        str
            64 hexadecimal digits (SHA-256).

        Examples
        --------
        >>> from sklearn_dl.backbones import load_backbone
        >>> backbone = load_backbone("squeezenet1_1", weights=None)
        >>> before = backbone.identity()
        >>> _ = next(backbone.parameters()).detach().mul_(2)
        >>> backbone.identity() == before
        False
        """
        identity = self._kept.identity
        if identity is None:
            text = f"{self._architecture()} {digest_weights(self.module)}"
            if named_tensors(added := _added(self)):
                text += digest_weights(added)
            identity = hashlib.sha256(text.encode()).hexdigest()
            if self._kept.architecture is not None:
                self._kept.identity = identity
        return identity

    def _architecture(self) -> str:
        known = self._kept.architecture
        if known is None:
            known = digest_architecture(self)
            if self._kept.settled and is_known(self.module):
                self._kept.architecture = known
        return known

    def fingerprint(self) -> str:
        """Return a digest of what features depend on, the images aside.

        That is `identity`, the preprocessing, and the versions of the packages that a
        function as preprocessing is from.
        """
        preprocessing = self.preprocessing
        if isinstance(preprocessing, Preprocessing):
            text = _preprocessing_text(preprocessing)
        else:  # what a function does may change
            versions = package_versions(_steps(preprocessing))
            text = fingerprint_text([preprocessing, versions])
        return hashlib.sha256(f"{self.identity()} {text}".encode()).hexdigest()

    def extra_repr(self) -> str:
        """Show name, width and stages."""
        return f"{self.name!r}, n_features={self.n_features}, stages={[*self.stages]}"


@dataclass(frozen=True)
class Halves:
    """A frozen prefix of a network, and where the rest of it begins."""

    prefix: Backbone  # gives the map of an image as one row
    entry: str  # the layer that the map enters
    shape: tuple[int, ...]  # of the map of an image
    channels_last: bool  # whether the network's maps are in that format

    def maps(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the maps, (b, *shape), of their rows."""
        maps = rows.unflatten(1, self.shape)
        if self.channels_last:
            maps = maps.contiguous(memory_format=torch.channels_last)
        return maps


def modules_by_stage(
    module: nn.Module, stages: dict[str, list[str]]
) -> dict[str, set[str]]:
    """Return, for each submodule, the stages that it holds a part of.

    A module without parameters (dropout, activation) belongs to the stage of what
    stands before it.
    """
    stage_of = {name: stage for stage, names in stages.items() for name in names}
    current = {next(iter(stages))} if stages else set()
    found: dict[str, set[str]] = {}
    for name, part in module.named_modules():
        dot = f"{name}." if name else ""
        own = [stage_of[dot + n] for n, _ in part.named_parameters()]
        found[name] = set(own) if own else current
        if own and next(part.children(), None) is None:
            current = {own[-1]}
    return found


def around(network: nn.Module, kept: Kept, attributes: dict[str, Any]) -> Backbone:
    """Return a backbone of these attributes around a network."""
    shell = object.__new__(Backbone)
    vars(shell).update(attributes, _modules={"module": network}, _kept=kept)
    return shell


def handed_out(holder: Any, name: str) -> Backbone:
    """Return the backbone that an object has, for somebody who may write to it.

    In place of a shared one the object gets a copy.
    """
    with ONCE.lock:
        backbone = getattr(holder, name)
        if backbone.shared:
            backbone = copy.deepcopy(backbone)
            setattr(holder, name, backbone)
        if backbone.settled:
            backbone.identity()
            backbone._kept.clear(settled=False, handed=backbone._kept.identity)
    return backbone


def _added(backbone: Backbone) -> nn.Module:
    """Return what somebody gave a backbone beside its network."""
    rest = object.__new__(nn.Module)
    modules = {k: v for k, v in backbone._modules.items() if k != "module"}
    vars(rest).update(vars(backbone), _modules=modules)
    return rest


def _hooks(part: nn.Module) -> list[Any]:
    return [*part._forward_pre_hooks.values(), *part._forward_hooks.values()]


def _drop_hooks(network: nn.Module) -> None:
    """Remove all hooks but those where a network is cut."""
    for part in network.modules():
        part._forward_pre_hooks.clear()
        for number, hook in list(part._forward_hooks.items()):
            if hook is not stop_here:
                del part._forward_hooks[number]


def is_known(network: nn.Module) -> bool:
    """Tell whether no code runs in a network but what depends on its tensors alone."""
    hooks = [hook for part in network.modules() for hook in _hooks(part)]
    ours = all(hook is stop_here for hook in hooks)
    own = any("forward" in vars(part) for part in network.modules())
    return ours and not own and packages_of(network) <= _KNOWN_CODE


def _steps(preprocessing: Any) -> list[type]:
    """Return the classes that decide what the pixels are."""
    transform = getattr(preprocessing, "transform", None)
    steps = getattr(transform, "transforms", None)  # as a Compose has them
    steps = steps if isinstance(steps, list | tuple) else ()
    return [type(transform), *map(type, steps)]


_FOUND: dict[str, Pairs] = {}  # of the architectures seen last


def _pairs(architecture: str, network: nn.Module) -> Pairs:
    if architecture not in _FOUND:
        if len(_FOUND) >= 64:
            _FOUND.clear()
        _FOUND[architecture] = foldable(network)
    return _FOUND[architecture]


def packages_of(network: nn.Module) -> set[str]:
    """Return the names of the packages whose modules a network is made of."""
    return {type(part).__module__.partition(".")[0] for part in network.modules()}


def named_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return all parameters, then all buffers, tied ones under each of their names."""
    parameters = module.named_parameters(remove_duplicate=False)
    buffers = module.named_buffers(remove_duplicate=False)
    return {**dict(parameters), **dict(buffers)}


def bytes_of(*networks: nn.Module) -> int:
    """Return the memory of networks; what they have in common counts once."""
    every = (t for network in networks for t in named_tensors(network).values())
    return sum({t.data_ptr(): t.nbytes for t in every}.values())


def digest_weights(network: nn.Module) -> str:
    """Return the digest of all parameters and buffers, with their names and dtypes."""
    digest = hashlib.sha256()
    with torch.inference_mode(False), torch.no_grad():
        for name, tensor in named_tensors(network).items():
            if not name.endswith("num_batches_tracked"):
                digest.update(f"{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def digest_architecture(backbone: Backbone) -> str:
    """Return the digest of the modules of a backbone, and of where they are cut."""
    added = _added(backbone)
    modules = [*backbone.module.named_modules(remove_duplicate=False)]
    modules += [(f"+{name}", part) for name, part in added.named_modules() if name]
    parts = [
        (name, type(part), {k: v for k, v in vars(part).items() if k not in _INTERNAL})
        for name, part in modules
    ]
    if "forward" in vars(added):
        parts.append(("+", Backbone, {"forward": vars(added)["forward"]}))
    hooks = [(name, h) for name, part in [*modules, ("+", added)] for h in _hooks(part)]
    point = *split_layer(backbone.layer), backbone._channels_last
    versions = package_versions([type(part) for _, part in modules])
    text = fingerprint_text([point, parts, hooks, versions])
    return hashlib.sha256(text.encode()).hexdigest()


def place(network: _Module, device: torch.device, dtype: torch.dtype) -> _Module:
    """Return a network in evaluation mode, in channels_last format, where it computes.

    It is changed in place, but a shared one that has to move is copied.
    """
    where = indexed(device), dtype
    backbones = _backbones(network)
    # Settled backbones know where they are.
    known = [b for b in backbones if b._kept.place == where]
    rest: list[nn.Module] = [network] if network not in known else []
    if known and rest:
        rest = [part for part in network.children() if part not in known]
    tensors = (t for part in rest for t in (*part.parameters(), *part.buffers()))
    if not all(_has_form(tensor, *where) for tensor in tensors):
        if any(backbone.shared for backbone in backbones):
            network = copy.deepcopy(network)
            backbones = _backbones(network)
        network.to(*where).to(memory_format=torch.channels_last)
        for backbone in backbones:  # what was kept is of another device or dtype
            backbone._kept.clear(backbone.settled, backbone.shared)
    for backbone in backbones:
        backbone._kept.place = where if backbone.settled else None
    return network.eval()


def _backbones(network: nn.Module) -> list[Backbone]:
    return [p for p in (network, *network.children()) if isinstance(p, Backbone)]


def _has_form(t: torch.Tensor, device: torch.device, dtype: torch.dtype) -> bool:
    # Of a 1 x 1 convolution either order of the strides will do.
    ordered = t.ndim != 4 or t.is_contiguous(memory_format=torch.channels_last)
    right = t.dtype == dtype or not t.is_floating_point()
    return ordered and right and indexed(t.device) == device


def indexed(device: torch.device) -> torch.device:
    """Return a device with its number, which ``"cuda"`` leaves out."""
    if device.type == "cpu":
        return torch.device("cpu")
    return torch.empty(0, device=device).device if device.index is None else device
