"""Images and networks for the tests of attribution."""

import numpy as np
import torch
from torch import nn

from sklearn_dl import ImageClassifier
from sklearn_dl.backbones import Preprocessing

SIDE, SQUARE = 96, 28


def bright_squares(n, seed=0):
    """Return images, whether each has a bright square, and where it begins."""
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 90, (n, SIDE, SIDE, 3), "uint8")
    starts = rng.integers(0, SIDE - SQUARE, (n, 2))
    y = np.arange(n) % 2
    for row in np.flatnonzero(y):
        top, left = starts[row]
        X[row, top : top + SQUARE, left : left + SQUARE] = 250
    return X, np.where(y, "square", "none"), starts


def small(name="resnet18", kind=ImageClassifier, **options):
    settings = {"image_size": SIDE, "max_epochs": 2, "random_state": 0, **options}
    return kind(name, weights=None, **settings)


class Averaged(nn.Module):
    """A convolution whose map is averaged."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 5, stride=4, padding=1)

    def forward(self, x):
        return self.conv(x).mean((2, 3))


def averaged():
    torch.manual_seed(0)
    return Averaged()


PLAIN = Preprocessing(None, None, mean=(0.5,) * 3, std=(0.25,) * 3)
