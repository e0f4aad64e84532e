"""Transfer regimes, augmentation, heads, losses and views, as estimators have them."""

import numpy as np
import pytest
import torch
from estimator_cases import (
    Recorder,
    classifier,
    extractor,
    regressor,
    state_of,
    two_brightnesses,
)
from PIL import Image
from sklearn.base import clone
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV
from torch import nn

from sklearn_dl import ImageClassifier
from sklearn_dl._extraction import _pixels
from sklearn_dl.augmentation import resolve_augment, resolve_views
from sklearn_dl.backbones import load_backbone
from sklearn_dl.training import Head, HingeLoss, Optimizer, Schedule

TUNED = {"trainable": "all", "batch_size": 8}
# Images of this size enter the network as they are.
WHOLE = {"image_size": (32, 32)}


def moved(before, after):
    return {n for n in before if not torch.equal(before[n], after[n])}


class Snapshots(Recorder):
    """Keeps the network and the rates at the end of each epoch."""

    def initialize(self):
        self.states, self.groups = [], []
        return super().initialize()

    def on_epoch_end(self, net, **kwargs):
        super().on_epoch_end(net)
        state = net.module_.state_dict()
        self.states.append({name: value.clone() for name, value in state.items()})
        rows = [(g["name"], g["lr"]) for g in net.optimizer_.param_groups]
        self.groups.append(dict(rows))


# --------------------------------------------------------------- transfer regimes


def test_the_head_trains_alone_and_then_everything(data):
    seen = Snapshots()
    parameters = {**TUNED, "warmup_epochs": 2, "max_epochs": 4, "lr": 1e-2}
    model = classifier(**parameters, backbone_lr=1e-3, callbacks=[seen]).fit(*data)
    parts = [
        {name.split(".")[0] for name in moved(one, other)}
        for one, other in zip(seen.states, seen.states[1:], strict=False)
    ]
    assert parts == [{"head"}, {"backbone", "head"}, {"backbone", "head"}]
    assert seen.groups[0] == seen.groups[1] == {"head": 1e-2}
    assert seen.groups[2] == {"head": 1e-2, "backbone": 1e-3}
    assert model.history_["backbone_lr"].tolist() == [0.0, 0.0, 1e-3, 1e-3]


def test_the_course_recipe_is_expressed_exactly(data):
    """The head alone at 1e-3, then all at 1e-4 with a fresh optimiser."""
    X, y = data
    model = classifier(
        trainable="all",
        warmup_epochs=2,
        max_epochs=4,
        lr=1e-4,
        backbone_lr=1e-4,
        schedule=Schedule("constant", warmup_lr=1e-3),
        batch_size=24,  # one batch: no order of rows to reproduce
        optimizer__weight_decay=0.0,
        **WHOLE,
    ).fit(X, y)

    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = load_backbone("squeezenet1_1", None, image_size=(32, 32))
        linear = nn.Linear(backbone.n_features, 2)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        head = nn.Sequential(model.module_.head.scaling, linear)
    pixels = torch.from_numpy(X).permute(0, 3, 1, 2)
    pixels = backbone.preprocessing.normalize(pixels)
    target = torch.from_numpy((y == "light").astype("int64"))
    backbone.eval()  # squeezenet's dropout belongs to the layer that was cut off
    losses = []
    for rate, parameters in (
        (1e-3, [*head.parameters()]),
        (1e-4, [*head.parameters(), *backbone.parameters()]),
    ):
        optimizer = torch.optim.SGD(parameters, lr=rate, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(head(backbone(pixels)), target)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    np.testing.assert_allclose(model.history_["train_loss"], losses, rtol=1e-5)
    torch.testing.assert_close(
        model.module_.head.output.weight, linear.weight, rtol=1e-4, atol=1e-6
    )


def test_the_same_recipe_by_two_fits(data):
    one = classifier(
        trainable="all",
        warmup_epochs=2,
        max_epochs=4,
        lr=1e-4,
        backbone_lr=1e-4,
        schedule=Schedule("constant", warmup_lr=1e-3),
    ).fit(*data)
    two = classifier(max_epochs=2, lr=1e-3, warm_start=True).fit(*data)
    two.set_params(trainable="all", lr=1e-4, backbone_lr=1e-4).fit(*data)
    assert len(two.history_) == len(one.history_) == 4
    P, Q = one.predict_proba(data[0]), two.predict_proba(data[0])
    np.testing.assert_allclose(P, Q, atol=1e-6)


def test_warmup_without_augmentation_runs_the_frozen_backbone_once(data):
    class Count(Snapshots):
        def on_batch_begin(self, net, *, batch=None, training=False, **kwargs):
            if training:
                self.groups.append("features" in batch[0])

    seen = Count()
    parameters = {**TUNED, "batch_size": 24, "warmup_epochs": 2, "max_epochs": 3}
    classifier(**parameters, callbacks=[seen]).fit(*data)
    assert [g for g in seen.groups if isinstance(g, bool)] == [True, True, False]


def test_rates_fall_towards_the_input(data):
    seen = Snapshots()
    parameters = {**TUNED, "max_epochs": 1, "lr": 1e-2}
    model = classifier(**parameters, backbone_lr=(1e-5, 1e-3), callbacks=[seen])
    model.fit(*data)
    stages = list(model.module_.backbone.stages)
    rates = [seen.groups[0][f"backbone/{stage}"] for stage in stages]
    np.testing.assert_allclose(rates, [1e-5, 1e-4, 1e-3])
    assert seen.groups[0]["head"] == 1e-2


@pytest.mark.parametrize(
    ("parameters", "pattern"),
    [
        ({"warmup_epochs": 3, "max_epochs": 3}, r"warmup_epochs=3 must be below"),
        ({"backbone_lr": (1e-3,)}, r"backbone_lr=\(0.001,\) is not a rate"),
        ({"backbone_lr": (1e-3, 0)}, "pair of rates"),
        ({"augment": "flipp"}, "flip"),
        ({"augment": 3}, "augment"),
        ({"loss": "squared_error"}, "loss='squared_error' is not one of"),
        (
            {"loss": nn.CrossEntropyLoss(), "loss__label_smoothing": 0.1},
            "reaches into a LogLoss",
        ),
        ({"loss__label_smoothing": 1.0}, "label_smoothing"),
        ({"augment__mix": "mixdown"}, "mix"),
        ({"augment__mix_alpha": 0.0}, "mix_alpha"),
        ({"tta": 1}, "tta"),
        ({"tta": "five"}, "tta"),
        ({"schedule": "cosinus"}, "schedule"),
        ({"head": "mlp"}, "head"),
        ({"head": Head(dropout=1.0)}, "dropout"),
        ({"optimizer": Optimizer("adamm")}, "optimizer='adamm'"),
        ({"optimizer": Optimizer(l1=-1)}, "l1=-1"),
        ({"optimizer": Optimizer(max_grad_norm=0)}, "max_grad_norm=0"),
        ({"optimizer": Optimizer(options={"lr": 1})}, "belongs to parameters"),
        ({"class_weight": [{0: 1}]}, "class_weight"),
    ],
)
def test_a_wrong_recipe_is_named_and_leaves_nothing(parameters, pattern, data):
    model = classifier(**TUNED)
    with pytest.raises((ValueError, TypeError), match=pattern):
        model.set_params(**parameters).fit(*data)
    assert not hasattr(model, "_network")


# ------------------------------------------------------------------ head and losses


def test_a_head_of_layers_is_trained_and_reached_by_a_grid(data):
    search = GridSearchCV(
        classifier(layer="features.2", max_epochs=2),
        {"head__dropout": [0.0, 0.5], "head__hidden_layer_sizes": [8, (8, 4)]},
        cv=2,
    ).fit(*data)
    head = search.best_estimator_.module_.head
    assert head.linear1.out_features == 8
    assert isinstance(search.best_estimator_.head, Head)
    assert search.estimator.head is None  # nothing of the caller's was changed


def test_dropout_acts_in_training_and_not_in_prediction(data):
    X, y = data
    seen = Snapshots()
    plain = classifier(max_epochs=1).fit(X, y)
    model = classifier(max_epochs=1, head=Head(dropout=0.9), callbacks=[seen]).fit(X, y)
    head = model.module_.head
    assert not torch.equal(plain.module_.head.output.weight, head.output.weight)
    features = torch.from_numpy(extractor().fit_transform(X))
    outputs = head.output(head.scaling(features))
    expected = torch.softmax(outputs, 1).detach().numpy()
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-6)


def test_a_lsuv_head_starts_from_outputs_of_variance_one(data):
    X, y = data
    head = Head(16, init="lsuv")
    model = classifier(head=head, max_epochs=1, lr=1e-12, batch_size=24).fit(X, y)
    features = torch.from_numpy(extractor().fit_transform(X))
    layers = model.module_.head
    hidden = layers.linear1(layers.scaling(features))
    assert hidden.var(correction=0).item() == pytest.approx(1, 1e-3)
    assert layers(features).var(correction=0).item() == pytest.approx(1, 1e-3)


def test_hinge_gives_margins_and_no_probabilities(data):
    X, y = data
    model = classifier(loss="hinge", layer="features.2", max_epochs=10).fit(X, y)
    assert not hasattr(model, "predict_proba")
    margins = model.decision_function(X)
    assert margins.shape == (24,)
    np.testing.assert_array_equal(
        model.predict(X), np.where(margins > 0, "light", "dark")
    )
    assert not hasattr(classifier(), "decision_function")
    assert not hasattr(classifier(loss=HingeLoss()), "predict_proba")


def test_margins_of_several_classes(data):
    y = np.arange(24) % 3
    model = classifier(loss="hinge").fit(data[0], y)
    margins = model.decision_function(data[0])
    assert margins.shape == (24, 3)
    np.testing.assert_array_equal(model.predict(data[0]), margins.argmax(1))


def test_label_smoothing_is_torchs(data):
    ours = classifier(loss__label_smoothing=0.3).fit(*data)
    torchs = classifier(loss=nn.CrossEntropyLoss(label_smoothing=0.3)).fit(*data)
    plain = classifier().fit(*data)
    P = ours.predict_proba(data[0])
    np.testing.assert_allclose(P, torchs.predict_proba(data[0]), atol=1e-7)
    assert not np.allclose(P, plain.predict_proba(data[0]), atol=1e-4)


@pytest.mark.parametrize("loss", ["absolute_error", "huber", "epsilon_insensitive"])
def test_losses_of_a_regressor_differ(loss, data):
    y = np.arange(24.0) ** 2
    P = regressor(loss=loss).fit(data[0], y).predict(data[0])
    assert not np.allclose(P, regressor().fit(data[0], y).predict(data[0]), rtol=1e-4)


def indicators(n):
    y = np.zeros((n, 3), int)
    y[n // 2 :, 0] = 1  # what the brightness shows
    y[::2, 1] = 1
    y[0, 2] = 1  # rare
    return y


def test_labels_are_learned_each_by_itself(data):
    X, _ = data
    Y = indicators(24)
    model = classifier(layer="features.2", optimizer="adam", lr=1e-2, max_epochs=10)
    P = model.fit(X, Y).predict_proba(X)
    assert P.shape == (24, 3)
    assert ((P > 0) & (P < 1)).all()
    assert model.predict(X).dtype == int
    assert (model.predict(X) == (P > 0.5)).all()
    assert accuracy_score(Y[:, 0], model.predict(X)[:, 0]) > 0.9
    assert model.classes_.tolist() == [0, 1, 2]
    assert 0 <= model.score(X, Y) <= 1


@pytest.mark.parametrize("loss", ["log_loss", "hinge"])
@pytest.mark.parametrize("weights", ["balanced", {1: 20.0}, [{1: 1}, {1: 1}, {1: 30}]])
def test_weights_of_labels_lift_the_rare_one(loss, weights, data):
    X, _ = data
    Y = indicators(24)

    def scores(model):
        name = "decision_function" if loss == "hinge" else "predict_proba"
        return getattr(model.fit(X, Y), name)(X)[:, 2]

    plain = scores(classifier(loss=loss))
    weighted = scores(classifier(loss=loss, class_weight=weights))
    assert weighted.mean() > plain.mean() + 0.01


def test_labels_of_another_form_are_refused(data):
    X, _ = data
    model = classifier(max_epochs=1, warm_start=True).fit(X, indicators(24))
    with pytest.raises(ValueError, match="outputs"):
        model.fit(X, indicators(24)[:, :2])
    with pytest.raises(ValueError, match="3 labels"):
        classifier(max_epochs=1).fit(
            X, indicators(24), X_val=X[:4], y_val=indicators(4)[:, :2]
        )


# -------------------------------------------------------------------- augmentation


class Pixels(Recorder):
    """Keeps the batches that training and validation saw, in order of the rows."""

    def initialize(self):
        self.train, self.valid, self.extra = [], [], []
        return super().initialize()

    def on_batch_begin(self, net, *, batch=None, training=False, **kwargs):
        kept = self.train if training else self.valid
        kept.append(batch[0]["x"].clone() if "x" in batch[0] else None)
        if training:
            self.extra.append({k: v for k, v in batch[0].items() if k != "x"})


def seen_by(X, y, **parameters):
    seen = Pixels()
    options = {"max_epochs": 2, "batch_size": 24, "callbacks": [seen], **WHOLE}
    model = classifier(**{**options, **parameters}).fit(X, y, X_val=X, y_val=y)
    return seen, model


def test_only_training_rows_are_augmented_anew_in_each_epoch(data):
    X, y = data
    order = {"net_params": {"iterator_train__shuffle": False}}
    seen, model = seen_by(X, y, augment=["flip", "rotation"], trainable="all", **order)
    plain = torch.from_numpy(X).permute(0, 3, 1, 2)
    first, second = seen.train
    assert not torch.equal(first, plain)
    assert not torch.equal(first, second)
    for batch in seen.valid:
        assert torch.equal(batch, plain)
    # The draws are those of (seed, epoch, row) and of nothing else.
    augmenter, _ = resolve_augment(["flip", "rotation"], model.preprocessing_)
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    for epoch, batch in enumerate(seen.train, start=1):
        rows = [
            augmenter(_image(X[i]), np.random.default_rng((seed, epoch, 0, i)))
            for i in range(24)
        ]
        assert torch.equal(batch, torch.stack(rows))


def _image(array):
    return Image.fromarray(array)


def test_augmentation_of_a_frozen_backbone_takes_pixels(data):
    seen, _ = seen_by(*data, augment="light")
    assert seen.train[0] is not None
    assert seen.valid[0] is None  # validation rows are features: they never change


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "both"])
def test_mixed_images_have_the_losses_of_both(mix, data):
    X, y = data
    weight = np.linspace(0.5, 1.5, 24)
    seen, losses = Pixels(), []

    class Losses(Recorder):
        def on_batch_end(self, net, *, batch=None, training=False, loss=None, **kwargs):
            if not training:
                return
            inputs, target = batch
            losses.append((inputs, target, kwargs["y_pred"].detach(), loss.item()))

    model = classifier(
        augment__mix=mix,
        augment__mix_alpha=1.0,
        batch_size=8,
        max_epochs=2,
        callbacks=[seen, Losses()],
    )
    model.fit(X, y, sample_weight=weight)
    shares = [inputs["mix_share"][0].item() for inputs, *_ in losses]
    assert len({round(share, 6) for share in shares}) > 3
    for inputs, target, outputs, loss in losses:
        logs = torch.log_softmax(outputs, 1)
        share = inputs["mix_share"]
        one = share * inputs["sample_weight"] * -logs[range(8), target]
        other = (
            (1 - share) * inputs["mix_weight"] * -logs[range(8), inputs["mix_target"]]
        )
        assert loss == pytest.approx((one + other).mean().item(), rel=1e-5)


def test_the_targets_of_a_regressor_are_mixed(data):
    seen = Recorder()
    y = np.where(np.arange(24) < 12, 0.0, 1.0)
    regressor(
        augment__mix="mixup", augment__mix_alpha=1.0, max_epochs=2, callbacks=[seen]
    ).fit(data[0], y)
    values = np.array(seen.train_targets).ravel()
    assert ((values > -1) & (values < 1)).any()  # between the scaled targets
    assert (np.abs(values) < 1 + 1e-9).all()


@pytest.mark.parametrize("augment", ["standard", "trivial"])
def test_workers_and_threads_change_nothing(augment, data, image_files, monkeypatch):
    fits = []
    for workers, threads in ((0, 1), (0, 3), (1, 1), (2, 2)):
        monkeypatch.setattr(_pixels, "decoding_threads", lambda n=threads: n)
        model = classifier(
            augment=augment,
            augment__mix="both",
            head=Head(dropout=0.3),
            max_epochs=2,
            batch_size=7,
            net_params={"iterator_train__num_workers": workers},
        )
        fits.append(state_of(model.fit(image_files, data[1])))
    assert [moved(fits[0], other) for other in fits[1:]] == [set()] * 3
    other = classifier(
        augment=augment, augment__mix="both", max_epochs=2, batch_size=7, random_state=1
    )
    assert moved(fits[0], state_of(other.set_params(head__dropout=0.3).fit(*data)))


def test_workers_that_outlive_an_epoch_are_refused(data):
    workers = {
        "iterator_train__num_workers": 1,
        "iterator_train__persistent_workers": True,
    }
    with pytest.raises(ValueError, match="repeat the first epoch's rows"):
        classifier(augment="light", net_params=workers).fit(*data)


def test_grey_rows_are_augmented_and_mixed(small_rows):
    model = classifier(
        augment="strong", augment__mix="both", image_size=32, max_epochs=2
    )
    assert model.fit(*small_rows).predict(small_rows[0]).shape == (40,)


# ------------------------------------------------------------- test-time augmentation


@pytest.mark.parametrize("tta", ["flip", "five_crop", "ten_crop", 3])
def test_predictions_are_the_mean_over_the_views(tta, data):
    X, y = data
    model = classifier(max_epochs=2, image_size=32, preprocessing="IMAGENET1K_V1")
    model.fit(X, y)
    views = resolve_views(tta, model.preprocessing_, model.augment)
    batch = torch.stack([views(_image(image)) for image in X])
    with torch.no_grad():
        pixels = model.preprocessing_.normalize(batch.flatten(0, 1))
        outputs = model.module_.eval()(pixels).unflatten(0, batch.shape[:2])
    expected = outputs.double().softmax(-1).mean(1).numpy()
    P = model.set_params(tta=tta).predict_proba(X)
    np.testing.assert_allclose(P, expected, atol=1e-5)
    np.testing.assert_allclose(model.predict_proba(X[5:6]), P[5:6], atol=1e-5)
    assert (model.predict(X) == model.classes_[P.argmax(1)]).all()


def test_a_flipped_image_is_predicted_alike(data):
    X, y = data
    model = classifier(tta="flip", max_epochs=2, **WHOLE).fit(X, y)
    P, Q = model.predict_proba(X), model.predict_proba(X[:, :, ::-1])
    np.testing.assert_allclose(P, Q, atol=1e-6)
    plain = model.set_params(tta=None)
    assert not np.allclose(plain.predict_proba(X), P, atol=1e-7)


def test_views_of_a_function_and_of_other_estimators(data):
    X, _ = data

    def turned(image):
        return [image, image.rotate(180)]

    features = extractor(tta=turned, **WHOLE).fit(X)
    plain = extractor(**WHOLE).fit(X)
    expected = (plain.transform(X) + plain.transform(X[:, ::-1, ::-1])) / 2
    np.testing.assert_allclose(features.transform(X), expected, atol=1e-5)
    targets = np.arange(24.0)
    fit = regressor(tta="flip", **WHOLE).fit(X, targets)
    one = fit.set_params(tta=None)
    mean = (one.predict(X) + one.predict(X[:, :, ::-1])) / 2
    np.testing.assert_allclose(fit.set_params(tta="flip").predict(X), mean, rtol=1e-4)


# ---------------------------------------------------------------------- optimisation


def test_gradients_are_clipped_and_penalised(data):
    class Norms(Recorder):
        def initialize(self):
            self.raw, self.steps = [], []
            return super().initialize()

        def on_grad_computed(self, net, named_parameters, **kwargs):
            grads = [p.grad for _, p in named_parameters if p.grad is not None]
            self.raw.append(torch.cat([g.flatten() for g in grads]).norm().item())

        def on_batch_end(self, net, *, training=False, **kwargs):
            grads = [p.grad for p in net.module_.parameters() if p.grad is not None]
            self.steps.append(torch.cat([g.flatten() for g in grads]).norm().item())

    seen = Norms()
    limit = Optimizer("sgd", max_grad_norm=1e-3)
    classifier(optimizer=limit, callbacks=[seen]).fit(*data)
    assert min(seen.raw) > 1e-3
    np.testing.assert_allclose(seen.steps, 1e-3, rtol=1e-2)


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_the_l1_penalty_is_a_step_towards_zero(strength, data):
    X, y = data
    optimizer = Optimizer("sgd", l1=strength)
    seen = Snapshots()
    parameters = {"batch_size": 24, "optimizer__weight_decay": 0.0, "lr": 1e-3}
    model = classifier(
        optimizer=optimizer, max_epochs=2, callbacks=[seen], **parameters
    )
    model.fit(X, y)
    features = torch.from_numpy(extractor().fit_transform(X))
    features = model.module_.head.scaling(features)
    target = torch.from_numpy((y == "light").astype("int64"))
    weight = seen.states[0]["head.output.weight"].requires_grad_()
    bias = seen.states[0]["head.output.bias"].requires_grad_()
    loss = nn.functional.cross_entropy(features @ weight.T + bias, target)
    loss.backward()
    expected = weight - 1e-3 * (weight.grad + strength * weight.sign())
    torch.testing.assert_close(seen.states[1]["head.output.weight"], expected.detach())
    torch.testing.assert_close(
        seen.states[1]["head.output.bias"], (bias - 1e-3 * bias.grad).detach()
    )


def test_parameters_reach_objects_that_are_not_there_yet():
    model = ImageClassifier(optimizer="adam")
    model.set_params(optimizer__l1=0.1, head__dropout=0.2, schedule__gamma=0.5)
    assert model.optimizer.get_params()["method"] == "adam"
    assert (model.optimizer.l1, model.head.dropout) == (0.1, 0.2)
    assert (model.schedule.kind, model.schedule.gamma) == ("constant", 0.5)
    copy = clone(model).set_params(head__dropout=0.5)
    assert model.head.dropout == 0.2
    assert copy.head.dropout == 0.5
    with pytest.raises(ValueError, match="Invalid parameter 'drop'"):
        model.set_params(head__drop=0.5)


# ------------------------------------------------------------------------ partial_fit


def test_partial_fits_go_on(data):
    X, y = data
    model = classifier(layer="features.2", optimizer="adam", lr=1e-2)
    model.partial_fit(X[:6], y[:6], classes=["dark", "light"])
    assert model.predict_proba(X).shape == (24, 2)
    for _ in range(19):
        model.partial_fit(X, y)
    assert model.n_iter_ == len(model.history_) == 20
    assert model.score(X, y) > 0.9
    with pytest.raises(ValueError, match=r"doesn't know.*'grey'"):
        model.partial_fit(X[:2], ["dark", "grey"])
    assert model.score(X, y) > 0.9  # and nothing was lost


def test_partial_fits_over_all_rows_are_the_epochs_of_a_fit(data):
    whole = classifier(max_epochs=3).fit(*data)
    parts = classifier(max_epochs=1, warm_start=True).fit(*data)
    for _ in range(2):
        parts.partial_fit(*data)
    assert moved(state_of(whole), state_of(parts)) == set()


def test_partial_fits_of_a_regressor_keep_the_scale(data):
    X, y = data[0], np.arange(24.0)
    model = regressor().partial_fit(X[:12], y[:12])
    model.partial_fit(X[12:], y[12:])
    assert model.n_iter_ == 2
    with pytest.raises(ValueError, match="2 targets"):
        model.partial_fit(X, np.c_[y, y])
    with pytest.raises(ValueError, match="early_stopping"):
        regressor(early_stopping=True).partial_fit(X, y)


# --------------------------------------------------------------------------- history


def test_the_history_has_losses_scores_and_rates(data):
    X, _ = data
    y = np.arange(24) % 6
    model = classifier(max_epochs=2, schedule="exponential", lr=0.1)
    frame = model.fit(X, y, X_val=X, y_val=y).history_
    assert {
        "epoch", "dur", "lr", "train_loss", "train_top1", "train_top5",
        "valid_loss", "valid_score", "valid_top1", "valid_top5",
    } == set(frame)  # fmt: skip
    np.testing.assert_allclose(frame["lr"], [0.1, 0.09])
    P = model.predict_proba(X)
    top5 = np.mean([y[i] in np.argsort(P[i])[-5:] for i in range(24)])
    assert frame["valid_top5"].iloc[-1] == pytest.approx(top5)
    assert frame["valid_top1"].iloc[-1] == pytest.approx(model.score(X, y))
    five = classifier(max_epochs=1).fit(X, y % 5, X_val=X, y_val=y % 5)
    assert "valid_top5" not in five.history_


def test_a_search_over_the_whole_recipe(data):
    X, y = two_brightnesses(12)
    grid = [
        {"trainable": ["head", 1], "augment": [None, "light"], "lr": [1e-3]},
        {"augment__mix": ["mixup"], "head__dropout": [0.5], "warmup_epochs": [0, 1]},
    ]
    model = classifier(trainable="all", max_epochs=2, batch_size=6)
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, y)
    assert len(search.cv_results_["params"]) == 6
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


# ------------------------------------------------------- modes and stopping, together


@pytest.mark.parametrize("augment", [None, "light"])
def test_norms_of_the_head_predict_with_running_statistics(augment, data):
    X, y = data
    head = Head(8, normalization="batch")
    model = classifier(head=head, augment=augment, max_epochs=3).fit(X, y)
    norm = model.module_.head.norm1
    assert not torch.equal(norm.running_mean, torch.zeros(8))  # training moved it
    before = norm.running_mean.clone()
    P = model.predict_proba(X)
    assert torch.equal(norm.running_mean, before)  # prediction did not
    # An image alone has no batch to be normalised by.
    np.testing.assert_allclose(model.predict_proba(X[:1]), P[:1], atol=1e-6)
    features = torch.from_numpy(extractor().fit_transform(X))
    hidden = model.module_.head.linear1(model.module_.head.scaling(features))
    hidden = (hidden - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    hidden = (hidden * norm.weight + norm.bias).relu()
    outputs = model.module_.head.output(hidden)
    np.testing.assert_allclose(P, outputs.softmax(1).detach(), atol=1e-5)


def test_early_stopping_puts_back_an_epoch_of_the_warmup_whole(data):
    """The best epoch may come before the backbone is unfrozen."""
    seen = Snapshots()
    model = classifier(
        trainable="all",
        warmup_epochs=2,
        max_epochs=4,
        lr=1e-3,
        backbone_lr=1.0,  # what follows is ruin
        early_stopping=True,
        callbacks=[seen],
    )
    with np.errstate(all="ignore"):
        model.fit(*data)
    assert model.best_epoch_ <= 2
    assert moved(seen.states[model.best_epoch_ - 1], state_of(model)) == set()


def test_the_loss_and_the_score_choose_different_epochs(data):
    X, _ = data
    y = np.random.default_rng(3).integers(0, 2, 24)  # nothing that images show
    frames, chosen = [], []
    for scoring in (None, "accuracy"):
        model = classifier(
            layer="features.2",
            early_stopping=True,
            n_iter_no_change=20,
            scoring=scoring,
            max_epochs=20,
        )
        model.fit(X, y, X_val=X[::-1], y_val=y)
        frames.append(model.history_)
        chosen.append(model.best_epoch_)
    np.testing.assert_allclose(frames[0]["valid_loss"], frames[1]["valid_loss"])
    assert chosen[0] == frames[0]["valid_loss"].idxmin() + 1
    assert chosen[1] == frames[1]["valid_score"].idxmax() + 1
    assert chosen[0] != chosen[1]


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "float64"])
def test_the_recipe_in_every_precision(precision, data):
    parameters = {
        "trainable": 1,
        "warmup_epochs": 1,
        "augment": "standard",
        "augment__mix": "both",
        "loss__label_smoothing": 0.1,
        "head": Head(8, dropout=0.2),
        "optimizer": Optimizer("adamw", max_grad_norm=1.0, l1=1e-5),
        "schedule": "cosine",
        "tta": "flip",
        "random_state": 1,  # of 0 to 4, 0 has a weight whose L1 term flips its sign
    }
    single = classifier(**parameters).fit(*data)
    model = classifier(precision=precision, **parameters).fit(*data)
    P, Q = (m.predict_proba(data[0]) for m in (single, model))
    assert not np.array_equal(P, Q)
    np.testing.assert_allclose(Q, P, atol=1e-6 if precision == "float64" else 0.02)
