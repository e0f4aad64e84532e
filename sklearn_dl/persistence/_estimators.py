"""Our estimators as plain data: parameters, what was learned, and networks."""

import inspect
import warnings
from typing import Any

from sklearn_dl._base import ImageEstimatorMixin
from sklearn_dl._features import ImageFeatureExtractor
from sklearn_dl._parameters import NETWORK_PARAMETERS
from sklearn_dl._runtime import resolve_device
from sklearn_dl.backbones import Backbone
from sklearn_dl.persistence._decode import Decoder
from sklearn_dl.persistence._encode import Encoder
from sklearn_dl.persistence._errors import ModelFileError
from sklearn_dl.persistence._fitted import HELD, network_of, set_network
from sklearn_dl.persistence._networks import (
    NetworkReader,
    describe_backbone,
    describe_network,
)
from sklearn_dl.training import gives_margins

# What only training needs: replaced by their defaults where they hold code.
_FOR_TRAINING = frozenset(
    {"augment", "callbacks", "class_weight", "loss", "net_params", "optimizer"}
    | {"random_state", "schedule", "scoring", "trainable"}
)
# What prediction and a warm start need: a model that can't be saved without is none.
_NEEDED = frozenset({"_origin", "_targets", "classes_", "preprocessing_"})


def describe_estimator(
    estimator: Any, encoder: Encoder, where: str, way: str
) -> dict[str, Any]:
    """Return the node of an estimator; `way` as `describe_backbone` takes it."""
    given = estimator.get_params(deep=False)
    node: dict[str, Any] = {
        "kind": "estimator",
        "name": encoder.name(type(estimator), "object", where),
        "parameters": {
            name: _parameter(estimator, name, value, encoder, f"{where}.{name}")
            for name, value in sorted(given.items())
        },
        "state": {},
    }
    network, origin = network_of(estimator), vars(estimator).get("_origin", given)
    if isinstance(network, Backbone):
        place = f"{where}.backbone_"
        node["backbone"] = describe_backbone(network, origin, encoder, place, way)
    elif network is not None:
        place, n_outputs = f"{where}.module_", estimator._targets.n_outputs
        node["network"] = describe_network(
            network, n_outputs, origin, encoder, place, way
        )
    for name, value in vars(estimator).items():
        place = f"{where}.{name}"
        if name in _NEEDED:
            node["state"][name] = encoder(value, place)
        elif name not in given and name not in HELD:
            try:
                node["state"][name] = encoder.plainly(value, place)
            except ModelFileError:
                encoder.left_out[place] = "nothing"
    return node


def _parameter(
    estimator: Any, name: str, value: Any, encoder: Encoder, where: str
) -> Any:
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


class EstimatorReader:
    """Builds our estimators; `weights` as `NetworkReader` takes them."""

    def __init__(self, weights: Any = None):
        self._networks = NetworkReader(weights)

    def __call__(self, node: dict[str, Any], decoder: Decoder) -> Any:
        """Return the estimator of a node."""
        kind = decoder.find_class(node)
        if not issubclass(kind, ImageEstimatorMixin):
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
        extracts = issubclass(kind, ImageFeatureExtractor)
        if "backbone" in node and extracts:
            backbone = self._networks.backbone(node["backbone"], decoder, device)
            set_network(estimator, backbone)
        if "network" in node and not extracts:
            network = self._networks.network(node["network"], decoder, device)
            set_network(estimator, network)
        return estimator
