import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from skorch import NeuralNetRegressor
from torch import nn

from sklearn_dl.training import SAM

# Least squares: loss = 1/2 mean of (x w + b - y)^2.
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 3)), RNG.normal(size=20)


def gradient(w, b):
    error = X @ w + b - Y
    return X.T @ error / len(Y), np.array([error.mean()])


class Model:
    """Two groups of parameters, as the head and the backbone are."""

    def __init__(self, **options):
        rng = np.random.default_rng(1)
        self.w = torch.tensor(rng.normal(size=3), requires_grad=True)
        self.b = torch.tensor(rng.normal(size=1), requires_grad=True)
        self.optimizer = SAM(
            [
                {"params": [self.w], "lr": 0.1, "weight_decay": 0.3, "name": "head"},
                {"params": [self.b], "lr": 0.02, "name": "backbone"},
            ],
            lr=1.0,
            **options,
        )

    def values(self):
        return self.w.detach().numpy().copy(), self.b.detach().numpy().copy()

    def closure(self):
        self.optimizer.zero_grad()
        error = torch.tensor(X) @ self.w + self.b - torch.tensor(Y)
        loss = error.square().mean() / 2
        loss.backward()
        return loss

    def steps(self, n):
        return [self.optimizer.step(self.closure).item() for _ in range(n)]


def worst(w, b, rho, adaptive):
    gw, gb = gradient(w, b)
    sw, sb = (np.abs(w), np.abs(b)) if adaptive else (1.0, 1.0)
    norm = np.sqrt(((sw * gw) ** 2).sum() + ((sb * gb) ** 2).sum())
    return w + rho * sw**2 * gw / norm, b + rho * sb**2 * gb / norm


@pytest.mark.parametrize("adaptive", [False, True])
def test_steps_are_those_of_the_paper(adaptive):
    """Momentum SGD by hand, with the gradient of the worst point nearby."""
    model = Model(rho=0.5, adaptive=adaptive)
    w, b = model.values()
    vw, vb = np.zeros(3), np.zeros(1)
    losses = []
    for _ in range(5):
        losses.append(np.square(X @ w + b - Y).mean() / 2)
        gw, gb = gradient(*worst(w, b, 0.5, adaptive))
        vw, vb = 0.9 * vw + gw + 0.3 * w, 0.9 * vb + gb
        w, b = w - 0.1 * vw, b - 0.02 * vb
    np.testing.assert_allclose(model.steps(5), losses)  # before each step
    np.testing.assert_allclose(model.values()[0], w)
    np.testing.assert_allclose(model.values()[1], b)


def test_it_differs_from_its_base_and_equals_it_at_no_distance():
    plain = Model(rho=0)
    w, b = plain.values()
    base = torch.optim.SGD(
        [
            {"params": [w := torch.tensor(w, requires_grad=True)], "weight_decay": 0.3},
            {"params": [b := torch.tensor(b, requires_grad=True)], "lr": 0.02},
        ],
        lr=0.1,
        momentum=0.9,
    )
    for _ in range(4):
        base.zero_grad()
        error = torch.tensor(X) @ w + b - torch.tensor(Y)
        (error.square().mean() / 2).backward()
        base.step()
    plain.steps(4)
    sharp = Model(rho=0.5)
    sharp.steps(4)
    assert torch.equal(plain.w, w)
    assert torch.equal(plain.b, b)
    assert not torch.allclose(sharp.w, w)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("sgd", torch.optim.SGD),
        ("adamw", torch.optim.AdamW),
        (torch.optim.Adam, torch.optim.Adam),
        (functools.partial(torch.optim.RMSprop, alpha=0.9), torch.optim.RMSprop),
    ],
)
def test_the_base_is_a_name_or_a_class(base, expected):
    model = Model(base=base)
    assert type(model.optimizer.base) is expected
    before = model.values()
    model.steps(2)
    assert not np.allclose(model.values()[0], before[0])


def test_options_reach_the_base_and_groups_keep_their_names():
    model = Model(base_options={"momentum": 0.7}, weight_decay=0.1, rho=0.2)
    head, backbone = model.optimizer.param_groups
    assert (head["name"], backbone["name"]) == ("head", "backbone")
    assert (head["lr"], backbone["lr"]) == (0.1, 0.02)
    assert (head["weight_decay"], backbone["weight_decay"]) == (0.3, 0.1)
    assert head["momentum"] == model.optimizer.defaults["momentum"] == 0.7
    assert head["rho"] == 0.2


def test_torchs_schedulers_set_the_rates_of_the_base():
    model = Model()
    schedule = torch.optim.lr_scheduler.ExponentialLR(model.optimizer, 0.5)
    model.steps(1)
    schedule.step()
    assert [g["lr"] for g in model.optimizer.base.param_groups] == [0.05, 0.01]
    w = model.values()[0]
    for group in model.optimizer.param_groups:
        group["lr"] = 0.0
    model.steps(1)
    assert np.array_equal(model.values()[0], w)
    torch.optim.lr_scheduler.OneCycleLR(model.optimizer, 1.0, total_steps=10)


@pytest.mark.parametrize("base", ["momentum", "adamw"])
@pytest.mark.parametrize("way", ["state_dict", "pickle", "deepcopy"])
def test_it_goes_on_from_its_state(base, way):
    unbroken = Model(base=base)
    unbroken.steps(6)
    model = Model(base=base)
    model.steps(3)
    if way == "state_dict":
        again = Model(base=base)
        with torch.no_grad():
            again.w.copy_(model.w)
            again.b.copy_(model.b)
        again.optimizer.load_state_dict(model.optimizer.state_dict())
        assert model.optimizer.state_dict()["state"]  # the base's is in it
    elif way == "pickle":
        again = pickle.loads(pickle.dumps(model))
    else:
        again = copy.deepcopy(model)
    optimizer = again.optimizer
    assert optimizer.state is optimizer.base.state
    assert optimizer.param_groups is optimizer.base.param_groups
    assert again.w is optimizer.param_groups[0]["params"][0]
    again.steps(3)
    assert torch.equal(again.w, unbroken.w)
    assert torch.equal(again.b, unbroken.b)


def test_an_interrupted_step_leaves_the_weights_as_they_were():
    model = Model()
    before = model.values()
    calls = []

    def interrupted():
        calls.append(model.values())
        if len(calls) == 2:
            raise KeyboardInterrupt
        return model.closure()

    with pytest.raises(KeyboardInterrupt):
        model.optimizer.step(interrupted)
    assert not np.array_equal(calls[1][0], before[0])  # it had climbed
    assert np.array_equal(model.values()[0], before[0])


def test_no_gradient_is_no_move():
    frozen = torch.ones(2, requires_grad=True)
    flat = torch.ones(2, requires_grad=True)
    optimizer = SAM([frozen, flat], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (0 * flat).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.equal(frozen, torch.ones(2))
    assert torch.equal(flat, torch.ones(2))


def test_a_group_added_later_is_trained():
    model = Model(rho=0.3)
    late = torch.ones(1, requires_grad=True)
    model.optimizer.add_param_group({"params": [late], "lr": 0.5})
    assert model.optimizer.base.param_groups[2]["rho"] == 0.3

    def closure():
        model.optimizer.zero_grad()
        loss = late.square().sum()
        loss.backward()
        return loss

    model.optimizer.step(closure)
    assert late.item() == pytest.approx(1 - 0.5 * 2 * 1.3)


def test_errors_say_what_is_needed():
    model = Model()
    with pytest.raises(ValueError, match=r"needs a closure.*precision='bfloat16'"):
        model.optimizer.step()
    with pytest.raises(ValueError, match=r"rho=-1 must be"):
        Model(rho=-1)
    with pytest.raises(ValueError, match="base='lion' is not a class, nor one of: sgd"):
        Model(base="lion")


@pytest.mark.parametrize(
    "optimizer", [SAM, functools.partial(SAM, rho=0.2, base="adamw")]
)
def test_skorch_trains_with_it(optimizer):
    torch.manual_seed(0)
    net = NeuralNetRegressor(
        nn.Linear(3, 1), optimizer=optimizer, lr=0.05, max_epochs=20, verbose=0
    )
    net.set_params(train_split=None, iterator_train__shuffle=False)
    x = X.astype("float32")
    y = (x @ [1, 2, 3])[:, None].astype("float32")
    net.fit(x, y)
    losses = net.history[:, "train_loss"]
    assert losses[-1] < 0.5 * losses[0]
    assert isinstance(net.optimizer_, SAM)
    assert isinstance(pickle.loads(pickle.dumps(net)).optimizer_, SAM)
