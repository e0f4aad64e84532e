"""Whose memory the tensors of a backbone stand on, and when its identity changes."""

from typing import Any

import torch
from torch import nn

from sklearn_dl.backbones._walk import named_tensors


class Ledger:
    """Whose memory a network's tensors stand on; its identity till it changes.

    Attributes
    ----------
    lent : frozenset of str
        The names of the tensors whose storage others read too.
    origin : object or None
        What finds that storage again, while the network uses all of it.
    handed_out : bool
        Whether somebody outside may have changed a module, or hooked one.
    architecture : str or None
        The digest of the modules, while nobody may have changed one.
    """

    def __init__(self) -> None:
        self.lent: frozenset[str] = frozenset()
        self.origin: Any = None
        self.handed_out = False
        self.architecture: str | None = None
        # The digest of the tensors, their stamps, and what keeps the addresses from
        # being given to others.
        self._known: tuple[str, list, Any] | None = None

    def borrow(self, module: nn.Module, lender: Any) -> None:
        self.lent, self.origin = lender.names, lender
        self.handed_out, self.architecture = False, lender.architecture
        self._known = lender.weights, lender.stamps, lender
        # It runs before anything goes into any part, whichever module is told to load,
        # and knows the module without keeping it alive.
        module._register_load_state_dict_pre_hook(self.open_loaded, with_module=True)

    def hand_out(self, module: nn.Module) -> None:
        self.handed_out, self.architecture = True, None
        if self.lent:
            self.open(module, set(self.lent))

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
        if self._known is not None and self.weights(module) is None:
            self._known = self.origin = None

    def remember(self, module: nn.Module, weights: str) -> None:
        tensors = list(named_tensors(module).values())
        stamps = [stamp(tensor) for tensor in tensors]
        self._known = weights, stamps, [tensor.detach() for tensor in tensors]

    def weights(self, module: nn.Module) -> str | None:
        """Return the digest that was remembered, None if a tensor changed since."""
        if self._known is None:
            return None
        weights, stamps, _ = self._known
        tensors = named_tensors(module).values()
        same = len(tensors) == len(stamps) and all(
            # Writing to an inference tensor leaves no trace.
            stamp(tensor) == known and not tensor.is_inference()
            for tensor, known in zip(tensors, stamps, strict=True)
        )
        return weights if same else None

    def __getstate__(self) -> dict[str, Any]:
        # A copy has storage of its own. `lent` stays: where two networks are written
        # into one file, torch lets their copies share it again.
        forgotten = {"origin": None, "architecture": None, "_known": None}
        return {**vars(self), **forgotten}


def stamp(tensor: torch.Tensor) -> tuple:
    """Return what tells of a tensor whether it was replaced or written to."""
    version = 0 if tensor.is_inference() else tensor._version
    form = tensor.device, tensor.dtype, tensor.shape, tensor.stride()
    return tensor.data_ptr(), version, *form
