"""Networks as plain data, and built anew from it."""

import json
from typing import Any

import torch
from torch import nn

from sklearn_dl._runtime import seeded
from sklearn_dl.backbones import (
    Backbone,
    assemble_torchvision,
    backbone_names,
    digest_architecture,
    digest_weights,
    input_size,
    load_backbone,
    named_tensors,
    share,
    shared_backbone,
)
from sklearn_dl.persistence._decode import Decoder
from sklearn_dl.persistence._encode import Encoder
from sklearn_dl.persistence._errors import ModelFileError
from sklearn_dl.persistence._tensors import assign


def describe_backbone(
    backbone: Backbone,
    origin: Any,
    weights: Any,
    encoder: Encoder,
    where: str,
    way: str,
) -> dict[str, Any]:
    """Return what a backbone is built from, with its tensors or their digest.

    Parameters
    ----------
    backbone : Backbone
    origin : str or callable
        What it was loaded by.
    weights : object
        The estimator's parameter.
    encoder : Encoder
    where : str
        Its place in the model.
    way : {"whole", "reference"}
        Of a frozen one that has published weights or a file of them.
    """
    node: dict[str, Any] = {
        "layer": backbone.layer,
        "pretrained": backbone.pretrained,
        "preprocessing": encoder(backbone.preprocessing, f"{where}.preprocessing"),
    }
    if isinstance(origin, str):
        size = input_size(origin, backbone.preprocessing)
        node = {**node, "architecture": origin, "size": [*size]}
        again = _built(node, backbone.preprocessing)
        if digest_architecture(again) != digest_architecture(backbone):
            raise ModelFileError(
                f"{where} was changed after {origin!r} was built, so it couldn't be "
                "built again: make the change in a function that returns the network, "
                "and give that as backbone=."
            )
    else:
        node["callable"] = encoder(origin, f"{where} (its parameter backbone)")
    tensors = named_tensors(backbone.module)
    named = isinstance(origin, str) and weights is not None
    if way == "reference" and named and not backbone.trains:
        first = next(iter(tensors.values()))
        double = first.dtype == torch.float64
        digest = digest_weights(backbone.module)
        place = encoder(weights, f"{where}.weights")
        return {**node, "weights": place, "digest": digest, "double": double}
    return {**node, "tensors": encoder.tensors.add_network(tensors)}


def describe_module(module: nn.Module, encoder: Encoder) -> dict[str, str]:
    """Return the tensors of a head."""
    return encoder.tensors.add_network(named_tensors(module))


class Backbones:
    """Builds the backbones of a file; those that are the same share their tensors.

    Parameters
    ----------
    decoder : Decoder
    weights : path, dict of str to path, or None
        Where the weights of backbones stored by reference are, if not where they were.
    """

    def __init__(self, weights: Any = None):
        self.weights = weights
        self._shared: dict[str, Backbone] = {}

    def __call__(
        self,
        node: dict[str, Any],
        decoder: Decoder,
        device: torch.device,
        trained: bool,
    ) -> Backbone:
        """Return a backbone, frozen; of a trained one the tensors are its own."""
        preprocessing = decoder(node["preprocessing"])
        if "digest" in node:
            return self._referred(node, decoder, preprocessing, device)
        if trained:
            backbone = _with_tensors(node, decoder, preprocessing)
            backbone.freeze("head")
            backbone.settle()
            return backbone
        key = json.dumps([{**node, "preprocessing": None}, str(device)])
        if key not in self._shared:
            backbone = _with_tensors(node, decoder, preprocessing)
            kinds = (t.dtype for t in named_tensors(backbone.module).values())
            dtype = next((k for k in kinds if k.is_floating_point), torch.float32)
            self._shared[key] = share(backbone, device, dtype)
        return self._shared[key].replace_preprocessing(preprocessing)

    def _referred(self, node, decoder, preprocessing, device) -> Backbone:
        name, weights = node["architecture"], decoder(node["weights"])
        given = self.weights
        if isinstance(given, dict):
            given = given.get(name)
        try:
            backbone = shared_backbone(
                name,
                weights if given is None else given,
                layer=node["layer"],
                preprocessing=preprocessing,
                device=device,
                dtype=torch.float64 if node["double"] else torch.float32,
            )
        except (OSError, ValueError) as error:
            raise ModelFileError(
                f"The file holds no weights of {name!r}, but refers to those of "
                f"weights={weights!r}, which can't be loaded: {error}\nGive their file "
                f"as load(path, weights={{{name!r}: 'path/to/file'}})."
            ) from error
        if digest_weights(backbone.module) != node["digest"]:
            raise ModelFileError(
                f"The weights of {name!r} ({weights if given is None else given}) are "
                "not those that the model was trained on: their digest differs. Give "
                f"the file of those as load(path, weights={{{name!r}: "
                "'path/to/file'})."
            )
        return backbone


def _with_tensors(node: dict[str, Any], decoder: Decoder, preprocessing) -> Backbone:
    if "architecture" in node:
        backbone = _built(node, preprocessing)
    else:
        function = decoder(node["callable"])
        if isinstance(function, str) or not callable(function):
            raise ModelFileError("A backbone is neither a name nor a function.")
        with seeded(0):
            backbone = load_backbone(
                function,
                None,
                layer=node["layer"],
                preprocessing=preprocessing,
            )
        backbone.pretrained = bool(node["pretrained"])
    tensors = {name: decoder.tensors[place] for name, place in node["tensors"].items()}
    assign(backbone.module, tensors)
    return backbone


def _built(node: dict[str, Any], preprocessing) -> Backbone:
    """Return a backbone of torchvision's, without values in its tensors."""
    name, layer = node["architecture"], node["layer"]
    height, width = node["size"]
    size, pretrained = (int(height), int(width)), bool(node["pretrained"])
    if name not in backbone_names():
        raise ModelFileError(f"{name!r:.60} is no backbone of this torchvision.")
    if max(size) > 2**14:
        raise ModelFileError(f"{size} is no size of images.")
    return assemble_torchvision(
        name, size, preprocessing, layer=layer, pretrained=pretrained
    )
