"""Torchvision's classification models: names, weights, untrained networks."""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision.models import WeightsEnum, get_model_weights, list_models

from sklearn_dl._runtime import own_generators
from sklearn_dl.backbones._preprocessing import Preprocessing

# The weights that the package itself holds, and the network they are of.
BUILTIN, ARCHITECTURE = "builtin", "mobilenet_v3_small"
# The smallest sides of images where the metadata have the size of training.
_SMALLEST = {"efficientnet_v2": 1, "maxvit": 221, "swin": 4}
_USUAL = "mobilenet_v2"  # what "auto" stands for with other weights
_FOLDER = Path(__file__).parent / "weights"


def unknown_name(kind: str, value: object, valid: Iterable[str], hint: str = "") -> str:
    """Say that `value` is no `kind`, with the nearest valid names."""
    names = list(valid)
    near = get_close_matches(str(value), names, n=3, cutoff=0.5)
    if near:
        rest = f"Did you mean {' or '.join(map(repr, near))}?"
    elif len(names) <= 12:
        rest = f"Valid: {', '.join(map(repr, names))}."
    else:
        rest = f"Valid: {', '.join(map(repr, names[:8]))}, ... ({len(names)} in all)."
    return f"Unknown {kind} {value!r}. {rest}{' ' + hint if hint else ''}"


def resolve_backbone(backbone: Any, weights: Any) -> Any:
    """Return the name that ``backbone="auto"`` stands for, others as they are."""
    if not isinstance(backbone, str) or backbone != "auto":
        return backbone
    builtin = isinstance(weights, str) and weights == BUILTIN
    return ARCHITECTURE if builtin else _USUAL


def packaged(name: str, weights: Any) -> Any:
    """Return the packaged file for ``weights="builtin"``, other weights as they are."""
    if not isinstance(weights, str) or weights != BUILTIN:
        return weights
    if name != ARCHITECTURE:
        raise ValueError(
            f"weights={BUILTIN!r} are of {ARCHITECTURE!r}, not of {name!r}: set "
            f"backbone={ARCHITECTURE!r}, or weights='DEFAULT' for those that "
            "torchvision publishes."
        )
    path = _FOLDER / f"{ARCHITECTURE}.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"weights={BUILTIN!r} should be in {path}, but are not: install "
            "sklearn_dl again."
        )
    return path


@cache
def backbone_names() -> tuple[str, ...]:
    """Return the names of torchvision's classification models, sorted."""
    return tuple(sorted(list_models(module=torchvision.models)))


def check_backbone_name(name: Any) -> str:
    """Return `name` if torchvision has it, else raise with the nearest names."""
    if not isinstance(name, str):
        raise TypeError(
            "backbone must be a name or a callable that returns a torch.nn.Module, "
            f"got {type(name).__name__}."
        )
    if name not in backbone_names():
        hint = "list_backbones() shows all."
        raise ValueError(unknown_name("backbone", name, backbone_names(), hint))
    return name


def weight_entries(name: str) -> dict[str, WeightsEnum]:
    """Return the published weights of a model, the default first."""
    enum = get_model_weights(name)
    default = enum.DEFAULT  # type: ignore[attr-defined]
    return {entry.name: entry for entry in (default, *enum)}


def find_entry(name: str, weights: str | WeightsEnum) -> WeightsEnum:
    """Return the entry that `weights` names."""
    entries = weight_entries(name)
    if isinstance(weights, WeightsEnum):
        if weights not in entries.values():
            raise ValueError(f"{weights} are not weights of {name!r}.")
        return weights
    if weights == "DEFAULT":
        return next(iter(entries.values()))
    if weights not in entries:
        if get_close_matches(weights.lower(), [BUILTIN]):
            packaged(name, BUILTIN)  # names the backbone that has them
        hint = "Or the path of a file (.pth, .pt, .safetensors), or None for random."
        valid = ["DEFAULT", *entries, *_packaged_weights(name)]
        raise ValueError(unknown_name(f"weights of {name}", weights, valid, hint))
    return entries[weights]


def _packaged_weights(name: str) -> tuple[str, ...]:
    return (BUILTIN,) if name == ARCHITECTURE else ()


def reference_entry(name: str) -> WeightsEnum:
    """Return the entry whose preprocessing serves when the weights have none.

    The first published recipe, IMAGENET1K_V1, is what files of unknown origin were
    mostly made with; newer recipes resize to other sizes.
    """
    entries = weight_entries(name)
    return entries.get("IMAGENET1K_V1") or next(iter(entries.values()))


def entry_preprocessing(entry: WeightsEnum) -> Preprocessing:
    """Return the preprocessing of published weights."""
    return Preprocessing.from_transforms(entry.transforms())


@cache
def smallest_side(name: str) -> int:
    """Return the smallest side of images, in pixels, that a network runs on.

    Torchvision's metadata have it, but for some; 1 where nothing is known.
    """
    if name not in backbone_names():
        return 1
    if name.startswith("vit_"):  # one patch
        return int(name.rsplit("_", 1)[1])
    for family, side in _SMALLEST.items():
        if name.startswith(family):
            return side
    return max(reference_entry(name).meta.get("min_size", (1, 1)))


def list_backbones() -> pd.DataFrame:
    """List torchvision's classification models and their published weights.

    Everything comes from torchvision's metadata: no network is built or downloaded.

    Returns
    -------
    DataFrame
        One row per backbone, indexed by name, with the columns ``weights`` (the default
        entry, to which the numbers belong), ``all_weights`` (tuple of the names of all
        entries, the default first, and ``"builtin"`` where this package holds some),
        ``acc@1`` and ``acc@5`` (ImageNet-1K, percent), ``n_parameters`` (with the
        1000-way head), ``download_mb``, ``input_size`` and ``min_size`` (sides in
        pixels).

    Examples
    --------
    >>> from sklearn_dl.backbones import list_backbones
    >>> zoo = list_backbones()
    >>> zoo[zoo["download_mb"] < 20].sort_values("acc@1").index[-1]
    'regnet_y_400mf'
    >>> zoo.loc["resnet50", "all_weights"]
    ('IMAGENET1K_V2', 'IMAGENET1K_V1')
    """
    rows = {name: _describe(name) for name in backbone_names()}
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.rename_axis("backbone")


def _describe(name: str) -> dict[str, Any]:
    entries = weight_entries(name)
    default = next(iter(entries.values()))
    accuracy = default.meta["_metrics"]["ImageNet-1K"]
    return {
        "weights": default.name,
        "all_weights": (*entries, *_packaged_weights(name)),
        "acc@1": accuracy["acc@1"],
        "acc@5": accuracy["acc@5"],
        "n_parameters": default.meta["num_params"],
        "download_mb": default.meta["_file_size"],
        "input_size": default.transforms().crop_size[0],
        "min_size": smallest_side(name),
    }


class _Shapes(TorchFunctionMode):
    """Make `torch.empty`, which layers use for their weights, allocate nothing.

    Not `torch.device("meta")`: some constructors compute with small tensors.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def build(
    name: str,
    size: tuple[int, int] | None = None,
    *,
    shapes_only: bool = False,
    pretrained: bool = False,
) -> nn.Module:
    """Build an untrained network for inputs of `size`, with its 1000-way head.

    With `shapes_only` most tensors stay without memory until weights are assigned, and
    torch's generator is left alone; otherwise that is what the weights are drawn from.
    """
    builder = torchvision.models.get_model_builder(name)
    options = _build_options(name, size, pretrained)
    if not shapes_only:
        return builder(weights=None, **options)
    with own_generators(), _Shapes():
        return builder(weights=None, **options)


def _build_options(name, size, pretrained) -> dict[str, Any]:
    if name in ("googlenet", "inception_v3"):
        # torchvision's published weights expect its own re-normalisation of the input.
        options = {"init_weights": not pretrained, "transform_input": pretrained}
        return {"aux_logits": False, **options}
    if size is not None and name.startswith("vit_"):
        return {"image_size": _vit_side(name, size)}
    if size is not None and name.startswith("maxvit"):
        _check_maxvit_size(name, size)
        return {"input_size": size}
    return {}


def _check_maxvit_size(name: str, size: tuple[int, int]) -> None:
    """Raise where some map would not be whole windows of 7 by 7."""
    if any(-(-side // step) % 7 for side in size for step in (4, 8, 16, 32)):
        raise ValueError(
            f"{name} takes images with sides of 221 to 224 pixels, or of as many below "
            f"another multiple of 224 (445 to 448); got image_size={size}."
        )


def _vit_side(name: str, size: tuple[int, int]) -> int:
    patch = int(name.rsplit("_", 1)[1])
    if size[0] != size[1] or size[0] % patch:
        raise ValueError(
            f"{name} takes square images whose side is a multiple of {patch} pixels; "
            f"got image_size={size}."
        )
    return size[0]
