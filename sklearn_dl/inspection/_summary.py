"""Layers of an estimator's network as a table."""

import copy
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from sklearn_dl._base import ImageEstimatorMixin, image_shape_of, network_of
from sklearn_dl._extraction import PixelReader
from sklearn_dl._images import Asked, ImageSource, as_source
from sklearn_dl._runtime import seeded
from sklearn_dl.backbones import load_backbone

_BACKBONE_PARAMETERS = ("backbone", "weights", "layer", "image_size")


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
    shape = image_shape_of(estimator)
    source = None if X is None else as_source(X, image_shape=shape)
    channels = Asked.of(shape).channels if source is None else source.channels
    network, note = _network(estimator, channels)
    order, shapes = _trace(network, _image(source, network))
    columns = ["layer", "kind", "output_shape", "parameters", "trainable", "stage"]
    summary = ModelSummary(_rows(network, order, shapes), columns=columns)
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


def _network(estimator, channels: Any) -> tuple[nn.Module, str]:
    """Return a network of our own, and what the summary should say of it."""
    fitted = network_of(estimator)
    if fitted is not None:
        return copy.deepcopy(fitted), ""
    arguments = {
        n: vars(estimator)[n] for n in _BACKBONE_PARAMETERS if hasattr(estimator, n)
    }
    if isinstance(arguments["image_size"], list):
        arguments["image_size"] = tuple(arguments["image_size"])
    arguments["channels"] = channels
    preprocessing = estimator.preprocessing
    if not isinstance(preprocessing, str | tuple | list):  # of normalisation alone
        arguments["preprocessing"] = preprocessing
    with seeded(0):  # random weights are not looked at
        backbone = load_backbone(**arguments)
    trainable = getattr(estimator, "trainable", None)
    stages = "head" if trainable is None else getattr(trainable, "stages", trainable)
    backbone.freeze(stages)
    note = "" if trainable is None else "Without the head: it is made in fit."
    return backbone, note


def _image(source: ImageSource | None, network: nn.Module) -> torch.Tensor:
    """Return one image as the network takes it, (1, C, height, width)."""
    preprocessing: Any = getattr(network, "backbone", network).preprocessing
    like = next(network.parameters(), torch.zeros(()))
    if source is None:
        size = preprocessing.output_size or (224, 224)
        shape = (1, preprocessing.n_channels, *size)
        return torch.zeros(shape, dtype=like.dtype, device=like.device)
    with PixelReader(source, preprocessing, like.device, np.arange(1)) as reader:
        return preprocessing.normalize(reader.read([0])).to(like.dtype)


@torch.inference_mode(False)
@torch.enable_grad()  # without gradients a network may leave layers out
def _trace(network: nn.Module, image: torch.Tensor) -> tuple[dict, dict]:
    """Return the modules called, with their position, and the shapes they gave."""
    order: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...] | None] = {}
    for name, module in network.named_modules():

        def begin(module, inputs, name=name):
            order.setdefault(name, len(order))

        def end(module, inputs, output, name=name):
            shapes.setdefault(name, _shape(output))

        # Before the hooks of others: the one that cuts a backbone off ends the pass.
        module.register_forward_pre_hook(begin, prepend=True)
        module.register_forward_hook(end, prepend=True)
    network.eval()(image)
    return order, shapes


def _shape(output: Any) -> tuple[int, ...] | None:
    """Return the shape for one image of a layer's output, the first if it has more."""
    if isinstance(output, dict):
        output = list(output.values())
    while isinstance(output, list | tuple) and output:
        output = output[0]
    return tuple(output.shape[1:]) if isinstance(output, torch.Tensor) else None


def _rows(network: nn.Module, order: dict, shapes: dict) -> list[dict]:
    """Return a row for each called layer without called ones inside, and the rest."""
    # Attention uses the weights of layers that it doesn't call: they count for the
    # nearest layer around them that is a row.
    modules = dict(network.named_modules())
    rows: dict[str, dict] = {}

    def add(name: str, part: Any, place: int) -> str:
        rows[name] = {"order": place, "parameters": 0, "trainable": 0, "stage": ""}
        rows[name] |= {"kind": type(part).__name__, "output_shape": shapes.get(name)}
        return name

    inner = {parent for name in order for parent in _parents(name)}
    for name in order:
        if name not in inner:
            add(name, modules[name], order[name])
    prefix = "backbone.module." if "backbone" in modules else "module."
    stages: Any = getattr(network, "backbone", network).stages
    stage_of = {prefix + name: stage for stage in stages for name in stages[stage]}
    for name, parameter in network.named_parameters():
        owner = name.rpartition(".")[0]
        around = [owner, *_parents(owner)]
        place = next((module for module in around if module in rows), None)
        if place is None and owner in order:
            place = add(name, parameter, order[owner])
        elif place is None:
            at = next(order[module] for module in around if module in order)
            place = add(owner, modules[owner], at)
        rows[place]["parameters"] += parameter.numel()
        rows[place]["trainable"] += parameter.numel() * parameter.requires_grad
        rows[place]["stage"] = stage_of.get(name, "head")
    stage = next(iter(stages), "")
    found = sorted(rows.items(), key=lambda item: item[1]["order"])
    for name, row in found:
        if name == "head" or name.startswith("head."):
            stage = "head"
        stage = row["stage"] = row["stage"] or stage
        row["layer"] = name.removeprefix("backbone.").removeprefix("module.")
    # An identity stands where the head of the pretrained network was.
    return [row for _, row in found if row["kind"] != "Identity"]


def _parents(name: str) -> list[str]:
    """Return the names of the modules around one, nearest first."""
    parts = name.split(".") if name else []
    return [".".join(parts[:i]) for i in range(len(parts) - 1, -1, -1)]
