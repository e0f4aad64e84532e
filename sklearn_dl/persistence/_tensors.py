"""Tensors in a file of a model: each content once, read only as what it was."""

import hashlib
import re
from collections.abc import Callable
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from sklearn_dl.backbones import named_tensors
from sklearn_dl.persistence._errors import ModelFileError

MEMBER = re.compile(r"(arrays|tensors-\d{1,6})\.safetensors")


class TensorWriter:
    """Tensors by member of the archive; the same content is kept once."""

    def __init__(self) -> None:
        self.members: dict[str, dict[str, torch.Tensor]] = {}
        self._places: dict[bytes, str] = {}
        # By where they are in memory, which several models may share; kept, so that
        # the address isn't given to another.
        self._known: dict[tuple, tuple[str, torch.Tensor]] = {}

    def add(self, member: str, tensor: torch.Tensor) -> str:
        """Return the place of a tensor, ``member/number``."""
        form = tensor.device, tensor.dtype, tensor.shape, tensor.stride()
        key = (tensor.data_ptr(), *form)
        if key in self._known and tensor.numel():
            return self._known[key][0]
        plain = tensor.detach().cpu().contiguous()
        digest = hashlib.sha256(f"{plain.dtype} {[*plain.shape]}\n".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        place = self._places.get(digest.digest())
        if place is None:
            tensors = self.members.setdefault(member, {})
            place = self._places[digest.digest()] = f"{member}/{len(tensors)}"
            tensors[str(len(tensors))] = plain
        self._known[key] = place, tensor
        return place

    def add_network(self, module: nn.Module) -> dict[str, str]:
        """Return the places of the tensors of a network, in a member of their own."""
        member = f"tensors-{len(self.members)}"
        return {name: self.add(member, t) for name, t in named_tensors(module).items()}


class TensorReader:
    """Reads tensors by their places, each member when it is needed first."""

    def __init__(self, read: Callable[[str], bytes]):
        self._read = read  # from the name of a member to its bytes
        self._members: dict[str, dict[str, torch.Tensor]] = {}

    def __getitem__(self, place: Any) -> torch.Tensor:
        """Return a tensor, which nobody may write to."""
        member, _, number = place.rpartition("/")
        if member not in self._members:
            name = f"{member}.safetensors"
            if not MEMBER.fullmatch(name):
                raise ModelFileError(f"{place!r:.60} is no place of a tensor.")
            data = self._read(name)
            try:
                self._members[member] = load(data)
            except (SafetensorError, ValueError, KeyError, OverflowError) as error:
                raise ModelFileError(f"{name} holds no tensors: {error}") from error
        return self._members[member][number]

    def fill(self, module: nn.Module, places: dict[str, str]) -> None:
        """Put copies of tensors into a network, whose own may be without memory."""
        own = named_tensors(module)
        if odd := sorted(own.keys() ^ places.keys()):
            raise ModelFileError(f"The tensors are not those expected: {odd[:3]}.")
        for name, old in own.items():
            new = self[places[name]]
            same_kind = new.is_floating_point() == old.is_floating_point()
            if new.shape != old.shape or not same_kind:
                raise ModelFileError(
                    f"The tensor {name} is {tuple(new.shape)} of {new.dtype}, but the "
                    f"network's is {tuple(old.shape)} of {old.dtype}."
                )
        done: dict[int, torch.Tensor] = {}
        with torch.inference_mode(False), torch.no_grad():
            for name, old in own.items():
                if id(old) not in done:  # tied ones stay tied
                    read = self[places[name]]
                    new = torch.empty_like(read).copy_(read)  # aligned as any of torch
                    if isinstance(old, nn.Parameter):
                        new = nn.Parameter(new, requires_grad=old.requires_grad)
                    done[id(old)] = new
                owner, _, leaf = name.rpartition(".")
                setattr(module.get_submodule(owner), leaf, done[id(old)])
