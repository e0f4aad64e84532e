import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from sklearn import metrics
from sklearn.linear_model import SGDRegressor
from torch import nn

from sklearn_dl.training import (
    EpsilonInsensitiveLoss,
    HingeLoss,
    LogLoss,
    chance_loss,
    resolve_loss,
)
from sklearn_dl.training._losses import _MODULES

RNG = np.random.default_rng(0)
B, K = 40, 5
OUTPUTS = RNG.normal(size=(B, K)) * 2
CLASSES = np.r_[np.arange(K), RNG.integers(0, K, B - K)]
LABELS = RNG.integers(0, 2, (B, K)).astype(float)
TARGETS = RNG.normal(size=(B, K)) * 2
TARGET = {"multiclass": CLASSES, "multilabel-indicator": LABELS, "continuous": TARGETS}

SMOOTHED = {"log_loss": LogLoss, "hinge": HingeLoss}


def losses(loss, kind, outputs=OUTPUTS, **options):
    module = resolve_loss(loss, kind=kind, **options)
    result = module(torch.tensor(outputs), torch.tensor(TARGET[kind]))
    return result.numpy()


def test_log_loss_of_classes_is_scikit_learns():
    result = losses("log_loss", "multiclass")
    assert result.shape == (B,)
    expected = metrics.log_loss(CLASSES, softmax(OUTPUTS, axis=1))
    assert result.mean() == pytest.approx(expected)


def test_log_loss_of_labels_is_scikit_learns_label_by_label():
    result = losses("log_loss", "multilabel-indicator")
    assert result.shape == (B, K)
    expected = [metrics.log_loss(LABELS[:, k], expit(OUTPUTS[:, k])) for k in range(K)]
    np.testing.assert_allclose(result.mean(0), expected)


def test_hinge_of_classes_is_scikit_learns():
    result = losses("hinge", "multiclass")
    assert result.shape == (B,)
    assert result.mean() == pytest.approx(metrics.hinge_loss(CLASSES, OUTPUTS))


def test_hinge_of_two_classes_is_the_binary_hinge_of_their_difference():
    y = np.arange(B) % 2
    module = resolve_loss("hinge", kind="multiclass")
    outputs = OUTPUTS[:, :2]
    result = module(torch.tensor(outputs), torch.tensor(y))
    decision = outputs[:, 1] - outputs[:, 0]
    assert result.mean().item() == pytest.approx(metrics.hinge_loss(y, decision))


def test_hinge_where_outputs_tie_or_there_is_one_class():
    tied = torch.tensor([[1.0, 1.0, 0.0]])
    for target, expected in ((0, 1.0), (1, 1.0), (2, 2.0)):
        assert HingeLoss()(tied, torch.tensor([target])) == expected
    one = torch.ones(3, 1, requires_grad=True)
    loss = HingeLoss()(one, torch.zeros(3, dtype=torch.int64))
    loss.backward()
    assert loss == 0


def test_hinge_of_labels_is_scikit_learns_label_by_label():
    result = losses("hinge", "multilabel-indicator")
    expected = [metrics.hinge_loss(LABELS[:, k], OUTPUTS[:, k]) for k in range(K)]
    np.testing.assert_allclose(result.mean(0), expected)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("squared_error", metrics.mean_squared_error),
        ("absolute_error", metrics.mean_absolute_error),
    ],
)
def test_errors_of_targets_are_scikit_learns(name, metric):
    result = losses(name, "continuous")
    expected = metric(TARGETS, OUTPUTS, multioutput="raw_values")
    np.testing.assert_allclose(result.mean(0), expected)


@pytest.mark.parametrize(
    ("name", "epsilon"), [("huber", 1), ("epsilon_insensitive", 0.1)]
)
def test_robust_losses_are_those_of_scikit_learns_sgd(name, epsilon):
    error = np.abs(TARGETS - OUTPUTS)
    if name == "huber":
        small, large = error**2 / 2, epsilon * error - epsilon**2 / 2
        expected = np.where(error <= epsilon, small, large)
    else:
        expected = np.maximum(0, error - epsilon)
    np.testing.assert_allclose(losses(name, "continuous"), expected)


@pytest.mark.parametrize("name", ["huber", "epsilon_insensitive"])
def test_robust_losses_move_a_weight_as_scikit_learns_sgd_does(name):
    """One step of plain SGD from zero: its size is the rate times the gradient."""
    sgd = SGDRegressor(
        loss=name,
        epsilon=1.0 if name == "huber" else 0.1,
        alpha=0,
        eta0=0.5,
        learning_rate="constant",
        fit_intercept=False,
    )
    for x, y in ((0.3, 0.4), (0.3, 2.0), (2.0, -3.0), (1.0, 0.05)):
        expected = copy.deepcopy(sgd).partial_fit([[x]], [y]).coef_[0]
        weight = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
        module = resolve_loss(name, kind="continuous")
        target = torch.tensor([[y]], dtype=torch.float64)
        module(weight * x, target).sum().backward()
        assert -0.5 * weight.grad.item() == pytest.approx(expected)


def test_epsilon_is_a_parameter():
    error = np.abs(TARGETS - OUTPUTS)
    result = losses(EpsilonInsensitiveLoss(0.7), "continuous")
    np.testing.assert_allclose(result, np.maximum(0, error - 0.7))


def test_smoothed_log_loss_is_the_cross_entropy_of_the_smoothed_target():
    a = 0.2
    smoothed = (1 - a) * np.eye(K)[CLASSES] + a / K
    expected = -(smoothed * log_softmax(OUTPUTS, axis=1)).sum(1)
    result = losses(LogLoss(a), "multiclass")
    np.testing.assert_allclose(result, expected)
    assert not np.allclose(result, losses("log_loss", "multiclass"))


@pytest.mark.parametrize("name", ["log_loss", "hinge"])
def test_smoothed_labels_are_drawn_to_one_half(name):
    a = 0.2
    if name == "log_loss":
        present, absent = -np.log(expit(OUTPUTS)), -np.log(expit(-OUTPUTS))
    else:
        present, absent = np.maximum(0, 1 - OUTPUTS), np.maximum(0, 1 + OUTPUTS)
    smoothed = (1 - a) * LABELS + a / 2
    expected = smoothed * present + (1 - smoothed) * absent
    result = losses(SMOOTHED[name](a), "multilabel-indicator")
    np.testing.assert_allclose(result, expected)


def test_smoothed_hinge_is_the_expected_one_under_the_smoothed_target():
    a = 0.2
    each = [
        [metrics.hinge_loss([c], row[None], labels=range(K)) for c in range(K)]
        for row in OUTPUTS
    ]
    smoothed = (1 - a) * np.eye(K)[CLASSES] + a / K
    expected = (smoothed * each).sum(1)
    result = losses(HingeLoss(a), "multiclass")
    np.testing.assert_allclose(result, expected)
    tied = resolve_loss(HingeLoss(0.3), kind="multiclass")
    result = tied(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([0]))
    assert result.item() == pytest.approx(0.7 * 1 + 0.1 * (1 + 1 + 2))


@pytest.mark.parametrize("name", sorted(_MODULES["multilabel-indicator"]))
def test_labels_are_weighted_by_absence_and_presence(name):
    weight = RNG.uniform(0.5, 2, (K, 2))
    for a in (0.0, 0.2):
        loss = SMOOTHED[name](a)
        result = losses(loss, "multilabel-indicator", label_weight=weight)
        chosen = np.where(LABELS == 1, weight[:, 1], weight[:, 0])
        expected = chosen * losses(loss, "multilabel-indicator")
        np.testing.assert_allclose(result, expected)


@pytest.mark.parametrize(
    ("loss", "kind", "expected"),
    [
        (nn.CrossEntropyLoss, "multiclass", lambda: losses("log_loss", "multiclass")),
        (
            nn.CrossEntropyLoss(label_smoothing=0.1),
            "multiclass",
            lambda: losses(LogLoss(0.1), "multiclass"),
        ),
        (HingeLoss(), "multiclass", lambda: losses("hinge", "multiclass")),
        (
            nn.SmoothL1Loss(beta=1.0, reduction="sum"),
            "continuous",
            lambda: losses("huber", "continuous"),
        ),
        (
            nn.MultiLabelSoftMarginLoss(),
            "multilabel-indicator",
            lambda: losses("log_loss", "multilabel-indicator").mean(1),
        ),
        (
            lambda outputs, target: (outputs - target).square().mean(1),
            "continuous",
            lambda: losses("squared_error", "continuous").mean(1),
        ),
        (
            functools.partial(nn.functional.huber_loss, reduction="none"),
            "continuous",
            lambda: losses("huber", "continuous"),
        ),
    ],
)
def test_losses_of_torch_and_of_the_user_give_the_losses_of_rows(loss, kind, expected):
    reduction = getattr(loss, "reduction", None)
    np.testing.assert_allclose(losses(loss, kind), expected())
    assert getattr(loss, "reduction", None) == reduction  # a copy was changed


def test_a_loss_that_reduces_is_an_error_that_says_so():
    class Reduced(nn.Module):
        def forward(self, outputs, target):
            return nn.functional.mse_loss(outputs, target)

    for loss in (Reduced, Reduced(), lambda outputs, target: outputs.mean()):
        with pytest.raises(ValueError, match=r"shape \(\) for 40 rows.*reduction"):
            losses(loss, "continuous")


def test_an_error_in_the_loss_tells_the_shapes():
    with pytest.raises((RuntimeError, ValueError)) as error:
        losses(nn.BCEWithLogitsLoss(), "multiclass")
    assert "outputs of shape (40, 5) and a target of shape (40,)" in str(
        error.value.__notes__
    )


@pytest.mark.parametrize(
    ("loss", "kind", "options", "message"),
    [
        (
            "squared_error",
            "multiclass",
            {},
            "'squared_error' is not one of: hinge, log",
        ),
        ("log_loss", "continuous", {}, "'log_loss' is not one of: absolute_error"),
        (LogLoss(0.1), "continuous", {}, r"loss=LogLoss\(.*is not one of: absolute"),
        (LogLoss(1.0), "multiclass", {}, "label_smoothing=1.0 must"),
        (HingeLoss(-0.1), "multiclass", {}, "label_smoothing=-0.1 must"),
        (3, "multiclass", {}, "loss=3 is neither"),
        (dict, "multiclass", {}, "is neither a name nor a loss of torch"),
        (nn.AdaptiveLogSoftmaxWithLoss, "multiclass", {}, "give an instance"),
    ],
)
def test_what_is_wrong_is_named(loss, kind, options, message):
    with pytest.raises(ValueError, match=message):
        losses(loss, kind, **options)


def test_weights_of_labels_need_a_loss_of_each_label():
    with pytest.raises(ValueError, match="class_weight needs a loss for each label"):
        losses(
            nn.MultiLabelSoftMarginLoss(),
            "multilabel-indicator",
            label_weight=np.ones((K, 2)),
        )


@pytest.mark.parametrize(("kind", "names"), list(_MODULES.items()))
def test_chance_is_the_loss_of_outputs_that_do_not_look(kind, names):
    rng = np.random.default_rng(0)
    standard = rng.normal(size=(20_000, 1))
    standard = (standard - standard.mean()) / standard.std()
    for name in names:
        guess = chance_loss(name, kind=kind, n_outputs=K)
        module = resolve_loss(name, kind=kind)
        target = standard if kind == "continuous" else TARGET[kind]
        outputs = torch.zeros(len(target), 1 if kind == "continuous" else K)
        measured = (
            module(
                outputs,
                torch.tensor(target).to(
                    torch.int64 if kind == "multiclass" else torch.float32
                ),
            )
            .mean()
            .item()
        )
        if kind == "continuous" and name != "squared_error":
            assert 0.5 * guess < measured < guess
        else:
            assert guess == pytest.approx(measured, rel=1e-5)
    assert chance_loss(nn.MSELoss(), kind=kind, n_outputs=K) is None


def test_it_pickles_and_moves_its_weights_along():
    module = resolve_loss(
        "log_loss",
        kind="multilabel-indicator",
        label_weight=np.ones((K, 2)),
    )
    again = pickle.loads(pickle.dumps(module))
    x, y = torch.tensor(OUTPUTS), torch.tensor(LABELS)
    assert torch.equal(again(x, y), module(x, y))
    assert module.to("meta").weight.is_meta


def test_log_loss_by_name_is_the_object_with_defaults():
    for kind in ("multiclass", "multilabel-indicator"):
        np.testing.assert_array_equal(losses(LogLoss(), kind), losses("log_loss", kind))
        chance = chance_loss("log_loss", kind=kind, n_outputs=K)
        assert chance_loss(LogLoss(0.2), kind=kind, n_outputs=K) == chance
    assert LogLoss(0.2).get_params() == {"label_smoothing": 0.2}
