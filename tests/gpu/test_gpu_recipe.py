"""The training recipe on a CUDA device."""

import numpy as np
import pytest
from gpu_cases import NEEDS_CUDA

from sklearn_dl import ImageClassifier
from sklearn_dl.training import (
    SAM,
    Checkpoint,
    GradientMonitor,
    Head,
    Optimizer,
    Schedule,
    VirtualAdversarialLoss,
    WeightAveraging,
)

pytestmark = NEEDS_CUDA


def two_brightnesses():
    images = np.random.default_rng(0).integers(0, 128, (24, 32, 32, 3), "uint8")
    images[12:] += 100
    return images, np.repeat(["dark", "light"], 12)


def classifier(device, **parameters):
    options = {
        "weights": None,
        "image_size": 32,
        "trainable": "all",
        "warmup_epochs": 1,
        "max_epochs": 3,
        "batch_size": 8,
        "lr": 1e-3,
        "random_state": 0,
    }
    return ImageClassifier("squeezenet1_1", device=device, **{**options, **parameters})


RECIPES = {
    "augmented and mixed": {
        "augment": "standard",
        "augment__mix": "both",
        "loss__label_smoothing": 0.1,
        "class_weight": "balanced",
    },
    "a head of layers": {"head": Head((8,), normalization="batch")},
    "gradients and schedule": {
        "optimizer": Optimizer("adamw", l1=1e-5, max_grad_norm=1.0),
        "schedule": Schedule("cosine", warmup_steps=0.2),
    },
    "sharpness": {"optimizer": SAM},
    "views": {"tta": "ten_crop", "preprocessing": "IMAGENET1K_V1"},
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_gives_what_it_gives_on_a_cpu(name):
    X, y = two_brightnesses()
    P, Q = (
        classifier(device, **RECIPES[name]).fit(X, y).predict_proba(X)
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(P, Q, atol=0.02)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_callbacks_work_on_the_device(precision, tmp_path):
    X, y = two_brightnesses()
    Y = np.stack([y == "light", np.arange(24) % 2 == 0], axis=1).astype(int)
    callbacks = [
        WeightAveraging(),
        VirtualAdversarialLoss(),
        GradientMonitor(),
        Checkpoint(tmp_path),
    ]
    model = classifier(
        "cuda",
        precision=precision,
        callbacks=callbacks,
        class_weight={1: 3.0},
        early_stopping=True,
        augment__mix="mixup",
    )
    assert np.isfinite(model.fit(X, Y).predict_proba(X)).all()
    assert list(tmp_path.iterdir()) == []
