"""The cache of features on a CUDA device, and the memory of searches over it."""

import gc

import numpy as np
import pytest
import torch
from gpu_cases import NEEDS_CUDA
from sklearn.model_selection import GridSearchCV

from sklearn_dl import (
    FeatureCache,
    ImageClassifier,
    ImageFeatureExtractor,
    make_feature_classifier,
)
from sklearn_dl.backbones import images_seen
from sklearn_dl.training import Head

pytestmark = NEEDS_CUDA
OPTIONS = {
    "backbone": "resnet18",
    "weights": None,
    "image_size": 64,
    "random_state": 0,
}
# A head of 8 MB: one that stayed behind would show.
WIDE = {"head": Head((4096,)), "max_epochs": 2}


@pytest.fixture(autouse=True)
def empty_memory():
    FeatureCache("memory").clear()
    yield
    FeatureCache("memory").clear()


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 128, (24, 72, 72, 3), "uint8")
    X[12:] += 100
    order = rng.permutation(24)
    return X[order], np.repeat(["dark", "light"], 12)[order]


def assert_close(features, expected):
    """Compare as other batch companions, or TF32, allow."""
    difference = np.linalg.norm(features - expected, axis=1)
    assert (difference < 1e-3 * np.linalg.norm(expected, axis=1)).all()


SEARCHES = {
    "heads": (
        lambda cache: ImageClassifier(device="cuda", cache=cache, **OPTIONS, **WIDE),
        {"lr": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]},
    ),
    "features + SVM": (
        lambda cache: make_feature_classifier(device="cuda", cache=cache, **OPTIONS),
        {"classifier__C": np.geomspace(1e-4, 10, 6)},
    ),
    "fine-tuned": (
        lambda cache: ImageClassifier(
            trainable="all", device="cuda", cache=cache, **OPTIONS, **WIDE
        ),
        {"lr": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]},
    ),
}


@pytest.mark.parametrize("where", ["memory", "directory"])
@pytest.mark.parametrize("name", SEARCHES)
def test_the_candidates_of_a_search_leave_no_memory_behind(
    name, where, images, tmp_path
):
    X, y = images
    used = []

    def score(model, X, y):
        accuracy = model.score(X, y)
        gc.collect()
        used.append(torch.cuda.memory_allocated())
        return accuracy

    make, grid = SEARCHES[name]
    model = make("memory" if where == "memory" else tmp_path / "cache")
    one_fold = [(np.arange(16), np.arange(16, 24))]
    before = images_seen()
    search = GridSearchCV(
        model, grid, scoring=score, cv=one_fold, refit=False, error_score="raise"
    )
    search.fit(X, y)
    assert len(used) == 6
    assert used[0] > 2**20  # the backbone is on the device
    assert used[5] <= used[1] + 2**20
    if name != "fine-tuned":
        assert images_seen() - before == len(X)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("where", ["memory", "directory"])
def test_stored_features_are_those_computed_on_cuda(where, precision, images, tmp_path):
    X, _ = images
    cache = "memory" if where == "memory" else tmp_path / "cache"
    options = {**OPTIONS, "device": "cuda", "precision": precision}
    fresh = ImageFeatureExtractor(cache=None, **options).fit_transform(X)
    first = ImageFeatureExtractor(cache=cache, **options).fit_transform(X)
    before = images_seen()
    again = ImageFeatureExtractor(cache=cache, **options).fit_transform(X[::-1])
    assert images_seen() == before
    assert again.dtype == np.float32
    np.testing.assert_array_equal(again[::-1], first)
    if precision == "float32":
        assert_close(first, fresh)
    else:  # rounded to 8 bits at each layer
        np.testing.assert_allclose(first, fresh, atol=0.05 * np.abs(fresh).max())


def test_an_entry_of_the_cpu_is_not_served_on_cuda(images, tmp_path):
    X, _ = images
    seen, features = [images_seen()], {}
    for device in ("cpu", "cuda", "cpu", "cuda"):
        extractor = ImageFeatureExtractor(
            device=device, cache=tmp_path / "cache", **OPTIONS
        )
        rows = extractor.fit_transform(X)
        seen.append(images_seen())
        np.testing.assert_array_equal(rows, features.setdefault(device, rows))
    assert np.diff(seen).tolist() == [len(X), len(X), 0, 0]
    assert FeatureCache(tmp_path / "cache").statistics().entries == 2 * len(X)
    assert_close(features["cuda"], features["cpu"])


def test_a_head_on_stored_features_is_trained_on_cuda_as_the_long_way(images):
    X, y = images
    options = {**OPTIONS, "device": "cuda", "max_epochs": 3}
    long_way = ImageClassifier(cache=None, **options).fit(X, y)
    model = ImageClassifier(cache="memory", **options).fit(X, y)
    assert next(model.module_.parameters()).device.type == "cuda"
    P = model.predict_proba(X)
    np.testing.assert_allclose(P, long_way.predict_proba(X), atol=0.02)
    before = images_seen()
    np.testing.assert_array_equal(model.predict_proba(X), P)
    assert images_seen() == before
