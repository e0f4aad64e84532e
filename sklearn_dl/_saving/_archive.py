"""The members of a saved model: a manifest and tensors, checked when they are read.

A file is an uncompressed zip of them. Each content of a tensor is there once, and is
read only as what it was.
"""

import hashlib
import json
import os
import platform
import re
import sys
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, BinaryIO, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from sklearn_dl._files import ModelFileError, check_file, first_line
from sklearn_dl.backbones import named_tensors

FORMAT = "sklearn_dl model"
VERSION = 3
MANIFEST = "manifest.json"
_MEMBER = re.compile(r"(arrays|tensors-\d{1,6})\.safetensors")
_MANIFEST_BYTES = 2**28
_PARTS = {"versions": dict, "members": dict, "root": list, "nodes": list}
_OWN_VERSION: str = sys.modules["sklearn_dl"].__version__  # type: ignore[attr-defined]
_PACKAGES = ("numpy", "scikit-learn", "skorch", "torch", "torchvision")


def versions() -> dict[str, str]:
    """Return the versions that a model depends on."""
    own = {"python": platform.python_version(), "sklearn_dl": _OWN_VERSION}
    return {**own, **{package: version(package) for package in _PACKAGES}}


def read_versions(path: str | os.PathLike) -> dict[str, str]:
    """Return the versions that a file of a model was written by."""
    with reading(path) as archive:
        return archive.manifest["versions"]


def members_of(
    content: dict[str, Any], tensors: dict[str, dict[str, torch.Tensor]]
) -> Iterator[tuple[str, bytes]]:
    """Yield members by name: those of tensors, then the manifest with all else."""
    about = {"format": FORMAT, "version": VERSION, "versions": versions()}
    digests: dict[str, str] = {}
    for member, part in tensors.items():
        name, data = f"{member}.safetensors", save(part)
        digests[name] = hashlib.sha256(data).hexdigest()
        yield name, data
        del data  # before the next one is made
    manifest = {**about, "members": digests, **content}
    text = json.dumps(manifest, allow_nan=False, separators=(",", ":"))
    if len(text) > _MANIFEST_BYTES:
        beside = f"{len(text)} bytes of lists and strings beside its arrays"
        raise ModelFileError(f"The model has {beside}: too much for one file.")
    yield MANIFEST, text.encode()


def write_archive(file: BinaryIO, members: Iterator[tuple[str, bytes]]) -> None:
    """Write members to an uncompressed zip: the same model, the same file."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)


class Archive:
    """The members of a model: its `manifest`, and tensors by their places."""

    def __init__(self, names: Collection[str], read: Callable[[str], bytes]):
        self._read = read  # from the name of a member to its bytes
        self._tensors: dict[str, dict[str, torch.Tensor]] = {}
        manifest = json.loads(read(MANIFEST))
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise ModelFileError("it is no model of sklearn_dl.")
        number = manifest.get("version")
        if type(number) is not int or number != VERSION:
            writer = manifest.get("versions", {}).get("sklearn_dl", "another one")
            former = type(number) is int and number < VERSION
            again = "fit and save again with this version"
            raise ModelFileError(
                f"it has the format {number!r:.20}, written by sklearn_dl "
                f"{writer!s:.40}; this is sklearn_dl {_OWN_VERSION}, which reads the "
                f"format {VERSION}: {again if former else 'update sklearn_dl'}."
            )
        for name, kind in _PARTS.items():
            if not isinstance(manifest.get(name), kind):
                raise ModelFileError(
                    f"{name} of its {MANIFEST} is missing or no {kind.__name__}."
                )
        for name in manifest["members"]:
            if name not in names:
                raise ModelFileError(f"it is incomplete, without {name!r:.100}.")
        self.manifest: dict[str, Any] = manifest

    def read(self, name: str) -> bytes:
        """Return a member, once it is known to be as it was written."""
        digest = self.manifest["members"].get(name)
        if digest is None:
            raise ModelFileError(f"it is incomplete, without the member {name}.")
        data = self._read(name)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ModelFileError(f"{name} is not what was written: its digest differs.")
        return data

    def __getitem__(self, place: Any) -> torch.Tensor:
        """Return a tensor, which nobody may write to."""
        member, _, number = place.rpartition("/")
        if member not in self._tensors:
            name = f"{member}.safetensors"
            if not _MEMBER.fullmatch(name):
                raise ModelFileError(f"{place!r:.60} is no place of a tensor.")
            data = self.read(name)
            try:
                self._tensors[member] = load(data)
            except (SafetensorError, ValueError, KeyError, OverflowError) as error:
                raise ModelFileError(f"{name} holds no tensors: {error}") from error
        return self._tensors[member][number]

    def fill(self, module: nn.Module, places: dict[str, str]) -> None:
        """Put copies of tensors into a network, whose own may be without memory."""
        own = named_tensors(module)
        if odd := sorted(own.keys() ^ places.keys()):
            raise ModelFileError(f"The tensors are not those expected: {odd[:3]}.")
        done: dict[int, torch.Tensor] = {}
        with torch.inference_mode(False), torch.no_grad():
            for name, old in own.items():
                read = self[places[name]]
                same_kind = read.is_floating_point() == old.is_floating_point()
                if read.shape != old.shape or not same_kind:
                    raise ModelFileError(
                        f"The tensor {name} is {tuple(read.shape)} of {read.dtype}, "
                        f"but the network's is {tuple(old.shape)} of {old.dtype}."
                    )
                if id(old) not in done:  # tied ones stay tied
                    new = torch.empty_like(read).copy_(read)  # aligned as any of torch
                    if isinstance(old, nn.Parameter):
                        new = nn.Parameter(new, requires_grad=old.requires_grad)
                    done[id(old)] = new
                owner, _, leaf = name.rpartition(".")
                setattr(module.get_submodule(owner), leaf, done[id(old)])


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Raise where a zip is none of ours; nothing of it has been read yet."""
    names = [entry.filename for entry in entries]
    for entry in entries:
        name, odd = entry.filename, ""
        if name != MANIFEST and not _MEMBER.fullmatch(name):
            odd = f"it is no model of sklearn_dl: it has a member {name!r:.100}"
        elif entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            odd = f"{name} is compressed or encrypted, which save never does"
        if odd:
            raise ModelFileError(f"{odd}. Nothing of it was read.")
    if len(set(names)) < len(names):
        raise ModelFileError("it has two members of one name.")
    if MANIFEST not in names:
        raise ModelFileError(f"it is no model of sklearn_dl, without {MANIFEST}.")
    declared = sum(entry.file_size for entry in entries)
    if declared > size or any(e.file_size != e.compress_size for e in entries):
        raise ModelFileError(f"it declares {declared} bytes, but has {size}.")
    if entries[names.index(MANIFEST)].file_size > _MANIFEST_BYTES:
        raise ModelFileError(f"its {MANIFEST} is too large.")


@contextmanager
def reading(path: str | os.PathLike) -> Iterator[Archive]:
    """Open a file of a model; whatever damage does to those who read it names it."""
    path = check_file(path)
    size = os.path.getsize(path)
    try:
        with explained(path), zipfile.ZipFile(path) as archive:
            _check_entries(archive.infolist(), size)
            yield Archive(archive.namelist(), archive.read)
    except zipfile.BadZipFile as error:
        hint = " What export_onnx wrote is for load_exported."
        raise ModelFileError(
            f"{path} ({size} bytes) is no model of sklearn_dl, or is cut off or "
            f"damaged: {error}.{hint if path.endswith('.onnx') else ''}"
        ) from error


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Say in each error what was read."""
    try:
        yield
    except Exception as error:
        raise_in(what, error)


def raise_in(place: str, error: Exception) -> NoReturn:
    """Raise an error anew, with the file or the part of it where it came up."""
    here = MemoryError, PermissionError, Warning, torch.OutOfMemoryError
    if isinstance(error, (*here, zipfile.BadZipFile)):
        raise error
    if isinstance(error, ModelFileError):
        raise ModelFileError(f"{place}: {error}") from error
    raise ModelFileError(  # damage raises errors of many kinds
        f"{place} is damaged, or doesn't fit the versions installed here: "
        f"{type(error).__name__}: {first_line(error)}"
    ) from error


class TensorWriter:
    """Tensors by member; the same content is kept once."""

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
