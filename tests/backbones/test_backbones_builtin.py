"""The weights that are in the package."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_dl import ImageClassifier, ImageFeatureExtractor, ImageRegressor
from sklearn_dl.backbones import (
    list_backbones,
    load_backbone,
    named_tensors,
    shared_backbone,
)
from sklearn_dl.backbones._zoo import ARCHITECTURE, packaged

FILE = packaged(ARCHITECTURE, "builtin")


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    chosen = np.random.default_rng(0).permutation(len(data.target))[:300]
    images = np.round(data.images * (255 / 16)).astype("uint8")
    return images[chosen], data.target[chosen]


def test_the_file_is_small_and_in_half_precision():
    assert FILE.stat().st_size <= 4_000_000
    with safe_open(FILE, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    kinds = {t.dtype for t in tensors.values() if t.is_floating_point()}
    assert kinds == {torch.float16}
    assert not any(key.startswith("classifier.3.") for key in tensors)


def test_its_preprocessing_comes_with_it():
    backbone = load_backbone(ARCHITECTURE, "builtin")
    assert backbone.preprocessing.crop_size == (128, 128)
    assert backbone.pretrained
    assert backbone.n_features == 1024
    larger = load_backbone(ARCHITECTURE, "builtin", image_size=192)
    assert larger.preprocessing.crop_size == (192, 192)


def test_it_is_loaded_as_any_file_of_weights():
    by_name = load_backbone(ARCHITECTURE, "builtin").state_dict()
    by_path = load_backbone(ARCHITECTURE, FILE).state_dict()
    assert by_name.keys() == by_path.keys()
    assert all(torch.equal(by_name[key], by_path[key]) for key in by_name)


def test_it_is_in_the_process_once():
    first, second = (shared_backbone(ARCHITECTURE, "builtin") for _ in range(2))
    pointers = [
        {name: tensor.data_ptr() for name, tensor in named_tensors(backbone).items()}
        for backbone in (first, second)
    ]
    assert pointers[0] == pointers[1]
    assert first.identity() == second.identity()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large"])
@pytest.mark.parametrize(
    "estimator", [ImageClassifier, ImageRegressor, ImageFeatureExtractor]
)
def test_another_architecture_names_the_right_one(name, estimator, digits):
    with pytest.raises(ValueError, match=f"of 'mobilenet_v3_small', not of '{name}'"):
        estimator(name, weights="builtin").fit(digits[0][:20], digits[1][:20])


def test_a_callable_has_none():
    with pytest.raises(ValueError, match="cannot be used with a callable"):
        load_backbone(lambda: torch.nn.Conv2d(3, 8, 3), "builtin")


def test_a_file_of_that_name_is_not_taken(tmp_path, monkeypatch):
    (tmp_path / "builtin").write_bytes(b"something else")
    monkeypatch.chdir(tmp_path)
    assert load_backbone(ARCHITECTURE, "builtin").pretrained


def test_it_is_listed_and_near_misses_are_led_to_it():
    names = list_backbones().loc[ARCHITECTURE, "all_weights"]
    assert names == ("IMAGENET1K_V1", "builtin")
    with pytest.raises(ValueError, match="Did you mean 'builtin'"):
        load_backbone(ARCHITECTURE, "built-in")
    with pytest.raises(ValueError, match="of 'mobilenet_v3_small', not of 'resnet18'"):
        load_backbone("resnet18", "Built-in")


def test_its_preprocessing_can_be_had_alone():
    expected = load_backbone(ARCHITECTURE, "builtin").preprocessing
    backbone = load_backbone(ARCHITECTURE, None, preprocessing="builtin")
    assert backbone.preprocessing == expected
    assert not backbone.pretrained
    with pytest.raises(ValueError, match="not of 'resnet18'"):
        load_backbone("resnet18", None, preprocessing="builtin")


def test_an_installation_without_the_file_says_so(monkeypatch):
    monkeypatch.setattr("sklearn_dl.backbones._zoo._FOLDER", Path("nowhere"))
    with pytest.raises(FileNotFoundError, match="install sklearn_dl again"):
        load_backbone(ARCHITECTURE, "builtin")


def test_the_wheel_takes_it_along():
    root = Path(__file__).parents[2]
    with open(root / "pyproject.toml", "rb") as file:
        patterns = tomllib.load(file)["tool"]["setuptools"]["package-data"]
    package = root / "sklearn_dl"
    found = {path for p in patterns["sklearn_dl"] for path in package.glob(p)}
    assert FILE in found
    assert FILE.with_suffix(".md") in found


def accuracy(weights, X, y):
    model = make_pipeline(
        ImageFeatureExtractor(
            ARCHITECTURE, weights=weights, image_size=(64, 64), random_state=0
        ),
        StandardScaler(),
        LogisticRegression(C=0.01, max_iter=1000),
    )
    return cross_val_score(model, X, y, cv=3).mean()


def test_it_transfers(digits):
    assert accuracy("builtin", *digits) > accuracy(None, *digits)
