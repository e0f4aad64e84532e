"""The layers of an estimator's network as a table."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from sklearn_dl._base import ImageEstimatorMixin
from sklearn_dl._extraction import PixelReader
from sklearn_dl._images import as_source
from sklearn_dl._runtime import seeded
from sklearn_dl.backbones import Backbone, load_backbone

_BACKBONE_PARAMETERS = (
    "backbone",
    "weights",
    "layer",
    "pooling",
    "preprocessing",
    "image_size",
)


class ModelSummary(pd.DataFrame):
    """A table of layers that prints whole, with the totals of its ``attrs`` below.

    What pandas makes of it (a selection, a copy) is a plain DataFrame.

    Examples
    --------
    >>> from sklearn_dl.inspection import ModelSummary
    >>> totals = {"parameters": 6, "trainable": 2, "non_trainable": 4}
    >>> summary = ModelSummary({"layer": ["head"], "parameters": [6]})
    >>> summary.attrs = {**totals, "megabytes": 2.4e-5, "note": ""}
    >>> print(summary)
    layer  parameters
     head           6
    6 parameters: 2 trainable, 4 not; 0.0 MB
    """

    def __repr__(self) -> str:
        return f"{self.to_string(index=False)}\n{self._totals()}"

    def _repr_html_(self) -> str:
        return f"{self.to_html(index=False)}<p>{self._totals()}</p>"

    def _totals(self) -> str:
        line = (
            "{parameters:,} parameters: {trainable:,} trainable, {non_trainable:,} "
            "not; {megabytes:,.1f} MB"
        ).format_map(self.attrs)
        return "\n".join(filter(None, [line, self.attrs["note"]]))


def model_summary(estimator, X=None) -> ModelSummary:
    """Return the layers of an estimator's network, from input to output.

    One image passes through the network; nothing is trained or changed.

    Parameters
    ----------
    estimator : ImageClassifier, ImageRegressor or ImageFeatureExtractor
        Fitted; or not, and then its backbone is loaded with its weights. The head of
        an estimator that isn't fitted is missing: its width is known from y.
    X : images, default=None
        Any form that `fit` takes; the first image is used. None takes a black one of
        the network's input size.

    Returns
    -------
    ModelSummary
        A DataFrame with one row per layer that has no layers inside, in the order in
        which the image meets them (a layer that is met again is one row):

        - ``layer``: the name, for the backbone as the parameter `layer` takes it;
        - ``kind``: its class; ``"Parameter"`` for one that stands between layers, such
          as a class token;
        - ``output_shape``: for one image, such as (channels, height, width); None
          where parameters are used without a layer being called;
        - ``parameters``, ``trainable``: their number, and how many training changes;
        - ``stage``: the stage of the backbone (a name for `trainable`), or ``"head"``.

        Its ``attrs`` hold the totals ``parameters``, ``trainable``, ``non_trainable``,
        ``megabytes`` (1e6 bytes, of parameters and buffers) and a ``note``, which says
        when the head is missing.

    Raises
    ------
    TypeError
        If the estimator is not one of the three.
    OSError
        If it isn't fitted and its weights can't be downloaded.

    Examples
    --------
    >>> from sklearn_dl import ImageFeatureExtractor
    >>> from sklearn_dl.inspection import model_summary
    >>> extractor = ImageFeatureExtractor("resnet18", weights=None, image_size=32)
    >>> summary = model_summary(extractor)
    >>> summary.head(2)
       layer         kind  output_shape  parameters  trainable   stage
    0  conv1       Conv2d  (64, 16, 16)        9408          0  layer1
    1    bn1  BatchNorm2d  (64, 16, 16)         128          0  layer1
    >>> summary.attrs["parameters"]
    11176512
    """
    if not isinstance(estimator, ImageEstimatorMixin):
        raise TypeError(
            "model_summary takes an ImageClassifier, ImageRegressor or "
            f"ImageFeatureExtractor, got {type(estimator).__name__}; of a pipeline, "
            "give the step that is one."
        )
    network, backbone, note = _network(estimator)
    first = next(network.parameters(), torch.zeros(()))
    image = _image(estimator, X, backbone.preprocessing, first)
    order, shapes = _trace(network, image)
    rows = _rows(network, backbone, order, shapes)
    summary = ModelSummary(rows, columns=["layer", "kind", *_COLUMNS])
    tensors = [*network.parameters(), *network.buffers()]
    total, trainable = int(summary.parameters.sum()), int(summary.trainable.sum())
    summary.attrs = {
        "parameters": total,
        "trainable": trainable,
        "non_trainable": total - trainable,
        "megabytes": sum(t.numel() * t.element_size() for t in tensors) / 1e6,
        "note": note,
    }
    return summary


_COLUMNS = ("output_shape", "parameters", "trainable", "stage")


def _network(estimator) -> tuple[nn.Module, Backbone, str]:
    """Return the network, its backbone, and what the summary should say of it."""
    if hasattr(estimator, "net_"):
        return estimator.net_.module_, estimator.net_.module_.backbone, ""
    if hasattr(estimator, "backbone_"):
        return estimator.backbone_, estimator.backbone_, ""
    arguments = {name: getattr(estimator, name) for name in _BACKBONE_PARAMETERS}
    if isinstance(arguments["image_size"], list):
        arguments["image_size"] = tuple(arguments["image_size"])
    with seeded(0):  # random weights are not looked at
        backbone = load_backbone(**arguments)
    trainable = getattr(estimator, "trainable", None)
    backbone.freeze("head" if trainable is None else trainable)
    note = "" if trainable is None else "Without the head: it is made in fit."
    return backbone, backbone, note


def _image(estimator, X, preprocessing, like: torch.Tensor) -> torch.Tensor:
    """Return one image as the network takes it, (1, 3, height, width)."""
    if X is None:
        size = preprocessing.output_size or (224, 224)
        return torch.zeros(1, 3, *size, dtype=like.dtype, device=like.device)
    source = as_source(X, image_shape=estimator.image_shape)
    with PixelReader(source, preprocessing, like.device, np.arange(1)) as reader:
        return preprocessing.normalize(reader.read([0])).to(like.dtype)


def _trace(network: nn.Module, image: torch.Tensor) -> tuple[dict, dict]:
    """Return the modules called, with their position, and the shapes they gave."""
    order: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...] | None] = {}

    def watch(name: str, module: nn.Module) -> list:
        def begin(module, inputs):
            order.setdefault(name, len(order))

        def end(module, inputs, output):
            shapes.setdefault(name, _shape(output))

        # First in the row: the hook that cuts a backbone off ends the pass.
        return [
            module.register_forward_pre_hook(begin, prepend=True),
            module.register_forward_hook(end, prepend=True),
        ]

    modes = {module: module.training for module in network.modules()}
    handles = [h for n, m in network.named_modules() for h in watch(n, m)]
    try:
        network.eval()
        with torch.inference_mode():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return order, shapes


def _shape(output: Any) -> tuple[int, ...] | None:
    """Return the shape for one image of a layer's output, the first if it has more."""
    if isinstance(output, dict):
        output = list(output.values())
    while isinstance(output, list | tuple) and output:
        output = output[0]
    return tuple(output.shape[1:]) if isinstance(output, torch.Tensor) else None


def _rows(network, backbone, order: dict, shapes: dict) -> list[dict]:
    """Return a row for each called layer without called ones inside, and for the rest.

    Attention uses the weights of layers that it doesn't call: they count for the
    nearest layer around them that is a row.
    """
    modules = dict(network.named_modules())
    inner = {parent for name in order for parent in _parents(name)}
    found: dict[str, dict] = {
        name: _row(modules[name], order[name], shapes.get(name))
        for name in order
        if name not in inner
    }
    prefix = "backbone." if backbone is not network else ""
    stages = {
        f"{prefix}module.{name}": stage
        for stage, names in backbone.stages.items()
        for name in names
    }
    for name, parameter in network.named_parameters():
        owner = name.rpartition(".")[0]
        around = [owner, *_parents(owner)]
        place = next((module for module in around if module in found), None)
        if place is None and owner in order:
            place = name
            found[place] = _row(parameter, order[owner])
        elif place is None:
            place = owner
            at = next(order[module] for module in around if module in order)
            found[place] = _row(modules[owner], at)
        found[place]["parameters"] += parameter.numel()
        found[place]["trainable"] += parameter.numel() * parameter.requires_grad
        found[place]["stage"] = stages.get(name, "head")
    rows = sorted(found.items(), key=lambda item: item[1]["order"])
    stage = next(iter(backbone.stages), "")
    for name, row in rows:
        if name == "head" or name.startswith("head."):
            stage = "head"
        stage = row["stage"] = row["stage"] or stage
        row["layer"] = name.removeprefix("backbone.").removeprefix("module.")
    # An identity stands where the head of the pretrained network was.
    return [row for _, row in rows if row["kind"] != "Identity"]


def _row(part, order: int, shape: tuple[int, ...] | None = None) -> dict:
    return {
        "kind": type(part).__name__,
        "order": order,
        "output_shape": shape,
        "parameters": 0,
        "trainable": 0,
        "stage": "",
    }


def _parents(name: str) -> list[str]:
    """Return the names of the modules around one, nearest first."""
    parts = name.split(".") if name else []
    return [".".join(parts[:i]) for i in range(len(parts) - 1, -1, -1)]
