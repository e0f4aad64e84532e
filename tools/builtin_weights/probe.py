"""How good the weights in the package are: linear probes beside random and teacher.

::

    python tools/builtin_weights/probe.py --data hymenoptera_data \
        --idx t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz \
        --teacher mobilenet_v2_imagenet.pth

Frozen features of images of 128 pixels, standardised, and a linear classifier whose C
is chosen by 5-fold cross-validation, alike for each contender: the builtin weights, the
same network with random ones (mean of three), the teacher they were distilled from, and
the pixels of images of 32 x 32. None of these images was seen in the distillation.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from folders import load_folders
from mnist_csv import read_idx

from sklearn_dl import ImageFeatureExtractor
from sklearn_dl._images import as_source, decode_image

SIZE = 128
GRID = {"logisticregression__C": [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]}
STUDENT = "mobilenet_v3_small"


def main() -> None:
    """Probe each contender on each set of images, and print the table."""
    args = parse_arguments()
    contenders = {
        "builtin": [(STUDENT, args.weights, 0)],
        "random weights": [(STUDENT, None, seed) for seed in range(3)],
        "teacher": [("mobilenet_v2", args.teacher, 0)],
        "pixels, 32 x 32": [None],
    }
    print("| accuracy | " + " | ".join(contenders) + " |")
    print("|---|" + "---|" * len(contenders))
    for name, parts in image_sets(args).items():
        scores = [
            np.mean([probe(features_by(way), *parts) for way in ways])
            for ways in contenders.values()
        ]
        cells = " | ".join(f"{score:.3f}" for score in scores)
        print(f"| {name} | {cells} |", flush=True)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with train and val folders")
    parser.add_argument(
        "--idx", type=Path, nargs=2, help="images and labels in MNIST's form"
    )
    parser.add_argument(
        "--teacher",
        default="IMAGENET1K_V1",
        help="weights of mobilenet_v2, by name or file",
    )
    parser.add_argument("--weights", default="builtin", help=f"of {STUDENT}")
    return parser.parse_args()


def image_sets(args: argparse.Namespace) -> dict[str, tuple]:
    """Return (X_train, X_test, y_train, y_test) of each set of images, by its name."""
    sets = {}
    if args.data:
        sets[args.data.name] = load_folders(args.data)
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype("uint8")
    sets["scikit-learn's digits"] = train_test_split(
        images, digits.target, test_size=0.5, stratify=digits.target, random_state=0
    )
    if args.idx:
        images, labels = map(read_idx, args.idx)
        # 2,000 to learn from, 2,000 to test on.
        sets["MNIST"] = train_test_split(
            *(images, labels),
            train_size=2000,
            test_size=2000,
            stratify=labels,
            random_state=0,
        )
    return sets


def features_by(way):
    """Return a function from images to rows of numbers."""
    if way is None:
        return pixels
    backbone, weights, seed = way

    def features(X):
        # A pair of numbers resizes without cropping: digits fill their frames.
        size = (SIZE, SIZE) if isinstance(X, np.ndarray) and X.ndim > 2 else SIZE
        return ImageFeatureExtractor(
            backbone, weights=weights, image_size=size, random_state=seed
        ).fit_transform(X)

    return features


def pixels(X) -> np.ndarray:
    """Return each image's colours at 32 x 32 pixels as a row."""
    source = as_source(X)
    small = (
        decode_image(source[i]).resize((32, 32), Image.Resampling.BILINEAR)
        for i in range(len(source))
    )
    return np.stack([np.asarray(image, dtype="float32").ravel() for image in small])


def probe(features, X_train, X_test, y_train, y_test) -> float:
    """Return the accuracy of a tuned linear classifier on features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    search = GridSearchCV(model, GRID, cv=5).fit(features(X_train), y_train)
    return search.score(features(X_test), y_test)


if __name__ == "__main__":
    main()
