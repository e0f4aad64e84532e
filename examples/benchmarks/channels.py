"""How well backbones for RGB see images of other numbers of channels.

Two tables, on photographs with one subfolder per class, in `train` and `val`::

    python examples/benchmarks/channels.py --data hymenoptera_data \
        --weights mobilenet_v2_imagenet.pth

One channel: 5-fold accuracy of features and a linear SVM on grey photographs, in three
copies and by the summed kernels.

A fourth band: accuracy of each regime on five classes that the fourth band alone tells
apart, by the kind of its stripes; the first three are photographs drawn at random.
"""

import argparse
import os
import platform

import numpy as np
import torch
from PIL import Image
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline, make_union

from sklearn_dl import (
    FeatureScaler,
    FeatureSVC,
    ImageClassifier,
    ImageFeatureExtractor,
    make_feature_classifier,
)
from sklearn_dl.datasets import Channels, load_image_folder

SIDE = 96


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True, help="of mobilenet_v2")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}\n")
    parts = [load_image_folder(f"{args.data}/{part}") for part in ("train", "val")]
    paths = np.concatenate([part.data[:, 0] for part in parts])
    labels = np.concatenate([part.target for part in parts])
    network = {"backbone": "mobilenet_v2", "weights": args.weights}
    one_channel(paths, labels, network, args.seeds)
    fourth_band(paths, {**network, "image_size": (SIDE, SIDE)})


def one_channel(paths, labels, network, seeds: int) -> None:
    """Print the accuracy on grey photographs, by what becomes of their channel."""
    grey = [np.asarray(Image.open(path).convert("L"))[..., None] for path in paths]
    print("grey photographs as            accuracy by seed of the folds", flush=True)
    for name, asked in (("three copies", None), ("one channel", Channels(1))):
        model = make_feature_classifier(**network, image_shape=asked)
        scores = [
            cross_val_score(
                model, grey, labels, cv=StratifiedKFold(5, shuffle=True, random_state=s)
            ).mean()
            for s in range(seeds)
        ]
        print(f"{name:30s} {np.round(scores, 3)}", flush=True)


def fourth_band(paths, network) -> None:
    """Print the accuracy of each regime where the fourth band alone tells."""
    rng = np.random.default_rng(0)
    photographs = [
        np.asarray(Image.open(path).convert("RGB").resize((SIDE, SIDE)))
        for path in paths[:60]
    ]
    X, y = five_classes(photographs, 200, rng)
    X_test, y_test = five_classes(photographs, 100, rng)
    features = {
        f"features + SVM, {asked}": make_feature_classifier(
            **network, image_shape=asked
        )
        for asked in (Channels(4), Channels(4, rgb=False), Channels([3]))
    }
    pair = [
        ImageFeatureExtractor(**network, image_shape=asked)
        for asked in (Channels([0, 1, 2]), Channels([3]))
    ]
    union = make_pipeline(make_union(*pair), FeatureScaler(), FeatureSVC())
    features["features of RGB beside those of the band"] = union
    trained = {
        f"trainable={regime!r}, {asked}": ImageClassifier(
            **network, image_shape=asked, trainable=regime, random_state=0
        )
        for regime, asked in (
            ("head", Channels(4, rgb=False)),
            (1, Channels(4, rgb=False)),
            ("all", Channels(4, rgb=False)),
            ("all", Channels(4)),
        )
    }
    print("\na fourth band, by                                  accuracy (chance 0.2)")
    for name, model in {**features, **trained}.items():
        score = model.fit(X, y).score(X_test, y_test)
        print(f"{name:52s} {score:.2f}", flush=True)


def five_classes(photographs, n: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Return photographs with a fourth band of stripes, and the kinds of those."""
    kinds = np.arange(n) % 5
    images = [
        np.dstack([photographs[rng.integers(len(photographs))], stripes(kind, rng)])
        for kind in kinds
    ]
    return np.stack(images), kinds


def stripes(kind: int, rng) -> np.ndarray:
    """Return a band of stripes: across, down, slanted, crossed or round; and noise."""
    y, x = 2 * np.pi * rng.uniform(4, 6) * np.mgrid[:SIDE, :SIDE] / SIDE
    start = rng.uniform(0, 2 * np.pi)
    centre = rng.uniform(0.3, 0.7, 2) * [y.max(), x.max()]
    waves = (
        np.sin(x + start),
        np.sin(y + start),
        np.sin(x + y + start),
        np.sin(x + start) * np.sin(y + start),
        np.sin(2 * np.hypot(y - centre[0], x - centre[1])),
    )
    band = 128 + 70 * waves[kind] + rng.normal(0, 20, (SIDE, SIDE))
    return np.clip(band, 0, 255).astype("uint8")


if __name__ == "__main__":
    main()
