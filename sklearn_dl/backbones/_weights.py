"""Checkpoints: files of weights, read without running code, fitted into networks."""

import json
import math
import os
import pickle
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from itertools import starmap, takewhile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn
from torchvision.models import WeightsEnum
from torchvision.models.vision_transformer import interpolate_embeddings

from sklearn_dl._files import first_line
from sklearn_dl.backbones._cut import find_head
from sklearn_dl.backbones._preprocessing import Preprocessing
from sklearn_dl.backbones._zoo import ARCHITECTURE, BUILTIN, backbone_names, build

_SUFFIXES = {".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".tar"}
# How torch names a class that it doesn't build.
_UNKNOWN_CLASS = re.compile(r"GLOBAL ([\w.]{1,80})")
# What tools that count operations leave in every layer.
_COUNTERS = (".total_ops", ".total_params")

# Names that torchvision's published DenseNet and ViT files still have, and today's.
_OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)


@dataclass
class Checkpoint:
    """Tensors by name, and the preprocessing that came with them, if any.

    A file may hold several such tables: each is found by where it is.
    """

    path: Path
    states: dict[str, dict[str, torch.Tensor]]
    preprocessing: Preprocessing | None = None


def is_path(weights: Any, entries: Mapping[str, Any] | tuple[str, ...] = ()) -> bool:
    """Tell the path of a file from the name of an entry."""
    if isinstance(weights, os.PathLike):
        return True
    if not isinstance(weights, str) or weights == "DEFAULT" or weights in entries:
        return False
    return (
        any(sep in weights for sep in ("/", os.sep, os.altsep) if sep)
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
            f"The weights {entry} could not be downloaded ({first_line(error)}).\n"
            f"Wanted: {entry.url}\n"
            f"Looked for: {path}\n"
            "Put the file there, or give its path as weights='path/to/file', or use "
            f"backbone={ARCHITECTURE!r}, weights={BUILTIN!r}, which need no network, "
            "or weights=None for random weights."
        ) from error
    return path


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read a file of weights; nothing in it is executed."""
    path = Path(path).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"weights={str(path)!r} is a directory, not a file.")
    if not path.exists():
        raise FileNotFoundError(f"There is no file of weights {str(path)!r}.")
    if path.suffix.lower() == ".safetensors":
        content, preprocessing = _read_safetensors(path)
        states = {"": content} if content else {}
    else:
        content = _read_pickle(path)
        states, preprocessing = _states(content)
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds no state dict but {type(content).__name__}.")
    if not states:
        key = next(iter(content))
        what = f"{key!r:.100} is a {type(content[key]).__name__}, not a tensor"
        raise ValueError(f"{path} holds no state dict: {what} with a name.")
    if preprocessing is not None:
        preprocessing = _read_preprocessing(path, preprocessing)
    return Checkpoint(path, states, preprocessing)


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := _UNKNOWN_CLASS.search(str(error)):
            raise ValueError(
                f"{path} holds more than tensors ({found.group(1)}), which could run "
                "code when read, so it was not. Save torch's state_dict() instead."
            ) from error
        raise ValueError(_damaged(path, error)) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises errors of many kinds
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
    said = first_line(error)
    if not said.isprintable():  # it quotes bytes of the file
        said = type(error).__name__
    reason = "" if unsafe else f" ({said})"
    return (
        f"{path} ({path.stat().st_size} bytes) cannot be read as weights: it is empty, "
        f"cut off or of another format{reason}."
    )


def _states(content: Any) -> tuple[dict[str, dict[str, torch.Tensor]], Any]:
    """Return all tensors of a file by where they are, and its preprocessing, if any.

    Training scripts wrap a state dict in others, beside averages of it, the optimiser's
    state and numbers.
    """
    states, preprocessing = {}, None
    seen, left = set(), [("", content)]
    while left:
        where, part = left.pop(0)
        if not isinstance(part, Mapping) or id(part) in seen:
            continue
        seen.add(id(part))
        named = {key: value for key, value in part.items() if isinstance(key, str)}
        if preprocessing is None:
            preprocessing = named.get("preprocessing")
        tensors = {k: v for k, v in named.items() if isinstance(v, torch.Tensor)}
        if tensors:
            states[where] = tensors
        left += [(f"{where}{key}.", value) for key, value in named.items()]
    return states, preprocessing


def _read_preprocessing(path: Path, value: Any) -> Preprocessing:
    try:
        state = json.loads(value) if isinstance(value, str) else value
        return Preprocessing.from_dict(state)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"The preprocessing in {path} is not one: {error}") from error


def prepare_state(
    checkpoint: Checkpoint, needed: set[str], known: set[str], *heads: str
) -> dict[str, torch.Tensor]:
    """Return the tensors of a file under a network's names, wherever they are in it.

    `needed` are the names of the cut network, `known` those of the whole one; tensors
    of removed heads aren't returned, nor what belongs to no part of the network.
    """
    needed = {key for key in needed if not key.endswith("num_batches_tracked")}
    states = {where: _renamed(state) for where, state in checkpoint.states.items()}
    # The names that are found, by where they are and what is before each.
    counts = {
        (where, prefix): count
        for where, state in states.items()
        for prefix, count in _prefixes(state, needed).items()
    }
    fit = [place for place, count in counts.items() if count == len(needed)]
    tops = {key.split(".")[0] for key in known}
    # Deeper in a network that fits, its own parts may have names like its first ones.
    whole = [
        (where, prefix)
        for where, prefix in fit
        if not any(
            where == w
            and prefix.startswith(p)
            and prefix[len(p) :].split(".")[0] in tops
            for w, p in fit
        )
    ]
    candidates = [_under(states, place) for place in whole]
    for state in candidates:
        _refuse_odd_tensors(checkpoint, state, needed)
    pairs = ((candidates[0][n], c[n]) for c in candidates[1:] for n in needed)
    if not all(starmap(torch.equal, pairs)):
        shown = [repr((where + prefix)[:80]) for where, prefix in whole[:4]]
        places = " and ".join(shown)
        raise ValueError(
            f"{checkpoint.path} holds several networks that fit, under {places}, and "
            "none of them was guessed: save the one that you want in a file by itself."
        )
    if candidates:
        state = {
            key: value
            for key, value in candidates[0].items()
            if key.split(".")[0] in tops and not key.endswith(_COUNTERS)
        }
    else:  # what is wrong is said of the nearest
        largest = max(states, key=lambda where: len(states[where]))
        default = largest, _common_prefix(states[largest])
        nearest = max(counts, key=counts.__getitem__, default=default)
        state = _under(states, nearest)
    gone = tuple(f"{head}." for head in heads)
    return {key: value for key, value in state.items() if not key.startswith(gone)}


def _renamed(state: dict[str, Any]) -> dict[str, Any]:
    for old, new in _OLD_NAMES:
        state = {old.sub(new, key): value for key, value in state.items()}
    return state


def _prefixes(state: dict[str, Any], names: set[str]) -> Counter[str]:
    """Count, for each prefix, the names that keys have behind it."""
    counts: Counter[str] = Counter()
    for key in state:
        starts = [0, *(i + 1 for i, letter in enumerate(key[:400]) if letter == ".")]
        counts.update(key[:start] for start in starts if key[start:] in names)
    return counts


def _common_prefix(state: dict[str, Any]) -> str:
    """Return what is before all names, up to a dot."""
    levels = zip(*(key.split(".")[:-1] for key in state), strict=False)
    same = takewhile(lambda names: len(set(names)) == 1, levels)
    return "".join(f"{names[0]}." for names in same)


def _under(states: dict[str, dict[str, Any]], place: tuple[str, str]) -> dict[str, Any]:
    where, prefix = place
    state = states[where]
    return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}


def _refuse_odd_tensors(checkpoint, state: dict[str, Any], names: set[str]) -> None:
    for name in sorted(names):
        value = state[name]
        odd = value.is_meta or value.is_quantized or value.is_complex()
        if odd or value.layout != torch.strided:
            raise ValueError(
                f"{checkpoint.path} has a tensor in {name!r:.100} that isn't one of "
                "real numbers, each with its value: a sparse, quantised, complex or "
                "meta one."
            )


def vit_image_size(checkpoint: Checkpoint, state: dict[str, Any]) -> int | None:
    """Return the side of the images a vision transformer's tensors are for."""
    position = state.get("encoder.pos_embedding")
    patches = state.get("conv_proj.weight")
    if position is None or patches is None or (position.ndim, patches.ndim) != (3, 4):
        return None
    n_patches = position.shape[1] - 1
    side = math.isqrt(max(0, n_patches))
    if n_patches < 1 or side * side != n_patches:
        raise ValueError(
            f"{checkpoint.path} is of a vision transformer with {n_patches} patches, "
            "so for images that aren't square; here they have to be."
        )
    return side * patches.shape[-1]


def resize_positions(
    checkpoint: Checkpoint, state: dict[str, torch.Tensor], module: nn.Module
) -> None:
    """Interpolate a vision transformer's position embedding to the network's size."""
    own = getattr(module, "image_size", None)
    if vit_image_size(checkpoint, state) not in (None, own):
        key = "encoder.pos_embedding"
        state[key] = state[key].float()  # halves can't be interpolated everywhere
        interpolate_embeddings(module.image_size, module.patch_size, state)


def load_state(
    module: nn.Module,
    checkpoint: Checkpoint,
    state: dict[str, torch.Tensor],
    *,
    name: str,
    known: set[str],
) -> None:
    """Put the tensors of a checkpoint into a cut network, or raise why they don't fit.

    `state` is what `prepare_state` returned; `known` are the keys of the whole network:
    those that were cut off are no surprise. The network may be without memory.
    """
    own = module.state_dict()
    both = [key for key in own if key in state]
    missing = [key for key in own if key not in state]
    parts = {
        "missing": [k for k in missing if not k.endswith("num_batches_tracked")],
        "unexpected": [key for key in state if key not in known],
        "of another shape": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
            for key in both
            if state[key].shape != own[key].shape
        ],
    }
    if any(parts.values()):
        raise ValueError(_misfit(checkpoint, state, name, parts))
    tensors = type(own)(
        (key, state[key].detach().to(own[key].dtype, copy=True)) for key in both
    )
    for key, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(
                f"{checkpoint.path} has NaN or infinite values in {key} of {name!r}. "
                "If the file is for features only, layer='pooled' may do without it."
            )
    # Layers look up their versions there; names and shapes are today's by now.
    tensors._metadata = getattr(own, "_metadata", None)  # type: ignore[attr-defined]
    device = next((t.device for t in own.values() if not t.is_meta), None)
    module.load_state_dict(tensors, strict=False, assign=True)
    if device is not None:
        module.to(device)


def _misfit(checkpoint, state, name, parts: dict[str, list[str]]) -> str:
    lines = [f"{checkpoint.path} does not fit {name!r}."]
    for what, keys in parts.items():
        if keys:
            more = f", ... ({len(keys)} in all)" if len(keys) > 3 else ""
            shown = [repr(key[:100])[1:-1] for key in keys[:3]]  # whatever is in them
            lines.append(f"{len(keys)} {what}: {', '.join(shown)}{more}.")
    return " ".join([*lines, _looks_like(state, name)])


def _looks_like(state: dict[str, torch.Tensor], name: str) -> str:
    """Say which of torchvision's architectures has these names and shapes."""
    mine = {(key, tuple(value.shape)) for key, value in state.items()}
    scores = {}
    for other in backbone_names():
        theirs = _shapes(other)
        scores[other] = len(mine & theirs) / max(1, len(mine | theirs))
    best = max(scores.values())
    alike = [repr(other) for other, score in scores.items() if score == best]
    if best < 0.5 or alike == [repr(name)]:
        return "It looks like none of torchvision's other classification models."
    return f"It looks like {' or '.join(alike[:3])}."


@cache
def _shapes(name: str) -> frozenset[tuple[str, tuple[int, ...]]]:
    module = build(name, shapes_only=True)
    head = find_head(module)
    return frozenset(
        (key, tuple(value.shape))
        for key, value in module.state_dict().items()
        if not key.startswith(f"{head}.")
    )
