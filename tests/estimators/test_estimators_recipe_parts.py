"""Single parts of the recipe inside an estimator, each against a reference by hand."""

import copy
import functools
import pickle
import signal

import numpy as np
import pytest
import torch
from estimator_cases import Recorder, classifier, extractor, regressor, state_of
from sklearn.base import clone
from skorch.callbacks import Callback
from torch import nn

from sklearn_dl._extraction import _pixels
from sklearn_dl.training import (
    SAM,
    Checkpoint,
    EpsilonInsensitiveLoss,
    Head,
    Optimizer,
    Schedule,
    StoppingRules,
    VirtualAdversarialLoss,
    WeightAveraging,
)


class Steps(Callback):
    """Keeps the head's weights and gradients of each training step."""

    def initialize(self):
        self.before, self.after, self.grads = [], [], []
        return self

    def on_batch_begin(self, net, *, training=False, **kwargs):
        if training:
            self.before.append(_head(net))

    def on_batch_end(self, net, *, training=False, **kwargs):
        if training:
            self.after.append(_head(net))
            self.grads.append([p.grad.clone() for p in net.module_.head.parameters()])


def _head(net):
    return [p.detach().clone() for p in net.module_.head.parameters()]


def stepped(data, **parameters):
    seen = Steps()
    options = {"max_epochs": 2, "batch_size": 24, "callbacks": [seen]}
    model = classifier(**{**options, **parameters}).fit(*data)
    return seen, model


# --------------------------------------------------------------------- the step itself


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_weight_decay_is_a_gradient_of_the_weights_alone(decay, data):
    """Torch's weight_decay is the 2 * lambda of a penalty lambda * ||W||^2."""
    seen, _ = stepped(data, optimizer="sgd", lr=0.1, optimizer__weight_decay=decay)
    for (w, b), (w1, b1), (gw, gb) in zip(
        seen.before, seen.after, seen.grads, strict=True
    ):
        torch.testing.assert_close(w1, w - 0.1 * (gw + decay * w))
        torch.testing.assert_close(b1, b - 0.1 * gb)


def test_values_of_the_gradient_are_clipped_before_its_norm(data):
    limit = Optimizer("sgd", max_grad_value=1e-3)
    seen, _ = stepped(data, optimizer=limit)
    largest = [max(g.abs().max().item() for g in grads) for grads in seen.grads]
    np.testing.assert_allclose(largest, 1e-3, rtol=1e-6)
    both, _ = stepped(
        data, optimizer=Optimizer("sgd", max_grad_value=1e-3, max_grad_norm=2e-3)
    )
    for clipped, grads in zip(seen.grads[:1], both.grads[:1], strict=True):
        norm = torch.cat([g.flatten() for g in clipped]).norm()
        assert norm > 2e-3
        for one, other in zip(clipped, grads, strict=True):
            torch.testing.assert_close(other, one * 2e-3 / norm, rtol=1e-3, atol=0)


def test_sam_takes_the_gradient_uphill(data):
    X, y = data
    seen, model = stepped(
        data,
        optimizer=Optimizer(SAM, options={"base": "sgd", "rho": 0.5}),
        lr=0.1,
        optimizer__weight_decay=0.0,
    )
    features = torch.from_numpy(extractor(batch_size=24).fit_transform(X))
    features = model.module_.head.scaling(features)
    target = torch.from_numpy((y == "light").astype("int64"))

    def gradient(w, b):
        w, b = w.clone().requires_grad_(), b.clone().requires_grad_()
        loss = nn.functional.cross_entropy(features @ w.T + b, target)
        return torch.autograd.grad(loss, [w, b])

    for (w, b), (w1, b1) in zip(seen.before, seen.after, strict=True):
        gw, gb = gradient(w, b)
        norm = torch.cat([gw.flatten(), gb]).norm()
        up = gradient(w + 0.5 * gw / norm, b + 0.5 * gb / norm)
        torch.testing.assert_close(w1, w - 0.1 * up[0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(b1, b - 0.1 * up[1], rtol=1e-4, atol=1e-6)


def test_averaged_weights_are_what_predicts(data):
    average, seen = WeightAveraging(0.5, warmup=False), Steps()
    model = classifier(max_epochs=4, batch_size=24, callbacks=[seen, average])
    model.fit(*data)
    expected = seen.after[0][0]
    for weight, _ in seen.after[1:]:
        expected = 0.5 * expected + 0.5 * weight
    torch.testing.assert_close(model.module_.head.output.weight.detach(), expected)
    assert not torch.allclose(expected, seen.after[-1][0])


def test_a_term_of_a_callback_is_part_of_the_loss(data):
    class Pull(Callback):
        """Adds a term whose gradient is 1 for every weight."""

        def loss_term(self, net, inputs, y_pred):
            return net.module_.head.output.weight.sum()

    plain, _ = stepped(data, optimizer="sgd", lr=0.1, optimizer__weight_decay=0.0)
    seen = Steps()
    stepped(
        data,
        optimizer="sgd",
        lr=0.1,
        optimizer__weight_decay=0.0,
        callbacks=[Pull(), seen],
    )
    torch.testing.assert_close(
        seen.after[0][0], plain.after[0][0] - 0.1, rtol=1e-4, atol=1e-6
    )
    term = stepped(data, callbacks=[VirtualAdversarialLoss()])[1]
    assert not torch.equal(
        term.module_.head.output.weight, stepped(data)[1].module_.head.output.weight
    )


def test_float16_scales_a_loss_whose_gradient_would_vanish(data):
    """A loss of 1e-7 has gradients below the smallest float16."""

    class Tiny(nn.CrossEntropyLoss):
        def forward(self, outputs, target):
            return 1e-7 * super().forward(outputs, target)

    X, y = data
    moved = []
    for precision in ("float32", "float16"):
        model = classifier(
            loss=Tiny(), trainable="all", precision=precision, optimizer="adam", lr=1e-3
        )
        before = clone(model).set_params(lr=1e-12, backbone_lr=1e-12).fit(X, y)
        after = model.set_params(backbone_lr=1e-3).fit(X, y)
        first = next(n for n in state_of(after) if n.endswith("0.weight"))
        moved.append((state_of(after)[first] - state_of(before)[first]).abs().mean())
    assert moved[1] > 0.1 * moved[0] > 0


def test_a_stream_in_float16_finds_its_scale(data):
    class Huge(nn.CrossEntropyLoss):
        def forward(self, outputs, target):
            return 1e5 * super().forward(outputs, target)

    model = classifier(loss=Huge(), precision="float16", batch_size=24, lr=1e-8)
    weights = []
    for _ in range(25):
        model.partial_fit(*data)
        weights.append(state_of(model)["head.output.weight"])
    assert not torch.equal(weights[0], weights[-1])


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [
        ("adamw", 1e-3),
        (torch.optim.SGD, 1e-2),
        (torch.optim.Adagrad, 1e-2),
        (torch.optim.NAdam, 1e-3),
        (SAM, 1e-2),
        (functools.partial(SAM, base="adamw"), 1e-3),
        (Optimizer(SAM, options={"base": "adam"}), 1e-3),
        (Optimizer("sgd"), 1e-2),
    ],
)
def test_the_rate_suits_the_optimiser(optimizer, rate, data):
    model = classifier(optimizer=optimizer, max_epochs=1).fit(*data)
    assert model.history_["lr"].tolist() == [rate]


def test_one_cycle_of_a_single_step_still_steps(data):
    cycle = classifier(schedule="one_cycle", batch_size=24, max_epochs=1, lr=0.1)
    assert cycle.fit(*data).history_["lr"].tolist() == [0.1]


def test_streams_have_constant_rates(data):
    model = classifier(schedule="cosine", lr=0.1)
    for _ in range(3):
        model.partial_fit(*data)
    assert model.history_["lr"].tolist() == [0.1] * 3


# ----------------------------------------------------------------- labels and weights


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixed_labels_have_the_weighted_losses_of_both(mix, data):
    X, _ = data
    Y = (np.arange(72).reshape(24, 3) % 5 < 2).astype(int)
    weight = np.linspace(0.5, 1.5, 24)
    rows = []

    class Losses(Recorder):
        def on_batch_end(self, net, *, batch=None, training=False, loss=None, **kwargs):
            if training:
                rows.append((*batch, kwargs["y_pred"].detach(), loss.item()))

    model = classifier(
        augment__mix=mix,
        augment__mix_alpha=1.0,
        class_weight={0: 1.0, 1: 7.0},
        loss__label_smoothing=0.2,
        batch_size=8,
        callbacks=[Losses()],
    )
    model.fit(X, Y, sample_weight=weight)
    for inputs, target, outputs, loss in rows:

        def cost(labels, z=outputs):
            smoothed = 0.8 * labels + 0.1
            cross = nn.functional.binary_cross_entropy_with_logits(
                z, smoothed.to(z), reduction="none"
            )
            return (cross * (1 + 6 * labels)).mean(1)

        share = inputs["mix_share"]
        expected = share * inputs["sample_weight"] * cost(target)
        other = (1 - share) * inputs["mix_weight"] * cost(inputs["mix_target"])
        assert loss == pytest.approx((expected + other).mean().item(), rel=1e-5)


def test_a_warm_start_takes_the_weights_of_labels_it_is_given(data):
    X, _ = data
    Y = (np.arange(48).reshape(24, 2) % 3 == 0).astype(int)
    model = classifier(class_weight={1: 20.0}, warm_start=True).fit(X, Y)
    other = classifier(warm_start=True).fit(X, Y)
    model.module_.load_state_dict(other.module_.state_dict())
    model._net.optimizer_.state.clear()
    other._net.optimizer_.state.clear()
    model.set_params(class_weight=None).fit(X, Y)
    other.fit(X, Y)
    np.testing.assert_allclose(model.predict_proba(X), other.predict_proba(X))
    with pytest.raises(ValueError, match="for 0 and 1"):
        classifier(class_weight={2: 9.0}).fit(X, Y)


def test_a_weighted_loss_of_torch_in_float64(data):
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))
    P = classifier(loss=loss, precision="float64").fit(*data).predict_proba(data[0])
    Q = classifier(loss=loss).fit(*data).predict_proba(data[0])
    np.testing.assert_allclose(P, Q, atol=1e-5)


def test_a_heavy_label_is_no_divergence(data, recwarn):
    Y = np.stack([np.arange(24) % 2, np.arange(24) < 3], axis=1).astype(int)
    classifier(class_weight={1: 50.0}, lr=1e-5, max_epochs=1).fit(data[0], Y)
    assert [str(w.message) for w in recwarn if "diverged" in str(w.message)] == []


def test_a_diverging_regressor_with_validation_rows_warns(data):
    X, y = data[0], np.arange(24.0)
    with pytest.warns(UserWarning, match="Training diverged"):
        model = regressor(lr=1e6, max_epochs=30).fit(X, y, X_val=X, y_val=y)
    assert np.isnan(model.history_["valid_score"].iloc[-1])


# ---------------------------------------------------------------- heads on sorted rows


def test_what_a_head_takes_from_data_is_of_all_classes(data):
    """Rows sorted by class are the rule: a folder is read class by class."""
    X, y = np.repeat(data[0], 25, axis=0), np.repeat(data[1], 25)
    assert (y[:256] == "dark").all()  # as many rows as are looked at
    features = extractor().fit_transform(X)
    model = classifier(augment="flip", max_epochs=1).fit(X, y)
    scaling = model.module_.head.scaling
    mean = features.mean(0)
    off = np.linalg.norm(scaling.mean.numpy() - mean)
    dark = np.linalg.norm(features[:256].mean(0) - mean)
    assert off < 0.3 * dark


# ------------------------------------------------------------------------- checkpoints


def identity(step, n_steps):
    return 1.0


def tenth(step, n_steps, share=0.1):
    return share


def constant(share):
    return lambda step, n_steps: share


@pytest.mark.parametrize(
    "pair",
    [
        [nn.CrossEntropyLoss(weight=torch.tensor([1.0, w])) for w in (1.0, 50.0)],
        [nn.CrossEntropyLoss(label_smoothing=a) for a in (0.1, 0.5)],
        [EpsilonInsensitiveLoss(e) for e in (0.5, 0.9)],
    ],
    ids=["weights", "settings", "ours"],
)
def test_fits_with_other_losses_are_other_runs(pair, data, tmp_path):
    make, y = (classifier, data[1])
    if isinstance(pair[0], EpsilonInsensitiveLoss):
        make, y = regressor, np.arange(24.0)
    _check_two_runs(make, [{"loss": loss} for loss in pair], data[0], y, tmp_path)


@pytest.mark.parametrize(
    "pair",
    [
        (identity, tenth),
        (constant(1.0), constant(0.001)),
        (functools.partial(tenth, share=0.5), functools.partial(tenth, share=0.6)),
        (lambda step, n: 1.0, lambda step, n: 0.001),
        (Schedule("step", step_size=1), Schedule("step", step_size=2)),
    ],
    ids=["functions", "closures", "partials", "lambdas", "objects"],
)
def test_fits_with_other_schedules_are_other_runs(pair, data, tmp_path):
    _check_two_runs(classifier, [{"schedule": f} for f in pair], *data, tmp_path)


def _check_two_runs(make, parameters, X, y, folder):
    for chosen in parameters:
        kept = Checkpoint(folder, keep=True)
        again = make(**chosen, callbacks=[kept]).fit(X, y)
        alone = make(**chosen).fit(X, y)
        assert torch.equal(
            again.module_.head.output.weight, alone.module_.head.output.weight
        )
        # The same run, of an equal but other object, is found again.
        same = clone(again).set_params(callbacks=[Checkpoint(folder, keep=True)])
        same.fit(X, y)
        assert same.callbacks[0].resumed_epoch_ == 3
    assert len(list(folder.iterdir())) == 2


# ------------------------------------------------------------------ copies and signals


def test_the_whole_recipe_is_copied(data):
    X, y = data
    model = classifier(
        trainable="all",
        warmup_epochs=1,
        head=Head((8,), dropout=0.2, normalization="batch"),
        optimizer=Optimizer(SAM, max_grad_norm=1.0, l1=1e-5),
        schedule=Schedule("cosine", warmup_steps=0.2),
        augment="standard",
        augment__mix="both",
        loss__label_smoothing=0.1,
        tta="flip",
        callbacks=[WeightAveraging(), VirtualAdversarialLoss()],
    )
    P = model.fit(X, y).predict_proba(X)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.predict_proba(X), P)
    again = clone(model)
    assert not hasattr(again, "_network")
    np.testing.assert_array_equal(again.fit(X, y).predict_proba(X), P)


def test_ctrl_c_through_a_handler_of_the_users_reaches_the_caller(data):
    class CtrlC(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                signal.raise_signal(signal.SIGINT)

    def handler(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    try:
        model = classifier(max_epochs=5, callbacks=[CtrlC()])
        with pytest.raises(KeyboardInterrupt):
            model.fit(*data)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert model.n_iter_ == 2
    assert model.predict(data[0]).shape == (24,)


# --------------------------------------------------------------- what users get wrong


def test_a_warm_start_sees_what_changed_inside_the_head(data):
    model = classifier(head=Head(), warm_start=True).fit(*data)
    model.set_params(head__hidden_layer_sizes=(8,))
    with pytest.raises(ValueError, match="head changed since"):
        model.fit(*data)


@pytest.mark.parametrize(
    ("make", "parameters", "pattern"),
    [
        (classifier, {"loss": nn.NLLLoss()}, "wants logarithms of probabilities"),
        (classifier, {"loss": nn.MSELoss()}, "is not for multiclass"),
        (regressor, {"loss": nn.CrossEntropyLoss()}, "is not for continuous"),
        (regressor, {"loss": "mse"}, "loss='mse' is not one of"),
        (classifier, {"net_params": {"module__x": 1}}, "set backbone"),
        (classifier, {"net_params": {"dataset": 1}}, "set X and y in fit"),
        (classifier, {"optimizer": Optimizer(Optimizer)}, "optimizer=<class"),
        (classifier, {"backbone_lr": (True, 1.0)}, "pair of rates"),
    ],
)
def test_mistakes_are_named_before_images_are_read(
    make, parameters, pattern, data, monkeypatch
):
    X, y = data
    monkeypatch.setattr(_pixels.PixelReader, "read", None)
    monkeypatch.setattr(_pixels.PixelReader, "batches", None)
    with pytest.raises(ValueError, match=pattern):
        make(**parameters).fit(X, np.arange(24.0) if make is regressor else y)


def test_a_score_that_is_never_a_number_is_said(data):
    X, y = data
    model = classifier(early_stopping=True, scoring="roc_auc", n_iter_no_change=2)
    with pytest.warns(UserWarning, match="valid_score was never a number"):
        model.fit(X, y, X_val=X[:3], y_val=y[:3])
    assert not hasattr(model, "best_epoch_")


def test_a_column_of_targets_warns_once(data):
    with pytest.warns(UserWarning, match="column-vector") as caught:
        classifier(max_epochs=1).fit(data[0], data[1][:, None])
    assert len([w for w in caught if "column-vector" in str(w.message)]) == 1


def test_a_fit_that_ends_in_its_first_epoch_has_a_history(data):
    model = classifier(callbacks=[StoppingRules(max_steps=1)], batch_size=8).fit(*data)
    assert model.n_iter_ == len(model.history_["train_loss"]) == 0
    assert model.predict(data[0]).shape == (24,)
