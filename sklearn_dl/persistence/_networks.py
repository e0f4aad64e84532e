"""Networks as plain data, and built anew from it."""

import copy
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
    place,
    share,
    shared_backbone,
)
from sklearn_dl.persistence._decode import Decoder
from sklearn_dl.persistence._encode import Encoder
from sklearn_dl.persistence._errors import ModelFileError
from sklearn_dl.training import BackboneWithHead, Head


def describe_network(
    network: BackboneWithHead,
    n_outputs: int,
    origin: dict[str, Any],
    encoder: Encoder,
    where: str,
    way: str,
) -> dict[str, Any]:
    """Return what a network is built from, and its tensors or their digest."""
    backbone, head = network.backbone, origin["head"] or Head()
    if repr(_empty_head(head, backbone.n_features, n_outputs)) != repr(network.head):
        raise ModelFileError(
            f"{where}.head was changed after it was built, so it couldn't be built "
            "again: say what it should be with head=Head(...)."
        )
    where_backbone = f"{where}.backbone"
    return {
        "backbone": describe_backbone(backbone, origin, encoder, where_backbone, way),
        "head": encoder(head, f"{where}.head"),
        "n_outputs": n_outputs,
        "tensors": encoder.tensors.add_network(network.head),
    }


def describe_backbone(
    backbone: Backbone, origin: dict[str, Any], encoder: Encoder, where: str, way: str
) -> dict[str, Any]:
    """Return what a backbone is built from, and its tensors or their digest.

    The digest is enough for a frozen one with weights of a name or a file, if `way` is
    "reference" and not "whole".
    """
    name, weights, module = origin["backbone"], origin["weights"], backbone.module
    layer = backbone.layer
    node: dict[str, Any] = {
        "layer": encoder(layer, f"{where}.layer"),
        "pretrained": backbone.pretrained,
        "preprocessing": encoder(backbone.preprocessing, f"{where}.preprocessing"),
        "trained": _trained_stages(backbone),
        "settled": backbone.settled,
    }
    if isinstance(name, str):
        size = input_size(name, backbone.preprocessing)
        node = {**node, "architecture": name, "size": [*size]}
        again = _empty_backbone(node, layer, backbone.preprocessing)
        if digest_architecture(again) != digest_architecture(backbone):
            raise ModelFileError(
                f"{where} was changed after {name!r} was built, so it couldn't be "
                "built again: make the change in a function that returns the network, "
                "and give that as backbone=."
            )
    else:
        node["callable"] = encoder(name, f"{where} (its parameter backbone)")
    published = isinstance(name, str) and weights is not None
    if way == "whole" or node["trained"] or not published:
        return {**node, "tensors": encoder.tensors.add_network(module)}
    return {
        **node,
        "weights": encoder(weights, f"{where}.weights"),
        "digest": digest_weights(module),
        "double": _dtype_of(module) == torch.float64,
    }


class NetworkReader:
    """Builds the networks of a file; equal frozen backbones share their tensors."""

    def __init__(self, weights: Any = None):
        self.weights = weights  # where those are to which the file refers, or None
        self._shared: dict[str, Backbone] = {}

    def network(
        self, node: dict[str, Any], decoder: Decoder, device: torch.device
    ) -> BackboneWithHead:
        """Return a network."""
        backbone = self.backbone(node["backbone"], decoder, device)
        head = decoder(node["head"])
        if not isinstance(head, Head):
            raise ModelFileError("A head is not one.")
        layers = _empty_head(head, backbone.n_features, node["n_outputs"])
        decoder.tensors.fill(layers, node["tensors"])
        layers = place(layers, device, _dtype_of(layers))
        return BackboneWithHead(backbone, layers).eval()

    def backbone(
        self, node: dict[str, Any], decoder: Decoder, device: torch.device
    ) -> Backbone:
        """Return a backbone: shared where it is frozen, else with its own tensors."""
        preprocessing = decoder(node["preprocessing"])
        if "digest" in node:
            backbone = self._referred(node, decoder, preprocessing, device)
            if not node["settled"]:
                backbone = copy.deepcopy(backbone)
        elif node["trained"] or not node["settled"]:
            backbone = _with_tensors(node, decoder, preprocessing)
            backbone.freeze(node["trained"])
            dtype = _dtype_of(backbone.module)
            backbone = place(backbone, device, dtype)  # type: ignore[assignment]
        else:
            key = json.dumps([{**node, "preprocessing": None}, str(device)])
            if key not in self._shared:
                template = _with_tensors(node, decoder, preprocessing)
                dtype = _dtype_of(template.module)
                self._shared[key] = share(template, device, dtype)
            return self._shared[key].replace_preprocessing(preprocessing)
        backbone.settle() if node["settled"] else backbone.unsettle()
        return backbone

    def _referred(self, node, decoder, preprocessing, device) -> Backbone:
        name, weights = node["architecture"], decoder(node["weights"])
        given = self.weights
        if isinstance(given, dict):
            given = given.get(name)
        hint = f"as load(path, weights={{{name!r}: 'path/to/file'}})."
        try:
            backbone = shared_backbone(
                name,
                weights if given is None else given,
                layer=decoder(node["layer"]),
                preprocessing=preprocessing,
                device=device,
                dtype=torch.float64 if node["double"] else torch.float32,
            )
        except (OSError, ValueError) as error:
            raise ModelFileError(
                f"The file holds no weights of {name!r}, but refers to those of "
                f"weights={weights!r}, which can't be loaded: {error}\nGive their file "
                f"{hint}"
            ) from error
        if digest_weights(backbone.module) != node["digest"]:
            raise ModelFileError(
                f"The weights of {name!r} ({weights if given is None else given}) are "
                "not those that the model was trained on: their digest differs. Give "
                f"the file of those {hint}"
            )
        return backbone


def _with_tensors(node: dict[str, Any], decoder: Decoder, preprocessing) -> Backbone:
    layer = decoder(node["layer"])
    if "architecture" in node:
        backbone = _empty_backbone(node, layer, preprocessing)
    else:
        function = decoder(node["callable"])
        if isinstance(function, str) or not callable(function):
            raise ModelFileError("A backbone is neither a name nor a function.")
        with seeded(0):
            backbone = load_backbone(
                function, None, layer=layer, preprocessing=preprocessing
            )
        backbone.pretrained = bool(node["pretrained"])
    decoder.tensors.fill(backbone.module, node["tensors"])
    return backbone


def _empty_backbone(node: dict[str, Any], layer: Any, preprocessing) -> Backbone:
    """Return a backbone of torchvision's, without values in its tensors."""
    name, (height, width) = node["architecture"], node["size"]
    if name not in backbone_names():
        raise ModelFileError(f"{name!r:.60} is no backbone of this torchvision.")
    if max(height, width) > 2**14:
        raise ModelFileError(f"{height} x {width} is no size of images.")
    size, pretrained = (int(height), int(width)), bool(node["pretrained"])
    return assemble_torchvision(name, size, preprocessing, layer, pretrained)[0]


def _empty_head(head: Head, n_features: int, n_outputs: int) -> nn.Module:
    """Return the layers of a head, whose tensors take no memory."""
    with seeded(0), torch.device("meta"):
        return head.build(n_features, n_outputs)


def _trained_stages(backbone: Backbone) -> list[str]:
    """Return the names of the stages that training changes."""
    moving = {n for n, p in backbone.module.named_parameters() if p.requires_grad}
    return [stage for stage, names in backbone.stages.items() if moving & {*names}]


def _dtype_of(module: nn.Module) -> torch.dtype:
    """Return the precision of a network."""
    every = (tensor.dtype for tensor in module.state_dict().values())
    return next((dtype for dtype in every if dtype.is_floating_point), torch.float32)
