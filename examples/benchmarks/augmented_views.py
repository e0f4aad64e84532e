"""Augmented views that come back beside new draws in each epoch: time and accuracy.

    python examples/benchmarks/augmented_views.py --weights mobilenet_v2_imagenet.pth \
        --data hymenoptera_data

A head on a frozen mobilenet_v2 (without `--weights`, on the weights in the package) is
trained for 20 epochs on images changed by ``augment="standard"``. The first table has
the CPU seconds of all threads for a fit without a cache: medians of `--rounds` turns,
and the median of the ratios of a round. The second has the accuracy on the test images
over `--seeds` seeds: the mean, and the mean and its standard error of what views add to
new draws of the same seed. With `--image-size` the photographs are decoded once, to
arrays of 8/7 of that size, and networks see that many pixels: a cheaper second table.
"""

import statistics
import sys
import time
from pathlib import Path

import harness
import numpy as np
from PIL import Image

from sklearn_dl import FeatureCache, ImageClassifier
from sklearn_dl.augmentation import Augment
from sklearn_dl.backbones import images_seen

sys.path.insert(0, str(Path(__file__).parents[1]))
import quickstart

N_VIEWS = (1, 2, 4, 8)


def main() -> None:
    """Print both tables."""
    parser = harness.parser(__doc__)
    parser.set_defaults(rounds=3)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", help="a file of mobilenet_v2's weights")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    _, images, size = quickstart.load_data(args.data, args.image_size)
    if args.image_size:
        images = [*(small(X, args.image_size) for X in images[:2]), *images[2:]]
    options = {"backbone": "mobilenet_v3_small", "weights": "builtin"}
    if args.weights:
        options = {"backbone": "mobilenet_v2", "weights": args.weights}
    options |= {**size, "max_epochs": args.epochs}
    if args.rounds:
        compare_times(images, options, args)
    if args.seeds:
        compare_accuracies(images, options, args)


def small(paths, image_size: int) -> list[np.ndarray]:
    """Return images of files, the shorter side an eighth longer than the network's."""
    side, arrays = image_size * 8 // 7, []
    for path in np.ravel(paths):
        with Image.open(path) as file:
            image = file.convert("RGB")
        size = (round(max(1, length / min(image.size)) * side) for length in image.size)
        arrays.append(np.asarray(image.resize(tuple(size))))
    return arrays


def classifier(views: int | None, seed: int, **options) -> ImageClassifier:
    """Return what is trained on some views of each image."""
    augment = Augment("standard", views=views)
    return ImageClassifier(augment=augment, random_state=seed, **options)


def compare_times(images, options: dict, args) -> None:
    """Print the CPU seconds of a fit with new draws and with views, in turns."""
    X, _, y, _ = images
    took: dict = {None: []} | {n: [] for n in N_VIEWS}
    seen: dict = {}
    classifier(1, 0, cache=None, **options).fit(X[::16], y[::16])  # what is slow once
    for turn in range(args.rounds):
        for views in list(took)[:: 1 if turn % 2 else -1]:
            before, start = images_seen(), time.process_time()
            classifier(views, turn, cache=None, **options).fit(X, y)
            took[views].append(time.process_time() - start)
            seen[views] = (images_seen() - before) / len(y)
    rows = []
    for views, seconds in took.items():
        ratio = f"{harness.ratio(took[None], seconds):.2f}"
        median = f"{statistics.median(seconds):.1f}"
        rows.append([views or "new", f"{seen[views]:.1f}", median, ratio])
    header = [
        "views",
        "images per row in the backbone",
        "CPU s",
        "new draws / this",
    ]
    title = f"A head with augmentation, {args.epochs} epochs: time"
    harness.table(title, header, rows, args.output)


def compare_accuracies(images, options: dict, args) -> None:
    """Print the accuracy by the number of views, of the same seeds."""
    X, X_test, y, y_test = images
    scores: dict = {None: []} | {n: [] for n in N_VIEWS}
    cache = FeatureCache("memory", name="views")
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for views, found in scores.items():
            model = classifier(views, seed, cache=cache, **options).fit(X, y)
            found.append(100 * model.score(X_test, y_test))
            print(seed, views, f"{found[-1]:.2f}", file=sys.stderr, flush=True)
    rows = []
    for views, found in scores.items():
        more = np.subtract(found, scores[None])
        error = more.std(ddof=1) / np.sqrt(len(more)) if len(more) > 1 else np.nan
        added = "" if views is None else f"{more.mean():+.2f} ± {error:.2f}"
        rows.append([views or "new", f"{np.mean(found):.2f}", added])
    header = ["views", "accuracy, %", "points more than new draws"]
    title = f"A head with augmentation, {args.epochs} epochs: accuracy"
    harness.table(title, header, rows, args.output)


if __name__ == "__main__":
    main()
