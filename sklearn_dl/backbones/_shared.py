"""One set of tensors per frozen backbone in a process, read by all who load it."""

import os
import threading
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import nn
from torchvision.models import WeightsEnum

from sklearn_dl._runtime import fingerprint_text, seeded
from sklearn_dl.backbones._backbone import Backbone
from sklearn_dl.backbones._builtin import packaged
from sklearn_dl.backbones._files import cached_path, is_path
from sklearn_dl.backbones._folding import InferenceForms
from sklearn_dl.backbones._ledger import stamp
from sklearn_dl.backbones._load import (
    AnyPreprocessing,
    load_backbone,
    resolve_preprocessing,
)
from sklearn_dl.backbones._walk import Mould, named_tensors
from sklearn_dl.backbones._zoo import check_backbone_name, find_entry, weight_entries

_KEPT_BYTES = 512 * 2**20


def load_shared(
    backbone: str | Callable[[], nn.Module],
    weights: str | PathLike | WeightsEnum | None = "DEFAULT",
    *,
    layer: str = "pre_logits",
    pooling: str | None = None,
    preprocessing: Any = None,
    image_size: int | tuple[int, int] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Backbone:
    """Load a frozen backbone whose tensors all who load it in this process share.

    Built, read and hashed once, then only handed out: the modules are the caller's own
    (hooks, modes, :attr:`Backbone.preprocessing`), what they hold of weights is not.
    :meth:`Backbone.freeze` and ``load_state_dict`` copy what is to be written first,
    moves and casts make copies by themselves; so do pickling and ``deepcopy``.

    Parameters
    ----------
    backbone, weights, layer, pooling, preprocessing, image_size
        As :func:`load_backbone` takes them. A callable is called each time.
    seed : int, default=0
        What random weights are drawn from; torch's generators stay as they are.
    device : str or torch.device, default="cpu"
        Where the tensors are.
    dtype : torch.dtype, default=torch.float32
        Of the parameters and the floating-point buffers.

    Returns
    -------
    Backbone
        In evaluation mode, frozen as by ``freeze("head")``, in channels_last format.

    Raises
    ------
    ValueError, TypeError, OSError
        As :func:`load_backbone` does.

    See Also
    --------
    forget_shared : Give the memory back.

    Notes
    -----
    Of the tensors loaded last, 512 MiB are kept for the next who asks (or the very
    last, if it is larger); others as long as a backbone uses all of them. What was read
    from a file is read again when the file has changed.

    Who asks for the parts of a backbone (``module``, ``parameters()``, ``modules()``,
    ``state_dict()``, ...) may write to them: its tensors are copied first. To compute
    with it, call it.

    Examples
    --------
    >>> from sklearn_dl.backbones import load_shared
    >>> first = load_shared("squeezenet1_1", weights=None, seed=1)
    >>> again = load_shared("squeezenet1_1", weights=None, seed=1)
    >>> next(first.parameters()).data_ptr() == next(again.parameters()).data_ptr()
    False
    >>> first.identity() == again.identity()
    True
    """
    where = _indexed(torch.device(device)), dtype
    options: dict[str, Any] = {
        "layer": layer,
        "pooling": pooling,
        "preprocessing": preprocessing,
        "image_size": image_size,
    }
    with _SHARED.lock, torch.inference_mode(False):
        request = _request(backbone, weights, seed, options, where)
        lender = _SHARED.requested.get(request)
        if lender is not None:
            shell = _shell(lender.moulds[request], lender)
            shell.preprocessing = _given(shell, preprocessing, image_size)
        else:
            with seeded(seed, where[0]):
                template = load_backbone(backbone, weights, **options)
            lender = _SHARED.lend(template, *where)
            again = _request(backbone, weights, seed, options, where)
            mould = Mould(template, shared=[template.preprocessing, template._parts])
            if again and request in (again, ()):  # (): the file was fetched just now
                lender.moulds[again] = mould
                _SHARED.requested[again] = lender
            shell = _shell(mould, lender)
        _SHARED.keep(lender)
    return shell


class SharedCopies:
    """Copies of a network whose tensors are in the process once.

    Parameters
    ----------
    template : Backbone
        Taken over: it is frozen, and its tensors are those of all copies.
    device : torch.device

    Examples
    --------
    >>> import torch
    >>> from sklearn_dl.backbones import SharedCopies, load_backbone
    >>> template = load_backbone("squeezenet1_1", None, image_size=64)
    >>> copies = SharedCopies(template, torch.device("cpu"))
    >>> first, second = (copies.give(template.preprocessing) for _ in range(2))
    >>> first is second, first.identity() == second.identity()
    (False, True)
    """

    def __init__(self, template: Backbone, device: torch.device):
        every = named_tensors(template._network).values()
        kinds = (tensor.dtype for tensor in every if tensor.is_floating_point())
        dtype = next(kinds, torch.float32)
        with _SHARED.lock, torch.inference_mode(False):
            self._lender = _SHARED.lend(template, _indexed(device), dtype)
            parts = [template.preprocessing, template._parts]
            self._mould = Mould(template, shared=parts)
            _SHARED.keep(self._lender)

    def give(self, preprocessing: AnyPreprocessing) -> Backbone:
        """Return one more, with a preprocessing of its own."""
        shell = _shell(self._mould, self._lender)
        shell.preprocessing = preprocessing
        return shell


def forget_shared() -> None:
    """Let go of the tensors that are kept for those who ask next.

    Backbones in use keep theirs.

    Examples
    --------
    >>> from sklearn_dl.backbones import forget_shared
    >>> forget_shared()
    """
    with _SHARED.lock:
        _SHARED.recent.clear()
        _SHARED.requested.clear()
        _SHARED.contents.clear()


def place(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Bring a network to where it computes, in evaluation mode.

    Nothing is copied where everything is in place: memory that is shared stays so.

    Parameters
    ----------
    network : torch.nn.Module
        Changed in place.
    device : torch.device
    dtype : torch.dtype
        Of the parameters and the floating-point buffers.

    Returns
    -------
    torch.nn.Module
        The same network, its maps' weights in channels_last format.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dl.backbones import place
    >>> network = place(torch.nn.Conv2d(3, 4, 3), torch.device("cpu"), torch.float64)
    >>> network.weight.dtype, network.weight.stride(), network.training
    (torch.float64, (27, 1, 9, 3), False)
    """
    device = _indexed(device)
    tensors = named_tensors(network).values()
    there = all(_indexed(d) == device for d in {t.device for t in tensors})
    if not there or not all(_has_form(t, dtype) for t in tensors):
        _move(network, device, dtype)
    return network.eval()


class _Lender:
    """The tensors of one network, and the modules around them for each request."""

    def __init__(self, template: Backbone):
        tensors = named_tensors(template._network)
        self.identity = template.identity()
        self.architecture = template._ledger.architecture
        self.weights = template._ledger.weights(template._network)
        self.tensors = {name: tensor.data for name, tensor in tensors.items()}
        self.names = frozenset(tensors)
        self.stamps = [stamp(tensor) for tensor in self.tensors.values()]
        self.moulds: dict[tuple, Mould] = {}
        self.forms = InferenceForms()

    @property
    def n_bytes(self) -> int:
        every = [*self.tensors.values(), *self.forms.tensors()]
        return sum({t.data_ptr(): t.nbytes for t in every}.values())


class _Registry:
    """Who lends tensors: found by request, and by content."""

    def __init__(self):
        self.lock = threading.RLock()  # torch's generators are the process's too
        self.requested: WeakValueDictionary[tuple, _Lender] = WeakValueDictionary()
        self.contents: WeakValueDictionary[tuple, _Lender] = WeakValueDictionary()
        self.recent: list[_Lender] = []

    def lend(
        self, template: Backbone, device: torch.device, dtype: torch.dtype
    ) -> _Lender:
        """Return the lender of a network's tensors, and put its own in their place."""
        template.freeze("head")
        _move(template.eval(), device, dtype)
        identity = template.identity()
        lender = self.contents.get((identity, device))
        if lender is None:
            lender = self.contents[identity, device] = _Lender(template)
        for name, tensor in named_tensors(template._network).items():
            tensor.data = lender.tensors[name]
        return lender

    def keep(self, lender: _Lender) -> None:
        """Keep a lender, and those before it as far as there is room."""
        self.recent = [*(old for old in self.recent if old is not lender), lender]
        while len(self.recent) > 1 and self._n_bytes() > _KEPT_BYTES:
            del self.recent[0]

    def _n_bytes(self) -> int:
        return sum(lender.n_bytes for lender in self.recent)

    def unlock(self) -> None:
        """Be ready after a fork, at which another thread may have held the lock."""
        self.lock = threading.RLock()


_SHARED = _Registry()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_SHARED.unlock)


def _shell(mould: Mould, lender: _Lender) -> Backbone:
    """Return new modules around the tensors of a lender."""
    tensors: dict[int, torch.Tensor] = {}
    for tensor in named_tensors(mould.module).values():
        alias: torch.Tensor = tensor.data
        if isinstance(tensor, nn.Parameter):
            alias = nn.Parameter(alias, requires_grad=False)
        tensors[id(tensor)] = alias
    shell = mould.cast(tensors)
    assert isinstance(shell, Backbone)
    shell._borrow(lender)
    return shell


def _given(shell: Backbone, preprocessing: Any, image_size: Any) -> AnyPreprocessing:
    """Return the preprocessing asked for, rather than one with the same text."""
    chosen = resolve_preprocessing(preprocessing, shell.name)
    if chosen is None:
        return shell.preprocessing
    return chosen if image_size is None else chosen.replace_image_size(image_size)


def _request(backbone, weights, seed, options, where) -> tuple:
    """Return what a network is found by again; () if that can't be told."""
    if callable(backbone):
        return ()
    origin = _origin(check_backbone_name(backbone), weights, seed)
    return origin and (backbone, *origin, fingerprint_text(options), *where)


def _origin(name: str, weights: Any, seed: int) -> tuple:
    """Return where weights come from, with the file as it is now."""
    if weights is None:
        return None, seed
    weights = packaged(name, weights)
    if is_path(weights, tuple(weight_entries(name))):
        path, entry = Path(weights).expanduser(), ""
    elif isinstance(weights, str | WeightsEnum):
        found = find_entry(name, weights)
        path, entry = cached_path(found), found.name
    else:
        return ()
    try:
        now = path.stat()
    except OSError:
        return ()
    state = now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino, now.st_dev
    return entry, os.path.abspath(path), *state


def _indexed(device: torch.device) -> torch.device:
    if device.type == "cpu":
        return torch.device("cpu")
    return torch.empty(0, device=device).device if device.index is None else device


def _move(network: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    network.to(device, dtype)
    network.to(memory_format=torch.channels_last)


def _has_form(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    # Of a 1 x 1 convolution either order of the strides will do.
    ordered = tensor.ndim != 4 or tensor.is_contiguous(
        memory_format=torch.channels_last
    )
    return ordered and (tensor.dtype == dtype or not tensor.is_floating_point())
