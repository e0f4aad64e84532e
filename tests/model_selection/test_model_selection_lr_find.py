"""The range test: its rates, its curve, its suggestion, and what it leaves alone."""

import copy
import sys
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback

from sklearn_dl import (
    ImageClassifier,
    ImageFeatureExtractor,
    ImageRegressor,
    make_feature_classifier,
)
from sklearn_dl.model_selection import LearningRateFinder, lr_find
from sklearn_dl.training import BatchLosses, Head

SMALL = {
    "backbone": "squeezenet1_1",
    "weights": None,
    "layer": "features.2",
    "image_size": 32,
    "batch_size": 8,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 128, (32, 32, 32, 3), "uint8")
    images[16:] += 100
    return images, np.repeat(["dark", "light"], 16)


class Rates(Callback):
    """Keeps the rates of all groups, and what the loop did; takes part in lr_find."""

    kept: list = []  # noqa: RUF012 - shared by the copies that a clone makes

    def loss_term(self, net, inputs, y_pred):
        rates = {g["name"]: g["lr"] for g in net.optimizer_.param_groups}
        Rates.kept.append((rates, net.warming_up_, copy.deepcopy(net.module_.head)))
        return 0.0


def test_rates_grow_geometrically_and_the_backbone_keeps_its_ratio(data):
    Rates.kept.clear()
    model = ImageClassifier(
        **{**SMALL, "layer": "features.4"},
        trainable="all",
        lr=0.02,
        backbone_lr=0.001,
        warmup_epochs=2,
        early_stopping=True,
        schedule="cosine",
        callbacks=[("rates", Rates())],
    )
    finder = lr_find(model, *data, lr_min=1e-5, lr_max=1e-2, n_steps=10)
    expected = np.geomspace(1e-5, 1e-2, 10)
    np.testing.assert_allclose(finder.lrs_, expected, rtol=1e-9)
    head = [rates["head"] for rates, *_ in Rates.kept]
    np.testing.assert_allclose(head, expected, rtol=1e-9)
    backbone = [rates["backbone"] for rates, *_ in Rates.kept]
    np.testing.assert_allclose(backbone, expected / 20, rtol=1e-9)
    assert not any(warming_up for _, warming_up, _ in Rates.kept)


@pytest.mark.parametrize(("optimizer", "lr"), [("sgd", 1e-2), ("adam", 1e-3)])
def test_the_rate_that_the_optimizer_has_by_default_is_allowed_for(data, optimizer, lr):
    Rates.kept.clear()
    model = ImageClassifier(
        **SMALL, trainable="all", optimizer=optimizer, callbacks=[Rates()]
    )
    lr_find(model, *data, lr_min=1e-4, lr_max=1e-2, n_steps=10)
    # Random weights: the backbone's rate is the head's.
    assert all(r["backbone"] == pytest.approx(r["head"]) for r, *_ in Rates.kept)
    assert Rates.kept[0][0]["head"] == pytest.approx(1e-4)
    pair = ImageClassifier(
        **SMALL,
        trainable="all",
        optimizer=optimizer,
        backbone_lr=lr / 10,
        callbacks=[Rates()],
    )
    Rates.kept.clear()
    lr_find(pair, *data, lr_min=1e-4, lr_max=1e-2, n_steps=10)
    assert all(10 * r["backbone"] == pytest.approx(r["head"]) for r, *_ in Rates.kept)


def test_the_losses_are_those_of_plain_sgd_with_these_rates(data):
    """A loop by hand over the head, on the features in one batch."""
    Rates.kept.clear()
    X, y = data
    small = {**SMALL, "batch_size": len(X), "image_size": (32, 32)}
    model = ImageClassifier(**small, optimizer="sgd", callbacks=[Rates()])
    finder = lr_find(model, X, y, lr_min=1e-3, lr_max=1e-1, n_steps=12)
    head = Rates.kept[0][2]
    features = torch.from_numpy(ImageFeatureExtractor(**small).fit_transform(X))
    target = torch.from_numpy((y == "light").astype(int))
    losses = []
    for rate in np.geomspace(1e-3, 1e-1, 12):
        loss = torch.nn.functional.cross_entropy(head(features), target)
        head.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in head.parameters():
                parameter -= rate * (parameter.grad + 1e-4 * parameter)
        losses.append(loss.item())
    np.testing.assert_allclose(finder.losses_, losses, rtol=1e-4)
    assert np.ptp(losses) > 0.1


def test_the_running_mean_is_the_formula_and_ends_a_diverging_training(data):
    model = ImageClassifier(**SMALL, trainable="all", optimizer="sgd")
    finder = lr_find(model, *data, lr_min=1e-4, lr_max=1e4, n_steps=60, divergence=3.0)
    n = len(finder.losses_)
    assert n < 60
    assert len(finder.lrs_) == len(finder.smoothed_) == n
    expected = [
        np.average(finder.losses_[: i + 1], weights=0.8 ** np.arange(i, -1, -1))
        for i in range(n)
    ]
    np.testing.assert_allclose(finder.smoothed_, expected, rtol=1e-9)
    best = np.minimum.accumulate(finder.smoothed_)
    over = ~(finder.smoothed_ <= 3 * best)
    assert over[-1]
    assert not over[:-1].any()


def test_the_estimator_is_left_alone_and_the_result_repeats(data):
    X, y = data
    model = ImageClassifier(**SMALL, max_epochs=2).fit(X, y)
    parameters = repr(model.get_params())
    learned = model.predict_proba(X)
    generator = torch.get_rng_state()
    one = lr_find(model, X, y, n_steps=20)
    two = lr_find(model, X, y, n_steps=20)
    assert repr(model.get_params()) == parameters
    assert np.array_equal(model.predict_proba(X), learned)
    assert torch.equal(generator, torch.get_rng_state())
    assert np.array_equal(one.losses_, two.losses_)
    other = lr_find(model.set_params(random_state=1), X, y, n_steps=20)
    assert not np.array_equal(one.losses_, other.losses_)


class Writer(Callback):
    """A callback that would write files."""

    def on_train_begin(self, net, **kwargs):
        raise AssertionError("a callback without a loss term took part")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_only_callbacks_that_add_to_the_loss_take_part(data):
    model = ImageClassifier(**SMALL, callbacks=[Writer(), ("writer", Writer())])
    assert len(lr_find(model, *data, n_steps=20).losses_) > 1


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_sample_weights_count(data):
    model = ImageClassifier(**SMALL)
    weight = np.r_[np.full(16, 10.0), np.ones(16)]
    plain = lr_find(model, *data, n_steps=15)
    weighted = lr_find(model, *data, n_steps=15, sample_weight=weight)
    n = min(len(plain.losses_), len(weighted.losses_))
    assert not np.allclose(plain.losses_[:n], weighted.losses_[:n])


def test_a_regressor_with_several_targets(data):
    y = np.linspace([0.0, 1.0], [1.0, 0.0], 32)
    model = ImageRegressor(**SMALL, head=Head(8))  # one layer starts at its goal
    finder = lr_find(model, data[0], y, n_steps=20)
    assert finder.suggestion_ > 0


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_suggestion_trains_well():
    """No rate of a coarse grid is much better, and the smallest is worse."""
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype("uint8")
    X, X_test, y, y_test = train_test_split(images, digits.target, random_state=0)
    layers = [torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(4)]
    network = torch.nn.Sequential(*layers, torch.nn.Flatten())
    model = ImageClassifier(
        partial(copy.deepcopy, network), image_size=32, max_epochs=3, random_state=0
    )
    finder = lr_find(model, X, y)

    def accuracy(rate):
        return model.set_params(lr=rate).fit(X, y).score(X_test, y_test)

    found = accuracy(finder.suggestion_)
    grid = {rate: accuracy(rate) for rate in (1e-5, 1e-3, 1e-2, 1e-1)}
    assert found > max(grid.values()) - 0.03
    assert found > grid[1e-5] + 0.05  # from zeros any step points somewhere
    assert found > 0.9


def curve(lrs, losses):
    return LearningRateFinder(lrs, losses, losses)


def test_steepest_is_the_middle_of_a_logistic_fall():
    lrs = np.geomspace(1e-6, 10, 141)
    for middle in (1e-4, 3e-3, 1e-2):
        losses = 2 / (1 + np.exp(3 * np.log10(lrs / middle))) + (lrs / 3) ** 2
        finder = curve(lrs, losses)
        assert finder.suggestion_ == pytest.approx(middle, rel=0.15)
        assert finder.suggestion_ == finder.suggestions_["steepest"]
        lowest = lrs[losses.argmin()]
        assert finder.suggestions_["minimum"] == pytest.approx(lowest / 10)


def test_noise_and_an_explosion_move_the_suggestion_little():
    lrs = np.geomspace(1e-6, 10, 100)
    losses = 2 / (1 + np.exp(3 * np.log10(lrs / 1e-2))) + 1
    losses += np.random.default_rng(0).normal(0, 0.05, 100)
    losses[-3:] = 50, 1e6, np.nan
    assert 3e-3 < curve(lrs, losses).suggestion_ < 3e-2


@pytest.mark.parametrize(("decades", "found"), [(0.9, False), (1.1, True)])
def test_a_fall_that_ends_within_the_first_decade_is_chance(decades, found):
    lrs = np.geomspace(1e-4, 1, 161)
    losses = np.abs(np.log10(lrs) + 4 - decades)
    assert (curve(lrs, losses).suggestion_ is not None) == found


@pytest.mark.parametrize(
    "losses",
    [np.linspace(1, 2, 20), np.full(20, np.nan), np.ones(20), np.ones(1)],
    ids=["rising", "nan", "flat", "one"],
)
def test_no_fall_no_suggestion(losses):
    finder = curve(np.geomspace(1e-4, 1, 20)[: len(losses)], losses)
    assert finder.suggestion_ is None
    assert finder.suggestions_ == {"steepest": None, "minimum": None}


def test_a_curve_without_a_fall_warns(data):
    model = ImageClassifier(**SMALL, trainable="all", optimizer="sgd")
    with pytest.warns(ConvergenceWarning, match="never fell between the rates 1000"):
        finder = lr_find(model, *data, lr_min=1e3, lr_max=1e6, n_steps=10)
    assert finder.suggestion_ is None


def test_plot_draws_the_curve_and_the_suggestions():
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    lrs = np.geomspace(1e-4, 1, 41)
    finder = curve(lrs, 1 / (1 + lrs * 100) + lrs)
    assert finder.plot() is finder
    assert finder.ax_.get_xscale() == "log"
    labels = [t.get_text() for t in finder.ax_.get_legend().get_texts()]
    assert f"steepest: {finder.suggestion_:.2g}" in labels
    np.testing.assert_array_equal(finder.ax_.lines[0].get_ydata(), finder.losses_)
    figure, ax = plt.subplots()
    assert finder.plot(ax=ax).ax_ is ax
    assert finder.figure_ is figure
    plt.close("all")


def test_plot_marks_the_minimum_where_the_running_mean_has_it():
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib.figure import Figure

    lrs = np.geomspace(1e-4, 10, 51)
    mean = 1 / (1 + lrs * 100) + lrs
    losses = mean + np.random.default_rng(0).normal(0, 0.01, 51)
    losses[-1] = 0.0  # one easy batch is no minimum of the mean
    ax = Figure().add_subplot()
    finder = LearningRateFinder(lrs, losses, mean).plot(ax=ax)
    drawn = {line.get_label(): line.get_xydata() for line in ax.lines}
    curve = drawn["running mean"]
    lowest = curve[curve[:, 1].argmin()]
    np.testing.assert_array_equal(drawn[f"minimum: {lowest[0]:.2g}"], [lowest])
    tenth = finder.suggestions_["minimum"]
    np.testing.assert_array_equal(drawn[f"minimum / 10: {tenth:.2g}"][:, 0], tenth)
    assert tenth == pytest.approx(lowest[0] / 10)
    assert -0.1 < ax.get_ylim()[0] < 0  # no loss is below 0


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    lrs = np.geomspace(1e-4, 1, 5)
    with pytest.raises(ImportError, match=r"sklearn_dl\[plots\]"):
        curve(lrs, lrs).plot()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lr_min": 0.0}, "'lr_min' parameter"),
        ({"lr_min": 1.0, "lr_max": 0.1}, "lr_min=1.0 must be below lr_max=0.1"),
        ({"n_steps": 9}, "'n_steps' parameter"),
        ({"divergence": 1.0}, "'divergence' parameter"),
    ],
)
def test_wrong_parameters_are_named(data, parameters, message):
    with pytest.raises(ValueError, match=message):
        lr_find(ImageClassifier(**SMALL), *data, **parameters)


def test_a_pipeline_is_refused(data):
    with pytest.raises(TypeError, match=r"'estimator' .*ImageClassifier'.*Pipeline"):
        lr_find(make_feature_classifier(), *data)


def test_losses_below_zero_end_training_only_when_they_rise():
    recorder = BatchLosses(smoothing=0.0, divergence=4.0)

    class Net:
        ended = False

        def stop_now(self, reason):
            self.ended = True

    net = Net()
    recorder.on_train_begin(net)
    for loss in (-1.0, -2.0, 3.9):
        recorder.on_batch_end(net, training=True, loss=torch.tensor(loss))
    assert not net.ended
    recorder.on_batch_end(net, training=True, loss=torch.tensor(4.1))
    assert net.ended
    assert recorder.losses_ == pytest.approx([-1.0, -2.0, 3.9, 4.1])


def test_batches_of_validation_are_not_recorded(data):
    losses = BatchLosses()
    model = ImageClassifier(**SMALL, max_epochs=2, callbacks=[losses])
    model.fit(*data, X_val=data[0], y_val=data[1])
    assert len(losses.losses_) == 8
    assert losses.lrs_ == [0.01] * 8
    epochs = np.reshape(losses.losses_, (2, 4)).mean(1)
    np.testing.assert_allclose(epochs, model.history_["train_loss"], rtol=1e-6)
