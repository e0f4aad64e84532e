"""Cuts of a network at a layer, and vectors of what the layer gives."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sklearn_dl._runtime import own_generators
from sklearn_dl.backbones._preprocessing import extended
from sklearn_dl.backbones._zoo import build, check_backbone_name, unknown_name

Layer = str | tuple[str, str]
POOLINGS = ("avg", "max", "flatten", "cls")
# What networks raise that can't run on an image.
FAILURES = (RuntimeError, AssertionError, ValueError, NotImplementedError)

# Where each family's last feature map (or its tokens) can be taken, for a pooling other
# than the network's own.
_FEATURES = (
    *("AlexNet", "ConvNeXt", "DenseNet", "EfficientNet", "MobileNetV2", "MobileNetV3"),
    *("SqueezeNet", "VGG"),
)
_LAST_MAP = {
    **dict.fromkeys(_FEATURES, "features"),
    "GoogLeNet": "inception5b",
    "Inception3": "Mixed_7c",
    "MNASNet": "layers",
    "MaxVit": "blocks.3",
    "RegNet": "trunk_output",
    "ResNet": "layer4",
    "ShuffleNetV2": "conv5",
    "SwinTransformer": "permute",
    "VisionTransformer": "encoder",
}

# Layers between the pooling and the last layer: those that go for "pooled".
_AFTER_POOLING = {
    "AlexNet": ("classifier",),
    "ConvNeXt": ("classifier.0",),
    "MaxVit": ("classifier.2", "classifier.3", "classifier.4"),
    "MobileNetV3": ("classifier",),
    "VGG": ("classifier",),
}


def split_layer(layer: Any) -> tuple[str, str | None]:
    """Return the name of a layer, and the pooling that goes with it, if any."""
    pair = tuple(layer) if isinstance(layer, tuple | list) else (layer, None)
    if len(pair) != 2 or not isinstance(pair[0], str):
        wanted = "a name or a pair (name, pooling)"
        raise ValueError(f"layer must be {wanted}, got {layer!r:.100}.")
    if pair[1] not in (None, *POOLINGS):
        raise ValueError(f"pooling must be one of {POOLINGS}, got {pair[1]!r:.100}.")
    return pair


class Reached(Exception):
    """Carries the output of the wanted layer out of the network's forward.

    A graph of torch.fx in place of the network would do without. But it can't be
    pickled for all families, its loading makes other threads' networks fail, and the
    hooks of its inner layers never run.
    """

    def __init__(self, output):
        super().__init__("layer reached")
        self.output = output


def stop_here(module, inputs, output):
    """Leave the forward of the network: the hook of the layer it is cut at."""
    raise Reached(output)


def run(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Run the network up to where `tap` has cut it, or to its end."""
    try:
        return tensor_of(module(x))
    except Reached as reached:
        return tensor_of(reached.output)


def tensor_of(out: Any) -> torch.Tensor:
    """Return the tensor of what a layer gives; attention layers give weights too."""
    several = isinstance(out, (tuple, list))  # torch.export in 2.4 knows no `|`
    if several and out and isinstance(out[0], torch.Tensor):
        out = out[0]
    if not isinstance(out, torch.Tensor):
        hint = ""
        if fields := [*fields_of(out)]:
            hint = f" Take one of its fields by name: layer={fields[-1]!r}."
        raise TypeError(f"The layer gives {type(out).__name__}, not a tensor.{hint}")
    return out


def fields_of(out: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of an output that is a dataclass or a dict, by name."""
    parts = out if isinstance(out, Mapping) else getattr(out, "__dict__", {})
    return {k: v for k, v in parts.items() if isinstance(v, torch.Tensor)}


@dataclass(frozen=True)
class TakeField:
    """Takes one tensor out of what a network gives: a hook of its forward."""

    name: str

    def __call__(self, module, inputs, output):
        """Return the field."""
        return fields_of(output)[self.name]


def tap_field(module: nn.Module, layer: str, size: tuple[int, int]) -> None:
    """Make a network give one field of its output."""
    fields: dict[str, torch.Tensor] = {}
    for device in ("meta", "real"):
        copied = _copied(module, device)
        copied.register_forward_hook(
            lambda *hooked: fields.update(fields_of(hooked[2]))
        )
        try:
            _run_once(copied, (3, *size))
        except (*FAILURES, TypeError):
            pass  # what is wrong with the network is said when it is tried
        if fields:
            break
    if layer not in fields:
        raise ValueError(unknown_name("layer", layer, [*find_layers(module), *fields]))
    module.register_forward_hook(TakeField(layer))


def pool(x: torch.Tensor, pooling: str | None, channels_last: bool) -> torch.Tensor:
    """Make a vector per image of a map (n, C, h, w), tokens (n, t, D) or vectors."""
    if x.ndim == 2 or pooling == "flatten":
        return x.flatten(1)
    if x.ndim == 3:
        if pooling in (None, "cls"):
            return x[:, 0]
        return x.mean(1) if pooling == "avg" else x.amax(1)
    if channels_last:
        x = x.permute(0, 3, 1, 2)
    if pooling == "max":
        return F.adaptive_max_pool2d(x, 1).flatten(1)
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def looks_channels_last(shape: torch.Size, size: tuple[int, int]) -> bool:
    """Tell (n, h, w, C) from (n, C, h, w) by the ratio of the input's sides."""
    if len(shape) != 4:
        return False
    ratio = size[0] / size[1]
    return abs(shape[1] / shape[2] - ratio) < abs(shape[2] / shape[3] - ratio)


def find_head(module: nn.Module) -> str:
    """Return the name of the last linear or convolutional layer."""
    kinds = nn.Linear | nn.Conv2d
    return [name for name, m in module.named_modules() if isinstance(m, kinds)][-1]


def replace_module(module: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` where the submodule `name` was."""
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, new)


def remove_head(module: nn.Module, head: str) -> None:
    """Make the last layer an identity, and a dropout just before it."""
    leaves = [n for n, m in module.named_modules() if next(m.children(), None) is None]
    before = leaves[leaves.index(head) - 1]
    replace_module(module, head, nn.Identity())
    if isinstance(module.get_submodule(before), nn.Dropout):
        replace_module(module, before, nn.Identity())


def cut(module: nn.Module, layer: str, pooling: str | None) -> str | None:
    """Cut a torchvision network; return the name of the tapped layer, if any."""
    family = type(module).__name__
    after_pooling = _AFTER_POOLING.get(family, ())
    if layer not in ("pre_logits", "pooled"):
        return tap(module, layer)
    remove_head(module, find_head(module))
    if layer == "pooled":
        for name in after_pooling:
            replace_module(module, name, nn.Identity())
    own_pooling = "cls" if family == "VisionTransformer" else None
    if pooling in (None, own_pooling):
        return None
    if layer == "pre_logits" and after_pooling:
        raise ValueError(
            f"pooling={pooling!r} has nothing to pool: layers follow the pooling of "
            f"this backbone. Use layer=('pooled', {pooling!r}), or name a layer that "
            "gives a map."
        )
    if family == "DenseNet":  # its last activation is no layer
        module.get_submodule("features").add_module("relu5", nn.ReLU(inplace=True))
    return tap(module, _LAST_MAP[family])


def find_layers(network: str | nn.Module) -> list[str]:
    """Return the names that `layer` may take for a network.

    Parameters
    ----------
    network : str or torch.nn.Module
        The name of a torchvision classification model, or a network. By name nothing
        is downloaded or drawn.

    Returns
    -------
    list of str
        The two named points, then the submodules from input to output.

    Examples
    --------
    >>> from sklearn_dl.backbones import find_layers
    >>> find_layers("resnet18")[:6]
    ['pre_logits', 'pooled', 'conv1', 'bn1', 'relu', 'maxpool']
    """
    if isinstance(network, str):
        network = build(check_backbone_name(network), shapes_only=True)
    return ["pre_logits", "pooled", *(n for n, _ in network.named_modules() if n)]


def tap(module: nn.Module, layer: str) -> str:
    """End the network's forward where the submodule `layer` gives its output."""
    names = find_layers(module)
    if layer not in names:
        raise ValueError(unknown_name("layer", layer, names))
    module.get_submodule(layer).register_forward_hook(stop_here)
    return layer


@dataclass
class Trial:
    """What one forward pass called, used and gave."""

    shape: torch.Size
    called: set[str]  # submodules
    used: set[str]  # parameters


def try_network(
    network: nn.Module, shape: tuple[int, int, int], device: str = "meta"
) -> Trial:
    """Run a copy of a network on an image (C, height, width); "meta" computes nothing.

    The network and torch's generators stay as they are.
    """
    copied = _copied(network, device)
    called: set[str] = set()
    for name, part in copied.named_modules():
        part.register_forward_pre_hook(lambda *_, name=name: called.add(name))
    out = _run_once(copied, shape)
    leaves = _leaves(out)
    used = {name for name, p in copied.named_parameters() if id(p) in leaves}
    return Trial(out.shape, called, used)


def _copied(network: nn.Module, device: str) -> nn.Module:
    tensors = [*network.parameters(), *network.buffers()]
    memo: dict[int, Any] = {id(t): _stand_in(t, device) for t in tensors}
    return deepcopy(network, memo).eval()


def _run_once(network: nn.Module, shape: tuple[int, int, int]) -> torch.Tensor:
    first = next(network.parameters(), torch.zeros(()))
    x = torch.zeros(1, *shape, dtype=first.dtype, device=first.device)
    with own_generators(), torch.enable_grad():
        return run(network, x)


def _stand_in(tensor: torch.Tensor, device: str) -> torch.Tensor:
    real = device == "real"
    new = tensor.detach().clone() if real else torch.empty_like(tensor, device=device)
    if not isinstance(tensor, nn.Parameter):
        return new
    return nn.Parameter(new, requires_grad=tensor.is_floating_point())


def _leaves(out: torch.Tensor) -> set[int]:
    """Return the ids of the tensors that `out` was computed from."""
    found, seen, stack = set(), set(), [out.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if hasattr(node, "variable"):
                found.add(id(node.variable))
            stack.extend(parent for parent, _ in node.next_functions)
    return found


def drop_unused(module: nn.Module, trial: Trial) -> None:
    """Remove the layers behind a tap: they would be saved, counted and optimised."""
    gone: list[str] = []
    for name, layer in list(module.named_modules()):
        if not name or any(name.startswith(parent + ".") for parent in gone):
            continue
        inside = {f"{name}.{n}" for n, _ in layer.named_parameters()}
        if inside and not inside & trial.used and name not in trial.called:
            replace_module(module, name, nn.Identity())
            gone.append(name)


class RescaledConv2d(nn.Conv2d):
    """A first convolution that scales its input, as some networks do before it."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the convolution of ``x * scale + shift``, for each channel its own."""
        scale = x.new_tensor(self.scale).view(-1, 1, 1)
        shift = x.new_tensor(self.shift).view(-1, 1, 1)
        return super().forward(x * scale + shift)


class WidenedConv2d(nn.Conv2d):
    """A first convolution for RGB, and kernels of its own for further channels.

    Those begin at zero. As parameters of their own they can learn at another rate.
    """

    further: nn.Parameter

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the convolution of all channels."""
        weight = torch.cat([self.weight, self.further], 1)
        return self._conv_forward(x, weight, self.bias)

    def joined(self) -> nn.Conv2d:
        """Return the plain convolution that does the same."""
        plain = object.__new__(nn.Conv2d)
        weight = torch.cat([self.weight, self.further], 1).detach()
        parameters = {"weight": nn.Parameter(weight), "bias": self.bias}
        vars(plain).update({**vars(self), "_parameters": parameters})
        return plain


def find_stem(network: nn.Module, size: tuple[int, int]) -> str | None:
    """Return the name of the convolution that a network begins with, if one does."""
    found: list[str] = []

    def reached(name: str, part: nn.Module, inputs: Any) -> None:
        found.append(name)
        raise Reached(inputs[0])

    for device in ("meta", "real"):
        copied = _copied(network, device)
        for name, part in copied.named_modules():
            if isinstance(part, nn.Conv2d):
                part.register_forward_pre_hook(partial(reached, name))
        try:
            _run_once(copied, (3, *size))
            break
        except FAILURES:
            if found:
                break
    return found[0] if found else None


def stem_channels(network: nn.Module, stem: str | None) -> int | None:
    """Return how many channels a network takes, as its first convolution tells."""
    if stem is None:
        return None
    conv: Any = network.get_submodule(stem)
    return conv.in_channels if conv.groups == 1 else None


def adapt_stem(
    network: nn.Module, stem: str | None, n: int, rgb: bool, *, draw: bool = False
) -> None:
    """Make a network for RGB one for images of `n` channels.

    With `draw` the kernels are random, of the deviation that gives sums of the size of
    those for RGB; else `stem_kernels`.
    """
    found = stem_channels(network, stem)
    if found == n:
        return
    if found != 3 or stem is None:
        begins = "begins with no convolution of all channels"
        if found is not None:
            begins = f"takes images of {found} channels"
        raise ValueError(
            f"The backbone {type(network).__name__} {begins}, so that it can't be "
            f"adapted to {n}: give a function that returns one for {n} channels."
        )
    conv: Any = network.get_submodule(stem)
    if getattr(network, "transform_input", False) is True:
        # It is written for three channels.
        rescale: Any = network._transform_input
        shift = rescale(torch.zeros(1, 3, 1, 1, dtype=torch.float64)).flatten()
        scale = rescale(torch.ones(1, 3, 1, 1, dtype=torch.float64)).flatten() - shift
        network.transform_input = False  # type: ignore[assignment]
        conv.__class__ = RescaledConv2d
        conv.scale = extended(tuple(scale.tolist()), n, rgb)
        conv.shift = extended(tuple(shift.tolist()), n, rgb)
    conv.in_channels = n
    weight = stem_kernels(conv.weight.detach(), n, rgb).to(conv.weight.dtype)
    if type(conv) is nn.Conv2d and rgb and n > 3 and not draw:
        conv.__class__ = WidenedConv2d
        conv.further = nn.Parameter(weight[:, 3:].clone())
        return
    if draw and not weight.is_meta:
        weight.normal_(0.0, float(conv.weight.std()) * (3 / n) ** 0.5)
    conv.weight = nn.Parameter(weight, requires_grad=conv.weight.requires_grad)


def further_kernels(network: nn.Module) -> list[nn.Parameter]:
    """Return the kernels that channels behind the first three have of their own."""
    parts = network.modules()
    return [part.further for part in parts if isinstance(part, WidenedConv2d)]


def fit_stem(
    state: dict[str, torch.Tensor], network: nn.Module, stem: str | None, rgb: bool
) -> None:
    """Make kernels for RGB, among tensors, such as an adapted network has them."""
    conv: Any = None if stem is None else network.get_submodule(stem)
    weight = state.get(f"{stem}.weight")
    if conv is None or weight is None or weight.ndim != 4:
        return
    further = state.get(f"{stem}.further")
    if further is not None and further[:, :1].shape == weight[:, :1].shape:
        weight = torch.cat([weight, state.pop(f"{stem}.further")], 1)
    if weight.shape[1] == 3 != conv.in_channels:
        weight = stem_kernels(weight, conv.in_channels, rgb)
    if isinstance(conv, WidenedConv2d) and f"{stem}.further" not in state:
        state[f"{stem}.further"] = weight[:, 3:].contiguous()
        weight = weight[:, :3].contiguous()
    state[f"{stem}.weight"] = weight


def stem_kernels(weight: torch.Tensor, n: int, rgb: bool) -> torch.Tensor:
    """Return the kernels (k, n, h, w) for `n` channels of those (k, 3, h, w) for RGB.

    With `rgb` those of the channels behind the first three are zero. Otherwise the
    three are repeated, and scaled so that equal channels give the same sum; one channel
    gets that sum. They are in float32, also of files in half precision, or float64.
    """
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    if n == 1:
        new = wide.sum(1, keepdim=True)
    elif rgb:
        further = wide.new_zeros(len(wide), n - 3, *wide.shape[2:])
        new = torch.cat([wide, further], 1)
    else:
        new = wide[:, torch.arange(n) % 3] * (3 / n)
    return new.contiguous()
