"""Find, download and read files of weights, without running code from them."""

import json
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torchvision.models import WeightsEnum

from sklearn_dl.backbones._builtin import ARCHITECTURE, BUILTIN
from sklearn_dl.backbones._preprocessing import Preprocessing

_SUFFIXES = {".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".tar"}
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.", "model.")


@dataclass
class Checkpoint:
    """Tensors by name, and the preprocessing that came with them, if any."""

    path: Path
    state: dict[str, torch.Tensor]
    preprocessing: Preprocessing | None = None


def is_path(weights: Any, entries: Mapping[str, Any] | tuple[str, ...] = ()) -> bool:
    """Tell the path of a file from the name of an entry."""
    if isinstance(weights, os.PathLike):
        return True
    if not isinstance(weights, str) or weights == "DEFAULT" or weights in entries:
        return False
    separators = [sep for sep in ("/", os.sep, os.altsep) if sep]
    return (
        any(sep in weights for sep in separators)
        or Path(weights).suffix.lower() in _SUFFIXES
        or os.path.exists(weights)
    )


def cached_path(entry: WeightsEnum) -> Path:
    """Return where torch keeps the downloaded file of an entry."""
    name = os.path.basename(urlparse(entry.url).path)
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def fetch(entry: WeightsEnum) -> Path:
    """Return the file of published weights, downloaded unless it is there."""
    path = cached_path(entry)
    if path.exists():
        return path
    digest = re.search(r"-([a-f0-9]{6,})\.", path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            entry.url, str(path), digest.group(1) if digest else None, progress=False
        )
    # A URLError is an OSError; a wrong hash gives a RuntimeError.
    except (OSError, HTTPException, RuntimeError) as error:
        raise OSError(
            f"The weights {entry} could not be downloaded ({_first_line(error)}).\n"
            f"Wanted: {entry.url}\n"
            f"Looked for: {path}\n"
            "Put the file there, or give its path as weights='path/to/file', or use "
            f"backbone={ARCHITECTURE!r}, weights={BUILTIN!r}, which need no network, "
            "or weights=None for random weights."
        ) from error
    return path


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read a file of weights; nothing in it is executed.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        If there is no such file.
    ValueError
        If the file is damaged, holds code, or holds no state dict.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"weights={str(path)!r} is a directory, not a file.")
    if not path.exists():
        raise FileNotFoundError(f"There is no file of weights {str(path)!r}.")
    if path.suffix.lower() == ".safetensors":
        content, preprocessing = _read_safetensors(path)
    else:
        content, preprocessing = _unwrap(_read_pickle(path))
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds no state dict but {type(content).__name__}.")
    odd = [key for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise ValueError(
            f"{path} holds no state dict: {odd[0]!r} is a "
            f"{type(content[odd[0]]).__name__}, not a tensor ({len(odd)} such keys)."
        )
    if preprocessing is not None:
        preprocessing = _read_preprocessing(path, preprocessing)
    return Checkpoint(path, dict(content), preprocessing)


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := re.search(r"(?:GLOBAL|global:?) ['`]?([\w.]+)", str(error)):
            raise ValueError(
                f"{path} holds more than tensors ({found.group(1)}), which could run "
                "code when read, so it was not. Save torch's state_dict() instead."
            ) from error
        raise ValueError(_damaged(path, error)) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ValueError(_damaged(path, error)) from error


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(_damaged(path, error)) from error
    return state, metadata.get("preprocessing")


def _damaged(path: Path, error: Exception) -> str:
    # What torch says of a pickle it can't read is advice to run the code in it.
    unsafe = isinstance(error, pickle.UnpicklingError)
    reason = "" if unsafe else f" ({_first_line(error)})"
    return (
        f"{path} ({path.stat().st_size} bytes) cannot be read as weights: it is empty, "
        f"cut off or of another format{reason}."
    )


def _unwrap(content: Any) -> tuple[Any, Any]:
    """Take the state dict out of what a training script wrapped it in."""
    preprocessing = None
    while isinstance(content, Mapping):
        preprocessing = content.get("preprocessing", preprocessing)
        inner = [content[key] for key in _WRAPPERS if key in content]
        if not inner or not isinstance(inner[0], Mapping):
            break
        content = inner[0]
    return content, preprocessing


def _read_preprocessing(path: Path, value: Any) -> Preprocessing:
    try:
        return Preprocessing.from_dict(
            json.loads(value) if isinstance(value, str) else value
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"The preprocessing in {path} is not one: {error}") from error


def strip_prefix(state: dict[str, Any], own: set[str]) -> dict[str, Any]:
    """Remove what wrappers such as DataParallel put before every name."""
    while not own & state.keys():
        for prefix in _PREFIXES:
            if state and all(key.startswith(prefix) for key in state):
                state = {key[len(prefix) :]: value for key, value in state.items()}
                break
        else:
            break
    return state


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
