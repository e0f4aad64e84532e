"""Stages of a network: its parameters in order, from input to output."""

from collections.abc import Callable

from torch import nn

Stages = dict[str, list[str]]  # the names of the parameters of each

_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear, nn.MultiheadAttention)

# Families whose stages stand in the names of their modules: what they are called, and
# where they begin. A stage is where the resolution changes; a stem goes with the first.
_FOUR = "stage1 stage2 stage3 stage4"
_BLOCKS = "block1 block2 block3 block4"
_DENSE = "denseblock1 denseblock2 denseblock3 denseblock4"
_TABLE = {
    "ConvNeXt": (_FOUR, "features.0 features.2 features.4 features.6"),
    "DenseNet": (_DENSE, " ".join(f"features.{name}" for name in _DENSE.split())),
    "GoogLeNet": ("inception3 inception4 inception5", "conv1 inception4a inception5a"),
    "Inception3": ("Mixed_5 Mixed_6 Mixed_7", "Conv2d_1a_3x3 Mixed_6a Mixed_7a"),
    "MaxVit": (_BLOCKS, "stem blocks.1 blocks.2 blocks.3"),
    "RegNet": (_BLOCKS, " ".join(f"trunk_output.{name}" for name in _BLOCKS.split())),
    "ResNet": ("layer1 layer2 layer3 layer4", "conv1 layer2 layer3 layer4"),
    "ShuffleNetV2": ("stage2 stage3 stage4 conv5", "conv1 stage3 stage4 conv5"),
    "SwinTransformer": (_FOUR, "features.0 features.2 features.4 features.6"),
}


def _by_stride(path: str) -> Callable[[nn.Module], dict[str, str]]:
    """Begin a stage at each child of `path` that halves the resolution.

    The first two, the stem and what follows it, are one.
    """

    def starts(module: nn.Module) -> dict[str, str]:
        found: list[str] = []
        for name, child in module.get_submodule(path).named_children():
            strides = [m.stride for m in child.modules() if isinstance(m, nn.Conv2d)]
            if (2, 2) in strides or not found:
                found.append(f"{path}.{name}")
        return _numbered("stage", [found[0], *found[2:]])

    return starts


def _after_pooling(module: nn.Module) -> list[str]:
    """Return the first of `features`, and those that follow a max-pooling."""
    parts = list(module.get_submodule("features").named_children())
    pooled = [True, *(isinstance(part, nn.MaxPool2d) for _, part in parts)]
    return [f"features.{n}" for (n, _), new in zip(parts, pooled, strict=False) if new]


def _vgg(module: nn.Module) -> dict[str, str]:
    layers = module.get_submodule("classifier").named_children()
    linear = [f"classifier.{n}" for n, part in layers if isinstance(part, nn.Linear)]
    blocks = _numbered("block", _after_pooling(module))
    return {**blocks, "fc1": linear[0], "fc2": linear[1]}


def _squeezenet(module: nn.Module) -> dict[str, str]:
    stem, _, *rest = _after_pooling(module)
    return _numbered("stage", [stem, *rest])


def _vit(module: nn.Module) -> dict[str, str]:
    layers = [n for n, _ in module.get_submodule("encoder.layers").named_children()]
    firsts = layers[:: -(-len(layers) // 4)]
    return _numbered("stage", [f"encoder.layers.{name}" for name in firsts])


def _numbered(kind: str, starts: list[str]) -> dict[str, str]:
    return {f"{kind}{i}": start for i, start in enumerate(starts, 1)}


_RULES: dict[str, Callable[[nn.Module], dict[str, str]]] = {
    "AlexNet": _vgg,
    "EfficientNet": _by_stride("features"),
    "MNASNet": _by_stride("layers"),
    "MobileNetV2": _by_stride("features"),
    "MobileNetV3": _by_stride("features"),
    "SqueezeNet": _squeezenet,
    "VGG": _vgg,
    "VisionTransformer": _vit,
}


def find_stages(module: nn.Module, *, torchvision: bool) -> Stages:
    """Return the names of the parameters of each stage, tied ones under each name.

    The stages of a network of torchvision's, not cut yet, are those of its family.
    """
    family = type(module).__name__
    if torchvision and family in _TABLE:
        names, places = _TABLE[family]
        return _between(module, dict(zip(names.split(), places.split(), strict=True)))
    if torchvision and family in _RULES:
        return _between(module, _RULES[family](module))
    return general_stages(module)


def _between(module: nn.Module, starts: dict[str, str]) -> Stages:
    """Return the parameters from each start to the next; the first has all before."""
    stages: Stages = {stage: [] for stage in starts}
    current, *later = starts
    for name, _ in module.named_parameters(remove_duplicate=False):
        if later and name.startswith(f"{starts[later[0]]}."):
            current = later.pop(0)
        stages[current].append(name)
    return stages


def keep_existing(module: nn.Module, stages: Stages) -> Stages:
    """Return the stages with the parameters that a cut network still has."""
    names = [name for name, _ in module.named_parameters()]
    stage_of = {name: stage for stage, inside in stages.items() for name in inside}
    found = {s: [n for n in names if stage_of.get(n) == s] for s in stages}
    return {stage: inside for stage, inside in found.items() if inside}


def general_stages(module: nn.Module) -> Stages:
    """Make stages of any network, from its children.

    A child with nearly all parameters is replaced by its own children; then what holds
    no convolution, attention or linear layer, or less than 1 % of the parameters, joins
    the next unit (at the end, the one before). If that gives fewer than three stages,
    a child with 40 % is enough.
    """
    total = sum(p.numel() for p in module.parameters())
    stages = _group(module, _units(module, "", 0.85 * total), total)
    if len(stages) < 3:
        stages = _group(module, _units(module, "", 0.4 * total), total)
    return stages


def _group(module: nn.Module, units: dict[str, int], total: int) -> Stages:
    """Join small units and those without a block to their neighbours."""
    groups: list[list[str]] = [[]]
    for unit, size in units.items():
        if size:
            groups[-1].append(unit)
        if _is_block(module, groups[-1], total):
            groups.append([])
    if len(groups) > 1:  # what is left over joins the last full stage
        groups[-2:] = [groups[-2] + groups[-1]]
    stages: Stages = {}
    every = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    for group in groups:
        largest = max(group, key=lambda name: _size(module, name), default="")
        prefixes = tuple(f"{unit}." for unit in group)
        inside = [name for name in every if f"{name}.".startswith(prefixes)]
        stages[largest or "all"] = inside
    return stages


def _units(module: nn.Module, prefix: str, limit: float) -> dict[str, int]:
    """Return names of parts of the network with their numbers of parameters."""
    dot = f"{prefix}." if prefix else ""
    units = {dot + n: p.numel() for n, p in module.named_parameters(recurse=False)}
    for name, child in module.named_children():
        size = sum(p.numel() for p in child.parameters())
        blocks = sum(_has_weighted(c) for c in child.children())
        if size > limit and blocks > 1:
            units.update(_units(child, dot + name, limit))
        else:
            units[dot + name] = size
    return units


def _has_weighted(module: nn.Module) -> bool:
    return any(isinstance(m, _WEIGHTED) for m in module.modules())


def _part(module: nn.Module, name: str) -> nn.Module | nn.Parameter:
    parent, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(parent), leaf)


def _size(module: nn.Module, name: str) -> int:
    part = _part(module, name)
    if isinstance(part, nn.Module):
        return sum(p.numel() for p in part.parameters())
    return part.numel()


def _is_block(module: nn.Module, group: list[str], total: int) -> bool:
    parts = [_part(module, name) for name in group]
    weighted = any(isinstance(p, nn.Module) and _has_weighted(p) for p in parts)
    return weighted and sum(_size(module, name) for name in group) >= 0.01 * total
