"""Networks as plain data, and built anew from it."""

import json
from typing import Any

import torch
from torch import nn

from sklearn_dl._runtime import seeded
from sklearn_dl.backbones import (
    Backbone,
    SharedCopies,
    load_backbone,
    load_shared,
    named_tensors,
)
from sklearn_dl.backbones._assemble import assemble_torchvision, input_size
from sklearn_dl.backbones._identity import digest_architecture, digest_weights
from sklearn_dl.backbones._zoo import backbone_names
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
        "pooling": backbone.pooling,
        "pretrained": backbone.pretrained,
        "handed_out": backbone._ledger.handed_out,
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
    tensors = named_tensors(backbone._network)
    named = isinstance(origin, str) and weights is not None
    if way == "reference" and named and not backbone.trains:
        first = next(iter(tensors.values()))
        double = first.dtype == torch.float64
        digest = digest_weights(backbone._network)
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
        self._lent: dict[str, SharedCopies] = {}

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
            return self._as_it_was(backbone.eval(), node)
        key = json.dumps(
            [{**node, "preprocessing": None, "handed_out": None}, str(device)]
        )
        if key not in self._lent:
            template = _with_tensors(node, decoder, preprocessing)
            self._lent[key] = SharedCopies(template, device)
        shell = self._lent[key].give(preprocessing)
        return self._as_it_was(shell, node)

    def _as_it_was(self, backbone: Backbone, node: dict[str, Any]) -> Backbone:
        if node["handed_out"]:  # it isn't folded, which changes the last bits
            backbone._hand_out()
        return backbone

    def _referred(self, node, decoder, preprocessing, device) -> Backbone:
        name, weights = node["architecture"], decoder(node["weights"])
        given = self.weights
        if isinstance(given, dict):
            given = given.get(name)
        try:
            backbone = load_shared(
                name,
                weights if given is None else given,
                layer=node["layer"],
                pooling=node["pooling"],
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
        if digest_weights(backbone._network) != node["digest"]:
            raise ModelFileError(
                f"The weights of {name!r} ({weights if given is None else given}) are "
                "not those that the model was trained on: their digest differs. Give "
                f"the file of those as load(path, weights={{{name!r}: "
                "'path/to/file'})."
            )
        return self._as_it_was(backbone, node)


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
                pooling=node["pooling"],
                preprocessing=preprocessing,
            )
        backbone.pretrained = bool(node["pretrained"])
    tensors = {name: decoder.tensors[place] for name, place in node["tensors"].items()}
    assign(backbone._network, tensors)
    return backbone


def _built(node: dict[str, Any], preprocessing) -> Backbone:
    """Return a backbone of torchvision's, without values in its tensors."""
    name, layer, pooling = node["architecture"], node["layer"], node["pooling"]
    height, width = node["size"]
    size, pretrained = (int(height), int(width)), bool(node["pretrained"])
    if name not in backbone_names():
        raise ModelFileError(f"{name!r:.60} is no backbone of this torchvision.")
    if max(size) > 2**14:
        raise ModelFileError(f"{size} is no size of images.")
    return assemble_torchvision(
        name, size, preprocessing, layer=layer, pooling=pooling, pretrained=pretrained
    )
