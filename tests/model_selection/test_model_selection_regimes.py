"""The decision table: its cells, and that what it returns can be used as it is."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC
from torch import nn

from sklearn_dl import ImageClassifier, ImageRegressor
from sklearn_dl.backbones import load_backbone
from sklearn_dl.model_selection import Recommendation, recommend_regime
from sklearn_dl.model_selection._regimes import earlier_layer
from sklearn_dl.training import Head, Trainable

SMALL = {
    "backbone": "squeezenet1_1",
    "weights": None,
    "image_size": 32,
    "batch_size": 8,
    "random_state": 0,
}
CELLS = [(n, s) for n in (300, 5_000, 100_000) for s in ("similar", "different")]


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 128, (16, 32, 32, 3), "uint8")
    images[8:] += 100
    return images


def recommended(n_samples, similarity, **parameters):
    return recommend_regime(ImageClassifier(**parameters), n_samples, similarity)


def names(*arguments):
    return [r.name for r in recommended(*arguments)]


def test_the_four_corners_of_the_table():
    small_similar = recommended(500, "similar")
    svm, head = (r.estimator for r in small_similar)
    assert isinstance(svm["classifier"], LinearSVC)
    assert svm["features"].layer == "pre_logits"
    assert head.trainable == "head"

    svm, stages = (r.estimator for r in recommended(500, "different"))
    assert svm["features"].layer == "features.13"  # the end of the third of 4 stages
    assert stages.trainable == 2
    assert stages.warmup_epochs >= 1
    assert stages.augment == "strong"

    few_layers, few_head = (r.estimator for r in recommended(199, "different"))
    assert few_layers["features"].layer == "features.13"
    assert few_head.trainable == "head"
    assert recommended(200, "different")[-1].estimator.trainable == 2

    everything, last = (r.estimator for r in recommended(20_000, "similar"))
    assert everything.trainable == "all"
    assert everything.warmup_epochs >= 1
    assert everything.backbone_lr is None  # lr / 100
    assert last.trainable == 2

    (option,) = recommended(20_000, "different")
    higher = option.estimator
    assert higher.trainable == "all"
    assert higher.lr / 100 < higher.backbone_lr < higher.lr


@pytest.mark.parametrize(("optimizer", "lr"), [("momentum", 1e-2), ("adamw", 1e-3)])
def test_rates_are_what_the_reasons_say_whatever_the_estimator_had(optimizer, lr):
    own = {"optimizer": optimizer, "lr": 0.3, "backbone_lr": 0.2}
    everything = recommended(20_000, "similar", **own)[0]
    assert "a hundredth of the head's rate" in everything.reason
    assert everything.estimator.backbone_lr is None  # lr / 100
    higher, scratch = recommended(100_000, "different", **own)
    assert "a tenth of the head's rate" in higher.reason
    rates = (higher.estimator.lr, higher.estimator.backbone_lr)
    assert rates == pytest.approx((lr, lr / 10))
    assert scratch.estimator.lr == pytest.approx(5 * lr)
    assert scratch.estimator.backbone_lr is None  # lr: its weights are random


def test_random_weights_come_only_with_very_many_different_images():
    scratch = [
        (n, s)
        for n in (100, 2_000, 20_000, 99_999, 100_000, 2_000_000)
        for s in ("similar", "different")
        for r in recommended(n, s)
        if isinstance(r.estimator, ImageClassifier) and r.estimator.weights is None
    ]
    assert scratch == [(100_000, "different"), (2_000_000, "different")]
    last = recommended(2_000_000, "different", weights="IMAGENET1K_V1")[-1]
    assert last.estimator.trainable == "all"


@pytest.mark.parametrize("similarity", ["similar", "different"])
def test_between_small_and_large_both_rows_hold(similarity):
    small, large = names(1_999, similarity), names(10_000, similarity)
    assert not set(small) & set(large)
    for n in (2_000, 9_999):
        assert names(n, similarity) == large + small


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("cls", [ImageClassifier, ImageRegressor])
@pytest.mark.parametrize(("n_samples", "similarity"), CELLS)
def test_every_estimator_is_cloned_and_fitted(images, cls, n_samples, similarity):
    regression = cls is ImageRegressor
    y = np.arange(16) / 15 if regression else np.repeat(["a", "b"], 8)
    chosen = recommend_regime(cls(**SMALL), n_samples, similarity)
    assert chosen
    for option in chosen:
        assert isinstance(option, Recommendation)
        assert len(option.reason) > 40
        assert (is_regressor if regression else is_classifier)(option.estimator)
        model = clone(option.estimator)
        assert repr(model) == repr(option.estimator)
        if not isinstance(model, Pipeline):
            model.set_params(max_epochs=model.warmup_epochs + 1)
        predicted = model.fit(images, y).predict(images)
        assert predicted.shape == y.shape
        assert np.isin(predicted, y).all() or regression
        assert not hasattr(option.estimator, "history_")


@pytest.mark.parametrize("cls", [ImageClassifier, ImageRegressor])
@pytest.mark.parametrize(("n_samples", "similarity"), CELLS)
def test_parameters_of_the_estimator_are_kept(cls, n_samples, similarity):
    shared = {
        **SMALL,
        "weights": "IMAGENET1K_V1",
        "preprocessing": "IMAGENET1K_V1",
        "image_shape": (40, 40),
        "device": "cpu",
        "precision": "float64",
        "cache": None,
        "verbose": 1,
    }
    own = {"augment": ["blur"], "n_iter_no_change": 3}
    estimator = cls(**shared, **own, head=Head((8,)), layer="features.7")
    before = repr(estimator)
    for option in recommend_regime(estimator, n_samples, similarity):
        model = option.estimator
        step = model["features"] if isinstance(model, Pipeline) else model
        earlier = "earlier" in option.name
        assert step.layer == ("features.4" if earlier else "features.7")
        expected = shared if step is not model else shared | own
        if "random weights" in option.name:
            expected = expected | {"weights": None}
        assert {name: getattr(step, name) for name in expected} == expected
        if step is model:
            assert type(model) is cls
            assert model.head.hidden_layer_sizes == (8,)
            assert model.head is not estimator.head
    assert repr(estimator) == before


def test_settings_of_what_is_trained_are_kept():
    still = Trainable("all", freeze_batch_norm=True)
    model = recommended(500, "different", trainable=still)[1].estimator
    assert model.trainable.get_params() == {"freeze_batch_norm": True, "stages": 2}
    assert still.stages == "all"


def test_a_trained_head_needs_no_warm_up():
    head = recommended(500, "similar", warmup_epochs=2, trainable="all")[1].estimator
    assert (head.trainable, head.warmup_epochs) == ("head", 0)


def test_the_pipeline_for_regression_takes_several_targets(images):
    options = recommend_regime(ImageRegressor(**SMALL), 100, "similar")
    y = np.stack([np.arange(16), 1e4 * np.arange(16)[::-1]], axis=1)
    assert options[0].estimator.fit(images, y).predict(images).shape == (16, 2)


@pytest.mark.parametrize(
    ("backbone", "layer"),
    [
        ("resnet18", "layer3"),
        ("densenet121", "features.transition3"),
        ("vgg11", "features"),
        ("vit_b_16", "encoder.layers.encoder_layer_8"),
        ("swin_t", "features.5"),
        ("regnet_y_400mf", "trunk_output.block3"),
    ],
)
def test_an_earlier_layer_ends_before_the_last_stage(backbone, layer):
    assert earlier_layer(ImageClassifier(backbone)) == layer
    with torch.device("cpu" if "regnet" in backbone else "meta"):
        whole = load_backbone(backbone, None)
        cut = load_backbone(backbone, None, layer=layer)
    last = list(whole.stages)[-1]
    assert last not in cut.stages
    assert cut.n_features > 1


def test_an_earlier_layer_is_pooled_as_the_estimators_is():
    model = ImageClassifier("resnet18", layer=("layer4", "max"))
    assert earlier_layer(model) == ("layer3", "max")


def a_network(width):
    layers = [nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3)]
    return nn.Sequential(*layers, nn.Sequential(nn.Conv2d(width, 4, 3), nn.ReLU()))


def test_a_callable_backbone_has_an_earlier_layer_too():
    generator = torch.get_rng_state()
    options = recommended(
        100, "different", backbone=partial(a_network, 8), image_size=[32, 32]
    )
    assert torch.equal(generator, torch.get_rng_state())
    assert options[0].estimator["features"].layer == "2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, "similar"), "'n_samples' parameter .* must be an int in the range"),
        ((2.5, "similar"), "'n_samples' parameter"),
        ((100, "alike"), "'similarity' parameter .* Got 'alike'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        recommended(*arguments)


def test_what_is_no_network_and_a_wrong_backbone_are_named():
    with pytest.raises(ValueError, match=r"'estimator' .*ImageRegressor'"):
        recommend_regime(LinearSVC(), 100, "similar")
    with pytest.raises(ValueError, match="resnet81"):
        recommended(100, "different", backbone="resnet81")
