"""Two checkouts of the package side by side: what a change made faster or slower.

    git worktree add ../before 2da30a0
    python examples/benchmarks/versions.py --before ../before --data hymenoptera_data \
        --weights mobilenet_v2_imagenet.pth

Each task runs in a process of each checkout, in turns. The last column is the median
over the rounds of the seconds after by those before. Without `--data` and `--weights`,
images are drawn and the weights in the package are taken.

- cached calls: `predict_proba` and `transform` of 1 and of 8 photographs whose features
  are in the cache, in memory or in a folder.
- first prediction: a fitted model is loaded from a pickle, and asked for an image that
  is in no cache.
- extraction: `transform` of 128 photographs without a cache.
- decoding: 48 photographs as JPEG, PNG or WebP become pixels, in one thread.
- epoch: one of fine-tuning everything, with augmentation, on 64 photographs.
- head: 10 epochs on features that are in the cache.
- search: `GridSearchCV` of 8 candidates and 5 folds of a head of 10 epochs.
- first use: a fresh Python imports the estimators.
"""

import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness
import numpy as np

N_FEW = (1, 8)


def main() -> None:
    """Race the two checkouts over the tasks, and print a table."""
    parser = harness.parser(__doc__)
    parser.add_argument("--before", type=Path, help="the other checkout")
    parser.add_argument("--after", type=Path, default=Path(__file__).parents[2])
    parser.add_argument("--data", type=Path, help="folder of photographs")
    parser.add_argument("--weights", help="file of weights of mobilenet_v2")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    args = parser.parse_args()
    if args.contender:
        checkout, task = args.contender.split("|")
        sys.path.insert(0, str(getattr(args, checkout).resolve()))
        return harness.serve(TASKS[task](args, getattr(args, checkout)))
    if args.before is None:
        parser.error("--before is needed")
    options = ["--before", str(args.before), "--after", str(args.after)]
    for name in ("data", "weights"):
        if value := getattr(args, name):
            options += [f"--{name}", str(value)]
    rows = []
    for task in args.tasks:
        names = f"before|{task}", f"after|{task}"
        took = harness.race(__file__, names, options, args.rounds)
        before, after = (took[name] for name in names)
        medians = [f"{1000 * np.median(seconds):.2f}" for seconds in (before, after)]
        rows.append([task, *medians, f"{harness.ratio(after, before):.3f}"])
        print(*rows[-1], sep="  ", flush=True)
    header = ["task", "before, ms", "after, ms", "after / before"]
    harness.table("Two versions, milliseconds a turn", header, rows, args.output)


def photographs(args, n: int) -> tuple[list[str], np.ndarray]:
    """Return n paths and their classes."""
    if args.data is None:
        folder = Path(tempfile.mkdtemp(prefix="versions-"))
        return harness.write_photographs(folder, n), np.arange(n) % 2
    from sklearn_dl.datasets import load_image_folder

    X, y = load_image_folder(args.data / "train", return_X_y=True)
    index = np.random.default_rng(0).permutation(len(X))[:n]
    return [str(path) for path in np.ravel(X)[index]], np.asarray(y)[index]


def options(args) -> dict:
    """Return the backbone of all tasks."""
    if args.weights:
        return {"backbone": "mobilenet_v2", "weights": args.weights, "random_state": 0}
    return {
        "backbone": "mobilenet_v3_small",
        "weights": "builtin",
        "random_state": 0,
    }


def repeated(call, times: int):
    """Return work that calls many times, and says what one call took."""

    def work() -> float:
        start = time.perf_counter()
        for _ in range(times):
            call()
        return (time.perf_counter() - start) / times

    return work


def cached_predictions(n: int):
    """Return the task of `predict_proba` of n images in the cache."""

    def task(args, checkout):
        from sklearn_dl import ImageClassifier

        X, y = photographs(args, 32)
        model = ImageClassifier(**options(args), max_epochs=2).fit(X, y)
        return repeated(lambda: model.predict_proba(X[:n]), 100)

    return task


def cached_features(n: int, folder: bool):
    """Return the task of `transform` of n images in the cache."""

    def task(args, checkout):
        from sklearn_dl import ImageFeatureExtractor

        X, _ = photographs(args, 32)
        cache = tempfile.mkdtemp(prefix="versions-") if folder else "memory"
        extractor = ImageFeatureExtractor(**options(args), cache=cache)
        extractor.fit_transform(X)
        return repeated(lambda: extractor.transform(X[:n]), 100)

    return task


def first_prediction(args, checkout):
    """Return the task of a first prediction of a loaded model."""
    from sklearn_dl import ImageClassifier

    X, y = photographs(args, 33)
    model = ImageClassifier(**options(args), max_epochs=2, cache=None)
    saved = pickle.dumps(model.fit(X[:32], y[:32]))

    def work() -> float:
        loaded = pickle.loads(saved)
        start = time.perf_counter()
        loaded.predict(X[32:])
        return time.perf_counter() - start

    return work


def extraction(args, checkout):
    """Return the task of features without a cache."""
    from sklearn_dl import ImageFeatureExtractor

    X, _ = photographs(args, 128)
    extractor = ImageFeatureExtractor(**options(args), cache=None).fit(X)
    return lambda: extractor.transform(X)


def decoding(suffix: str):
    """Return the task of decoding photographs of a format."""

    def task(args, checkout):
        from PIL import Image

        from sklearn_dl._images import as_source

        paths, _ = photographs(args, 48)
        folder = Path(tempfile.mkdtemp(prefix="versions-"))
        again = [str(folder / f"{k}.{suffix}") for k in range(len(paths))]
        for path, copy in zip(paths, again, strict=True):
            Image.open(path).convert("RGB").save(copy)
        source = as_source(again)
        return lambda: [source[row] for row in range(len(again))]

    return task


def epoch(args, checkout):
    """Return the task of an epoch of fine-tuning."""
    from sklearn_dl import ImageClassifier

    X, y = photographs(args, 64)
    model = ImageClassifier(
        **options(args), trainable="all", augment="light", max_epochs=1, batch_size=16
    )
    return lambda: model.fit(X, y)


def head(args, checkout):
    """Return the task of a head on features in the cache."""
    from sklearn_dl import ImageClassifier

    X, y = photographs(args, 128)
    model = ImageClassifier(**options(args), max_epochs=10).fit(X, y)
    return repeated(lambda: model.fit(X, y), 5)


def search(args, checkout):
    """Return the task of a grid search from an empty cache."""
    from sklearn.model_selection import GridSearchCV

    from sklearn_dl import FeatureCache, ImageClassifier

    X, y = photographs(args, 128)
    model = ImageClassifier(**options(args), max_epochs=10)
    grid = {"lr": [1e-3, 3e-3, 1e-2, 3e-2], "batch_size": [16, 32]}

    def work() -> None:
        FeatureCache("memory").clear()
        GridSearchCV(model, grid, cv=5).fit(X, y)

    return work


def first_use(args, checkout):
    """Return the task of importing the estimators."""
    names = "ImageClassifier, ImageFeatureExtractor, ImageRegressor"
    code = f"import sys; sys.path.insert(0, {str(checkout.resolve())!r}); "
    command = [sys.executable, "-c", f"{code} from sklearn_dl import {names}"]
    return lambda: subprocess.run(command, check=True)


TASKS = {
    **{f"cached predict_proba, {n}": cached_predictions(n) for n in N_FEW},
    **{f"cached transform, {n}": cached_features(n, False) for n in N_FEW},
    **{f"cached transform, folder, {n}": cached_features(n, True) for n in N_FEW},
    "first prediction": first_prediction,
    "extraction": extraction,
    **{f"decoding, {suffix}": decoding(suffix) for suffix in ("jpg", "png", "webp")},
    "epoch": epoch,
    "head": head,
    "search": search,
    "first use": first_use,
}


if __name__ == "__main__":
    main()
