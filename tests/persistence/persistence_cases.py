"""Small models for the tests of persistence, and what is done to their files."""

import json
import zipfile

import numpy as np
import processes
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from torch import nn

from sklearn_dl import ImageClassifier, ImageFeatureExtractor, ImageRegressor

SMALL = {
    "backbone": "squeezenet1_1",
    "weights": None,
    "image_size": 32,
    "random_state": 0,
    "cache": None,
}
RNG = np.random.default_rng(0)
X = RNG.integers(0, 128, (18, 32, 32, 3), "uint8")
X[9:] += 100
Y = np.repeat(["dark", "light"], 9)
ROWS = X.reshape(18, -1)
NUMBERS = np.linspace(-40.0, 400.0, 18)


def classifier(**parameters):
    return ImageClassifier(**{**SMALL, "max_epochs": 2, **parameters})


def regressor(**parameters):
    return ImageRegressor(**{**SMALL, "max_epochs": 2, **parameters})


def extractor(**parameters):
    return ImageFeatureExtractor(**{**SMALL, **parameters})


def outputs(model, images=X):
    """Return all that a model says of images."""
    methods = ("predict_proba", "decision_function", "predict", "transform")
    return {m: getattr(model, m)(images) for m in methods if hasattr(model, m)}


def assert_same_outputs(one, other, images=X):
    first, second = outputs(one, images), outputs(other, images)
    assert first.keys() == second.keys()
    assert first
    for method, values in first.items():
        np.testing.assert_array_equal(values, second[method], err_msg=method)
        assert values.dtype == second[method].dtype


def run(code: str, *arguments) -> str:
    """Run Python code in a process of its own."""
    prelude = "import sys, torch; torch.set_num_threads(1)\n"
    return processes.run(prelude + code, *arguments).stdout


def rewritten(path, change, *, compression=zipfile.ZIP_STORED):
    """Write a model's file anew, after a change to its members (name -> bytes)."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def change_manifest(path, change):
    """Write a model's file anew, with another manifest."""

    def with_manifest(members):
        manifest = json.loads(members["manifest.json"])
        result = change(manifest)
        text = result if isinstance(result, str) else json.dumps(manifest)
        members["manifest.json"] = text.encode()

    rewritten(path, with_manifest)


class Halved(TransformerMixin, BaseEstimator):
    """A user's transformer."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return X / 2


def tiny_network(width=4):
    """Make a user's backbone."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten()
    )


def own_loss(outputs, target):
    return torch.nn.functional.cross_entropy(outputs, target, reduction="none")


def mirrored(image):
    from PIL import ImageOps

    return [image, ImageOps.mirror(image)]


def livened(model, images):
    """Give a random network statistics and a head that tell images apart.

    A new ViT's head is zeros and the outputs of others are nearly the same for all
    images, so that exports that are wrong would look right.
    """
    network = model.module_.backbone.module
    pixels = model.preprocessing_.normalize(
        torch.from_numpy(images).permute(0, 3, 1, 2)
    )
    with torch.no_grad():
        network.eval()
        for part in network.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.train()
                part.momentum = 1.0
        network(pixels)
        network.eval()
        features = model.module_.head.scaling(model.module_.backbone(pixels))
        generator = torch.Generator().manual_seed(0)
        head = model.module_.head.output
        spread = features.std(0) + 1e-3 * features.std()
        weight = torch.randn(head.weight.shape, generator=generator)
        weight = weight * 2 / spread / features.shape[1] ** 0.5
        head.weight.copy_(weight)
        head.bias.copy_(-weight @ features.mean(0))
    return model
