"""Put the tensors of a checkpoint into a network, or say why they do not fit."""

import re
from functools import cache

import torch
from torch import nn
from torchvision.models.vision_transformer import interpolate_embeddings

from sklearn_dl.backbones._files import Checkpoint, strip_prefix
from sklearn_dl.backbones._surgery import find_head
from sklearn_dl.backbones._zoo import backbone_names, build

# Names that torchvision's published DenseNet and ViT files still have, and today's.
_OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)
_AUXILIARY = (
    "aux1.",
    "aux2.",
    "AuxLogits.",
)  # training-only branches, never built here


def prepare_state(
    checkpoint: Checkpoint, own: set[str], *heads: str
) -> dict[str, torch.Tensor]:
    """Return the tensors under the names `own` uses, without the removed heads."""
    state = strip_prefix(checkpoint.state, own)
    for old, new in _OLD_NAMES:
        state = {old.sub(new, key): value for key, value in state.items()}
    gone = _AUXILIARY if not any(key.startswith(_AUXILIARY) for key in own) else ()
    gone = (*gone, *(f"{head}." for head in heads))
    return {key: value for key, value in state.items() if not key.startswith(gone)}


def vit_image_size(state: dict[str, torch.Tensor]) -> int | None:
    """Return the side of the images a vision transformer's tensors are for."""
    position, patches = (
        state.get("encoder.pos_embedding"),
        state.get("conv_proj.weight"),
    )
    if position is None or patches is None or position.ndim != 3:
        return None
    return round((position.shape[1] - 1) ** 0.5) * patches.shape[-1]


def resize_positions(state: dict[str, torch.Tensor], module: nn.Module) -> None:
    """Interpolate a vision transformer's position embedding to the network's size."""
    if vit_image_size(state) not in (None, getattr(module, "image_size", None)):
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
    """Put `state` into `module`.

    Parameters
    ----------
    module : torch.nn.Module
        The cut network; its tensors may be without memory.
    checkpoint : Checkpoint
        Where `state` is from.
    state : dict of str to Tensor
        What `prepare_state` returned.
    name : str
        Of the backbone, for the message.
    known : set of str
        The keys of the whole network: those that were cut off are no surprise.

    Raises
    ------
    ValueError
        If a tensor is missing, unexpected, of another shape or not finite.
    """
    own = module.state_dict()
    missing = [
        key
        for key in own
        if key not in state and not key.endswith("num_batches_tracked")
    ]
    unexpected = [key for key in state if key not in known]
    misshaped = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or unexpected or misshaped:
        parts = {
            "missing": missing,
            "unexpected": unexpected,
            "of another shape": misshaped,
        }
        raise ValueError(_misfit(checkpoint, state, name, parts))
    tensors = {
        key: state[key].detach().to(own[key].dtype, copy=True)
        for key in own
        if key in state
    }
    _check_finite(checkpoint, tensors, name)
    _assign(module, tensors)


def _assign(module: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Let the network take the tensors over."""
    own = module.state_dict()
    device = next((t.device for t in own.values() if not t.is_meta), None)
    state = type(own)(tensors)
    # Layers look up their versions there; names and shapes are today's by now.
    state._metadata = getattr(own, "_metadata", None)  # type: ignore[attr-defined]
    module.load_state_dict(state, strict=False, assign=True)
    if device is not None:
        module.to(device)


def _check_finite(checkpoint, tensors, name) -> None:
    for key, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(
                f"{checkpoint.path} has NaN or infinite values in {key} of {name!r}. "
                "If the file is for features only, layer='pooled' may do without it."
            )


def _misfit(checkpoint, state, name, parts: dict[str, list[str]]) -> str:
    lines = [f"{checkpoint.path} does not fit {name!r}."]
    for what, keys in parts.items():
        if keys:
            more = f", ... ({len(keys)} in all)" if len(keys) > 3 else ""
            lines.append(f"{len(keys)} {what}: {', '.join(keys[:3])}{more}.")
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
