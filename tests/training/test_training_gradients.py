import copy
import pickle

import monitor_cases
import numpy as np
import pytest
import torch
from monitor_cases import classifier
from sklearn.base import clone
from skorch.callbacks import Callback
from torch.nn import functional as F

from sklearn_dl.training import Checkpoint, GradientMonitor, Trainable
from sklearn_dl.training._gradients import _GradientSums


@pytest.fixture(scope="module")
def data():
    return monitor_cases.two_brightnesses()


MOVING = Trainable("all", freeze_batch_norm=False)


def with_batch_norm(**parameters):
    return classifier(backbone="resnet18", layer="layer1", **parameters)


class Stored(Callback):
    """Keeps the gradients of each batch, and recomputes their norms by hand."""

    def initialize(self):
        self.gradients_ = []  # epochs of batches of {name: ndarray}
        self.norms_ = []
        return self

    def on_epoch_begin(self, net, **kwargs):
        self.gradients_.append([])
        self.norms_.append([])

    def on_batch_begin(self, net, *, batch=None, training=False, **kwargs):
        if not training:
            return
        inputs, target = batch
        module = copy.deepcopy(net.module_).train()
        outputs = module(net.preprocessing.normalize(inputs["x"]))
        parameters = [p for p in module.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(F.cross_entropy(outputs, target), parameters)
        norm = torch.cat([g.flatten() for g in gradients]).norm().item()
        self.norms_[-1].append(norm)

    def on_grad_computed(self, net, **kwargs):
        self.gradients_[-1].append(
            {
                name: p.grad.double().numpy().copy()
                for name, p in net.module_.named_parameters()
                if p.grad is not None
            }
        )

    def vectors(self, epoch, layer=""):
        """Return the gradients of an epoch, one row per batch."""
        return np.stack(
            [
                np.concatenate([g.ravel() for n, g in batch.items() if layer in n])
                for batch in self.gradients_[epoch]
            ]
        )


@pytest.fixture(scope="module")
def monitored(data):
    """Return a fitted estimator, its monitor and the gradients it had."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    stored, monitor = Stored(), GradientMonitor(n_validation_rows=3)
    model = classifier(callbacks=[stored, monitor])
    model.fit(*data, X_val=data[0][::2], y_val=data[1][::2])
    torch.set_num_threads(threads)
    return model, monitor, stored


def test_the_norm_is_autograds(monitored):
    model, _, stored = monitored
    expected = np.mean(stored.norms_, axis=1)
    np.testing.assert_allclose(model.history_["grad_norm"], expected, rtol=1e-5)
    assert model.history_["grad_steps"].tolist() == [3, 3]


def test_the_noise_is_the_variance_of_the_gradients_of_the_batches(monitored):
    model, _, stored = monitored
    for epoch in range(2):
        gradients = stored.vectors(epoch)
        variance = gradients.var(axis=0).sum()
        row = model.history_.iloc[epoch]
        assert variance > 0
        np.testing.assert_allclose(row["grad_noise"], variance, rtol=1e-4)
        ratio = variance / np.square(gradients.mean(axis=0)).sum()
        np.testing.assert_allclose(row["grad_noise_ratio"], ratio, rtol=1e-4)


def test_layers_have_their_norms(monitored):
    model, monitor, stored = monitored
    layers = monitor.layers_
    names = ["backbone.module.features.0", "head.output"]
    assert layers["layer"].tolist() == names * 2
    assert layers["epoch"].tolist() == [1, 1, 2, 2]
    for position, (epoch, layer) in enumerate([(0, n) for n in names]):
        gradients = stored.vectors(epoch, f"{layer}.weight")
        row = layers.iloc[position]
        expected = np.linalg.norm(gradients, axis=1).mean()
        np.testing.assert_allclose(row["grad_norm"], expected, rtol=1e-5)
    weights = dict(model.module_.named_parameters())
    for position, name in enumerate(names, start=2):
        row = layers.iloc[position]
        norm = weights[f"{name}.weight"].detach().norm().item()
        np.testing.assert_allclose(row["weight_norm"], norm, rtol=1e-5)
        assert row["ratio"] == row["grad_norm"] / row["weight_norm"]
    for column, position in (("grad_norm_first", 0), ("grad_norm_last", 1)):
        expected = layers["grad_norm"].iloc[position::2].tolist()
        assert model.history_[column].tolist() == expected


def assert_validation_gradient(model, X, y):
    """Compare the last recorded norm with autograd's, of the rows given."""
    module = copy.deepcopy(model.module_).eval()
    pixels = torch.from_numpy(X).permute(0, 3, 1, 2)
    outputs = module(model.preprocessing_.normalize(pixels))
    parameters = [p for p in module.parameters() if p.requires_grad]
    loss = F.cross_entropy(outputs, torch.from_numpy(y))
    gradients = torch.autograd.grad(loss, parameters)
    expected = torch.cat([g.flatten() for g in gradients]).norm().item()
    measured = model.history_["valid_grad_norm"].iloc[-1]
    np.testing.assert_allclose(measured, expected, rtol=1e-5)


def test_the_validation_gradient_is_that_of_rows_spread_over_all(monitored, data):
    rows = [0, 6, 12]  # of every other row
    assert_validation_gradient(monitored[0], data[0][rows], data[1][rows])


def test_after_a_warm_up_all_layers_are_measured(data):
    monitor = GradientMonitor()
    model = classifier(warmup_epochs=1, max_epochs=3, callbacks=[monitor])
    model.fit(*data, X_val=data[0], y_val=data[1])
    layers = monitor.layers_.groupby("epoch")["layer"].agg(list).tolist()
    assert layers == [
        ["head.output"],
        *[["backbone.module.features.0", "head.output"]] * 2,
    ]
    assert_validation_gradient(model, *data)


def test_a_monitor_goes_on_after_a_crash(tmp_path, data):
    """Its state is in the checkpoint, wherever it stands among the callbacks."""
    whole = GradientMonitor()
    classifier(max_epochs=3, callbacks=[whole]).fit(*data)
    checkpoint = Checkpoint(tmp_path / "run")
    for order in (slice(None), slice(None, None, -1)):
        monitor = GradientMonitor()
        callbacks = [("monitor", monitor), ("checkpoint", checkpoint)][order]
        crash = ("crash", Crash())
        with pytest.raises(RuntimeError, match="crash"):
            classifier(max_epochs=3, callbacks=[*callbacks, crash]).fit(*data)
        assert set(monitor.layers_["epoch"]) == {1, 2}
        classifier(max_epochs=3, callbacks=callbacks).fit(*data)
        assert monitor.layers_.equals(whole.layers_)


class Crash(Callback):
    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 3:
            raise RuntimeError("crash")


def state_of(model):
    return {k: v.clone() for k, v in model.module_.state_dict().items()}


@pytest.mark.parametrize("weights_of_validation", [True, False])
def test_training_is_bit_equal_with_and_without(data, weights_of_validation):
    """With BatchNorm, whose statistics would show a pass in training mode."""
    options = {"trainable": MOVING, "optimizer": "adam", "max_epochs": 3}
    validation = {}
    if weights_of_validation:
        validation = {"X_val": data[0], "y_val": data[1]}
    plain = with_batch_norm(**options).fit(*data, **validation)
    monitor = GradientMonitor()
    watched = with_batch_norm(**options, callbacks=[monitor]).fit(*data, **validation)
    ours, theirs = state_of(watched), state_of(plain)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any("running_mean" in name for name in ours)
    columns = plain.history_.columns.drop("dur")
    assert plain.history_[columns].equals(watched.history_[columns])
    assert ("valid_grad_norm" in watched.history_) == weights_of_validation


class Before(Callback):
    """Keeps what the epoch's end must leave as it was."""

    def snapshot(self, net):
        module = net.module_
        return (
            {n: b.clone() for n, b in module.named_buffers()},
            {
                n: None if p.grad is None else p.grad.clone()
                for n, p in module.named_parameters()
            },
            [part.training for part in module.modules()],
            torch.get_rng_state(),
        )

    def on_epoch_end(self, net, **kwargs):
        net.module_.train()
        net.seen_before_ = self.snapshot(net)


class After(Before):
    def on_epoch_end(self, net, **kwargs):
        buffers, gradients, modes, generator = self.snapshot(net)
        old_buffers, old_gradients, old_modes, old_generator = net.seen_before_
        assert all(torch.equal(buffers[n], old_buffers[n]) for n in buffers)
        for name, gradient in gradients.items():
            old = old_gradients[name]
            assert (gradient is old is None) or torch.equal(gradient, old)
        assert any(gradient is not None for gradient in gradients.values())
        assert modes == old_modes
        assert any(modes)
        assert torch.equal(generator, old_generator)


def test_the_epochs_end_moves_nothing(data):
    callbacks = [Before(), GradientMonitor(), After()]
    model = with_batch_norm(trainable=MOVING, callbacks=callbacks)
    model.fit(*data, X_val=data[0], y_val=data[1])
    assert np.isfinite(model.history_["valid_grad_norm"]).all()


class TwoGradients(torch.optim.SGD):
    """Asks for the gradient twice, at other weights the second time."""

    def step(self, closure=None):
        loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(1.0)
        closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.sub_(1.0)
        super().step()
        return loss


def test_the_first_gradient_of_a_step_counts(data):
    stored = Stored()
    model = classifier(
        optimizer=TwoGradients, lr=1e-3, callbacks=[stored, GradientMonitor()]
    ).fit(*data)
    assert len(stored.gradients_[0]) == 6
    expected = np.mean(stored.norms_, axis=1)
    np.testing.assert_allclose(model.history_["grad_norm"], expected, rtol=1e-5)
    assert model.history_["grad_steps"].tolist() == [3, 3]


def test_one_batch_has_no_variance(data):
    model = classifier(batch_size=14, callbacks=[GradientMonitor()]).fit(*data)
    assert model.history_["grad_noise"].isna().all()
    assert model.history_["grad_noise_ratio"].isna().all()
    assert (model.history_["grad_norm"] > 0).all()


def test_no_validation_rows_no_validation_gradient(data):
    validation = {"X_val": data[0], "y_val": data[1]}
    callbacks = [GradientMonitor(n_validation_rows=0, per_layer=False)]
    model = classifier(callbacks=callbacks).fit(*data, **validation)
    assert "valid_grad_norm" not in model.history_
    assert (model.history_["grad_norm_first"] > 0).all()
    assert len(callbacks[0].layers_) == 0


def test_a_head_alone_is_first_and_last(data):
    monitor = GradientMonitor()
    model = classifier(trainable="head", callbacks=[monitor]).fit(*data)
    assert monitor.layers_["layer"].tolist() == ["head.output", "head.output"]
    assert model.history_["grad_norm_first"].equals(
        model.history_["grad_norm_last"].rename("grad_norm_first")
    )


@pytest.mark.parametrize("skip", [True, False])
def test_an_overflow_in_half_precision_is_left_out_and_elsewhere_shown(skip):
    module = torch.nn.Linear(2, 1, bias=False)
    sums = _GradientSums(module, skip=skip)
    for gradient in ([[3.0, 4.0]], [[float("inf"), 1.0]], [[6.0, 8.0]]):
        module.weight.grad = torch.tensor(gradient)
        sums.add()
    measured, layers = sums.measured()
    if skip:
        assert measured["grad_steps"] == 2
        assert measured["grad_norm"] == layers[0][2] == 7.5
        assert measured["grad_noise"] == (25 + 100) / 2 - 7.5**2
    else:
        assert measured["grad_steps"] == 3
        assert measured["grad_norm"] == float("inf")


def test_an_epoch_of_overflows_alone_measures_nothing():
    module = torch.nn.Linear(2, 1)
    sums = _GradientSums(module, skip=True)
    module.weight.grad = torch.full((1, 2), float("nan"))
    sums.add()
    measured, _ = sums.measured()
    assert measured["grad_steps"] == 0
    assert np.isnan(measured["grad_norm"])


def test_equal_gradients_are_no_noise():
    module = torch.nn.Linear(2, 1)
    sums = _GradientSums(module, skip=False)
    for _ in range(3):
        module.weight.grad = torch.tensor([[0.1, 0.3]])
        sums.add()
    measured, _ = sums.measured()
    assert 0 <= measured["grad_noise"] < 1e-6
    np.testing.assert_allclose(measured["grad_norm"], np.hypot(0.1, 0.3), rtol=1e-6)


def test_the_state_goes_on_in_another_monitor(monitored):
    _, monitor, _ = monitored
    state = pickle.loads(pickle.dumps(monitor.state_dict()))
    other = GradientMonitor().initialize()
    other.load_state_dict(state)
    assert other.layers_.equals(monitor.layers_)


def test_nothing_large_stays_after_training(monitored):
    _, monitor, _ = monitored
    assert monitor.sums_ is None
    assert monitor.batch_ is None
    assert pickle.loads(pickle.dumps(monitor)).layers_.equals(monitor.layers_)
    copied = clone(monitor)
    assert copied.get_params() == {"n_validation_rows": 3, "per_layer": True}
    assert not hasattr(copied, "rows_")


@pytest.mark.parametrize("rows", [-1, 2.5, "all", True])
def test_a_wrong_number_of_rows_is_named(rows, data):
    model = classifier(callbacks=[GradientMonitor(n_validation_rows=rows)])
    with pytest.raises(ValueError, match=f"n_validation_rows={rows!r} must be an int"):
        model.fit(*data)
