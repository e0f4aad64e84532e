"""Tensors in a file of a model: each content once, read only as what it was."""

import hashlib
import re
from collections.abc import Callable
from typing import Any

import torch

from sklearn_dl.backbones import named_tensors, walk
from sklearn_dl.persistence._errors import ModelFileError

MEMBER = re.compile(r"(arrays|tensors-\d{1,6})\.safetensors")


class TensorWriter:
    """Tensors by member of the archive; the same content is kept once."""

    def __init__(self) -> None:
        self.members: dict[str, dict[str, torch.Tensor]] = {}
        self._places: dict[bytes, str] = {}
        self._known: dict[tuple, str] = {}  # tensors whose memory several models share
        self._alive: list[torch.Tensor] = []

    def add(self, member: str, tensor: torch.Tensor) -> str:
        """Return the place of a tensor, ``member/number``."""
        version = 0 if tensor.is_inference() else tensor._version
        form = tensor.device, tensor.dtype, tensor.shape, tensor.stride()
        key = tensor.data_ptr(), version, *form, tensor.is_inference()
        if key in self._known and tensor.numel():
            return self._known[key]
        plain = tensor.detach().cpu().contiguous()
        digest = hashlib.sha256(f"{plain.dtype} {[*plain.shape]}\n".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        place = self._places.get(digest.digest())
        if place is None:
            tensors = self.members.setdefault(member, {})
            place = f"{member}/{len(tensors)}"
            tensors[str(len(tensors))] = plain
            self._places[digest.digest()] = place
        self._known[key] = place
        self._alive.append(tensor)
        return place

    def add_network(self, tensors: dict[str, torch.Tensor]) -> dict[str, str]:
        """Return the places of the tensors of a network, in a member of their own."""
        member = f"tensors-{len(self.members)}"
        return {name: self.add(member, tensor) for name, tensor in tensors.items()}


class TensorReader:
    """Reads tensors by their places, each member when it is needed first.

    Parameters
    ----------
    read : callable
        From the name of a member to its bytes, of the digest they should have.
    """

    def __init__(self, read: Callable[[str], bytes]):
        self._read = read
        self._members: dict[str, dict[str, torch.Tensor]] = {}

    def __getitem__(self, place: Any) -> torch.Tensor:
        """Return a tensor, which nobody may write to."""
        member, _, number = place.rpartition("/")
        if member not in self._members:
            name = f"{member}.safetensors"
            if not MEMBER.fullmatch(name):
                raise ModelFileError(f"{place!r:.60} is no place of a tensor.")
            self._members[member] = _tensors(name, self._read(name))
        return self._members[member][number]


def _tensors(name: str, data: bytes) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise ModelFileError(f"{name} holds no tensors: {error}") from error


def dump(tensors: dict[str, torch.Tensor]) -> bytes:
    """Return tensors as a safetensors file has them."""
    from safetensors.torch import save

    return save(tensors)


def copied(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in memory of torch's own, as aligned as any."""
    return torch.empty_like(tensor).copy_(tensor)


def assign(network: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Put copies of tensors into a network, whose own may be without memory.

    Raises
    ------
    ModelFileError
        If names, shapes or kinds of numbers differ.
    """
    own = named_tensors(network)
    if odd := sorted(own.keys() ^ tensors.keys()):
        raise ModelFileError(
            f"The tensors are not those of the network: {odd[:3]} ({len(odd)} such)."
        )
    for name, old in own.items():
        new = tensors[name]
        same_kind = new.is_floating_point() == old.is_floating_point()
        if new.shape != old.shape or not same_kind:
            raise ModelFileError(
                f"The tensor {name} is {tuple(new.shape)} of {new.dtype}, but the "
                f"network's is {tuple(old.shape)} of {old.dtype}."
            )
    done: dict[int, torch.Tensor] = {}
    with torch.inference_mode(False), torch.no_grad():
        for prefix, part in walk(network):
            every: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
            for slots in every:
                for name, old in slots.items():
                    if old is None:
                        continue
                    if id(old) not in done:
                        new = copied(tensors[prefix + name])
                        if isinstance(old, torch.nn.Parameter):
                            grad = old.requires_grad and new.is_floating_point()
                            new = torch.nn.Parameter(new, requires_grad=grad)
                        done[id(old)] = new
                    slots[name] = done[id(old)]
                    own[prefix + name] = old  # alive: ids are not given again
