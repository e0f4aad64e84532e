"""Transfer regimes side by side: the same images, the same epochs, several seeds.

For a folder with one subfolder per class, or with ``train`` and ``val`` (or ``test``)
folders of that form::

    python examples/regimes.py --data hymenoptera_data --backbone mobilenet_v2

It prints a table for a README: accuracy on the validation images (mean, standard
deviation, lowest and highest over the seeds) and seconds of a fit with its
prediction. The test-time views are tried on the regime that was chosen before any
result was known, warm-up then everything, so that the validation images choose
nothing. Each fit pays for its own passes of the backbone: nothing is cached.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from folders import load_split, parser_for

from sklearn_dl import ImageClassifier, make_feature_classifier


def main() -> None:
    """Fit every regime with every seed, and print the table."""
    args = parse_arguments()
    X, X_val, y, y_val, backbone = load_split(args)
    print(
        f"{args.backbone}, {args.epochs} epochs of which {args.warmup} of warm-up.",
        flush=True,
    )
    rows = []
    for seed in range(args.seeds):
        for name, augment, model, views in regimes(args, backbone, seed):
            start = time.perf_counter()
            model.fit(X, y)
            for tta in (None, *views):
                if tta is not None:
                    start = time.perf_counter()
                    model.set_params(tta=tta)
                accuracy = float(np.mean(model.predict(X_val) == y_val))
                row = {
                    "regime": name if tta is None else f"{name}, tta={tta!r}",
                    "augment": augment or "",
                    "seed": seed,
                    "accuracy": accuracy,
                    "seconds": time.perf_counter() - start,
                }
                rows.append(row)
                print(
                    f"  seed {seed}  {row['regime']:58} {augment or '-':9} "
                    f"{accuracy:.3f}  {row['seconds']:6.1f} s",
                    flush=True,
                )
    runs = pd.DataFrame(rows)
    if args.csv:
        runs.to_csv(args.csv, index=False)
    report(runs, len(y_val))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = parser_for(__doc__, cache=False)
    parser.add_argument("--seeds", type=int, default=3, help="fits of each regime")
    parser.add_argument("--epochs", type=int, default=7, help="with the warm-up")
    parser.add_argument("--warmup", type=int, default=2, help="epochs of warm-up")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--stages", type=int, default=2, help="last stages to train")
    parser.add_argument("--augment", default="standard", help="a preset")
    parser.add_argument("--csv", type=Path, help="write one row per fit here")
    args = parser.parse_args()
    if args.seeds < 1 or not 0 < args.warmup < args.epochs:
        parser.error("--seeds must be 1 or more, --warmup between 0 and --epochs")
    return args


def regimes(args: argparse.Namespace, backbone: dict, seed: int) -> Iterator[tuple]:
    """Yield name, augmentation, estimator and the test-time views to try on it."""
    shared = {
        **backbone,
        "cache": None,
        "batch_size": args.batch_size,
        "random_state": seed,
    }
    trained = {**shared, "max_epochs": args.epochs}
    everything = {**trained, "trainable": "all"}
    warm = {**everything, "warmup_epochs": args.warmup}
    yield "features + SVM", None, make_feature_classifier(**shared), ()
    for augment in (None, args.augment):
        stages = f"last {args.stages} stages"
        for name, parameters in {
            "head": {**trained, "trainable": "head"},
            stages: {**trained, "trainable": args.stages},
            "everything": everything,
            "warm-up, then everything": warm,
            "warm-up, then everything, cosine": {**warm, "schedule": "cosine"},
        }.items():
            model = ImageClassifier(**parameters, augment=augment)
            tried = augment and parameters is warm
            yield name, augment, model, ("flip", "ten_crop") if tried else ()
    random = {**warm, "weights": None}
    name = "random weights: features + SVM"
    yield name, None, make_feature_classifier(**{**shared, "weights": None}), ()
    name = "random weights: warm-up, then everything"
    yield name, args.augment, ImageClassifier(**random, augment=args.augment), ()


def report(runs: pd.DataFrame, n_test: int) -> None:
    """Print the table in Markdown."""
    print("\n| regime | augmentation | accuracy | lowest-highest | seconds |")
    print("|---|---|---|---|---|")
    for (name, augment), group in runs.groupby(["regime", "augment"], sort=False):
        scores = group.accuracy
        spread = scores.std(ddof=1) if len(scores) > 1 else 0.0
        print(
            f"| {name} | {augment or 'none'} | {scores.mean():.3f} ± {spread:.3f} | "
            f"{scores.min():.3f}-{scores.max():.3f} | {group.seconds.mean():.0f} |"
        )
    seeds = runs.seed.nunique()
    print(
        f"\nMean and standard deviation over {seeds} seed{'s' * (seeds > 1)}; one "
        f"image of the {n_test} is {1 / n_test:.3f}. Seconds of rows with tta are of "
        "the prediction alone."
    )


if __name__ == "__main__":
    main()
