import numpy as np
import pytest
import torch

from sklearn_dl.training import (
    OPTIMIZERS,
    EarlyStopping,
    TrainingRows,
    default_lr,
)
from sklearn_dl.training._optimizers import parameter_groups, resolve_optimizer


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
    assert resolve_optimizer(name) == (expected, arguments)
    assert default_lr(name) > 0
    assert name in OPTIMIZERS


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


def rows(n=10):
    return TrainingRows(torch.arange(n, dtype=torch.float32)[:, None], torch.arange(n))


def test_rows_without_weight_are_dropped_and_the_others_weigh_one_in_the_mean():
    weighted = rows(4).weighted(np.array([0.0, 1.0, 0.0, 3.0]))
    batch, target = weighted.__getitems__([0, 1])
    assert len(weighted) == 2
    assert target.tolist() == [1, 3]
    assert batch["features"].flatten().tolist() == [1, 3]
    assert batch["sample_weight"].tolist() == [0.5, 1.5]
    with pytest.raises(ValueError, match="sample_weight is zero for every row"):
        rows(2).weighted(np.zeros(2))


def test_a_split_keeps_proportions_and_loses_no_row():
    strata = np.repeat([0, 1], [12, 8])
    train, held_back = rows(20).split(0.25, strata, seed=0)
    assert sorted([*train.target.tolist(), *held_back.target.tolist()]) == list(
        range(20)
    )
    assert strata[held_back.target].tolist().count(0) == 3
    assert len(held_back) == 5


def test_a_split_of_tiny_classes_warns_and_goes_on():
    with pytest.warns(UserWarning, match="validation rows are not stratified"):
        train, held_back = rows(5).split(0.2, np.arange(5), seed=0)
    assert (len(train), len(held_back)) == (4, 1)


class FakeNet:
    """What the callback touches of a net."""

    def __init__(self):
        self.module_ = torch.nn.Linear(1, 1)
        self.history = {}
        self.stop_ = False

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
