"""What training changes, what it leaves alone, and that it is what it says."""

import copy

import numpy as np
import pytest
import torch
from estimator_cases import (
    EASY,
    Recorder,
    classifier,
    extractor,
    regressor,
    state_of,
    two_brightnesses,
)
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, EpochScoring
from torch import nn

RESNET = {"backbone": "resnet18", "max_epochs": 1, "lr": 0.1, "backbone_lr": 0.1}


class Before(Callback):
    """Keeps the tensors as they were before the first step."""

    def on_train_begin(self, net, **kwargs):
        self.state = copy.deepcopy(net.module_.state_dict())


def _moved(model, before):
    """Return the names of the tensors that training changed."""
    after = model.module_.state_dict()
    assert after.keys() == before.keys()
    return {name for name in after if not torch.equal(after[name], before[name])}


def _parameters(model):
    return {name for name, _ in model.module_.named_parameters()}


@pytest.mark.parametrize(
    ("trainable", "stages"),
    [
        ("head", []),
        (0, []),
        (1, ["layer4"]),
        (2, ["layer3", "layer4"]),
        ("layer2", ["layer2"]),
        (["layer1", "layer4"], ["layer1", "layer4"]),
        ("all", ["layer1", "layer2", "layer3", "layer4"]),
    ],
)
@pytest.mark.parametrize("pretrained", [True, False])
def test_only_what_is_trainable_moves(
    trainable, stages, pretrained, pretrained_file, data
):
    before = Before()
    model = classifier(
        **RESNET,
        weights=pretrained_file if pretrained else None,
        trainable=trainable,
        callbacks=[before],
    ).fit(data[0][:20], data[1][:20])  # 12 and 8: the intercept moves too
    moved = _moved(model, before.state)
    named = model.module_.backbone.stages
    # layer1 is the first stage: the stem belongs to it
    chosen = {f"backbone.module.{name}" for stage in stages for name in named[stage]}
    chosen |= {"head.output.weight", "head.output.bias"}
    assert moved & _parameters(model) == chosen
    statistics = {name for name in moved if "running" in name or "tracked" in name}
    if pretrained:
        assert statistics == set()
    else:
        owners = {name.rpartition(".")[0] for name in chosen}
        assert {name.rpartition(".")[0] for name in statistics} <= owners
        assert bool(statistics) == bool(stages)


def test_loaded_weights_are_those_of_the_file(pretrained_file, data):
    before = Before()
    classifier(**RESNET, weights=pretrained_file, callbacks=[before]).fit(*data)
    stored = torch.load(pretrained_file, weights_only=True)
    for name, tensor in stored.items():
        if not name.startswith("fc."):
            assert torch.equal(before.state[f"backbone.module.{name}"], tensor), name


@pytest.mark.parametrize("freeze", [True, False])
def test_batch_norm_statistics_as_asked(freeze, pretrained_file, data):
    before = Before()
    model = classifier(
        **RESNET,
        weights=pretrained_file if not freeze else None,
        trainable="all",
        trainable__freeze_batch_norm=freeze,
        callbacks=[before],
    ).fit(*data)
    moved = _moved(model, before.state)
    assert any("running" in name for name in moved) is not freeze


# ------------------------------------------------------- the same by hand in torch


def _by_hand(features, target, *, epochs, batch_size, seed, lr=1e-2, decay=1e-4):
    """Train a head in plain torch, from the seed the estimator draws."""
    seed = int(np.random.RandomState(seed).randint(2**31 - 1))
    head = nn.Linear(features.shape[1], int(target.max()) + 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.SGD(
        [
            {"params": [head.weight], "weight_decay": decay},
            {"params": [head.bias], "weight_decay": 0.0},
        ],
        lr=lr,
        momentum=0.9,
    )
    rows = torch.utils.data.TensorDataset(features, target)
    loader = torch.utils.data.DataLoader(rows, batch_size, shuffle=True)
    losses = []
    for epoch in range(1, epochs + 1):
        # Each epoch draws from a generator of its own.
        torch.manual_seed(int(np.random.default_rng((seed, epoch)).integers(2**62)))
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(head(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(x)
        losses.append(total / len(rows))
    return head, losses


@pytest.mark.parametrize("batch_size", [5, 8, 100])
def test_training_the_head_equals_a_plain_torch_loop(data, batch_size):
    X, y = data
    model = classifier(batch_size=batch_size, max_epochs=4).fit(X, y)
    features = torch.from_numpy(extractor(batch_size=batch_size).fit_transform(X))
    features = model.module_.head.scaling(features)
    target = torch.from_numpy((y == "light").astype("int64"))
    with torch.random.fork_rng():
        head, losses = _by_hand(
            features, target, epochs=4, batch_size=batch_size, seed=0
        )
    assert losses[-1] != losses[0]
    torch.testing.assert_close(model.module_.head.output.weight, head.weight)
    torch.testing.assert_close(model.module_.head.output.bias, head.bias)
    np.testing.assert_allclose(model.history_["train_loss"], losses, rtol=1e-5)
    with torch.no_grad():
        P = head(features).softmax(1).numpy()
    np.testing.assert_allclose(model.predict_proba(X), P, atol=1e-6)


def test_a_head_on_features_equals_training_through_the_frozen_backbone(data):
    # The long way: a transform that changes nothing, but might, in every epoch.
    X, y = data
    P = classifier(batch_size=8).fit(X, y).predict_proba(X)
    seen = []
    Q = classifier(batch_size=8, augment=lambda image: seen.append(1) or image).fit(
        X, y
    )
    assert len(seen) == 3 * 24
    np.testing.assert_allclose(Q.predict_proba(X), P, atol=1e-5)
    assert np.abs(P - 0.5).max() > 1e-3


def test_predictions_are_the_modules_own(data):
    X, y = data
    for trainable in ("head", "all"):
        model = classifier(image_size=(32, 32), trainable=trainable).fit(X, y)
        module = copy.deepcopy(model.module_).eval()
        mean, std = (
            torch.tensor(v).view(3, 1, 1)
            for v in (model.preprocessing_.mean, model.preprocessing_.std)
        )
        pixels = torch.from_numpy(X).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            outputs = module((pixels - mean) / std)
        P = outputs.softmax(1).numpy()
        np.testing.assert_allclose(model.predict_proba(X), P, atol=1e-5)
        assert model.predict(X).tolist() == model.classes_[P.argmax(1)].tolist()


def test_every_row_is_trained_on_in_every_epoch(data):
    X, y = data[0][:17], data[1][:17]
    for trainable in ("head", "all"):
        seen = Recorder()
        classifier(batch_size=8, trainable=trainable, callbacks=[seen]).fit(X, y)
        expected = [8, 8, 1] * 3
        assert seen.batch_sizes == expected, trainable


def test_a_last_batch_of_one_does_not_reach_batch_norm(data):
    X, y = data[0][7:16], data[1][7:16]
    for parameters in (
        {"batch_size": 8},
        {"net_params": {"iterator_train__batch_size": 8}},
    ):
        seen = Recorder()
        classifier(
            backbone="mobilenet_v3_small",
            trainable="all",
            max_epochs=1,
            callbacks=[seen],
            **parameters,
        ).fit(X, y)
        assert seen.batch_sizes == [8]


def test_batches_of_one_are_refused_where_batch_norm_trains(data):
    model = classifier(backbone="mobilenet_v3_small", trainable="all", batch_size=1)
    with pytest.raises(ValueError, match="batch_size"):
        model.fit(*data)


# ------------------------------------------------------------------ optimisers


NAMES = {
    "sgd": (torch.optim.SGD, {"momentum": 0, "nesterov": False}, 1e-2),
    "momentum": (torch.optim.SGD, {"momentum": 0.9, "nesterov": False}, 1e-2),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, 1e-2),
    "adagrad": (torch.optim.Adagrad, {}, 1e-2),
    "rmsprop": (torch.optim.RMSprop, {}, 1e-3),
    "adam": (torch.optim.Adam, {}, 1e-3),
    "adamw": (torch.optim.AdamW, {}, 1e-3),
    torch.optim.NAdam: (torch.optim.NAdam, {}, 1e-3),
}


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_optimizers_by_name(name, data):
    kind, arguments, rate = NAMES[name]
    before = Before()
    model = classifier(
        backbone="resnet18", optimizer=name, trainable=1, max_epochs=1, warm_start=True,
        optimizer__weight_decay=0.03, callbacks=[before],
    ).fit(*data)  # fmt: skip
    optimizer = model._net.optimizer_
    assert type(optimizer) is kind
    assert {"head.output.weight", "head.output.bias"} < _moved(model, before.state)
    for group in optimizer.param_groups:
        assert arguments.items() <= group.items()
        assert group["lr"] == rate  # weights=None: the backbone's is the head's
        matrices = {p.ndim > 1 for p in group["params"]}
        assert matrices == ({True} if group["weight_decay"] == 0.03 else {False})
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.03, 0}


@pytest.mark.parametrize(
    ("rates", "expected"),
    [({}, 1e-4), ({"lr": 0.5}, 5e-3), ({"lr": 0.5, "backbone_lr": 0.25}, 0.25)],
)
def test_the_backbone_of_good_weights_has_a_rate_of_its_own(
    rates, expected, pretrained_file, data
):
    model = classifier(
        backbone="resnet18", weights=pretrained_file, trainable="all", max_epochs=1,
        warm_start=True, **rates,
    ).fit(*data)  # fmt: skip
    rate = {id(p): g["lr"] for g in model._net.optimizer_.param_groups
            for p in g["params"]}  # fmt: skip
    module = model.module_
    assert {rate[id(p)] for p in module.head.parameters()} == {rates.get("lr", 1e-2)}
    found = {rate[id(p)] for p in module.backbone.parameters()}
    assert list(found) == [pytest.approx(expected)]


def test_weight_decay_shrinks_the_weights(data):
    light, heavy = (
        classifier(optimizer__weight_decay=decay, max_epochs=20)
        .fit(*data)
        .module_.head.output.weight.norm()
        for decay in (0, 10)
    )
    assert heavy < 0.9 * light


# --------------------------------------------------------------- early stopping


class Losses(Callback):
    """Keeps the weights after every epoch."""

    def initialize(self):
        self.states = []
        return self

    def on_epoch_end(self, net, **kwargs):
        self.states.append(copy.deepcopy(net.module_.state_dict()))


@pytest.mark.parametrize("trainable", ["head", "all"])
def test_early_stopping_stops_and_puts_the_best_weights_back(trainable, data):
    rng = np.random.default_rng(0)
    y_val = rng.permutation(data[1])  # cannot be learned
    kept = Losses()
    model = classifier(
        **{**EASY, "max_epochs": 60}, trainable=trainable, callbacks=[kept],
        early_stopping=True, n_iter_no_change=4,
    ).fit(*data, X_val=data[0], y_val=y_val)  # fmt: skip
    losses = model.history_["valid_loss"].to_numpy()
    assert model.best_epoch_ == losses.argmin() + 1
    assert model.n_iter_ == len(losses) < 60
    improved, best = 0, np.inf
    for epoch, loss in enumerate(losses, 1):
        if loss < best - 1e-4:
            best, improved = loss, epoch
    assert model.n_iter_ == improved + 4
    best_state = kept.states[model.best_epoch_ - 1]
    assert all(
        torch.equal(v, best_state[k]) for k, v in model.module_.state_dict().items()
    )
    found = log_loss(y_val == "light", model.predict_proba(data[0])[:, 1])
    assert found == pytest.approx(losses.min(), rel=1e-4)


def test_tol_is_what_an_improvement_must_exceed(data):
    parameters = {"max_epochs": 30, "early_stopping": True, "n_iter_no_change": 3}
    model = classifier(**parameters, tol=100).fit(*data, X_val=data[0], y_val=data[1])
    assert model.n_iter_ == 4  # the first epoch improves on nothing
    # what was best is kept even so
    assert model.best_epoch_ == model.history_["valid_loss"].argmin() + 1


def test_scoring_is_watched(data):
    parameters = {**EASY, "early_stopping": True, "n_iter_no_change": 2}
    model = classifier(**parameters, scoring="neg_log_loss").fit(
        *data, X_val=data[0], y_val=data[1]
    )
    np.testing.assert_allclose(
        model.history_["valid_score"], -model.history_["valid_loss"], rtol=1e-4
    )

    def constant(estimator, X, y):
        assert len(X) == len(y) == 24
        return 1.0

    stopped = classifier(**parameters, scoring=constant).fit(
        *data, X_val=data[0], y_val=data[1]
    )
    assert stopped.n_iter_ == 3
    assert stopped.best_epoch_ == 1
    plain = classifier(**EASY).fit(*data, X_val=data[0], y_val=data[1])
    assert plain.n_iter_ == 10
    assert plain.history_["valid_score"].iloc[-1] == plain.score(*data)


def test_scores_of_validation_rows_that_lack_a_class(data):
    X, y = data
    model = classifier(scoring="neg_log_loss", early_stopping=True)
    with pytest.raises(ValueError, match=r"neg_log_loss.* the 3 validation rows"):
        model.fit(X, y, X_val=X[:3], y_val=y[:3])  # only dark ones
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_validation_rows_are_never_trained_on():
    X, _ = two_brightnesses(20)
    y = np.arange(20.0)
    seen = Recorder()
    model = regressor(early_stopping=True, validation_fraction=0.25, callbacks=[seen])
    model.fit(X, y)
    assert len(seen.train_targets) == 3 * 15
    assert len({round(t[0], 6) for t in seen.train_targets}) == 15


def test_given_validation_rows_leave_the_training_rows_whole(data):
    seen = Recorder()
    parameters = {"early_stopping": True, "n_iter_no_change": 3}
    model = classifier(**parameters, callbacks=[seen])
    model.fit(*data, X_val=data[0][:6], y_val=data[1][:6])
    assert len(seen.train_targets) == 3 * 24
    assert "valid_loss" in model.history_


def test_the_split_keeps_the_classes_in_proportion():
    X, _ = two_brightnesses(40)
    y = np.array([0] * 32 + [1] * 8)
    seen = Recorder()
    classifier(
        early_stopping=True, validation_fraction=0.25, max_epochs=1, callbacks=[seen]
    ).fit(X, y)
    assert np.bincount(seen.train_targets).tolist() == [24, 6]


def test_a_split_that_cannot_be_stratified_says_so(data):
    y = data[1].astype(object)
    y[0] = "single"
    with pytest.warns(UserWarning, match="not stratified"):
        classifier(early_stopping=True).fit(data[0], y)


# ------------------------------------------------------------- weights of classes


def test_class_weights_are_sample_weights(data):
    X, y = data
    y = np.where(np.arange(24) < 18, "dark", "light")
    by_class = {"dark": 1.0, "light": 3.0}
    by_row = np.array([by_class[label] for label in y])
    P = classifier().fit(X, y, sample_weight=by_row).predict_proba(X)
    for weight in (by_class, "balanced"):
        Q = classifier(class_weight=weight).fit(X, y).predict_proba(X)
        np.testing.assert_allclose(Q, P, atol=1e-6)
    plain = classifier().fit(X, y).predict_proba(X)
    assert (P[:, 1] - plain[:, 1]).min() > 1e-3


# -------------------------------------------------------------------- warm start


def test_a_warm_start_goes_on(data):
    X, y = data
    model = classifier(
        warm_start=True, max_epochs=2, batch_size=100, optimizer__weight_decay=0
    )
    model.fit(X, y)
    first = state_of(model)
    before = Before()
    model.set_params(max_epochs=3, callbacks=[before]).fit(X, y)
    assert all(torch.equal(before.state[name], first[name]) for name in first)
    assert len(model.history_) == model.n_iter_ == 5
    # full batches and the optimiser's state kept: the same as five epochs at once
    once = classifier(max_epochs=5, batch_size=100, optimizer__weight_decay=0).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), once.predict_proba(X), atol=1e-6)


def test_without_warm_start_a_fit_starts_anew(data):
    model = classifier()
    P = model.fit(*data).predict_proba(data[0])
    np.testing.assert_array_equal(model.fit(*data).predict_proba(data[0]), P)
    assert len(model.history_) == 3


def test_a_warm_start_with_other_stages(data):
    model = classifier(backbone="vgg11", layer="features.20", warm_start=True,
                       max_epochs=1, optimizer="adam")  # fmt: skip
    stages = model.fit(*data).module_.backbone.stages
    by_count = {}
    for stage, names in stages.items():
        by_count.setdefault(len(names), []).append(stage)
    pair = next(s for s in by_count.values() if len(s) > 1)[:2]
    for stage in pair:
        before = Before()
        model.set_params(trainable=[stage], callbacks=[before]).fit(*data)
        moved = {n for n in _moved(model, before.state) if n.startswith("backbone")}
        assert moved == {f"backbone.module.{n}" for n in stages[stage]}


def test_a_warm_start_refuses_other_classes_and_targets(data):
    X, y = data
    model = classifier(warm_start=True).fit(X, y)
    P = model.predict_proba(X)
    with pytest.raises(ValueError, match=r"warm_start=True goes on with the classes"):
        model.fit(X, np.where(y == "dark", "black", y))
    np.testing.assert_array_equal(model.predict_proba(X), P)
    assert model.classes_.tolist() == ["dark", "light"]
    numbers = regressor(warm_start=True).fit(X, np.arange(24.0))
    with pytest.raises(ValueError, match=r"warm_start=True.* 1 output"):
        numbers.fit(X, np.c_[np.arange(24.0), np.arange(24.0)])
    assert numbers.predict(X).shape == (24,)


# -------------------------------------------------------------------- randomness


@pytest.mark.parametrize("trainable", ["head", "all"])
def test_random_state(trainable, data):
    X, y = data
    make = lambda seed: classifier(trainable=trainable, random_state=seed, batch_size=8)  # noqa: E731
    P = make(0).fit(X, y).predict_proba(X)
    torch.rand(7), np.random.rand(7)
    np.testing.assert_array_equal(make(0).fit(X, y).predict_proba(X), P)
    same = np.random.RandomState(0)
    np.testing.assert_array_equal(make(same).fit(X, y).predict_proba(X), P)
    assert np.abs(make(1).fit(X, y).predict_proba(X) - P).max() > 1e-4
    assert np.abs(make(None).fit(X, y).predict_proba(X) - P).max() > 1e-5
    again = make(same).fit(X, y).predict_proba(X)
    assert np.abs(again - P).max() > 1e-5


def test_global_generators_are_left_alone(data):
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(3).tolist(), np.random.rand(3).tolist()
    for fit in (
        lambda: classifier(early_stopping=True, trainable="all").fit(*data),
        lambda: regressor(random_state=1).fit(data[0], np.arange(24.0)),
        lambda: extractor().fit(data[0]),
    ):
        torch.manual_seed(5)
        np.random.seed(5)
        fit()
        assert (torch.rand(3).tolist(), np.random.rand(3).tolist()) == expected


@pytest.mark.parametrize("form", ["arrays", "paths"])
def test_loader_workers_change_nothing(form, data, image_files):
    X = data[0] if form == "arrays" else image_files
    parameters = {"trainable": "all", "max_epochs": 1, "batch_size": 8}
    P = classifier(**parameters).fit(X, data[1]).predict_proba(X)
    workers = {"iterator_train__num_workers": 2}
    Q = classifier(**parameters, net_params=workers).fit(X, data[1])
    np.testing.assert_allclose(Q.predict_proba(X), P, atol=1e-6)


# ------------------------------------------------------------ net_params, callbacks


def test_net_params_reach_skorch(data):
    with pytest.raises(ValueError, match=r"criterion__label_smoothing.*set loss"):
        classifier(net_params={"criterion__label_smoothing": 0.5}).fit(*data)
    seen = Recorder()
    params = {"iterator_train__shuffle": False, "iterator_train__batch_size": 7}
    classifier(net_params=params, callbacks=[seen], max_epochs=1).fit(*data)
    assert seen.batch_sizes == [7, 7, 7, 3]
    assert seen.train_targets == [0] * 12 + [1] * 12
    params = {"optimizer__momentum": 0.5}
    fit = classifier(net_params=params, warm_start=True).fit(*data)
    assert {g["momentum"] for g in fit._net.optimizer_.param_groups} == {0.5}


def test_a_weight_decay_in_net_params_is_not_lost(data):
    params = {"optimizer__weight_decay": 0.5}
    with pytest.raises(ValueError, match=r"__weight_decay.*Optimizer\(weight_decay"):
        classifier(net_params=params).fit(*data)


def test_a_misspelt_net_param_is_an_error(data):
    with pytest.raises((TypeError, ValueError), match="iterator_trian"):
        classifier(net_params={"iterator_trian__num_workers": 2}).fit(*data)


def test_callbacks_of_skorch(data):
    class StopAtTwo(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                raise KeyboardInterrupt

    seen = Recorder()
    model = classifier(callbacks=[seen, StopAtTwo()], max_epochs=9).fit(*data)
    assert model.n_iter_ == seen.epochs == 2
    assert model.predict(data[0]).shape == (24,)
    from skorch.callbacks import EarlyStopping, GradientNormClipping, LRScheduler

    watched = EarlyStopping("train_loss", patience=2, threshold=10)
    stopped = classifier(callbacks=[watched], max_epochs=9).fit(*data)
    assert stopped.n_iter_ < 9
    decayed = classifier(
        callbacks=[("decay", LRScheduler("ExponentialLR", gamma=0.1))], warm_start=True
    ).fit(*data)
    assert not np.allclose(decayed._net.optimizer_.param_groups[0]["lr"], 1e-2)
    clipped = classifier(
        callbacks=[GradientNormClipping(1e-9)], optimizer__weight_decay=0
    )
    before = Before()
    clipped.set_params(callbacks=[before, *clipped.callbacks]).fit(*data)
    head = clipped.module_.head.output.weight
    assert torch.allclose(head, before.state["head.output.weight"], atol=1e-9)


def test_skorch_scores_go_to_the_history(data):
    scored = EpochScoring(
        lambda net, X, y: 0.25, name="mine", on_train=True, use_caching=False
    )
    model = classifier(callbacks=[scored]).fit(*data)
    assert model.history_["mine"].tolist() == [0.25] * 3


@pytest.mark.parametrize("make", [classifier, regressor])
def test_divergence_warns(make, data):
    # no rule that steps of any size might find
    y = np.random.default_rng(0).permutation(data[1] if make is classifier else 24)
    with pytest.warns(ConvergenceWarning, match=r"[Ll]ower lr"):
        make(lr=1e6, max_epochs=10).fit(data[0], y)


# --------------------------------------------------------------------- normalise


def test_normalize_by_the_data_is_mean_and_deviation_by_hand(data, image_files):
    X, y = data
    mean = (X / 255).mean((0, 1, 2))
    std = (X / 255).std((0, 1, 2))
    for form in (X, image_files, X.reshape(24, -1)):
        model = classifier(preprocessing="data", image_size=(32, 32), batch_size=7)
        found = model.fit(form, y).preprocessing_
        np.testing.assert_allclose(found.mean, mean, rtol=1e-6)
        np.testing.assert_allclose(found.std, std, rtol=1e-6)
    given = extractor(preprocessing=(mean.tolist(), std.tolist()), image_size=(32, 32))
    by_data = extractor(preprocessing="data", image_size=(32, 32))
    F = by_data.fit_transform(X)
    np.testing.assert_allclose(given.fit_transform(X), F, atol=1e-4)
    assert np.abs(extractor(image_size=(32, 32)).fit_transform(X) - F).max() > 1e-3


def test_normalisation_is_of_the_training_rows_only(data):
    X, _ = data
    model = extractor(preprocessing="data").fit(X[:12])
    dark = model.preprocessing_.mean
    model.transform(X)
    assert model.preprocessing_.mean == dark
    assert max(dark) < 0.3


@pytest.mark.parametrize(
    "pair",
    [((0.5,), (0.5,)), ((0, 0, 0), (1, 1, 0)), ((np.nan,) * 3, (1, 1, 1)), (1, 2)],
)
def test_a_normalisation_that_is_none(pair, data):
    with pytest.raises(ValueError, match="preprocessing="):
        extractor(preprocessing=pair).fit(data[0])


# --------------------------------------------------------------------- precision


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("bfloat16", 0.05), ("float16", 0.05), ("float64", 1e-4)],
)
@pytest.mark.parametrize("trainable", ["head", "all"])
def test_precision(precision, tolerance, trainable, data):
    X, y = data
    parameters = {**EASY, "trainable": trainable, "lr": 1e-3}
    P = classifier(**parameters).fit(X, y).predict_proba(X)
    model = classifier(**parameters, precision=precision).fit(X, y)
    Q = model.predict_proba(X)
    assert Q.dtype == (np.float64 if precision == "float64" else np.float32)
    assert np.abs(P - Q).max() < tolerance
    assert not np.array_equal(P, Q)
    F = extractor(precision=precision).fit_transform(X)
    G = extractor().fit_transform(X)
    assert np.abs(F - G).max() < tolerance * np.abs(G).max()
    assert np.isfinite(model.history_["train_loss"]).all()


# -------------------------------------------------------------------- regression


def test_targets_of_any_scale(data):
    X = data[0]
    bright = X.mean((1, 2, 3))
    y = StandardScaler().fit_transform(bright[:, None])[:, 0]
    parameters = {**EASY, "max_epochs": 40, "precision": "float64"}
    small = regressor(**parameters).fit(X, y)
    large = regressor(**parameters).fit(X, 1e3 * y + 1e6)
    assert small.score(X, y) > 0.9
    np.testing.assert_allclose(
        (large.predict(X) - 1e6) / 1e3, small.predict(X), atol=1e-3
    )
    assert large.score(X, 1e3 * y + 1e6) == pytest.approx(small.score(X, y), abs=1e-3)


def test_several_targets(data):
    X = data[0]
    y = np.c_[X.mean((1, 2, 3)), 1e6 - 1e3 * X.mean((1, 2, 3))]
    model = regressor(**{**EASY, "max_epochs": 40}).fit(X, y)
    assert model.predict(X).shape == (24, 2)
    assert model.n_targets_ == 2
    assert model.score(X, y) > 0.9
    one = regressor().fit(X, y[:, :1])
    assert one.predict(X).shape == (24, 1)
    flat = regressor().fit(X, y[:, 0])
    assert flat.predict(X).shape == (24,)
    assert flat.predict(X).dtype == np.float32


def test_a_constant_target_is_learned(data):
    model = regressor(**EASY).fit(data[0], np.full(24, 7.0))
    assert np.abs(model.predict(data[0]) - 7).max() < 1


def test_a_callback_that_stops_does_not_hide_the_epoch_from_early_stopping(data):
    class StopAtTwo(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                raise KeyboardInterrupt

    model = classifier(**EASY, early_stopping=True, callbacks=[StopAtTwo()])
    model.fit(*data, X_val=data[0], y_val=data[1])
    losses = model.history_["valid_loss"]
    assert losses[1] < losses[0]
    assert model.best_epoch_ == 2
