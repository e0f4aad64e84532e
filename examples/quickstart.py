"""Transfer learning on images in one go: features + SVM, a trained head, a baseline.

Without arguments the task is to tell from which of seven photographs a patch was cut:
patches of their left halves are learned from, those of their right halves tested on.
The photographs come with scikit-image, scikit-learn and matplotlib, the weights with
this package, and no network is needed. Your own images are ``--data FOLDER``, a folder
with one subfolder per class, or with ``train`` and ``val`` (or ``test``) folders of
that form; better weights, which torchvision downloads, come by ``--backbone``::

    python examples/quickstart.py
    python examples/quickstart.py --data hymenoptera_data
    python examples/quickstart.py --data hymenoptera_data --backbone mobilenet_v2

It prints the accuracy of each model on images that none of them was fitted on, beside
that of the better of two tuned classifiers on raw pixels and that of the same network
with random weights, and writes a picture of the best model's predictions. Without
arguments it adds the accuracy on the photographs that the weights were not learned
from, and that on handwritten digits, where raw pixels are hard to beat.
"""

import argparse
import os
import socket
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_digits, load_sample_image
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
PIXELS, OURS = "raw pixels", ("features + SVM", "trained head")
# The weights in the package were learned from crops of the others, without names.
UNSEEN = ("admiral", "coffee")


def main() -> None:
    """Run the whole comparison."""
    args = parse_arguments()
    photos = photographs() if args.data is None else {}
    try:
        if photos:
            torch.set_num_threads(1)  # little work: threads would wait for one another
            name, images = "Patches of photographs", cut_patches(photos)
            options = {} if args.image_size is None else {"image_size": args.image_size}
        else:
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
    models = {PIXELS: PixelBaseline()}
    if options["weights"] is not None:
        untrained = options | {"weights": None}
        models["random weights + SVM"] = make_feature_classifier(**untrained)
    models[OURS[0]] = make_feature_classifier(**options)
    models[OURS[1]] = ImageClassifier(**options)
    hits, seconds, predictions = {}, {}, {}
    for label, model in models.items():
        print(f"\n{label}", flush=True)
        start = time.perf_counter()
        predictions[label] = model.fit(X_train, y_train).predict(X_test)
        seconds[label] = time.perf_counter() - start
        hits[label] = predictions[label] == y_test
    report(hits, seconds, options["weights"])
    best = max(OURS, key=lambda label: hits[label].mean())
    if photos:
        if options["weights"] == "builtin":
            unseen = np.isin(y_test, UNSEEN)
            print(
                "On patches of the photographs that the weights were not learned from "
                f"({', '.join(UNSEEN)}): {PIXELS} {hits[PIXELS][unseen].mean():.3f}, "
                f"{best} {hits[best][unseen].mean():.3f}."
            )
        try_digits(options | {"verbose": 0})
    title = f"{name}, {best}: {hits[best].mean():.1%} of {len(y_test)} right"
    draw(X_test, y_test, predictions[best], title, args.output, photos)


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
    parser.add_argument("--image-size", type=int, help="input size in pixels")
    parser.add_argument("--output", type=Path, default=Path("predictions.png"))
    args = parser.parse_args()
    if find_spec("matplotlib") is None:
        parser.error("the picture needs matplotlib: pip install 'sklearn_dl[plots]'")
    if args.data is None and find_spec("skimage") is None:
        parser.error(
            "the photographs are in scikit-image: pip install 'sklearn_dl[examples]'; "
            "or give your own, --data FOLDER"
        )
    if not args.output.parent.is_dir():
        parser.error(f"--output: there is no folder {args.output.parent}")
    return args


def photographs() -> dict[str, np.ndarray]:
    """Return photographs that come with the packages that this example needs."""
    from matplotlib.cbook import get_sample_data
    from skimage import data

    hopper = Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False))
    return {
        "admiral": np.asarray(hopper),  # US Navy, public domain
        "cat": data.chelsea(),  # Stefan van der Walt, CC0
        "coffee": data.coffee(),  # Rachel Michetti, CC0
        "coins": data.coins(),  # Brooklyn Museum, no known restrictions
        "flower": load_sample_image("flower.jpg"),  # vultilion, CC BY 2.0
        "motorcycle": data.stereo_motorcycle()[0],  # Middlebury stereo data, 2014
        "pagoda": load_sample_image("china.jpg"),  # danielbuechele, CC BY 2.0
    }


def cut_patches(photos: dict[str, np.ndarray]):
    """Return (X_train, X_test, y_train, y_test), of left and of right halves.

    Patches are squares of 48 to 128 pixels. Between the halves is a gap of 4 % of the
    width, so that no pixel is in both.
    """
    rng = np.random.default_rng(0)
    X_train, X_test = [], []
    for photo in photos.values():
        height, width = photo.shape[:2]
        left, right = (0, int(0.48 * width)), (int(0.52 * width), width)
        for X, (low, high), n in ((X_train, left, 30), (X_test, right, 30)):
            for size in rng.integers(48, 129, n):
                x, y = rng.integers((low, 0), (high - size + 1, height - size + 1))
                X.append(photo[y : y + size, x : x + size])
    names = np.array(list(photos))
    return X_train, X_test, names.repeat(30), names.repeat(30)


def load_data(folder: Path | None, image_size: int | None):
    """Return a name, (X_train, X_test, y_train, y_test), and options for them.

    Without a folder they are scikit-learn's digits.
    """
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
    """The better of SVM and neighbours on raw pixels, tuned by cross-validation."""

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
        return self

    def predict(self, X):
        """Return the predictions of the better one."""
        return self.best_.predict(pixels(X))


def report(hits: dict, seconds: dict, weights: str | None) -> None:
    """Print the table, and what it does and doesn't say."""
    width = max(map(len, hits))
    print(f"\n{'':{width}}  accuracy  seconds")
    for label, right in hits.items():
        print(f"{label:{width}}  {right.mean():8.3f}  {seconds[label]:7.1f}")
    n_test = len(hits[PIXELS])
    print(f"One image of the {n_test} is {1 / n_test:.3f}.")
    gain = max(hits[label].mean() for label in OURS) - hits[PIXELS].mean()
    if gain > 0:
        print(f"Above the baseline on raw pixels by {gain:.3f}.")
    else:
        print("The baseline on raw pixels wins here.")
    if weights is None:
        print("The weights were random: with pretrained ones the last two rows change.")
    elif weights == "builtin":
        print(
            "The weights in the package are small; to photographs of your own those "
            "that torchvision publishes transfer better: try --backbone mobilenet_v2."
        )


def try_digits(options: dict) -> None:
    """Print a line on images where raw pixels are hard to beat."""
    name, (X_train, X_test, y_train, y_test), size = load_data(None, None)
    models = PixelBaseline(), make_feature_classifier(**options | size)
    theirs, ours = (
        np.mean(model.fit(X_train, y_train).predict(X_test) == y_test)
        for model in models
    )
    print(
        f"{name}, small, centred and clean, where pixels are hard to beat: "
        f"{PIXELS} {theirs:.3f}, {OURS[0]} {ours:.3f}."
    )


def draw(X, y, predicted, title: str, output: Path, photos: dict) -> None:
    """Write a picture of predictions, mistakes first, below the photos they are of."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    import matplotlib.pyplot as plt

    rows, columns = 4 + bool(photos), len(photos) or 7
    wrong, right = np.flatnonzero(predicted != y), np.flatnonzero(predicted == y)
    n_wrong = min(columns, len(wrong))
    wrong = wrong[np.linspace(0, len(wrong) - 1, n_wrong).astype(int)]
    n_right = min(4 * columns - n_wrong, len(right))
    right = right[np.linspace(0, len(right) - 1, n_right).astype(int)]
    size = 2 * columns, 2.3 * rows + 0.5
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, (name, photo) in zip(axes[0], photos.items(), strict=False):
        axis.imshow(photo, cmap="gray")
        axis.axvspan(0.48 * photo.shape[1], 0.52 * photo.shape[1], color="white")
        axis.set_title(name, fontsize=12)
        axis.set_xlabel("learned from | tested", fontsize=11)
        axis.set_anchor("S")
    source = as_source(X)
    for axis, i in zip(axes[-4:].flat, [*wrong, *right], strict=False):
        image = decode_image(source[int(i)])
        axis.imshow(ImageOps.fit(image, (224, 224)))
        good = predicted[i] == y[i]
        said = f"{y[i]}" if good else f"predicted {predicted[i]}\ntruth {y[i]}"
        axis.set_title(said, color=RIGHT if good else WRONG, fontsize=12)
        axis.spines[:].set(visible=True, color=RIGHT if good else WRONG, linewidth=4)
    figure.suptitle(f"{title}; mistakes, up to {columns}, in orange", fontsize=17)
    figure.savefig(output, dpi=100)
    print(f"\nPicture of predictions beside truths: {output}")


if __name__ == "__main__":
    main()
