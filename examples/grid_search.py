"""One grid search across transfer regimes: features + SVM, a head, fine-tuning.

::

    python examples/grid_search.py --data hymenoptera_data --n-jobs 2 --cache features

It prints a leaderboard: mean and spread over 5 folds, seconds, and how many times
the backbone saw each image. With a folder as ``--cache`` parallel processes share the
features of the frozen backbone, and a later run finds them.
"""

from folders import load_split, parser_for

from sklearn_dl import ImageClassifier
from sklearn_dl.model_selection import compare_regimes


def main() -> None:
    """Search, and test the best on held-out images."""
    parser = parser_for(__doc__)
    parser.add_argument(
        "--regimes", nargs="+", default=["svm", "head", "last", "all"], help="to try"
    )
    parser.add_argument("--max-epochs", type=int, default=7)
    parser.add_argument("--n-jobs", type=int, default=None, help="processes")
    args = parser.parse_args()
    X, X_test, y, y_test, backbone = load_split(args)
    model = ImageClassifier(max_epochs=args.max_epochs, **backbone)
    found = compare_regimes(model, X, y, regimes=args.regimes, n_jobs=args.n_jobs)
    print(found)
    accuracy = found.best_estimator_.score(X_test, y_test)
    print(f"The best, on held-out images: {accuracy:.3f}")


if __name__ == "__main__":
    main()
