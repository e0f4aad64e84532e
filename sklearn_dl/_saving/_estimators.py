"""Our estimators as plain data: parameters, what was learned, and networks."""

import inspect
import json
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

from sklearn_dl._files import ModelFileError
from sklearn_dl._images import Asked
from sklearn_dl._parameters import NETWORK_PARAMETERS
from sklearn_dl._runtime import resolve_device, seeded
from sklearn_dl._saving._decode import Decoder
from sklearn_dl._saving._encode import Encoder
from sklearn_dl._targets import Targets
from sklearn_dl.augmentation import resolve_views
from sklearn_dl.backbones import (
    Backbone,
    CallablePreprocessing,
    Preprocessing,
    assemble_torchvision,
    backbone_names,
    digest_architecture,
    digest_weights,
    input_size,
    load_backbone,
    place,
    resolve_backbone,
    share,
    shared_backbone,
)
from sklearn_dl.training import BackboneWithHead, Head, gives_margins

# Attributes that scikit-learn's callbacks leave behind; parameters once more.
_NOT_KEPT = {"_callback_fit_ctx", "_skl_callbacks_to_teardown", "_given"}
# Attributes that hold a network, or a trainer around it.
HELD = frozenset({"_network", "_backbone", "_net"})
# What only training needs: replaced by their defaults where they hold code.
_FOR_TRAINING = frozenset(
    {"augment", "callbacks", "class_weight", "loss", "net_params", "optimizer"}
    | {"random_state", "schedule", "scoring", "trainable"}
)
# What prediction and a warm start need: a model that can't be saved without is none.
_NEEDED = frozenset({"_origin", "_targets", "classes_", "preprocessing_"})


def set_network(estimator: Any, network: BackboneWithHead | Backbone) -> None:
    """Give an estimator what it predicts with."""
    name = "_backbone" if isinstance(network, Backbone) else "_network"
    vars(estimator)[name] = network


def describe_estimator(
    estimator: Any, encoder: Encoder, where: str, way: str
) -> dict[str, Any]:
    """Return the node of an estimator.

    With the `way` "reference" and not "whole", a digest stands for the tensors of a
    frozen backbone with weights of a name or a file.
    """
    given, held = estimator.get_params(deep=False), vars(estimator)
    network = held.get("_network", held.get("_backbone"))
    node: dict[str, Any] = {
        "kind": "estimator",
        "name": encoder.name(type(estimator), "object", where),
        "parameters": {
            name: _parameter(estimator, name, value, encoder, f"{where}.{name}")
            for name, value in sorted(given.items())
        },
        "state": {},
    }
    if isinstance(network, Backbone):
        part = f"{where}.backbone_"
        node["backbone"] = _describe_backbone(network, given, encoder, part, way)
    elif network is not None:
        part = f"{where}.module_"
        node["network"] = _describe_network(estimator, encoder, part, way)
    for name, value in held.items():
        part = f"{where}.{name}"
        if name in _NEEDED:
            node["state"][name] = encoder(value, part)
        elif name not in given and name not in HELD | _NOT_KEPT:
            try:
                node["state"][name] = encoder.plainly(value, part)
            except ModelFileError:
                encoder.left_out[part] = "nothing"
    return node


def _parameter(estimator, name: str, value: Any, encoder: Encoder, where: str) -> Any:
    # Random views of test-time augmentation are drawn by `augment`.
    drawn = name == "augment" and isinstance(estimator.tta, int)
    if name not in _FOR_TRAINING or drawn:
        return encoder(value, where)
    try:
        return encoder.plainly(value, where)
    except ModelFileError:
        instead = inspect.signature(type(estimator).__init__).parameters[name].default
        if name == "loss" and gives_margins(value):
            instead = "hinge"
        encoder.left_out[where] = repr(instead)
        return encoder(instead, where)


def _describe_network(
    estimator: Any, encoder: Encoder, where: str, way: str
) -> dict[str, Any]:
    """Return what a network with a head is built from, and its tensors."""
    network, origin = estimator._network, estimator._origin
    backbone, head = network.backbone, origin["head"] or Head()
    n_outputs = estimator._targets.n_outputs
    if repr(_empty_head(head, backbone.n_features, n_outputs)) != repr(network.head):
        raise ModelFileError(
            f"{where}.head was changed after it was built, so it couldn't be built "
            "again: say what it should be with head=Head(...)."
        )
    part = f"{where}.backbone"
    return {
        "backbone": _describe_backbone(backbone, origin, encoder, part, way),
        "head": encoder(head, f"{where}.head"),
        "n_outputs": n_outputs,
        "tensors": encoder.tensors.add_network(network.head),
    }


def _describe_backbone(
    backbone: Backbone, origin: dict[str, Any], encoder: Encoder, where: str, way: str
) -> dict[str, Any]:
    """Return what a backbone is built from, and its tensors or their digest."""
    name, weights, module = origin["backbone"], origin["weights"], backbone.module
    # The stages that training changes.
    moving = {n for n, p in module.named_parameters() if p.requires_grad}
    trained = [stage for stage, names in backbone.stages.items() if moving & {*names}]
    node: dict[str, Any] = {
        "layer": encoder(backbone.layer, f"{where}.layer"),
        "pretrained": backbone.pretrained,
        "preprocessing": encoder(backbone.preprocessing, f"{where}.preprocessing"),
        "trained": trained,
    }
    if isinstance(name, str):
        name = resolve_backbone(name, weights)
        size = input_size(name, backbone.preprocessing)
        node = {**node, "architecture": name, "size": [*size]}
        again = _empty_backbone(node, backbone.layer, backbone.preprocessing)
        if digest_architecture(again) != digest_architecture(backbone):
            raise ModelFileError(
                f"{where} was changed after {name!r} was built, so it couldn't be "
                "built again: make the change in a function that returns the network, "
                "and give that as backbone=."
            )
    else:
        node["callable"] = encoder(name, f"{where} (its parameter backbone)")
    published = isinstance(name, str) and weights is not None
    whole = way == "whole" or trained or not published
    if whole or not _is_of(backbone, name, weights):
        return {**node, "tensors": encoder.tensors.add_network(module)}
    return {
        **node,
        "weights": encoder(weights, f"{where}.weights"),
        "digest": digest_weights(module),
        "double": _dtype_of(module) == torch.float64,
    }


def _is_of(backbone: Backbone, name: str, weights: Any) -> bool:
    """Tell whether a frozen backbone has the tensors of its weights still."""
    how: Any = {"layer": backbone.layer, "preprocessing": backbone.preprocessing}
    try:
        unchanged = shared_backbone(name, weights, dtype=_dtype_of(backbone), **how)
    except (OSError, ValueError):
        return False
    if unchanged.module is backbone.module:  # which nobody writes to
        return True
    return digest_weights(unchanged.module) == digest_weights(backbone.module)


class EstimatorReader:
    """Builds our estimators; equal frozen backbones of a file share their tensors."""

    def __init__(self, kind: type, weights: Any = None):
        self.kind = kind  # of the estimators of images
        self.weights = weights  # where those are to which the file refers, or None
        self._shared: dict[str, Backbone] = {}

    def __call__(self, node: dict[str, Any], decoder: Decoder) -> Any:
        """Return the estimator of a node."""
        kind = decoder.find_class(node)
        if not issubclass(kind, self.kind):
            raise ModelFileError(f"{node['name']:.100} is no estimator of images.")
        estimator: Any = kind(**decoder.attributes(node["parameters"]))
        state = decoder.attributes(node["state"])
        if HELD & state.keys():
            raise ModelFileError("A network is not one.")
        if "_origin" in state and state["_origin"].keys() != set(NETWORK_PARAMETERS):
            raise ModelFileError("What a network was built from is not known.")
        vars(estimator).update(state)
        # A file must not say where others are written.
        location = getattr(estimator.cache, "location", estimator.cache)
        if location not in (None, "memory"):
            estimator.cache = "memory"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a GPU isn't here is said in predict
            device = resolve_device(estimator.device, fall_back=True)
        read: Any
        for part, read in ("backbone", self._backbone), ("network", self._network):
            if part in node:
                set_network(estimator, read(node[part], decoder, device))
                _check_fitted(estimator, node)
        if "_fitted_kind" in state and not {"backbone", "network"} & node.keys():
            raise ModelFileError("its backbone or network is missing.")
        return estimator

    def _network(self, node, decoder: Decoder, device) -> BackboneWithHead:
        backbone = self._backbone(node["backbone"], decoder, device)
        head = decoder(node["head"])
        if not isinstance(head, Head):
            raise ModelFileError("A head is not one.")
        layers = _empty_head(head, backbone.n_features, node["n_outputs"])
        decoder.archive.fill(layers, node["tensors"])
        layers = place(layers, device, _dtype_of(layers))
        return BackboneWithHead(backbone, layers).eval()

    def _backbone(self, node, decoder: Decoder, device) -> Backbone:
        """Return a backbone: shared where it is frozen, else with its own tensors."""
        preprocessing = decoder(node["preprocessing"])
        _check_preprocessing("preprocessing of its backbone", preprocessing)
        if "digest" in node:
            return self._referred(node, decoder, preprocessing, device)
        if node["trained"]:
            backbone = _with_tensors(node, decoder, preprocessing)
            backbone.freeze(node["trained"])
            backbone = place(backbone, device, _dtype_of(backbone))
            backbone.settle()
            return backbone
        key = json.dumps([{**node, "preprocessing": None}, str(device)])
        if key not in self._shared:
            template = _with_tensors(node, decoder, preprocessing)
            self._shared[key] = share(template, device, _dtype_of(template))
        return self._shared[key].replace_preprocessing(preprocessing)

    def _referred(self, node, decoder: Decoder, preprocessing, device) -> Backbone:
        """Return the shared backbone with the weights to which a node refers."""
        name, weights = node["architecture"], decoder(node["weights"])
        given = self.weights
        if isinstance(given, dict):
            given = given.get(name)
        used = weights if given is None else given
        dtype = torch.float64 if node["double"] else torch.float32
        how = {"layer": decoder(node["layer"]), "preprocessing": preprocessing}
        hint = f"as load(path, weights={{{name!r}: 'path/to/file'}})."
        try:
            backbone = shared_backbone(name, used, **how, device=device, dtype=dtype)
        except (OSError, ValueError) as error:
            raise ModelFileError(
                f"The file holds no weights of {name!r}, but refers to those of "
                f"weights={weights!r}. {used!r} can't be loaded: {error}\nGive their "
                f"file {hint}"
            ) from error
        if digest_weights(backbone.module) != node["digest"]:
            raise ModelFileError(
                f"The weights of {name!r} ({used}) are not those that the model was "
                f"trained on: their digest differs. Give the file of those {hint}"
            )
        return backbone


def _check_fitted(estimator: Any, node: dict[str, Any]) -> None:
    """Raise where parameters or what was learned can't be a fitted estimator's."""
    estimator._validate_params()
    Asked.of(estimator.image_shape)
    _check_preprocessing("preprocessing_", estimator.preprocessing_)
    if not (estimator.tta is None or callable(estimator.tta)):
        augment = getattr(estimator, "augment", None)
        resolve_views(estimator.tta, estimator.preprocessing_, augment)
    if estimator._fitted_kind == "pixels" and not estimator.n_features_in_ > 0:
        raise ModelFileError(f"n_features_in_ is {estimator.n_features_in_!r:.40}.")
    if "network" not in node:
        return
    targets, n_outputs = estimator._targets, node["network"]["n_outputs"]
    if not isinstance(targets, Targets) or targets.n_outputs != n_outputs:
        raise ModelFileError(f"_targets are not those of {n_outputs} outputs.")
    classes = getattr(estimator, "classes_", ())
    if not np.array_equal(classes, getattr(targets, "classes", ())):
        raise ModelFileError("classes_ are not those of _targets.")
    # What is predicted of outputs of zero is known without an image.
    targets.predictions(targets.activate(torch.zeros(1, n_outputs)).numpy())


def _check_preprocessing(name: str, value: Any) -> None:
    if not isinstance(value, Preprocessing | CallablePreprocessing):
        raise ModelFileError(f"{name} is no preprocessing.")


def _with_tensors(node: dict[str, Any], decoder: Decoder, preprocessing) -> Backbone:
    layer = decoder(node["layer"])
    if "architecture" in node:
        backbone = _empty_backbone(node, layer, preprocessing)
    else:
        function = decoder(node["callable"])
        if isinstance(function, str) or not callable(function):
            raise ModelFileError("A backbone is neither a name nor a function.")
        how = {"layer": layer, "preprocessing": preprocessing}
        with seeded(0):
            backbone = load_backbone(function, None, **how)
        backbone.pretrained = bool(node["pretrained"])
    decoder.archive.fill(backbone.module, node["tensors"])
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


def _dtype_of(module: nn.Module) -> torch.dtype:
    """Return the precision of a network."""
    every = (tensor.dtype for tensor in module.state_dict().values())
    return next((dtype for dtype in every if dtype.is_floating_point), torch.float32)
