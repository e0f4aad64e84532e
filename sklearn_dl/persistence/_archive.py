"""The archive: an uncompressed zip of one manifest and tensors, checked when read."""

import hashlib
import json
import os
import platform
import sys
import zipfile
from contextlib import contextmanager
from typing import Any, BinaryIO

from sklearn_dl.persistence._errors import ModelFileError
from sklearn_dl.persistence._tensors import MEMBER

FORMAT = "sklearn_dl model"
VERSION = 1
_MANIFEST = "manifest.json"
_MANIFEST_BYTES = 2**28
_OWN_VERSION: str = sys.modules["sklearn_dl"].__version__  # type: ignore[attr-defined]
_PACKAGES = ("numpy", "scikit-learn", "skorch", "torch", "torchvision")


def versions() -> dict[str, str]:
    """Return the versions that a model depends on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "sklearn_dl": _OWN_VERSION}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def read_versions(path: str | os.PathLike) -> dict[str, str]:
    """Return the versions that a file of a model was written by."""
    with reading(path) as archive:
        return archive.manifest["versions"]


def write_archive(
    file: BinaryIO, content: dict[str, Any], members: dict[str, Any]
) -> None:
    """Write a manifest and members.

    Parameters
    ----------
    file : binary file
    content : dict
        What JSON can hold.
    members : dict of str to callable
        Functions that return the bytes of members, by their names.
    """
    digests = {}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, write in members.items():
            data = write()
            digests[name] = hashlib.sha256(data).hexdigest()
            archive.writestr(_entry(name), data)
            del data
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "versions": versions(),
            "members": digests,
            **content,
        }
        text = json.dumps(manifest, allow_nan=False, separators=(",", ":"))
        if len(text) > _MANIFEST_BYTES:
            raise ModelFileError(
                f"The model has {len(text)} bytes of lists and strings beside its "
                "arrays, which is too much for one file."
            )
        archive.writestr(_entry(_MANIFEST), text)


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))  # the same model, the same file


class Archive:
    """A file of a model, open for reading.

    Attributes
    ----------
    manifest : dict
    """

    def __init__(self, path: str | os.PathLike, archive: zipfile.ZipFile):
        self.path = path
        self._zip = archive
        self._check_entries()
        self.manifest = self._read_manifest()

    def read(self, name: str) -> bytes:
        """Return a member, once it is known to be as it was written."""
        digest = self.manifest["members"].get(name)
        if digest is None or name not in self._zip.NameToInfo:
            raise ModelFileError(f"{self.path} has no member {name}: it is incomplete.")
        data = self._zip.read(name)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ModelFileError(
                f"{name} in {self.path} is not what was written: its digest differs."
            )
        return data

    def _check_entries(self) -> None:
        entries = self._zip.infolist()
        names = [entry.filename for entry in entries]
        for entry in entries:
            name = entry.filename
            if name != _MANIFEST and not MEMBER.fullmatch(name):
                raise ModelFileError(
                    f"{self.path} is no model of sklearn_dl: it has a member "
                    f"{name!r:.100}. Nothing of it was read."
                )
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise ModelFileError(
                    f"{name} in {self.path} is compressed or encrypted, which save "
                    "never does. Nothing of it was read."
                )
        if len(set(names)) < len(names):
            raise ModelFileError(f"{self.path} has two members of one name.")
        if _MANIFEST not in names:
            raise ModelFileError(
                f"{self.path} is no model of sklearn_dl: {_MANIFEST} is missing."
            )
        declared = sum(entry.file_size for entry in entries)
        size = os.path.getsize(self.path)
        if declared > size or any(e.file_size != e.compress_size for e in entries):
            raise ModelFileError(
                f"{self.path} declares {declared} bytes, but has {size}."
            )
        if self._zip.NameToInfo[_MANIFEST].file_size > _MANIFEST_BYTES:
            raise ModelFileError(f"{_MANIFEST} in {self.path} is too large.")

    def _read_manifest(self) -> dict[str, Any]:
        manifest = json.loads(self._zip.read(_MANIFEST))
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise ModelFileError(f"{self.path} is no model of sklearn_dl.")
        version = manifest["version"]
        if type(version) is not int or version > VERSION:
            writer = manifest.get("versions", {}).get("sklearn_dl", "a newer one")
            raise ModelFileError(
                f"{self.path} has the format {version!r:.20}, written by sklearn_dl "
                f"{writer!s:.40}; this is sklearn_dl {_OWN_VERSION}, which "
                f"reads formats up to {VERSION}. Update sklearn_dl."
            )
        for name in manifest["members"]:
            if name not in self._zip.NameToInfo:
                raise ModelFileError(
                    f"{self.path} has no member {name!r:.100}: it is incomplete."
                )
        return manifest


@contextmanager
def reading(path: str | os.PathLike):
    """Open a file of a model.

    What a damaged file does to those who read it becomes a `ModelFileError`.
    """
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder, not the file of a model.")
    if not os.path.exists(path):
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with zipfile.ZipFile(path) as archive:
            yield Archive(path, archive)
    except (ModelFileError, PermissionError, Warning):
        raise
    except zipfile.BadZipFile as error:
        hint = " What export_onnx wrote is for load_exported."
        raise ModelFileError(
            f"{path} ({os.path.getsize(path)} bytes) is no model of sklearn_dl, or is "
            f"cut off or damaged: {error}.{hint if path.endswith('.onnx') else ''}"
        ) from error
    except Exception as error:  # a damaged file raises errors of many kinds
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise ModelFileError(
            f"{path} is damaged, or doesn't fit the versions installed here: "
            f"{type(error).__name__}: {reason}"
        ) from error
