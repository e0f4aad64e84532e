"""Few images: the default pipeline beside the one before, from 2 per class to all.

    python examples/benchmarks/few_images.py --weights mobilenet_v2_imagenet.pth \
        --data hymenoptera_data xray_small

Sets of images are the folders of `--data`, scikit-learn's digits, and the quickstart's
patches of photographs. Features come from mobilenet_v2 (where `--weights` names a
file), the weights in the package, a random resnet18, and a flattened early layer. Of
each set 2, 5, 10, 20, 50 images per class and 80 % of all are drawn, 24 to 5 times;
with `--imbalance 5` half of the classes have five times as many. A row is the mean
over the sets of the accuracy (or balanced accuracy) of StandardScaler and
LinearSVC(C=1e-3), then what FeatureScaler and FeatureSVC add to it on the same draws,
then the least that they add on one set.
"""

import sys
import warnings
from pathlib import Path

import harness
import numpy as np
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sklearn_dl import FeatureScaler, FeatureSVC, ImageFeatureExtractor

sys.path.insert(0, str(Path(__file__).parents[1]))
import quickstart

N_DRAWS = {2: 24, 5: 16, 10: 12, 20: 8, 50: 6, "all": 5}
MODELS = {
    "before": lambda: make_pipeline(StandardScaler(), LinearSVC(C=1e-3)),
    "now": lambda: make_pipeline(FeatureScaler(), FeatureSVC()),
}


def main() -> None:
    """Extract all features once, then fit on draws of them."""
    parser = harness.parser(__doc__)
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--weights", help="a file of mobilenet_v2's weights")
    parser.add_argument("--imbalance", type=int, default=1)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sets = [quickstart.load_data(folder, None) for folder in [*args.data, None]]
    patches = quickstart.cut_patches(quickstart.photographs())
    sets.append(("Patches", patches, {"image_size": (96, 96)}))
    rows = []
    for source, options in sources(args.weights).items():
        scores: dict = {}
        for name, images, size in sets:
            extractor = ImageFeatureExtractor(cache=None, **{**size, **options})
            F_train = extractor.fit_transform(images[0])
            data = F_train, extractor.transform(images[1]), *map(np.asarray, images[2:])
            for n, model, score in measured(data, args.imbalance):
                scores.setdefault(n, {}).setdefault((name, model), []).append(score)
        for n, found in scores.items():
            means = {key: 100 * np.mean(values) for key, values in found.items()}
            names = [name for name, model in means if model == "now"]
            before = np.mean([means[name, "before"] for name in names])
            gains = {name: means[name, "now"] - means[name, "before"] for name in names}
            worst = min(gains, key=lambda name: gains[name])
            gain, least = np.mean([*gains.values()]), f"{gains[worst]:+.1f} ({worst})"
            rows.append([source, n, f"{before:.1f}", f"{gain:+.1f}", least])
    kind = "balanced accuracy" if args.imbalance > 1 else "accuracy"
    header = ["features", "per class", f"{kind} before, %", "points more now", "least"]
    harness.table("Few images: the default pipeline", header, rows, args.output)


def sources(weights: str | None) -> dict:
    """Return the options of `ImageFeatureExtractor` by the name of the features."""
    found = {
        "builtin": {"backbone": "mobilenet_v3_small", "weights": "builtin"},
        "random": {"backbone": "resnet18", "weights": None, "random_state": 0},
    }
    early = {"layer": ("features.3", "flatten"), "image_size": (96, 96)}
    if weights is None:
        return {**found, "early layer": {**found["builtin"], **early}}
    trained = {"backbone": "mobilenet_v2", "weights": weights}
    early["layer"] = ("features.13", "flatten")
    return {"mobilenet_v2": trained, **found, "early layer": {**trained, **early}}


def measured(data, imbalance: int):
    """Yield number of images, model and score of each fit on a draw of the rows."""
    F_train, F_test, y_train, y_test = data
    largest = np.unique(y_train, return_counts=True)[1].max()
    for n, n_draws in N_DRAWS.items():
        if n != "all" and n * imbalance > largest:
            continue
        for draw in range(n_draws):
            rows = drawn(y_train, n, imbalance, np.random.default_rng(1000 + draw))
            for name, make in MODELS.items():
                model = make().fit(F_train[rows], y_train[rows])
                predicted = model.predict(F_test)
                if imbalance > 1:
                    score = balanced_accuracy_score(y_test, predicted)
                else:
                    score = np.mean(predicted == y_test)
                yield n, name, score


def drawn(y: np.ndarray, n: int | str, imbalance: int, rng) -> np.ndarray:
    """Return the rows of a draw, n of each class, of half of them more."""
    classes = np.unique(y)
    large = set(rng.permutation(classes)[: (len(classes) + 1) // 2])
    rows = []
    for label in classes:
        own = rng.permutation(np.flatnonzero(y == label))
        if n == "all":
            rows.append(own[: max(2, int(0.8 * len(own)))])
        else:
            rows.append(own[: n * imbalance if label in large else n])
    return np.concatenate(rows)


if __name__ == "__main__":
    main()
