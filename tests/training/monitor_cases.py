"""A small estimator and images for the tests of what watches a training."""

import numpy as np

from sklearn_dl import ImageClassifier


def two_brightnesses():
    """Return 14 images of two brightnesses, and their classes."""
    images = np.random.default_rng(0).integers(0, 128, (14, 32, 32, 3), "uint8")
    images[7:] += 100
    return images, np.repeat([0, 1], 7)


def classifier(**parameters):
    """Return an estimator that trains one convolution and the head."""
    options = {
        "backbone": "squeezenet1_1",
        "weights": None,
        "image_size": (32, 32),
        "layer": "features.2",
        "trainable": "all",
        "optimizer": "sgd",
        "batch_size": 6,
        "max_epochs": 2,
        "random_state": 0,
        "device": "cpu",
    }
    return ImageClassifier(**{**options, **parameters})
