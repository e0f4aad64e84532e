"""From a network to a `Backbone`: cut at a layer, tried, and described."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torchvision.models import WeightsEnum

from sklearn_dl.backbones._backbone import Backbone
from sklearn_dl.backbones._preprocessing import CallablePreprocessing, Preprocessing
from sklearn_dl.backbones._stages import assign_parameters, stage_prefixes
from sklearn_dl.backbones._surgery import (
    POOLINGS,
    Trace,
    cut,
    drop_unused,
    find_head,
    looks_channels_last,
    pool,
)
from sklearn_dl.backbones._zoo import (
    build,
    entry_preprocessing,
    min_size,
    reference_entry,
)

AnyPreprocessing = Preprocessing | CallablePreprocessing


def input_size(
    name: str, preprocessing: AnyPreprocessing, entry: WeightsEnum | None = None
) -> tuple[int, int]:
    """Return height and width in pixels of the images that a network is built for.

    Where the preprocessing doesn't tell, it is the size of the weights `entry`.

    Raises
    ------
    ValueError
        If torchvision's network `name` does not take images as small as that.
    """
    size = preprocessing.output_size
    size = size or entry_preprocessing(entry or reference_entry(name)).crop_size
    assert size is not None
    smallest = _smallest(name, size)
    if min(size) < smallest:
        raise ValueError(
            f"image_size={size} is too small for {name!r}, which takes images of at "
            f"least {smallest} pixels."
        )
    return size


def _smallest(name: str, size: tuple[int, int]) -> int:
    if name.startswith("vit_"):
        return max(size)  # is built for this size and takes no other
    return min_size(reference_entry(name))


def assemble_torchvision(
    name: str,
    size: tuple[int, int],
    preprocessing: AnyPreprocessing,
    *,
    layer: str = "pre_logits",
    pooling: str | None = None,
    pretrained: bool = True,
    shapes_only: bool = True,
    load: Callable[[nn.Module, set[str], str], None] | None = None,
) -> Backbone:
    """Build a network of torchvision's, cut it, and describe it.

    Parameters
    ----------
    name : str
    size : pair of int
        Height and width of the images it is built for, from `input_size`.
    preprocessing : Preprocessing or CallablePreprocessing
    layer, pooling : str
        Where it is cut; see `load_backbone`.
    pretrained : bool, default=True
        Whether its weights were, or will have been, learned.
    shapes_only : bool, default=True
        Whether the tensors have no memory, so that others must take their place.
    load : callable, default=None
        Called with the network once it is cut, the names of the tensors it had before,
        and the name of its last layer, to put tensors into it.

    Returns
    -------
    Backbone

    Examples
    --------
    >>> from sklearn_dl.backbones import CallablePreprocessing, named_parameters
    >>> from sklearn_dl.backbones._assemble import assemble_torchvision
    >>> ready = CallablePreprocessing(lambda image: image)
    >>> backbone = assemble_torchvision("resnet18", (64, 64), ready)
    >>> tensors = dict(named_parameters(backbone)).values()
    >>> backbone.n_features, {str(tensor.device) for tensor in tensors}
    (512, {'meta'})
    """
    smallest = _smallest(name, size)
    module = build(name, size, shapes_only=shapes_only, pretrained=pretrained)
    known, head = set(module.state_dict()), find_head(module)
    prefixes = stage_prefixes(module, torchvision=True)
    tapped = cut(module, layer, pooling)
    if not pretrained:
        _raise_momentum(module)
    return assemble(
        module,
        (name, smallest, size),
        preprocessing,
        prefixes,
        tapped,
        layer=layer,
        pooling=pooling,
        pretrained=pretrained,
        load=load and (lambda module: load(module, known, head)),
    )


def assemble(
    module: nn.Module,
    facts: tuple[str, int, tuple[int, int]],
    preprocessing: AnyPreprocessing,
    prefixes: Any,
    tapped: str | None,
    *,
    layer: str,
    pooling: str | None,
    pretrained: bool,
    devices: Sequence[str] = ("meta",),
    load: Callable[[nn.Module], None] | None = None,
) -> Backbone:
    """Try a network that was cut on an image, and describe it.

    Parameters
    ----------
    module : torch.nn.Module
        Its layers behind `tapped` are removed.
    facts : tuple
        Its name, the smallest side it takes, and the size of the image to try.
    preprocessing : Preprocessing or CallablePreprocessing
    prefixes : list
        What `stage_prefixes` returned before the cut.
    tapped : str or None
        The inner layer it is cut at, if any.
    layer, pooling, pretrained, load
        See `assemble_torchvision`.
    devices : sequence of str, default=("meta",)
        Where to try it: ``"meta"``, ``"real"``, one after the other as they fail.

    Returns
    -------
    Backbone

    Raises
    ------
    ValueError
        If the network takes no such image, or doesn't call the layer.
    """
    name, smallest, size = facts
    trace = _trace(module, name, size, tapped, devices)
    if load is not None:
        load(module)
    return Backbone(
        module,
        name=name,
        preprocessing=preprocessing,
        pretrained=pretrained,
        stages=assign_parameters(module, prefixes),
        min_size=smallest,
        layer=layer,
        pooling=pooling,
        **_output(trace, size, layer, pooling),
    )


def _raise_momentum(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.momentum = part.momentum and max(part.momentum, 0.1)


def _trace(
    module: nn.Module,
    name: str,
    size: tuple[int, int],
    tapped: str | None,
    devices: Sequence[str],
) -> Trace:
    """Try the network on an image of `size`; drop what a cut-off layer made useless."""
    for device in devices:
        try:
            trace = Trace(module, size, device)
            break
        except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
            if device == devices[-1]:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise ValueError(
                    f"{name!r} does not take images of {size[0]} x {size[1]} pixels: "
                    f"{reason[:200]}"
                ) from error
    if tapped is not None:
        if tapped not in trace.called:
            raise ValueError(
                f"The layer {tapped!r} of {name!r} is not called in its forward pass, "
                "so it cannot give features; name the layer around it."
            )
        drop_unused(module, trace)
    return trace


def _output(
    trace: Trace, size: tuple[int, int], layer: str, pooling: str | None
) -> dict[str, Any]:
    """Return the width of the features and the layout of the map they come from."""
    ndim = len(trace.shape)
    valid: dict[int, tuple[str | None, ...]] = {
        2: (None, "flatten"),
        3: POOLINGS,
        4: (None, "avg", "max", "flatten"),
    }
    if ndim == 2 and layer == "pre_logits" and pooling == "cls":
        pass  # a vision transformer's own way
    elif pooling not in valid.get(ndim, ()):
        raise ValueError(
            f"pooling={pooling!r} does not apply to layer={layer!r}, whose output has "
            f"the shape {('n', *trace.shape[1:])}."
        )
    channels_last = looks_channels_last(trace.shape, size)
    vector = pool(torch.empty(trace.shape, device="meta"), pooling, channels_last)
    return {"n_features": vector.shape[1], "channels_last": channels_last}
