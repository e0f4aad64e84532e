"""Our estimators as plain data: parameters, what was learned, and tensors."""

import inspect
import warnings
from typing import Any

import torch

from sklearn_dl._base import ImageEstimatorMixin
from sklearn_dl._features import ImageFeatureExtractor
from sklearn_dl._neural import NeuralImageEstimator
from sklearn_dl._parameters import NETWORK_PARAMETERS
from sklearn_dl._runtime import resolve_device, seeded
from sklearn_dl.persistence._decode import Decoder
from sklearn_dl.persistence._encode import Encoder
from sklearn_dl.persistence._errors import ModelFileError
from sklearn_dl.persistence._networks import (
    Backbones,
    describe_backbone,
    describe_module,
)
from sklearn_dl.persistence._tensors import assign
from sklearn_dl.persistence._trust import name_of
from sklearn_dl.training import (
    BackboneWithHead,
    EstimatorNet,
    Head,
    Optimizer,
    Regime,
    build_net,
    gives_margins,
)

# What only training needs: replaced by their defaults where they hold code.
_FOR_TRAINING = frozenset(
    {"augment", "callbacks", "class_weight", "loss", "net_params", "optimizer"}
    | {"random_state", "schedule", "scoring", "trainable"}
)
_NETWORKS = frozenset({"net_", "backbone_"})


class EstimatorWriter:
    """Describes our estimators.

    Parameters
    ----------
    way : {"whole", "reference"}
        How frozen backbones are stored.
    """

    def __init__(self, way: str):
        self.way = way

    def __call__(
        self, estimator: ImageEstimatorMixin, encoder: Encoder, where: str
    ) -> dict[str, Any]:
        """Return the node of an estimator."""
        kind: Any = type(estimator)
        name = name_of(kind)
        if name is None:
            raise ModelFileError(
                f"{where} is of the class {kind.__qualname__}, which no other program "
                "can import: define it at the top level of a module."
            )
        names = inspect.signature(kind.__init__).parameters.keys() - {"self"}
        state = {k: v for k, v in vars(estimator).items() if k not in names}
        node: dict[str, Any] = {
            "kind": "estimator",
            "name": name,
            "parameters": {
                parameter: self._parameter(
                    estimator, parameter, getattr(estimator, parameter), encoder, where
                )
                for parameter in sorted(names)
            },
        }
        if "_origin" in state:
            node["origin"] = {
                parameter: encoder(value, f"{where}.{parameter}")
                for parameter, value in state.pop("_origin").items()
            }
        for network in _NETWORKS & state.keys():
            value = state.pop(network)
            describe = self._net if network == "net_" else self._backbone
            node[network] = describe(estimator, value, encoder, f"{where}.{network}")
        node["state"] = {}
        for attribute, value in state.items():
            place = f"{where}.{attribute}"
            try:
                node["state"][attribute] = encoder.plainly(value, place)
            except ModelFileError:
                if attribute in ("_targets", "classes_", "preprocessing_"):
                    node["state"][attribute] = encoder(value, place)
                else:
                    encoder.left_out[place] = "nothing"
        return node

    def _parameter(
        self, estimator: Any, name: str, value: Any, encoder: Encoder, where: str
    ) -> Any:
        place = f"{where}.{name}"
        # Random views of test-time augmentation are drawn by `augment`.
        drawn = name == "augment" and isinstance(estimator.tta, int)
        if name not in _FOR_TRAINING or drawn:
            return encoder(value, place)
        try:
            return encoder.plainly(value, place)
        except ModelFileError:
            default = inspect.signature(type(estimator).__init__).parameters[name]
            instead = default.default
            if name == "loss" and gives_margins(value):
                instead = "hinge"
            encoder.left_out[place] = repr(instead)
            return encoder(instead, place)

    def _backbone(self, estimator, backbone, encoder, where) -> dict[str, Any]:
        origin = getattr(estimator, "_origin", None) or estimator.get_params(deep=False)
        return describe_backbone(
            backbone, origin["backbone"], origin["weights"], encoder, where, self.way
        )

    def _net(self, estimator, net: EstimatorNet, encoder, where) -> dict[str, Any]:
        network = net.module_
        n_features = network.backbone.n_features
        n_outputs = estimator._targets.n_outputs
        head = estimator._origin["head"] or Head()
        again = _without_memory(head, n_features, n_outputs)
        if repr(again) != repr(network.head):
            raise ModelFileError(
                f"{where}.module_.head was changed after it was built, so it couldn't "
                "be built again: say what it should be with head=Head(...)."
            )
        regime = net.regime
        return {
            "backbone": self._backbone(
                estimator, network.backbone, encoder, f"{where}.module_.backbone"
            ),
            "head": encoder(head, f"{where}.head"),
            "head_tensors": describe_module(network.head, encoder),
            "regime": {
                name: encoder(getattr(regime, name), f"{where}.regime.{name}")
                for name in Regime.__dataclass_fields__
            },
            "warming_up": bool(net.warming_up_),
            "double": net.dtype == torch.float64,
            "seed": int(net.seed),
            "interrupted": bool(net.interrupted_),
            "stop_reason": str(net.stop_reason_),
        }


class EstimatorReader:
    """Builds our estimators.

    Parameters
    ----------
    weights : path, dict of str to path, or None
        See `Backbones`.
    """

    def __init__(self, weights: Any = None):
        self._backbones = Backbones(weights)

    def __call__(self, node: dict[str, Any], decoder: Decoder) -> Any:
        """Return the estimator of a node."""
        kind = decoder.trust.find(node["name"], "object")
        if not (isinstance(kind, type) and issubclass(kind, ImageEstimatorMixin)):
            raise ModelFileError(f"{node['name']:.100} is no estimator of images.")
        estimator: Any = kind(**decoder.attributes(node["parameters"]))
        state = decoder.attributes(node["state"])
        if any(name in _NETWORKS or not isinstance(name, str) for name in state):
            raise ModelFileError("A network is not one.")
        estimator.__dict__.update(state)
        _keep_in_memory(estimator)
        if "origin" in node:
            estimator._origin = decoder.attributes(node["origin"])
            if not estimator._origin.keys() == set(NETWORK_PARAMETERS):
                raise ModelFileError("What a network was built from is not known.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a GPU isn't here is said in predict
            device = resolve_device(estimator.device, fall_back=True)
        if "backbone_" in node and isinstance(estimator, ImageFeatureExtractor):
            estimator.backbone_ = self._backbones(
                node["backbone_"], decoder, device, trained=False
            )
        if "net_" in node and isinstance(estimator, NeuralImageEstimator):
            estimator.net_ = self._net(node["net_"], estimator, decoder, device)
        return estimator

    def _net(self, node, estimator, decoder: Decoder, device) -> EstimatorNet:
        regime = Regime(**decoder.attributes(node["regime"]))
        warming_up = bool(node["warming_up"])
        trained = "digest" not in node["backbone"] and (
            regime.trainable not in ("head", 0, [], ()) and not warming_up
        )
        backbone = self._backbones(node["backbone"], decoder, device, trained)
        head = decoder(node["head"])
        if not isinstance(head, Head):
            raise ModelFileError("A head is not one.")
        n_outputs = estimator._targets.n_outputs
        layers = _without_memory(head, backbone.n_features, n_outputs)
        assign(layers, {k: decoder.tensors[v] for k, v in node["head_tensors"].items()})
        network = BackboneWithHead(backbone, layers)
        regime.set_phase(network, warming_up)
        net = build_net(
            network,
            criterion=torch.nn.Identity(),  # a fit makes a net of its own
            optimizer=Optimizer("sgd"),
            regime=regime,
            weight_decay=0.0,
            kind=estimator._targets.kind,
            batch_size=estimator._step_size,
            n_samples=4 * estimator._step_size,
            max_epochs=1,
            validation=None,
            callbacks=[],
            device=device,
            dtype=torch.float64 if node["double"] else torch.float32,
            seed=int(node["seed"]),
            resumable=False,
            run_id=None,
            random_rows=False,
            net_params={},
        )
        net.forget_training(keep_optimizer=False)
        net.warming_up_ = warming_up
        regime.set_phase(network, warming_up)
        net.interrupted_, net.stop_reason_ = node["interrupted"], node["stop_reason"]
        history = getattr(estimator, "history_", None)
        for row in [] if history is None else history.to_dict("records"):
            net.history.new_epoch()
            for name, value in row.items():
                net.history.record(name, value)
        network.eval()
        return net


def _keep_in_memory(estimator: Any) -> None:
    """Forget a folder for features: a file shall not say where others are written."""
    location = getattr(estimator.cache, "location", estimator.cache)
    if location not in (None, "memory"):
        estimator.cache = "memory"


def _without_memory(head: Head, n_features: int, n_outputs: int) -> torch.nn.Module:
    """Return the layers of a head, whose tensors take no memory."""
    with seeded(0), torch.device("meta"):
        return head.build(n_features, n_outputs)
