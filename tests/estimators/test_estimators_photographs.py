"""What the recipe reaches on real photographs and digits, in minutes."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sklearn_dl import ImageClassifier, make_feature_classifier
from sklearn_dl.datasets import load_image_folder

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def photographs(assets):
    """Return the ants and bees to learn from, and those to test on."""
    torch.set_num_threads(2)
    parts = []
    for part in ("train", "val"):
        folder = assets / "hymenoptera_data" / part
        parts += load_image_folder(folder, return_X_y=True)
    return parts


@pytest.mark.parametrize("augment", [None, "standard"])
def test_warm_up_then_everything_with_its_defaults(augment, assets, photographs):
    X, y, X_val, y_val = photographs
    scores = []
    for seed in range(3):
        model = ImageClassifier(
            weights=assets / "mobilenet_v2_imagenet.pth",
            trainable="all",
            warmup_epochs=2,
            max_epochs=7,
            augment=augment,
            random_state=seed,
        )
        scores.append(model.fit(X, y).score(X_val, y_val))
    assert np.mean(scores) >= 0.95, scores


def test_random_weights_stay_far_below(photographs):
    X, y, X_val, y_val = photographs
    model = ImageClassifier(
        weights=None, trainable="all", warmup_epochs=2, max_epochs=7, random_state=0
    )
    assert model.fit(X, y).score(X_val, y_val) < 0.75


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop", "adagrad", "nesterov"])
def test_every_optimiser_has_defaults_that_work(optimizer, assets, photographs):
    X, y, X_val, y_val = photographs
    model = ImageClassifier(
        weights=assets / "mobilenet_v2_imagenet.pth",
        trainable="all",
        warmup_epochs=2,
        max_epochs=5,
        optimizer=optimizer,
        random_state=0,
    )
    assert model.fit(X, y).score(X_val, y_val) >= 0.93


def test_digits_in_two_spreadsheets(assets, tmp_path):
    idx = [
        next((assets / "mnist_t10k").glob(f"*{kind}*.gz"))
        for kind in ("images", "labels")
    ]
    sheets = [tmp_path / "pixels.csv", tmp_path / "labels.csv"]
    command = [sys.executable, EXAMPLES / "mnist_csv.py", *sheets, "--from-idx", *idx]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = re.search(r"accuracy ([01]\.\d+) on 2000 rows", result.stdout)
    assert found, result.stdout
    assert float(found[1]) >= 0.98


def test_bfloat16_tells_ants_from_bees_as_well(assets, photographs):
    X, y, X_val, y_val = photographs
    scores, features = {}, {}
    for precision in ("float32", "bfloat16"):
        model = make_feature_classifier(
            weights=assets / "mobilenet_v2_imagenet.pth",
            precision=precision,
            random_state=0,
        )
        scores[precision] = model.fit(X, y).score(X_val, y_val)
        features[precision] = model["features"].transform(X_val)
    half, whole = features["bfloat16"], features["float32"]
    norms = np.linalg.norm(half, axis=1) * np.linalg.norm(whole, axis=1)
    assert ((half * whole).sum(1) / norms).min() >= 0.999
    # Half a point is less than one of the 153 images.
    assert abs(scores["bfloat16"] - scores["float32"]) <= 0.005 + 1 / 153, scores
