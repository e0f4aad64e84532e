from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from skorch import NeuralNet
from torch import nn

from sklearn_dl.training import VirtualAdversarialLoss

B, D, K = 6, 8, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, D))


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(1)
        self.weight = nn.Parameter(torch.tensor(rng.normal(size=(D, K))))

    def forward(self, x=None, features=None):
        values = features if x is None else x.flatten(1)
        return values @ self.weight


class Net:
    """As much of the estimators' net as the term uses."""

    def __init__(self, module=None, kind="multiclass"):
        self.module_ = Linear() if module is None else module
        self.recipe = SimpleNamespace(kind=kind)

    def prepared(self, inputs):
        # Pixels arrive as whole numbers and are normalised by the net.
        if "features" in inputs:
            return {"features": inputs["features"]}
        return {"x": inputs["x"].double() / 255 - 0.5}


def unit(rows):
    flat = rows.reshape(len(rows), -1)
    return (flat / np.linalg.norm(flat, axis=1, keepdims=True)).reshape(rows.shape)


def first_direction():
    """Return the direction that the term draws first."""
    torch.manual_seed(3)
    direction = unit(torch.randn(B, D, dtype=torch.float64).numpy())
    torch.manual_seed(3)
    return direction


# kind: distance of two rows of outputs, and its gradient by the second.
def kl(z, m):
    return (softmax(z, 1) * (log_softmax(z, 1) - log_softmax(m, 1))).sum(1)


def label_kl(z, m):
    p, q = expit(z), expit(m)
    return (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean(1)


KINDS = {
    "multiclass": (kl, lambda z, m: softmax(m, 1) - softmax(z, 1)),
    "multilabel-indicator": (label_kl, lambda z, m: (expit(m) - expit(z)) / K),
    "continuous": (lambda z, m: ((z - m) ** 2).mean(1), lambda z, m: 2 * (m - z) / K),
}


@pytest.mark.parametrize("n_power", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_term_is_that_of_the_paper(kind, n_power):
    distance, slope = KINDS[kind]
    net = Net(kind=kind)
    w = net.module_.weight.detach().numpy()
    direction = first_direction()
    for _ in range(n_power):
        direction = unit(slope(X @ w, (X + 0.01 * direction) @ w) @ w.T)
    moved = (X + 0.7 * direction) @ w
    vat = VirtualAdversarialLoss(0.4, epsilon=0.7, xi=0.01, n_power=n_power)
    inputs = {"features": torch.tensor(X)}
    term = vat.initialize().loss_term(net, inputs, None)
    assert term.item() == pytest.approx(0.4 * distance(X @ w, moved).mean())
    # Outputs at x, and the direction, are constants in the gradient.
    term.backward()
    expected = (X + 0.7 * direction).T @ slope(X @ w, moved) / B * 0.4
    np.testing.assert_allclose(net.module_.weight.grad.numpy(), expected)


def test_the_direction_found_is_the_worst_one():
    """For small changes KL is a quadratic form: its first eigenvector is the worst."""
    net = Net()
    w = net.module_.weight.detach().numpy()
    worst = []
    for row in X:
        p = softmax(row @ w)
        form = w @ (np.diag(p) - np.outer(p, p)) @ w.T
        worst.append(np.linalg.eigvalsh(form)[-1] / 2 * 0.01**2)
    vat = VirtualAdversarialLoss(epsilon=0.01, n_power=50).initialize()
    term = vat.loss_term(net, {"features": torch.tensor(X)}, None)
    assert term.item() == pytest.approx(np.mean(worst), rel=0.01)


def test_without_epsilon_changes_are_relative_to_each_rows_length():
    net = Net(kind="continuous")
    scaled = X * np.array([1, 10, 100, 1e-3, 1, 1])[:, None]
    w = net.module_.weight.detach().numpy()
    vat = VirtualAdversarialLoss(n_power=60).initialize()
    torch.manual_seed(0)
    term = vat.loss_term(net, {"features": torch.tensor(scaled)}, None)
    largest = np.linalg.svd(w, compute_uv=False)[0] ** 2 / K
    lengths = 0.05 * np.linalg.norm(scaled, axis=1)
    assert term.item() == pytest.approx((largest * lengths**2).mean(), rel=0.01)


def test_pixels_are_changed_after_their_normalisation():
    class Pixels(Net):
        def prepared(self, inputs):
            self.asked = super().prepared(inputs)
            return self.asked

    seen = []

    class Watching(Linear):
        def forward(self, x):
            seen.append(x.detach())
            return super().forward(x)

    net = Pixels(Watching())
    pixels = torch.randint(0, 256, (B, 2, 2, 2), dtype=torch.uint8)
    vat = VirtualAdversarialLoss(epsilon=0.3, xi=0.02).initialize()
    vat.loss_term(net, {"x": pixels}, None)
    clean, tried, worst = seen
    assert torch.equal(clean, net.asked["x"])
    for moved, length in ((tried, 0.02), (worst, 0.3)):
        lengths = (moved - clean).flatten(1).norm(dim=1)
        torch.testing.assert_close(lengths, torch.full_like(lengths, length))


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(D, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, K)
        )
        self.dropout = nn.Dropout(0.5)

    def forward(self, features):
        return self.layers(self.dropout(features))


def test_batch_norm_trains_as_usual_but_its_running_statistics_stay():
    torch.manual_seed(0)
    net = Net(Deep())
    before = {n: b.clone() for n, b in net.module_.named_buffers()}
    vat = VirtualAdversarialLoss(epsilon=1.0).initialize()
    features = torch.tensor(X, dtype=torch.float32)
    assert vat.loss_term(net, {"features": features}, None) > 0
    assert all(torch.equal(b, before[n]) for n, b in net.module_.named_buffers())
    norm = net.module_.layers[1]
    assert norm.training
    assert norm.track_running_stats
    norm(torch.randn(4, 16))
    assert norm.num_batches_tracked == 1  # it counts on


def test_dropout_is_the_same_in_all_passes_and_drawn_anew_for_each_batch():
    torch.manual_seed(0)
    masks = []

    class Recording(nn.Dropout):
        def forward(self, input):
            masks.append(super().forward(torch.ones_like(input)))
            return input * masks[-1]

    net = Net(Deep())
    net.module_.dropout = Recording(0.5)
    vat = VirtualAdversarialLoss(epsilon=1.0, n_power=2).initialize()
    features = torch.tensor(X, dtype=torch.float32)
    vat.loss_term(net, {"features": features}, None)
    vat.loss_term(net, {"features": features}, None)
    assert len(masks) == 8
    assert all(torch.equal(mask, masks[0]) for mask in masks[:4])
    assert all(torch.equal(mask, masks[4]) for mask in masks[4:])
    assert not torch.equal(masks[0], masks[4])


def test_the_same_generator_gives_the_same_term():
    net = Net(Deep())
    vat = VirtualAdversarialLoss(epsilon=1.0).initialize()
    inputs = {"features": torch.tensor(X, dtype=torch.float32)}
    terms = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        terms.append(vat.loss_term(net, inputs, None).item())
    assert terms[0] == terms[1] != terms[2]


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_that_do_not_move_add_nothing(kind):
    net = Net(kind=kind)
    with torch.no_grad():
        net.module_.weight.zero_()
    vat = VirtualAdversarialLoss().initialize()
    for rows in (torch.tensor(X), torch.zeros(B, D, dtype=torch.float64)):
        term = vat.loss_term(net, {"features": rows}, None)
        term.backward()
        assert term.item() == 0
        assert net.module_.weight.grad.isfinite().all()


class Trained(NeuralNet):
    """A skorch net with the part of the estimators' net that the term needs."""

    recipe = SimpleNamespace(kind="multiclass")

    def prepared(self, inputs):
        return {"input": inputs}

    def get_loss(self, y_pred, y_true, X=None, training=False):
        loss = super().get_loss(y_pred, y_true, X=X, training=training)
        vat = dict(self.callbacks_)["VirtualAdversarialLoss"]
        return loss + vat.loss_term(self, X, y_pred)


def test_it_makes_the_trained_outputs_smoother():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, D)).astype("float32")
    y = rng.integers(0, K, 30)
    steepness = {}
    for weight in (0.0, 3.0):
        torch.manual_seed(0)
        net = Trained(
            nn.Linear,
            module__in_features=D,
            module__out_features=K,
            criterion=nn.CrossEntropyLoss,
            callbacks=[VirtualAdversarialLoss(weight, epsilon=1.0)],
            train_split=None,
            max_epochs=30,
            lr=0.3,
            verbose=0,
        )
        net.fit(features, y)
        steepness[weight] = net.module_.weight.norm().item()
    assert steepness[3.0] < 0.8 * steepness[0.0]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"weight": -1}, "weight=-1 must be"),
        ({"epsilon": 0}, "epsilon=0 must be above 0"),
        ({"xi": "small"}, "xi='small' must be above 0"),
        ({"n_power": 0}, "n_power=0 must be an int"),
    ],
)
def test_what_is_wrong_is_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        VirtualAdversarialLoss(**parameters).initialize()
