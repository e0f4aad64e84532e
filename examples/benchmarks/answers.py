"""Whether the augmentations that a robustness report names answer what it found.

    python examples/benchmarks/answers.py --data hymenoptera_data \
        --backbone mobilenet_v2 --trainable head
    python examples/benchmarks/answers.py --data hymenoptera_data \
        --backbone mobilenet_v2 --trainable all --epochs 6 --warmup 2

A model is fitted with each seed and reported on with images that it was not fitted on.
For each corruption whose interval lies above the margin (in the mean of the seeds) it
is fitted again with the augmentation that the report names for it alone, and once
with all those that it names. Printed are the drops before and after, means over the
seeds, and what it costs on images as they are.

The same images find the weaknesses and measure the answers. The first, picked for being
large, flatter the answers a little; the clean score is not picked.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from course import OF_DIGITS
from quickstart import choose_weights, load_data

from sklearn_dl import ImageClassifier
from sklearn_dl.inspection import RobustnessReport, robustness_report

ALL = "all of them"


def main() -> None:
    """Report, answer, report again."""
    args = parse_arguments()
    try:
        name, data, options = load_data(args.data, args.image_size)
        options |= choose_weights(args.backbone, args.weights, options)
    except (OSError, ValueError) as error:
        raise SystemExit(f"answers: {error}") from error
    print(f"{name}: {len(data[0])} images to learn from, {len(data[1])} to report on")
    options["trainable"] = args.trainable
    if args.trainable != "head":
        options |= {"batch_size": 16, "warmup_epochs": args.warmup}
    if args.epochs is not None:
        options["max_epochs"] = args.epochs
    seeds = range(args.seeds)
    asked = OF_DIGITS if args.data is None else None
    before = [fit_and_report(data, options, seed, None, asked) for seed in seeds]
    found = weaknesses(before, args.margin)
    if found.empty:
        raise SystemExit(f"No drop lies above {args.margin:g}: nothing to answer.")
    after = {}
    for corruption in [*found["corruption"].unique(), ALL]:
        after[corruption] = []
        for seed, report in zip(seeds, before, strict=True):
            rows = (
                found if corruption == ALL else found[found["corruption"] == corruption]
            )
            augment = named(report, rows)
            corruptions = rows["corruption"].unique()
            answer = fit_and_report(data, options, seed, augment, corruptions)
            after[corruption].append(answer)
        print(f"{corruption}, answered by {augment}", flush=True)
    print_table(before, after, found)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with a subfolder per class")
    parser.add_argument("--backbone", default="mobilenet_v3_small")
    parser.add_argument("--weights", help="as of examples/quickstart.py")
    parser.add_argument("--image-size", type=int, help="in pixels")
    parser.add_argument("--trainable", choices=["head", "all"], default="head")
    parser.add_argument("--epochs", type=int, help="None: those of ImageClassifier")
    parser.add_argument(
        "--warmup", type=int, default=2, help="epochs of the head alone"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--margin", type=float, default=0.03)
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f"--seeds: at least 1 is needed, got {args.seeds}")
    if args.epochs is not None and args.epochs < 1:
        parser.error(f"--epochs: at least 1 is needed, got {args.epochs}")
    return args


def fit_and_report(data, options, seed: int, augment, corruptions=None):
    """Fit with a seed, and report on the validation images, under some corruptions."""
    X, X_test, y, y_test = data
    start = time.perf_counter()
    model = ImageClassifier(**options, augment=augment, random_state=seed).fit(X, y)
    seconds = time.perf_counter() - start
    report = robustness_report(
        model, X_test, y_test, corruptions=corruptions, severities=(1.0, 2.0)
    )
    print(f"  seed {seed}: {report.clean_score:.3f}, {seconds:.0f} s", flush=True)
    return report


def weaknesses(reports: list[RobustnessReport], margin: float) -> pd.DataFrame:
    """Return the rows whose interval lies above the margin, in the mean."""
    low = np.mean([report.table["low"] for report in reports], axis=0)
    return reports[0].table[low > margin]


def named(report: RobustnessReport, rows: pd.DataFrame):
    """Return what a report names for some rows of its table."""
    table = report.table.loc[rows.index].assign(low=1.0)  # found by all seeds together
    return replace(report, table=table).augment


def print_table(before: list, after: dict, found: pd.DataFrame) -> None:
    """Print the drops before and after, and the scores of images as they are."""

    def mean_drop(reports: list, row: pd.Series) -> float:
        drops = [r.table.set_index(["corruption", "amount"])["drop"] for r in reports]
        return float(np.mean([d[row["corruption"], row["amount"]] for d in drops]))

    def clean(reports: list) -> float:
        return float(np.mean([report.clean_score for report in reports]))

    rows = []
    for _, row in found.iterrows():
        own = after[row["corruption"]]
        drop, alone = mean_drop(before, row), mean_drop(own, row)
        rows.append(
            {
                "corruption": row["corruption"],
                "amount": row["amount"],
                "drop": drop,
                "after": alone,
                "part left": alone / drop,
                "clean": clean(own),
                "after all": mean_drop(after[ALL], row),
            }
        )
    table = pd.DataFrame(rows)
    print(f"\nMeans of {len(before)} seeds; clean {clean(before):.3f} before, ", end="")
    print(f"{clean(after[ALL]):.3f} with all augmentations together:")
    print(table.to_string(index=False, float_format="{:.3f}".format))
    left = table["after all"] / table["drop"]
    print(
        f"Halved: {(table['part left'] <= 0.5).sum()} of {len(table)} by its own "
        f"augmentation, {(left <= 0.5).sum()} by all together."
    )


if __name__ == "__main__":
    main()
