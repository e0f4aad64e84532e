"""The same results on CUDA as on the CPU; run with ``-m gpu`` where there is one."""

import pickle

import numpy as np
import pytest
from gpu_cases import NEEDS_CUDA

from sklearn_dl import ImageClassifier, ImageFeatureExtractor

pytestmark = NEEDS_CUDA
OPTIONS = {"weights": None, "image_size": 64, "random_state": 0}


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 128, (24, 72, 72, 3), "uint8")
    X[12:] += 100
    return X, np.repeat(["dark", "light"], 12)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.05)]
)
def test_features_on_cuda_equal_those_on_the_cpu(images, precision, tolerance):
    X, _ = images
    on_cpu = ImageFeatureExtractor("resnet18", device="cpu", **OPTIONS)
    on_cuda = ImageFeatureExtractor(
        "resnet18", device="cuda", precision=precision, **OPTIONS
    )
    expected, features = on_cpu.fit_transform(X), on_cuda.fit_transform(X)
    assert next(on_cuda.backbone_.parameters()).device.type == "cuda"
    assert features.dtype == np.float32
    difference = np.linalg.norm(features - expected, axis=1)
    assert (difference < tolerance * np.linalg.norm(expected, axis=1)).all()


@pytest.mark.parametrize("trainable", ["head", "all"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_on_cuda_learns(images, trainable, precision):
    X, y = images
    model = ImageClassifier(
        "resnet18", trainable=trainable, precision=precision, device="cuda", **OPTIONS
    )
    assert model.fit(X, y).score(X, y) > 0.9
    assert next(model.module_.parameters()).device.type == "cuda"


def test_loader_workers_leave_the_device_to_the_parent(images):
    X, y = images
    model = ImageClassifier(
        "resnet18",
        trainable=1,
        max_epochs=1,
        device="cuda",
        net_params={"iterator_train__num_workers": 2},
        **OPTIONS,
    )
    assert np.isfinite(model.fit(X, y).history_["train_loss"]).all()


def test_a_pickle_holds_no_tensor_of_the_device(images):
    X, _ = images
    extractor = ImageFeatureExtractor("resnet18", device="cuda", **OPTIONS)
    expected = extractor.fit_transform(X)
    loaded = pickle.loads(pickle.dumps(extractor))
    assert {p.device.type for p in loaded.backbone_.parameters()} == {"cpu"}
    assert {p.device.type for p in extractor.backbone_.parameters()} == {"cuda"}
    np.testing.assert_allclose(loaded.transform(X), expected, rtol=1e-3, atol=1e-5)
