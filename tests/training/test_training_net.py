import numpy as np
import pytest
import torch

from sklearn_dl._images import as_source
from sklearn_dl.training import (
    OPTIMIZERS,
    EarlyStopping,
    Optimizer,
    Rows,
    TrainingRows,
)
from sklearn_dl.training._optimizers import parameter_groups


@pytest.mark.parametrize(
    ("name", "expected", "arguments"),
    [
        ("sgd", torch.optim.SGD, {}),
        ("momentum", torch.optim.SGD, {"momentum": 0.9}),
        ("nesterov", torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        ("adagrad", torch.optim.Adagrad, {}),
        ("rmsprop", torch.optim.RMSprop, {}),
        ("adam", torch.optim.Adam, {}),
        ("adamw", torch.optim.AdamW, {}),
    ],
)
def test_optimisers_by_name_are_torchs(name, expected, arguments):
    assert Optimizer.of(name).factory("mps") == (expected, arguments)
    assert Optimizer.of(name).default_lr > 0
    assert name in OPTIMIZERS


@pytest.mark.parametrize("name", ["momentum", "adagrad", "adam", "adamw"])
def test_steps_are_fused_and_go_where_plain_ones_go(name):
    def after_steps(options):
        torch.manual_seed(0)
        layer = torch.nn.Linear(6, 5)
        cls, arguments = Optimizer(name, options=options).factory("cpu")
        optimizer = cls(layer.parameters(), lr=0.1, **arguments)
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(2, 6)).square().sum().backward()
            optimizer.step()
        return arguments.get("fused"), layer.weight.detach()

    fused, weight = after_steps(None)
    plain, wanted = after_steps({"foreach": False})
    assert (fused, plain) == (True, None)
    torch.testing.assert_close(weight, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["momentum", "nesterov", "adam", "adamw"])
def test_scaled_gradients_are_not_stepped_fused(name):
    """An overflow in the first fused step would leave momenta unset."""
    assert "fused" not in Optimizer(name).factory("cpu", scaled=True)[1]
    torch.manual_seed(0)
    layer = torch.nn.Linear(300, 300)
    before = layer.weight.detach().clone()
    cls, arguments = Optimizer(name).factory("cpu", scaled=True)
    optimizer = cls(layer.parameters(), lr=0.1, **arguments)
    scaler = torch.amp.GradScaler("cpu")
    for value in (torch.inf, 0.0):
        scaler.scale(torch.ones(1))
        for parameter in layer.parameters():
            parameter.grad = torch.full_like(parameter, value)
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    torch.testing.assert_close(layer.weight.detach(), before, atol=0.01, rtol=0.01)


def test_the_user_chooses_the_way_of_the_step():
    assert Optimizer("adam", options={"foreach": True}).factory("cpu")[1] == {
        "foreach": True
    }
    assert "fused" not in Optimizer("rmsprop").factory("cpu")[1]
    assert "fused" not in Optimizer(torch.optim.SGD).factory("cpu")[1]
    assert "fused" not in Optimizer("adagrad").factory("cuda")[1]


class Parts(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
        )
        self.head = torch.nn.Linear(4, 2)


def test_weights_decay_and_vectors_do_not_each_part_at_its_rate():
    parts = Parts()
    groups = parameter_groups(parts, lr=0.1, backbone_lr=0.01, weight_decay=0.5)
    by_id = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert by_id[id(parts.head.weight)] == (0.1, 0.5)
    assert by_id[id(parts.head.bias)] == (0.1, 0.0)
    assert by_id[id(parts.backbone[0].weight)] == (0.01, 0.5)
    assert by_id[id(parts.backbone[0].bias)] == (0.01, 0.0)
    assert by_id[id(parts.backbone[1].weight)] == (0.01, 0.0)
    assert len(by_id) == 6


def test_frozen_parameters_are_in_no_group():
    parts = Parts()
    parts.backbone.requires_grad_(False)
    groups = parameter_groups(parts, lr=0.1, backbone_lr=0.01, weight_decay=0.5)
    assert {id(p) for g in groups for p in g["params"]} == {
        id(p) for p in parts.head.parameters()
    }


def test_rows_without_weight_are_dropped_and_the_others_weigh_one_in_the_mean():
    source = np.zeros((4, 2, 2), "uint8")
    rows = Rows(as_source(source), torch.arange(4), np.array([0.0, 1.0, 0.0, 3.0]))
    weighted = rows.weighted()
    assert weighted.target.tolist() == weighted.rows.tolist() == [1, 3]
    assert weighted.weight.tolist() == [0.5, 1.5]
    again = weighted.take(np.array([1]))
    assert (again.rows.tolist(), again.target.tolist()) == ([3], [3])
    with pytest.raises(ValueError, match="sample_weight is zero for every row"):
        Rows(as_source(source), torch.arange(4), np.zeros(4)).weighted()


def test_a_batch_holds_the_rows_asked_for():
    features = np.arange(6.0)[:, None]
    rows = TrainingRows(Rows(None, torch.arange(6), np.ones(6)), features=features)
    batch, target = rows.__getitems__([4, 1])
    assert target.tolist() == [4, 1]
    assert batch["features"].flatten().tolist() == [4.0, 1.0]
    assert len(rows) == 6


def test_a_split_keeps_proportions_and_loses_no_row():
    strata = np.repeat([0, 1], [12, 8])
    parts = Rows(None, torch.arange(20), np.ones(20)).split(0.25, strata, seed=0)
    train, validation = (part.target.tolist() for part in parts)
    assert sorted([*train, *validation]) == list(range(20))
    assert strata[validation].tolist().count(0) == 3
    assert len(validation) == 5


def test_a_split_of_tiny_classes_warns_and_goes_on():
    rows = Rows(None, torch.arange(5), np.ones(5))
    with pytest.warns(UserWarning, match="validation rows are not stratified"):
        train, validation = rows.split(0.2, np.arange(5), seed=0)
    assert (len(train), len(validation)) == (4, 1)


def test_a_token_a_position_and_a_layer_scale_do_not_decay():
    parts = Parts()
    loose = [torch.zeros(shape) for shape in ((1, 1, 8), (1, 5, 8), (8, 1, 1))]
    for i, tensor in enumerate(loose):
        parts.backbone.register_parameter(f"loose{i}", torch.nn.Parameter(tensor))
    groups = parameter_groups(parts, lr=0.1, backbone_lr=0.01, weight_decay=0.5)
    decaying = [p.shape for g in groups if g["weight_decay"] for p in g["params"]]
    assert decaying == [parts.head.weight.shape, parts.backbone[0].weight.shape]


class FakeNet:
    """What the callback touches of a net."""

    def __init__(self):
        self.module_ = torch.nn.Linear(1, 1)
        self.history = {}
        self.stop_ = False
        self.warming_up_ = False
        self.learned_ = {"weight", "bias"}

    def epoch(self, callback, number, value):
        torch.nn.init.constant_(self.module_.weight, number)
        self.history = {(-1, "watched"): value, (-1, "epoch"): number}
        callback.on_epoch_end(self)


def watch(values, **arguments):
    options = {"lower_is_better": True, "n_iter_no_change": 2, "tol": 0.1}
    callback = EarlyStopping("watched", **options | arguments)
    net = FakeNet()
    callback.on_train_begin(net)
    for number, value in enumerate(values, start=1):
        net.epoch(callback, number, value)
        if net.stop_:
            break
    callback.on_train_end(net)
    return number, callback.best_epoch_, net.module_.weight.item()


@pytest.mark.parametrize(
    ("values", "arguments", "expected"),
    [
        # (epochs run, best epoch, epoch of the weights that stayed)
        ([3.0, 2.0, 1.0], {}, (3, 3, 3.0)),
        ([3.0, 2.0, 2.5, 2.5, 1.0], {}, (4, 2, 2.0)),
        # Smaller steps than tol don't count as improvement, but the best is kept.
        ([3.0, 2.95, 2.92, 1.0], {}, (3, 3, 3.0)),
        # Against the best so far, not against the epoch before.
        ([1.0, 2.0, 1.5, 1.2], {"n_iter_no_change": 3}, (4, 1, 1.0)),
        ([0.5, 0.8, 0.7, 0.6], {"lower_is_better": False}, (4, 2, 2.0)),
        # Never a number: the last weights stay.
        ([float("nan")] * 3, {}, (2, 0, 2.0)),
    ],
)
def test_stopping_and_the_weights_that_stay(values, arguments, expected):
    assert watch(values, **arguments) == expected


def test_an_optimizer_carries_its_weight_decay():
    optimizer = Optimizer("adamw", weight_decay=0.3)
    assert Optimizer.of(optimizer).get_params()["weight_decay"] == 0.3
    assert Optimizer.of("sgd").weight_decay == 1e-4
    for wrong in (-1, None, "much", float("nan")):
        with pytest.raises(ValueError, match="weight_decay="):
            Optimizer.of(Optimizer(weight_decay=wrong))
    with pytest.raises(ValueError, match="weight_decay of Optimizer"):
        Optimizer.of(Optimizer(options={"weight_decay": 0.1}))
