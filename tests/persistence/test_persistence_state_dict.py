"""Backbones in torchvision's layout."""

import os

import numpy as np
import pytest
import torch
from persistence_cases import SMALL, X, Y, classifier, extractor, regressor
from safetensors.torch import load_file
from sklearn.svm import LinearSVC
from torchvision.models import resnet18

from sklearn_dl import make_feature_classifier
from sklearn_dl.backbones import CallablePreprocessing
from sklearn_dl.persistence import ModelFileError, export_state_dict
from sklearn_dl.training import Head


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("layer", ["pre_logits", "features.5"])
def test_a_fine_tuned_backbone_gives_the_same_features_as_weights(
    suffix, layer, tmp_path
):
    path = tmp_path / f"weights{suffix}"
    model = classifier(
        backbone="mobilenet_v3_small",
        trainable="all",
        preprocessing="data",
        layer=layer,
    ).fit(X, Y)
    export_state_dict(model, path)
    backbone = model._network.backbone
    assert backbone.settled
    again = extractor(
        backbone="mobilenet_v3_small", weights=str(path), layer=layer, image_size=None
    ).fit(X)
    assert again.preprocessing_ == model.preprocessing_
    same = extractor(backbone="mobilenet_v3_small", layer=layer, preprocessing="data")
    same.fit(X)
    same._backbone = backbone
    np.testing.assert_array_equal(again.transform(X), same.transform(X))
    assert os.listdir(tmp_path) == [path.name]


def test_the_head_can_be_the_last_layer(tmp_path):
    path = tmp_path / "whole.safetensors"
    options = {"trainable": 1, "warmup_epochs": 1, "max_epochs": 2}
    model = classifier(backbone="resnet18", **options).fit(X, Y)
    assert not torch.all(model.module_.head.scaling.mean == 0)  # it is folded in
    export_state_dict(model, path, head=True)
    network = resnet18(num_classes=2)
    assert not network.load_state_dict(load_file(path)).missing_keys
    pixels = model.preprocessing_.geometry(torch.from_numpy(X).permute(0, 3, 1, 2))
    with torch.no_grad():
        values = network.eval()(model.preprocessing_.normalize(pixels))
    np.testing.assert_allclose(
        values.softmax(1).numpy(), model.predict_proba(X), rtol=0, atol=0.02
    )
    again = extractor(backbone="resnet18", weights=str(path), image_size=None).fit(X)
    assert again.transform(X[:1]).shape == (1, 512)


def test_regressors_extractors_and_pipelines_have_backbones_too(tmp_path):
    models = (
        regressor().fit(X, np.arange(18.0)),
        extractor().fit(X),
        make_feature_classifier(**SMALL).fit(X, Y),
    )
    states = []
    for k, model in enumerate(models):
        export_state_dict(model, tmp_path / f"{k}.safetensors")
        states.append(load_file(tmp_path / f"{k}.safetensors"))
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(torch.equal(state[name], states[0][name]) for name in state)


@pytest.mark.parametrize(
    "parameters",
    [
        {"head": Head(4)},
        {"layer": "features.5"},
        {},  # SqueezeNet ends in a convolution
        {"backbone": "mobilenet_v3_small", "layer": "pooled"},
    ],
)
def test_heads_that_are_no_last_layer_are_refused(parameters, tmp_path):
    model = classifier(**parameters).fit(X, Y)
    with pytest.raises(ModelFileError, match="head=True needs"):
        export_state_dict(model, tmp_path / "w.pth", head=True)
    assert os.listdir(tmp_path) == []


def test_errors_say_what_would_be_right(tmp_path):
    model = extractor().fit(X)
    with pytest.raises(ModelFileError, match=r"must end in '\.safetensors'"):
        export_state_dict(model, tmp_path / "weights.bin")
    with pytest.raises(ModelFileError, match="has no single backbone"):
        export_state_dict(LinearSVC(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="not fitted"):
        export_state_dict(extractor(), tmp_path / "weights.pth")


def test_a_preprocessing_that_is_a_function_is_missed_aloud(tmp_path):
    model = extractor(preprocessing=to_small, image_size=None).fit(X)
    assert isinstance(model.preprocessing_, CallablePreprocessing)
    with pytest.warns(UserWarning, match="preprocessing is a function"):
        export_state_dict(model, tmp_path / "w.pth")


def to_small(image):
    return torch.from_numpy(np.array(image.resize((32, 32)))).permute(2, 0, 1) / 255
