"""The network of a fitted estimator, as the estimator itself holds it."""

from typing import Any

from torch import nn

from sklearn_dl.backbones import Backbone
from sklearn_dl.training import BackboneWithHead, Optimizer, Regime, build_net

# Attributes that hold a network, or a trainer around it.
HELD = frozenset({"_network", "_backbone", "_net", "net_", "backbone_"})


def network_of(estimator: Any) -> Any:
    """Return what an estimator predicts with, which nobody may change.

    A `BackboneWithHead`, the `Backbone` of an extractor, or None where it isn't fitted.
    """
    state = vars(estimator)
    if "net_" in state:
        return state["net_"].module_
    return state.get("_network", state.get("_backbone", state.get("backbone_")))


def set_network(estimator: Any, network: BackboneWithHead | Backbone) -> None:
    """Give an estimator what it predicts with."""
    if isinstance(network, Backbone):
        estimator.backbone_ = network
        return
    moving = dict(module_of(network.backbone).named_parameters())
    stages = [
        stage
        for stage, names in network.backbone.stages.items()
        if any(n in moving and moving[n].requires_grad for n in names)
    ]
    tensor = next(iter(network.head.parameters()))
    net = build_net(
        network,
        criterion=nn.Identity(),
        optimizer=Optimizer("sgd"),
        regime=Regime("head", lr=1.0, backbone_lr=1.0),
        weight_decay=0.0,
        kind=estimator._targets.kind,
        batch_size=32,
        n_samples=128,
        max_epochs=1,
        validation=None,
        callbacks=[],
        device=tensor.device,
        dtype=tensor.dtype,
        seed=0,
        resumable=False,
        run_id=None,
        random_rows=False,
        net_params={},
    )
    net.forget_training(keep_optimizer=False)
    network.backbone.freeze(stages)
    for row in estimator.history_.to_dict("records"):
        net.history.new_epoch()
        for name, value in row.items():
            net.history.record(name, value)
    network.eval()
    estimator.net_ = net


def module_of(backbone: Backbone) -> nn.Module:
    """Return the network within a backbone, to be read."""
    module = vars(backbone)["_modules"]["module"]
    assert isinstance(module, nn.Module)
    return module


def layer_of(backbone: Backbone) -> str | tuple[str, str]:
    """Return where a backbone takes features, with the pooling where one was chosen."""
    pooling = backbone.pooling
    return backbone.layer if pooling is None else (backbone.layer, pooling)


def point(layer: Any) -> dict[str, Any]:
    """Return what those who build a backbone call its layer."""
    if isinstance(layer, str):
        return {"layer": layer}
    name, pooling = layer
    return {"layer": name, "pooling": pooling}


def is_settled(backbone: Backbone) -> bool:
    """Tell whether nobody writes to a backbone any more, so that it may be folded."""
    return not backbone._ledger.handed_out


def set_settled(backbone: Backbone, settled: bool) -> None:
    """Say whether somebody may write to a backbone."""
    if not settled:
        backbone._hand_out()
