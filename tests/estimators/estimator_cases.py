"""Small estimators and images for the tests of the estimators."""

import numpy as np
from skorch.callbacks import Callback

from sklearn_dl import ImageClassifier, ImageFeatureExtractor, ImageRegressor

SMALL = {
    "backbone": "squeezenet1_1",
    "weights": None,
    "image_size": 32,
    "random_state": 0,
}
# Learns two brightnesses within a few cheap epochs of the head.
EASY = {"layer": "features.2", "optimizer": "adam", "lr": 1e-2, "max_epochs": 10}


def classifier(**parameters):
    return made(ImageClassifier, {"max_epochs": 3, **parameters})


def regressor(**parameters):
    return made(ImageRegressor, {"max_epochs": 3, **parameters})


def made(kind, parameters):
    """Return a small estimator; parameters may be those of objects in it."""
    inner = {name: value for name, value in parameters.items() if "__" in name}
    own = {name: value for name, value in parameters.items() if "__" not in name}
    return kind(**{**SMALL, **own}).set_params(**inner)


def extractor(**parameters):
    return ImageFeatureExtractor(**{**SMALL, **parameters})


def two_brightnesses(n, seed=0, size=32):
    """Return n noisy colour images, the later half lighter, and their classes."""
    images = np.random.default_rng(seed).integers(0, 128, (n, size, size, 3), "uint8")
    images[n // 2 :] += 100
    return images, np.repeat(["dark", "light"], [n // 2, n - n // 2])


def state_of(estimator):
    """Return copies of all tensors of a fitted network."""
    return {
        name: tensor.detach().clone()
        for name, tensor in estimator.module_.state_dict().items()
    }


class Recorder(Callback):
    """Keeps what the loop hands to callbacks."""

    def initialize(self):
        self.epochs, self.batch_sizes, self.train_targets = 0, [], []
        return self

    def on_batch_end(self, net, *, batch=None, training=False, **kwargs):
        if training:
            self.batch_sizes.append(len(batch[1]))
            self.train_targets.extend(batch[1].tolist())

    def on_epoch_end(self, net, **kwargs):
        self.epochs += 1


class Raise(Callback):
    """Raises at the n-th call of a hook."""

    def __init__(self, hook, n=1, error=KeyboardInterrupt):
        self.hook = hook
        self.n = n
        self.error = error

    def initialize(self):
        self.calls = 0
        return self

    def _count(self, hook):
        if hook == self.hook:
            self.calls += 1
            if self.calls == self.n:
                raise self.error

    def on_train_begin(self, net, **kwargs):
        self._count("on_train_begin")

    def on_epoch_begin(self, net, **kwargs):
        self._count("on_epoch_begin")

    def on_batch_end(self, net, **kwargs):
        self._count("on_batch_end")

    def on_epoch_end(self, net, **kwargs):
        self._count("on_epoch_end")
