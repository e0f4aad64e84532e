"""Images and estimators for the tests of error analysis."""

import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin

from sklearn_dl._images import as_source
from sklearn_dl.inspection import RobustnessOptions, robustness_report


def reported(estimator, X, y, reference=None, **given):
    """Return a robustness report, with the fields of its options by their names."""
    names = {field.name for field in fields(RobustnessOptions)} & given.keys()
    options = RobustnessOptions(**{name: given.pop(name) for name in names})
    return robustness_report(estimator, X, y, reference, options=options, **given)


def photographs(n, seed=0, size=(48, 40), channels=3):
    """Return n smooth uint8 images (n, *size, channels); later ones are lighter."""
    rng = np.random.default_rng(seed)
    images = np.empty((n, *size, channels), "uint8")
    for row in range(n):
        small = rng.integers(30, 120, (6, 5, channels), "uint8") + 90 * (row >= n // 2)
        large = Image.fromarray(small.squeeze()).resize(size[::-1], Image.BICUBIC)
        images[row] = np.asarray(large).reshape(*size, channels)
    return images


def halves(n):
    return np.repeat(["dark", "light"], [n // 2, n - n // 2])


class ByBrightness(ClassifierMixin, BaseEstimator):
    """Calls an image light whose mean is above a threshold, in whatever form it is."""

    def __init__(self, threshold=120.0, image_shape=None):
        self.threshold = threshold
        self.image_shape = image_shape

    def fit(self, X=None, y=None):
        self.classes_ = np.array(["dark", "light"])
        self.seen_ = []
        return self

    def predict(self, X):
        self.seen_.append(X)
        return self.classes_[(self.means(X) > self.threshold).astype(int)]

    def means(self, X):
        source = as_source(X, image_shape=self.image_shape)
        images = [np.asarray(source[i]) for i in range(len(source))]
        return np.array(
            [i.mean() * (1 if i.dtype == np.uint8 else 255) for i in images]
        )


def assets_or_skip():
    folder = os.environ.get("SKLEARN_DL_ASSETS")
    if not folder:
        pytest.skip("SKLEARN_DL_ASSETS is not set: no real weights and images")
    return Path(folder)
