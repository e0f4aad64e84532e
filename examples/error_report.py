"""A page to look at where a model errs, and to correct labels in.

::

    python examples/error_report.py --data hymenoptera_data --output report.html

Some labels of the training images are made wrong on purpose. The page has each image
judged by folds; the example prints how many of the wrong labels are among the first
twenty that it shows. Then it corrects them, as one would by keys in the page, and
prints the accuracy of cross-validation before and after.
"""

import csv
from pathlib import Path

import numpy as np
from folders import load_split, parser_for
from sklearn.model_selection import StratifiedKFold, cross_val_score

from sklearn_dl import make_feature_classifier
from sklearn_dl.datasets import apply_corrections
from sklearn_dl.inspection import ReportOptions, label_errors, write_report


def main() -> None:
    """Write the report, correct labels as it suggests, and print accuracies."""
    parser = parser_for(__doc__)
    parser.add_argument("--output", type=Path, default=Path("report.html"))
    parser.add_argument("--flips", type=int, default=12, help="labels made wrong")
    args = parser.parse_args()
    X, X_test, truth, _, backbone = load_split(args)

    classes, rng = np.unique(truth), np.random.default_rng(0)
    wrong = rng.choice(len(truth), args.flips, replace=False)
    y = truth.copy()
    for row in wrong:
        y[row] = rng.choice(classes[classes != truth[row]])

    model = make_feature_classifier(probability=True, **backbone)
    options = ReportOptions(title="Photographs, some labels of which are wrong")
    page = write_report(
        model, X, y, args.output, cv=5, reference=X_test, options=options
    )
    print(f"Written to {page}.")
    first = label_errors(model, X, y, cv=5).head(20)
    n_found = len({*first["row"]} & {*wrong})
    print(f"Of {len(wrong)} wrong labels {n_found} are among the first {len(first)}.")

    # What the page downloads: here the truth is known.
    corrections = args.output.with_suffix(".csv")
    with corrections.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "old", "new", "action"])
        for row in first["row"]:
            action = "keep" if y[row] == truth[row] else "relabel"
            writer.writerow([X[row, 0], y[row], truth[row], action])
    _, corrected = apply_corrections((X, y), corrections)

    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    for name, labels in (
        ("wrong labels", y),
        ("corrected labels", corrected),
        ("true labels", truth),
    ):
        accuracy = cross_val_score(model, X, labels, cv=folds).mean()
        print(f"{name:16}  {accuracy:.3f}")


if __name__ == "__main__":
    main()
