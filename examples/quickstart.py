"""Transfer learning on images in one go: features + SVM, a trained head, a baseline.

Without arguments it runs on scikit-learn's handwritten digits, with the weights that
are in the package, and needs no network; on your own images with ``--data FOLDER``, a
folder with one subfolder per class, or with ``train`` and ``val`` (or ``test``) folders
of that form; with better weights, which torchvision downloads, by ``--backbone``::

    python examples/quickstart.py
    python examples/quickstart.py --data hymenoptera_data
    python examples/quickstart.py --data hymenoptera_data --backbone mobilenet_v2

It prints the accuracy of each model on images that none of them was fitted on, beside
that of the better of two tuned classifiers on raw pixels and that of the same network
with random weights, and writes a picture of predictions beside truths.
"""

import argparse
import os
import socket
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from sklearn_dl import ImageClassifier, make_feature_classifier
from sklearn_dl._images import as_source, decode_image
from sklearn_dl.backbones import load_backbone
from sklearn_dl.datasets import load_image_folder

BUILTIN = "mobilenet_v3_small"  # the backbone whose weights are in the package
RIGHT, WRONG = "#0072b2", "#d55e00"  # told apart by colour-blind readers


def main() -> None:
    """Run the whole comparison."""
    args = parse_arguments()
    try:
        name, images, options = load_data(args.data, args.image_size)
        X_train, X_test, y_train, y_test = images
        options |= choose_weights(args.backbone, args.weights, options)
    except (OSError, ValueError) as error:
        raise SystemExit(f"quickstart: {error}") from error
    print(
        f"{name}: {len(X_train)} images to learn from, {len(X_test)} to test on, "
        f"{len(np.unique(y_train))} classes"
    )
    options |= {"random_state": 0, "verbose": 1}
    models = {"raw pixels": PixelBaseline()}
    if options["weights"] is not None:
        untrained = options | {"weights": None}
        models["random weights + SVM"] = make_feature_classifier(**untrained)
    models |= {
        "features + SVM": make_feature_classifier(**options),
        "trained head": ImageClassifier(**options),
    }
    scores = {}
    for label, model in models.items():
        print(f"\n{label}", flush=True)
        start = time.perf_counter()
        predicted = model.fit(X_train, y_train).predict(X_test)
        scores[label] = np.mean(predicted == y_test), time.perf_counter() - start
    report(scores, options["weights"], len(y_test), args.data)
    draw(X_test, y_test, predicted, f"{name}, trained head", args.output)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with a subfolder per class")
    parser.add_argument("--backbone", default=BUILTIN, help="a torchvision model")
    parser.add_argument(
        "--weights",
        help="DEFAULT, the name of an entry, a file, or none for random weights; "
        f"builtin, those in the package, are of {BUILTIN}",
    )
    parser.add_argument(
        "--image-size", type=int, help="input size in pixels (digits: 96)"
    )
    parser.add_argument("--output", type=Path, default=Path("predictions.png"))
    args = parser.parse_args()
    if find_spec("matplotlib") is None:
        parser.error("the picture needs matplotlib: pip install 'sklearn_dl[plots]'")
    if not args.output.parent.is_dir():
        parser.error(f"--output: there is no folder {args.output.parent}")
    return args


def load_data(folder: Path | None, image_size: int | None):
    """Return a name, (X_train, X_test, y_train, y_test), and options for them."""
    if folder is None:
        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype("uint8")
        split = train_test_split(
            images, digits.target, stratify=digits.target, random_state=0
        )
        # A pair of numbers resizes without cropping: the digits fill their frames.
        return "Handwritten digits", split, {"image_size": (image_size or 96,) * 2}
    options = {} if image_size is None else {"image_size": image_size}
    for held_out in ("val", "test"):
        if (folder / "train").is_dir() and (folder / held_out).is_dir():
            X_train, y_train = load_folder(folder / "train")
            X_test, y_test = load_folder(folder / held_out)
            return folder.name, (X_train, X_test, y_train, y_test), options
    X, y = load_folder(folder)
    counts = pd.Series(y).value_counts()
    if counts.min() < 4:
        raise ValueError(
            f"class {counts.idxmin()!r} of {folder} has {counts.min()} images; each "
            "needs at least 4, to hold some back for the test."
        )
    return folder.name, train_test_split(X, y, stratify=y, random_state=0), options


def load_folder(folder: Path):
    """Return paths and class names; leave out what can't be decoded, and say so."""
    data = load_image_folder(folder, verify="skip")
    for path, reason in data.skipped.itertuples(index=False):
        print(f"Left out: {path} ({reason})")
    if len(data.target_names) < 2:
        raise ValueError(f"{folder} has one class; give at least 2 subfolders.")
    return data.data, data.target


def choose_weights(backbone: str, weights: str | None, options: dict) -> dict:
    """Return backbone and weights that can be had, and say which they are."""
    size = options.get("image_size")
    if weights is None:
        weights = "builtin" if backbone == BUILTIN else "DEFAULT"
    if weights.lower() == "none":
        load_backbone(backbone, None, image_size=size)
        print("Weights: random, as asked for.")
        return {"backbone": backbone, "weights": None}
    socket.setdefaulttimeout(20)  # a firewall may swallow the connection
    try:
        load_backbone(backbone, weights, image_size=size)
    except FileNotFoundError:  # a file that was named: no network is missing
        raise
    except OSError as error:
        print(f"\n{error}\n\nWeights: builtin, those in the package, of {BUILTIN}.")
        return {"backbone": BUILTIN, "weights": "builtin"}
    print(f"Weights: {weights} of {backbone}.")
    return {"backbone": backbone, "weights": weights}


def pixels(X) -> np.ndarray:
    """Return images as rows of grey or colour pixels, at most 32 x 32."""
    source = as_source(X)
    rows = []
    for i in range(len(source)):
        image = decode_image(source[i])
        if max(image.size) > 32:
            image = image.resize((32, 32), Image.Resampling.BILINEAR)
        rows.append(np.asarray(image, dtype="float32").ravel() / 255)
    return np.stack(rows)


class PixelBaseline:
    """The better of two classifiers on raw pixels, each tuned by cross-validation."""

    candidates = (
        (SVC(), {"svc__C": [1, 10], "svc__gamma": ["scale", 1e-3, 1e-2]}),
        (KNeighborsClassifier(), {"kneighborsclassifier__n_neighbors": [1, 3, 5, 9]}),
    )

    def fit(self, X, y):
        """Tune both, and keep the one with the better cross-validation score."""
        rows = pixels(X)
        searches = [
            GridSearchCV(make_pipeline(StandardScaler(), model), grid, cv=3)
            for model, grid in self.candidates
        ]
        self.best_ = max(
            (search.fit(rows, y) for search in searches),
            key=lambda search: search.best_score_,
        )
        model = type(self.best_.best_estimator_[-1]).__name__
        print(
            f"{model} is the better of two tuned classifiers", self.best_.best_params_
        )
        return self

    def predict(self, X):
        """Return the predictions of the better one."""
        return self.best_.predict(pixels(X))


def report(scores: dict, weights: str | None, n_test: int, data: Path | None) -> None:
    """Print the table, and what it does and doesn't say."""
    width = max(map(len, scores))
    print(f"\n{'':{width}}  accuracy  seconds")
    for label, (accuracy, seconds) in scores.items():
        print(f"{label:{width}}  {accuracy:8.3f}  {seconds:7.1f}")
    print(f"One image of the {n_test} is {1 / n_test:.3f}.")
    accuracies = {label: accuracy for label, (accuracy, _) in scores.items()}
    ours = max(accuracies["features + SVM"], accuracies["trained head"])
    gain = ours - accuracies["raw pixels"]
    if gain > 0:
        print(f"Above the baseline on raw pixels by {gain:.3f}.")
    elif data is None:
        print(
            "The baseline wins here: on small, centred, clean images raw pixels are "
            "hard to beat. Photographs are another matter: try --data."
        )
    else:
        print("The baseline on raw pixels wins here.")
    if weights is None:
        print("The weights were random: with pretrained ones the last two rows change.")
    elif weights == "builtin":
        print(
            "The weights in the package are small; those that torchvision publishes "
            "transfer better: try --backbone mobilenet_v2."
        )


def draw(X, y, predicted, title: str, output: Path) -> None:
    """Write a picture of predictions beside truths, mistakes first."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    import matplotlib.pyplot as plt

    wrong = np.flatnonzero(predicted != y)[:8]
    right = np.flatnonzero(predicted == y)
    n_shown = min(24 - len(wrong), len(right))
    right = right[np.linspace(0, len(right) - 1, n_shown).astype(int)]
    source = as_source(X)
    figure, axes = plt.subplots(4, 6, figsize=(10, 8.4), layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, i in zip(axes.flat, [*wrong, *right], strict=False):
        image = decode_image(source[int(i)])
        axis.imshow(ImageOps.fit(image, (min(image.size),) * 2))
        colour = RIGHT if predicted[i] == y[i] else WRONG
        axis.set_title(
            f"predicted {predicted[i]}\ntruth {y[i]}", color=colour, fontsize=10
        )
    accuracy = np.mean(predicted == y)
    figure.suptitle(
        f"{title}: accuracy {accuracy:.3f}; mistakes (up to 8, orange) first",
        fontsize=13,
    )
    figure.savefig(output, dpi=110)
    print(f"\nPicture of predictions beside truths: {output}")


if __name__ == "__main__":
    main()
