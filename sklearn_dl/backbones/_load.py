"""Load a backbone: name or callable, and weights, to a `Backbone`."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from os import PathLike
from typing import Any

import torch
from torch import nn
from torchvision.models import WeightsEnum
from torchvision.transforms._presets import ImageClassification

from sklearn_dl.backbones._assemble import (
    AnyPreprocessing,
    assemble,
    assemble_torchvision,
    input_size,
)
from sklearn_dl.backbones._backbone import Backbone
from sklearn_dl.backbones._builtin import packaged
from sklearn_dl.backbones._files import Checkpoint, fetch, is_path, read_checkpoint
from sklearn_dl.backbones._preprocessing import (
    CallablePreprocessing,
    Preprocessing,
    preprocessing_from_timm,
    timm_config,
)
from sklearn_dl.backbones._stages import stage_prefixes
from sklearn_dl.backbones._surgery import (
    POOLINGS,
    tap,
)
from sklearn_dl.backbones._weights import (
    load_state,
    prepare_state,
    resize_positions,
    vit_image_size,
)
from sklearn_dl.backbones._zoo import (
    check_backbone_name,
    entry_preprocessing,
    find_entry,
    reference_entry,
    weight_entries,
)


def load_backbone(
    backbone: str | Callable[[], nn.Module],
    weights: str | PathLike | WeightsEnum | None = "DEFAULT",
    *,
    layer: str = "pre_logits",
    pooling: str | None = None,
    preprocessing: Any = None,
    image_size: int | tuple[int, int] | None = None,
) -> Backbone:
    """Load a pretrained network without its last layer.

    Parameters
    ----------
    backbone : str or callable
        The name of a torchvision classification model (see :func:`list_backbones`), or
        a function without arguments that returns a module from images (n, 3, h, w) to
        features or a feature map, such as ``partial(timm.create_model, "resnet26d")``.
    weights : str, path, torchvision weights or None, default="DEFAULT"
        The name of published weights (``"IMAGENET1K_V1"``), downloaded unless they are
        in torch's cache; ``"builtin"``, which are in this package, for the backbone
        ``"mobilenet_v3_small"``; the path of a state dict (``.pth``, ``.pt``,
        ``.safetensors``), read without executing code; or None for random weights from
        torch's generator. What a callable returns counts as pretrained unless None is
        given; a path is loaded into it.
    layer : str, default="pre_logits"
        ``"pre_logits"`` is what enters the last layer, ``"pooled"`` the pooled output
        of the last stage (for a callable, both are what it returns); or the name of any
        submodule, see :func:`find_layers`. Layers behind it are removed.
    pooling : {None, "avg", "max", "flatten", "cls"}, default=None
        How a map or tokens become one vector per image. None is the network's own, for
        other layers the average of a map and the first of the tokens; ``"avg"`` takes
        the mean over all tokens.
    preprocessing : None, Preprocessing, str, weights, preset or callable, default=None
        None takes that of the weights; for a file what its metadata say, else that of
        the first published weights, as for random ones. Otherwise the name of other
        published weights, a torchvision preset, or a function from a PIL image to a
        normalised tensor (3, h, w).
    image_size : int or (int, int), optional
        Another size of input: the side of the centre square, or height and width. A
        vision transformer's position embedding is interpolated to it.

    Returns
    -------
    Backbone

    Raises
    ------
    ValueError
        If a name does not exist, a file does not fit or an image size is too small.
    OSError
        If weights are not at hand and cannot be downloaded.

    Notes
    -----
    A file can say how its images were prepared: in the ``preprocessing`` field of the
    metadata of a ``.safetensors`` file, the JSON of :meth:`Preprocessing.to_dict`; in
    a ``.pth`` file, ``{"state_dict": ..., "preprocessing": preprocessing.to_dict()}``.

    A random network gets BatchNorm momenta of at least 0.1: with MobileNetV3's 0.01 or
    MNASNet's 0.0003 its running statistics would hardly move in a short training.

    Examples
    --------
    >>> import torch
    >>> from sklearn_dl.backbones import load_backbone
    >>> backbone = load_backbone("mobilenet_v3_small", "builtin", image_size=64)
    >>> backbone.n_features
    1024
    >>> backbone.eval()(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 1024])
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling must be one of {POOLINGS}, got {pooling!r}.")
    if callable(backbone):
        return _load_callable(
            backbone, weights, layer, pooling, preprocessing, image_size
        )
    name = check_backbone_name(backbone)
    checkpoint, entry, published = _find_weights(name, weights)
    prep = resolve_preprocessing(preprocessing, name) or published
    if image_size is not None:
        prep = prep.replace_image_size(image_size)
    return _load_torchvision(name, checkpoint, entry, prep, layer, pooling)


def _find_weights(
    name: str, weights: Any
) -> tuple[Checkpoint | None, WeightsEnum, Preprocessing]:
    """Return the tensors, the entry they belong to or are near, the preprocessing."""
    entry = reference_entry(name)
    if weights is None:
        return None, entry, entry_preprocessing(entry)
    weights = packaged(name, weights)
    if is_path(weights, tuple(weight_entries(name))):
        checkpoint = read_checkpoint(weights)
        entry = _entry_of_size(name, checkpoint, entry)
        return checkpoint, entry, checkpoint.preprocessing or entry_preprocessing(entry)
    if not isinstance(weights, str | WeightsEnum):
        raise TypeError(
            "weights must be the name of an entry, a path, torchvision weights or "
            f"None, got {type(weights).__name__}."
        )
    entry = find_entry(name, weights)
    path = fetch(entry)
    try:
        checkpoint = read_checkpoint(path)
    except ValueError as error:
        raise ValueError(f"{error} Delete it, to download it again.") from error
    return checkpoint, entry, entry_preprocessing(entry)


def _entry_of_size(
    name: str, checkpoint: Checkpoint, entry: WeightsEnum
) -> WeightsEnum:
    """Prefer the entry for the image size that a vision transformer's file shows."""
    size = vit_image_size(prepare_state(checkpoint, {"class_token"}))
    for other in [entry, *weight_entries(name).values()]:
        if size is not None and entry_preprocessing(other).crop_size == (size, size):
            return other
    return entry


def resolve_preprocessing(value: Any, name: str | None) -> AnyPreprocessing | None:
    """Turn what `preprocessing` may be into a preprocessing; None stays None."""
    if value is None or isinstance(value, Preprocessing | CallablePreprocessing):
        return value
    if isinstance(value, WeightsEnum):
        return entry_preprocessing(value)
    if isinstance(value, str) and name is not None:
        if (file := packaged(name, value)) is not value:
            return read_checkpoint(file).preprocessing
        return entry_preprocessing(find_entry(name, value))
    if isinstance(value, ImageClassification):
        return Preprocessing.from_transforms(value)
    if callable(value):
        return CallablePreprocessing(value)
    raise TypeError(
        "preprocessing must be None, a Preprocessing, the name of torchvision weights "
        f"of a torchvision backbone, such weights, or a callable; got {value!r:.100}."
    )


def _load_torchvision(
    name: str,
    checkpoint: Checkpoint | None,
    entry: WeightsEnum,
    preprocessing: AnyPreprocessing,
    layer: str,
    pooling: str | None,
) -> Backbone:
    def load(module: nn.Module, known: set[str], head: str) -> None:
        if checkpoint is not None:
            state = prepare_state(checkpoint, known, head)
            resize_positions(state, module)
            load_state(module, checkpoint, state, name=name, known=known)

    return assemble_torchvision(
        name,
        input_size(name, preprocessing, entry),
        preprocessing,
        layer=layer,
        pooling=pooling,
        pretrained=checkpoint is not None,
        shapes_only=checkpoint is not None,
        load=load,
    )


def _load_callable(
    backbone: Callable[[], nn.Module],
    weights: Any,
    layer: str,
    pooling: str | None,
    preprocessing: Any,
    image_size: Any,
) -> Backbone:
    module = _call(backbone)
    known = set(module.state_dict())
    prep = preprocessing_from_timm(module)
    name, smallest, heads = _timm_facts(module, _callable_name(backbone))
    checkpoint = _read_for_callable(weights)
    if checkpoint is not None and checkpoint.preprocessing is not None:
        prep = checkpoint.preprocessing
    prep = prep or entry_preprocessing(reference_entry("resnet18"))
    chosen = resolve_preprocessing(preprocessing, None) or prep
    if image_size is not None:
        chosen = chosen.replace_image_size(image_size)
    size = chosen.output_size or (224, 224)
    tapped = _cut_callable(module, layer)
    prefixes = stage_prefixes(module, torchvision=False)

    def load(module: nn.Module) -> None:
        if checkpoint is not None:
            state = prepare_state(checkpoint, known, *heads)
            load_state(module, checkpoint, state, name=name, known=known)

    return assemble(
        module,
        (name, smallest, size),
        chosen,
        prefixes,
        tapped,
        layer=layer,
        pooling=pooling,
        pretrained=weights is not None,
        devices=("meta", "real"),
        load=load,
    )


def _call(backbone: Callable[[], nn.Module]) -> nn.Module:
    """Call the user's function; what it returns stays the user's."""
    if isinstance(backbone, nn.Module):
        raise TypeError(
            "backbone is a module; give a function that returns it, such as "
            "backbone=lambda: module."
        )
    module = backbone()
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"The backbone callable {_callable_name(backbone)!r} must return a "
            f"torch.nn.Module, got {type(module).__name__}."
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            f"The backbone callable {_callable_name(backbone)!r} returns a scripted "
            "network, whose parts can't be hooked: return the module it was made from."
        )
    return deepcopy(module)


def _callable_name(backbone: Any) -> str:
    while isinstance(backbone, partial):
        backbone = backbone.func
    return getattr(backbone, "__name__", type(backbone).__name__)


def _timm_facts(module: nn.Module, name: str) -> tuple[str, int, tuple[str, ...]]:
    """Return name, smallest input and head layers, as far as timm's config tells."""
    config = timm_config(module)
    fixed = config.get("fixed_input_size") and config.get("input_size")
    heads = config.get("classifier") or ()
    return (
        config.get("architecture") or name,
        max(fixed[-2:]) if fixed else 1,
        (heads,) if isinstance(heads, str) else tuple(heads),
    )


def _read_for_callable(weights: Any) -> Checkpoint | None:
    if weights is None or weights == "DEFAULT":
        return None
    if not is_path(weights):
        raise ValueError(
            f"weights={weights!r} cannot be used with a callable backbone: give the "
            "path of a file, or let the callable load its weights."
        )
    return read_checkpoint(weights)


def _cut_callable(module: nn.Module, layer: str) -> str | None:
    if layer not in ("pre_logits", "pooled"):
        return tap(module, layer)
    is_timm = hasattr(module, "reset_classifier") and hasattr(module, "num_features")
    if is_timm and getattr(module, "num_classes", None) != 0:
        module.reset_classifier(0)  # type: ignore[operator]
    return None
