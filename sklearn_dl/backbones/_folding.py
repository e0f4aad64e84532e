"""The form in which a network predicts: BatchNorm folded into convolutions."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from sklearn_dl.backbones._identity import packages_of
from sklearn_dl.backbones._surgery import run
from sklearn_dl.backbones._walk import Mould, named_tensors, walk

# Layers whose weights autocast would cast at each batch.
_CAST = (nn.Conv2d, nn.Linear)
_LARGEST_FLOAT16 = torch.finfo(torch.float16).max
# What `foldable` found, by architecture.
_PAIRS: dict[str | None, list[tuple[str, str]]] = {}


class _Mode(threading.local):
    predicting = False


_MODE = _Mode()


@contextmanager
def predicting() -> Iterator[None]:
    """Let backbones compute as fast as they can, in this thread, without gradients.

    BatchNorm is folded into the convolutions before it, and under autocast weights are
    cast once: the features are the same but for rounding. A network in training mode,
    one whose parts somebody asked for, and one of classes beyond torch, torchvision and
    timm is run as it is.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dl.backbones import load_shared, predicting
    >>> backbone = load_shared("resnet18", weights=None, image_size=32)
    >>> x = torch.randn(2, 3, 32, 32)
    >>> with predicting():
    ...     features = backbone(x)
    >>> torch.allclose(features, backbone(x), rtol=1e-4, atol=1e-5)
    True
    """
    before, _MODE.predicting = _MODE.predicting, True
    try:
        with torch.no_grad():
            yield
    finally:
        _MODE.predicting = before


def is_predicting() -> bool:
    """Tell whether this thread is within `predicting`."""
    return _MODE.predicting and not torch.is_grad_enabled()


@dataclass
class _Form:
    """A copy of a network, and what the network was when it was copied."""

    network: nn.Module | None  # None: nothing is gained
    stamps: list[tuple[int, int]]
    held: list[torch.Tensor]  # so that their addresses aren't given to others


class InferenceForms:
    """Copies of a network that predict faster, kept till it changes.

    BatchNorm in evaluation mode is a scale and a shift of each channel: where it alone
    takes the output of a convolution, they go into that one's weights. Where autocast
    computes in a half precision, weights are cast once rather than at each batch. The
    outputs are the network's but for rounding.
    """

    def __init__(self) -> None:
        self._forms: dict[torch.dtype, _Form] = {}

    def __reduce__(self):
        return InferenceForms, ()

    def of(
        self,
        network: nn.Module,
        x: torch.Tensor,
        *,
        fixed: bool,
        architecture: str | None,
    ) -> nn.Module:
        """Return the form that computes as autocast is set now.

        Parameters
        ----------
        network : nn.Module
            In evaluation mode, of classes of torch, torchvision or timm.
        x : torch.Tensor of shape (n, 3, height, width)
            What it is to be run on.
        fixed : bool
            Whether its tensors can't have changed since the last time.
        architecture : str or None
            What networks of the same modules have in common, if that is known.
        """
        dtype = _compute_dtype(x)
        known = self._forms.get(dtype)
        tensors = [] if fixed else list(named_tensors(network).values())
        if any(tensor.is_inference() for tensor in tensors):
            return network  # to write to them leaves no trace
        stamps = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        if known is None or known.stamps != stamps:
            pairs = _PAIRS.get(architecture)
            if pairs is None:
                pairs = foldable(network, x)
                if architecture is not None:
                    _PAIRS[architecture] = pairs
            # timm's blocks may leave autocast, where weights must be float32.
            cast = dtype != x.dtype and "timm" not in packages_of(network)
            form = inference_form(network, pairs, dtype if cast else None)
            held = [tensor.detach() for tensor in tensors]
            known = self._forms[dtype] = _Form(form, stamps, held)
        # Who asks has modules of its own: what nobody else may be given.
        return network if known.network is None else known.network

    def tensors(self) -> Iterator[torch.Tensor]:
        """Yield the tensors of all forms, those they share with the network too."""
        for form in list(self._forms.values()):
            if form.network is not None:
                yield from named_tensors(form.network).values()

    def forget(self) -> None:
        """Drop the copies: the network is about to change."""
        self._forms.clear()


def inference_form(
    network: nn.Module, pairs: list[tuple[str, str]], dtype: torch.dtype | None = None
) -> nn.Module | None:
    """Return the network with BatchNorm folded, and weights in the compute dtype.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode; it stays as it is.
    pairs : list of (str, str)
        What `foldable` returns.
    dtype : torch.dtype, default=None
        The half precision that autocast computes in.

    Returns
    -------
    nn.Module or None
        A copy that shares the storage of all tensors that stayed the same; None where
        nothing is gained.
    """
    if not pairs and dtype is None:
        return None
    with torch.inference_mode(False), torch.no_grad():
        form = _with_tensors(network, torch.Tensor.detach)
        for conv, norm in pairs:
            if _fold(form.get_submodule(conv), form.get_submodule(norm), dtype):
                parent, _, leaf = norm.rpartition(".")
                setattr(form.get_submodule(parent), leaf, nn.Identity())
        for _, part in walk(form):
            if dtype is not None and any(_is_bare(part, kind) for kind in _CAST):
                _cast(part, dtype)
    return form


def _with_tensors(
    network: nn.Module, new: Callable[[torch.Tensor], torch.Tensor]
) -> nn.Module:
    """Return a copy of a network with a tensor for each of its own."""
    tensors: dict[int, torch.Tensor] = {}
    for tensor in named_tensors(network).values():
        if id(tensor) not in tensors:
            value = new(tensor)
            if isinstance(tensor, nn.Parameter):
                value = nn.Parameter(value, requires_grad=False)
            tensors[id(tensor)] = value
    return Mould(network, shared=[]).cast(tensors)


def foldable(network: nn.Module, x: torch.Tensor) -> list[tuple[str, str]]:
    """Return the convolutions whose output one BatchNorm alone takes, with it.

    Found by a pass over tensors without memory.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.
    x : torch.Tensor of shape (n, 3, height, width)
        Its shape and dtype are those of the inputs.

    Returns
    -------
    list of (str, str)
        Names of submodules.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dl.backbones._folding import foldable
    >>> network = torch.nn.Sequential(
    ...     torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()
    ... )
    >>> foldable(network.eval(), torch.zeros(1, 3, 8, 8))
    [('0', '1')]
    """
    parts = {name.removesuffix("."): part for name, part in walk(network)}
    convs = {n for n, part in parts.items() if _is_bare(part, nn.Conv2d)}
    norms = {n for n, part in parts.items() if _is_bare(part, nn.BatchNorm2d)}
    if not convs or not norms or len({id(p) for p in parts.values()}) < len(parts):
        return []
    flow = _Flow()
    try:
        # A copy: other threads may be computing with the network.
        with torch.inference_mode(False):
            stand_in = _with_tensors(network, _without_memory)
            inputs = _without_memory(x[:1])
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False), flow:
            out = run(stand_in, inputs)
    except Exception:  # what can't run without memory is not folded
        return []
    flow.uses[id(out)] += 1
    names = {id(tensor): name for name, tensor in named_tensors(stand_in).items()}
    made = {
        id(output): names.get(id(weight), "").removesuffix(".weight")
        for weight, output in flow.convolved
    }
    times = Counter(made.values())
    pairs = [
        (
            made.get(id(inputs), ""),
            names.get(id(mean), "").removesuffix(".running_mean"),
        )
        for inputs, mean in flow.normed
        if flow.uses[id(inputs)] == 1
    ]
    normed = Counter(norm for _, norm in pairs)
    return [
        (conv, norm)
        for conv, norm in pairs
        if conv in convs and norm in norms and times[conv] == normed[norm] == 1
    ]


def _without_memory(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, device="meta")


class _Flow(TorchFunctionMode):
    """Notes what is convolved and normalised, and how often each tensor is used."""

    def __init__(self) -> None:
        self.uses: Counter[int] = Counter()
        self.convolved: list[tuple[Any, Any]] = []
        self.normed: list[tuple[Any, Any]] = []
        self._alive: list[Any] = []  # or ids would be given again

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if not any(torch.is_tensor(leaf) for leaf in tree_leaves(output)):
            return output  # a question about a shape or a device
        self._alive.append((args, kwargs, output))
        self.uses.update(
            id(leaf) for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)
        )
        if func is torch.conv2d and len(args) > 1:
            self.convolved.append((args[1], output))
        elif func is F.batch_norm and len(args) > 1:
            self.normed.append((args[0], args[1]))
        return output


def _is_bare(part: nn.Module, kind: type) -> bool:
    """Tell whether a layer is of a class itself, and has no hooks to act on it."""
    hooked = part._forward_hooks or part._forward_pre_hooks
    if type(part) is not kind or hooked:
        return False
    return kind is not nn.BatchNorm2d or part.running_mean is not None


def _fold(conv: Any, norm: Any, dtype: torch.dtype | None) -> bool:
    """Give a convolution the scale and shift of the BatchNorm that follows.

    Return whether that can be: it can't where the range of float16 doesn't suffice.
    """
    mps = conv.weight.device.type == "mps"  # which has no float64
    wide = torch.float32 if mps else torch.float64
    scale = (norm.running_var.to(wide) + norm.eps).rsqrt()
    shift = -norm.running_mean.to(wide)
    if conv.bias is not None:
        shift = shift + conv.bias.to(wide)
    if norm.weight is not None:
        scale = scale * norm.weight.to(wide)
    shift = shift * scale
    if norm.bias is not None:
        shift = shift + norm.bias.to(wide)
    weight = conv.weight * scale.to(conv.weight).view(-1, 1, 1, 1)
    if dtype == torch.float16:
        largest = torch.stack([weight.abs().max(), shift.to(weight).abs().max()]).max()
        if not largest < _LARGEST_FLOAT16:
            return False
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = nn.Parameter(shift.to(weight), requires_grad=False)
    return True


def _cast(part: Any, dtype: torch.dtype) -> None:
    part.weight = nn.Parameter(part.weight.to(dtype), requires_grad=False)
    if part.bias is not None:
        part.bias = nn.Parameter(part.bias.to(dtype), requires_grad=False)


def _compute_dtype(x: torch.Tensor) -> torch.dtype:
    kind = x.device.type
    return (
        torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    )
