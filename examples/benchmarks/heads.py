"""Heads with few images: the default head beside the default pipeline.

    python examples/benchmarks/heads.py --weights mobilenet_v2_imagenet.pth \
        --data hymenoptera_data xray_small
    python examples/benchmarks/heads.py --numbers ... (the same)
    python examples/benchmarks/heads.py --regimes ... (the same; takes half an hour)

The sets and the features are those of few_images.py. A row is the mean over the sets:
accuracy of the SVM, accuracy and log loss of ``ImageClassifier()``, each trained on the
same draws. With `--numbers` the default ``ImageRegressor()`` learns how bright an image
is: mean and deviation of R2 on the test images over five seeds, by loss and epochs.
With `--regimes` the regimes of `recommend_regime` are fitted to draws of each set of
`--data`, with mobilenet_v2 or the weights in the package. Run it with the package of
another commit on the path (``PYTHONPATH``) to compare.
"""

import sys
import warnings
from pathlib import Path

import few_images
import harness
import numpy as np
from PIL import Image
from sklearn.metrics import log_loss

from sklearn_dl import ImageClassifier, ImageRegressor, make_feature_classifier
from sklearn_dl.model_selection import recommend_regime

sys.path.insert(0, str(Path(__file__).parents[1]))
import quickstart

N_DRAWS = {2: 12, 5: 8, 10: 6, 20: 4, "all": 3}


def main() -> None:
    """Print one of the three tables."""
    parser = harness.parser(__doc__)
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--weights", help="a file of mobilenet_v2's weights")
    parser.add_argument("--numbers", action="store_true")
    parser.add_argument("--regimes", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sets = [quickstart.load_data(folder, None) for folder in [*args.data, None]]
    patches = quickstart.cut_patches(quickstart.photographs())
    sets.append(("Patches", patches, {"image_size": (96, 96)}))
    sources = few_images.sources(args.weights)
    del sources["early layer"]
    if args.regimes:
        source = sources.get("mobilenet_v2", sources["builtin"])
        header = ["set", "images", "regime", "accuracy, %"]
        rows = list(regimes(sets[: len(args.data)], source))
    elif args.numbers:
        header = ["features", "set", "squared, 20 epochs", "100", "absolute, 20", "100"]
        rows = list(numbers(sets, sources))
    else:
        header = ["features", "per class", "SVM, %", "head, %", "log loss of the head"]
        rows = list(classes(sets, sources))
    harness.table("Heads with few images", header, rows, args.output)


def classes(sets, sources):
    """Yield a row for each source of features and number of images."""
    for source, options in sources.items():
        found: dict = {}
        for _, (X_train, X_test, y_train, y_test), size in sets:
            y_train, y_test = np.asarray(y_train), np.asarray(y_test)
            largest = np.unique(y_train, return_counts=True)[1].max()
            for n, draw in draws(largest):
                rows = few_images.drawn(y_train, n, 1, np.random.default_rng(draw))
                X = [X_train[row] for row in rows]
                svm = make_feature_classifier(**{**size, **options})
                head = ImageClassifier(**{**size, "random_state": draw, **options})
                svm.fit(X, y_train[rows])
                P = head.fit(X, y_train[rows]).predict_proba(X_test)
                right = np.mean(head.classes_[P.argmax(1)] == y_test)
                loss = log_loss(y_test, P, labels=head.classes_)
                scores = 100 * svm.score(X_test, y_test), 100 * right, loss
                found.setdefault(n, {}).setdefault(id(X_train), []).append(scores)
        for n, by_set in found.items():
            means = [np.mean(scores, axis=0) for scores in by_set.values()]
            svm_score, right, loss = np.mean(means, axis=0)
            yield [source, n, f"{svm_score:.1f}", f"{right:.1f}", f"{loss:.2f}"]


def draws(largest: int):
    """Yield numbers of images per class, and the draws of each."""
    for n, n_draws in N_DRAWS.items():
        if n == "all" or n <= largest:
            for draw in range(1000, 1000 + n_draws):
                yield n, draw


def numbers(sets, sources):
    """Yield a row for each source of features and set."""
    for source, options in sources.items():
        for name, (X_train, X_test, *_), size in sets:
            y_train, y_test = brightness(X_train), brightness(X_test)
            cells = []
            for loss in ("squared_error", "absolute_error"):
                for max_epochs in (20, 100):
                    scores = []
                    for seed in range(5):
                        model = ImageRegressor(
                            loss=loss,
                            max_epochs=max_epochs,
                            **{**size, "random_state": seed, **options},
                        )
                        model.fit(X_train, y_train)
                        try:
                            scores.append(model.score(X_test, y_test))
                        except ValueError:  # predictions that are no numbers
                            scores.append(-np.inf)
                    mean, spread = np.mean(scores), np.std(scores)
                    cells.append(
                        f"{mean:.3f} ({spread:.3f})" if mean > -1 else "diverged"
                    )
            yield [source, name, *cells]


def brightness(images) -> np.ndarray:
    """Return the mean of each image's pixels."""

    def pixels(image):
        if isinstance(image, np.ndarray) and image.ndim > 1:
            return image
        return np.asarray(Image.open(str(np.ravel(image)[0])).convert("RGB"))

    return np.array([pixels(image).mean() for image in images])


def regimes(sets, options):
    """Yield a row for each set, number of images and regime."""
    for name, (X_train, X_test, y_train, y_test), size in sets:
        y_train = np.asarray(y_train)
        options = {**size, **options, "random_state": 0}
        options.pop("image_size", None)
        base = ImageClassifier(**options)
        choices = [
            *recommend_regime(base, 300, "similar"),
            *recommend_regime(base, 300, "different"),
        ]
        for n, n_draws in {5: 4, 20: 3, "all": 1}.items():
            for choice in choices:
                scores = []
                for draw in range(n_draws):
                    rng = np.random.default_rng(1000 + draw)
                    rows = few_images.drawn(y_train, n, 1, rng)
                    model = choice.estimator.fit(
                        [X_train[row] for row in rows], y_train[rows]
                    )
                    scores.append(100 * model.score(X_test, y_test))
                yield [name, n, choice.name, f"{np.mean(scores):.1f}"]


if __name__ == "__main__":
    main()
