"""Stages of a network: its parameters in order, from input to output."""

from collections.abc import Callable

from torch import nn

Prefixes = dict[str, list[str]]  # stage -> names of the modules and parameters in it

_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear, nn.MultiheadAttention)

# Families whose stages stand in the names of their modules. A stage is where the
# resolution changes; a stem goes with the first, a final norm with the last.
_TABLE: dict[str, dict[str, str]] = {
    "ConvNeXt": {
        "stage1": "features.0 features.1",
        "stage2": "features.2 features.3",
        "stage3": "features.4 features.5",
        "stage4": "features.6 features.7 classifier",
    },
    "DenseNet": {
        "denseblock1": "features.conv0 features.norm0 features.denseblock1 "
        "features.transition1",
        "denseblock2": "features.denseblock2 features.transition2",
        "denseblock3": "features.denseblock3 features.transition3",
        "denseblock4": "features.denseblock4 features.norm5 classifier",
    },
    "GoogLeNet": {
        "inception3": "conv1 conv2 conv3 inception3a inception3b",
        "inception4": "inception4a inception4b inception4c inception4d inception4e",
        "inception5": "inception5a inception5b fc",
    },
    "Inception3": {
        "Mixed_5": "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 Conv2d_3b_1x1 "
        "Conv2d_4a_3x3 Mixed_5b Mixed_5c Mixed_5d",
        "Mixed_6": "Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e",
        "Mixed_7": "Mixed_7a Mixed_7b Mixed_7c fc",
    },
    "MaxVit": {
        "block1": "stem blocks.0",
        "block2": "blocks.1",
        "block3": "blocks.2",
        "block4": "blocks.3 classifier",
    },
    "RegNet": {
        "block1": "stem trunk_output.block1",
        "block2": "trunk_output.block2",
        "block3": "trunk_output.block3",
        "block4": "trunk_output.block4 fc",
    },
    "ResNet": {
        "layer1": "conv1 bn1 layer1",
        "layer2": "layer2",
        "layer3": "layer3",
        "layer4": "layer4 fc",
    },
    "ShuffleNetV2": {
        "stage2": "conv1 stage2",
        "stage3": "stage3",
        "stage4": "stage4",
        "conv5": "conv5 fc",
    },
    "SwinTransformer": {
        "stage1": "features.0 features.1",
        "stage2": "features.2 features.3",
        "stage3": "features.4 features.5",
        "stage4": "features.6 features.7 norm head",
    },
}


def _by_stride(path: str, *last: str) -> Callable[[nn.Module], Prefixes]:
    """Begin a stage at each child of `path` that halves the resolution.

    The first two, the stem and what follows it, are one.
    """

    def stages(module: nn.Module) -> Prefixes:
        groups: list[list[str]] = []
        for name, child in module.get_submodule(path).named_children():
            strides = [m.stride for m in child.modules() if isinstance(m, nn.Conv2d)]
            if (2, 2) in strides or not groups:
                groups.append([])
            groups[-1].append(f"{path}.{name}")
        groups[:2] = [groups[0] + groups[1]]
        groups[-1].extend(last)
        return {f"stage{i}": group for i, group in enumerate(groups, 1)}

    return stages


def _by_pooling(module: nn.Module) -> list[list[str]]:
    """Split the children of `features` after each max-pooling."""
    groups: list[list[str]] = [[]]
    for name, child in module.get_submodule("features").named_children():
        groups[-1].append(f"features.{name}")
        if isinstance(child, nn.MaxPool2d):
            groups.append([])
    return [group for group in groups if group]


def _vgg(module: nn.Module) -> Prefixes:
    stages = {f"block{i}": group for i, group in enumerate(_by_pooling(module), 1)}
    linear = [
        f"classifier.{name}"
        for name, child in module.get_submodule("classifier").named_children()
        if isinstance(child, nn.Linear)
    ]
    stages["fc1"] = linear[:1]
    stages["fc2"] = linear[1:]
    return stages


def _squeezenet(module: nn.Module) -> Prefixes:
    stem, first, *rest = _by_pooling(module)
    groups = [stem + first, *rest]
    groups[-1].append("classifier")
    return {f"stage{i}": group for i, group in enumerate(groups, 1)}


def _vit(module: nn.Module) -> Prefixes:
    layers = [
        f"encoder.layers.{name}"
        for name, _ in module.get_submodule("encoder.layers").named_children()
    ]
    size = -(-len(layers) // 4)
    groups = [layers[i : i + size] for i in range(0, len(layers), size)]
    groups[0] += ["class_token", "conv_proj", "encoder.pos_embedding"]
    groups[-1] += ["encoder.ln", "heads"]
    return {f"stage{i}": group for i, group in enumerate(groups, 1)}


_RULES: dict[str, Callable[[nn.Module], Prefixes]] = {
    "AlexNet": _vgg,
    "EfficientNet": _by_stride("features", "classifier"),
    "MNASNet": _by_stride("layers", "classifier"),
    "MobileNetV2": _by_stride("features", "classifier"),
    "MobileNetV3": _by_stride("features", "classifier"),
    "SqueezeNet": _squeezenet,
    "VGG": _vgg,
    "VisionTransformer": _vit,
}


def stage_prefixes(module: nn.Module, *, torchvision: bool) -> Prefixes:
    """Return the stages of a network, as names of the modules and parameters in each.

    Those of its family for a network of torchvision's, which isn't cut yet.
    """
    family = type(module).__name__
    if torchvision and family in _TABLE:
        return {stage: names.split() for stage, names in _TABLE[family].items()}
    if torchvision and family in _RULES:
        return _RULES[family](module)
    return general_stages(module)


def assign_parameters(module: nn.Module, prefixes: Prefixes) -> dict[str, list[str]]:
    """Return the names of the parameters of each stage that has any."""
    stages = {
        stage: [name for name, _ in module.named_parameters() if _within(name, group)]
        for stage, group in prefixes.items()
    }
    return {stage: names for stage, names in stages.items() if names}


def _within(name: str, group: list[str]) -> bool:
    return any(name == p or name.startswith(f"{p}.") or not p for p in group)


def general_stages(module: nn.Module) -> Prefixes:
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


def _group(module: nn.Module, units: dict[str, int], total: int) -> Prefixes:
    """Join small units and those without a block to their neighbours."""
    groups: list[list[str]] = [[]]
    for unit, size in units.items():
        if size:
            groups[-1].append(unit)
        if _is_block(module, groups[-1], total):
            groups.append([])
    if len(groups) > 1:  # what is left over joins the last full stage
        groups[-2:] = [groups[-2] + groups[-1]]
    stages: Prefixes = {}
    for group in groups:
        largest = max(group, key=lambda name: _size(module, name), default="")
        stages[largest or "all"] = group
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


def modules_by_stage(
    module: nn.Module, stages: dict[str, list[str]]
) -> dict[str, set[str]]:
    """Return, for each submodule, the stages that it holds a part of.

    A module without parameters (dropout, activation) belongs to the stage of what
    stands before it.
    """
    stage_of = {name: stage for stage, names in stages.items() for name in names}
    current = {next(iter(stages))} if stages else set()
    found: dict[str, set[str]] = {}
    for name, part in module.named_modules():
        dot = f"{name}." if name else ""
        own = [stage_of[dot + n] for n, _ in part.named_parameters()]
        found[name] = set(own) if own else current
        if own and not any(True for _ in part.children()):
            current = {own[-1]}
    return found
