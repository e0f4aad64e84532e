"""Features of a frozen backbone, and classifiers of scikit-learn on them.

::

    python examples/features_svm.py --data hymenoptera_data

Each image goes through the backbone once, however many classifiers are tuned. It
prints the accuracy of each in 5-fold cross-validation, and on held-out images.
"""

import time

from folders import load_split, parser_for
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC

from sklearn_dl import make_feature_classifier

CLASSIFIERS = {
    "linear SVM": (LinearSVC(random_state=0), {"C": [1e-4, 1e-3, 1e-2, 1e-1]}),
    "SVM, RBF kernel": (SVC(), {"C": [0.1, 1, 10]}),
    "logistic regression": (LogisticRegression(max_iter=1000), {"C": [1e-3, 1e-2]}),
    "nearest neighbours": (KNeighborsClassifier(), {"n_neighbors": [1, 5, 15]}),
    "gradient boosting": (
        HistGradientBoostingClassifier(max_iter=50, random_state=0),
        {"learning_rate": [0.05, 0.1]},
    ),
}


def main() -> None:
    """Tune every classifier and print the table."""
    X, X_test, y, y_test, backbone = load_split(parser_for(__doc__).parse_args())
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    n_rows = min(len(rows) for rows, _ in folds.split(X, y))
    print(f"{'':20}  folds  held out  seconds  best")
    for name, (classifier, values) in CLASSIFIERS.items():
        start = time.perf_counter()
        if "n_neighbors" in values:  # no more than there are rows to learn from
            values = {"n_neighbors": [k for k in values["n_neighbors"] if k <= n_rows]}
        grid = {f"classifier__{key}": value for key, value in values.items()}
        model = make_feature_classifier(classifier=classifier, **backbone)
        search = GridSearchCV(model, grid, cv=folds).fit(X, y)
        held_out = search.score(X_test, y_test)
        seconds = time.perf_counter() - start
        best = {key.split("__")[1]: v for key, v in search.best_params_.items()}
        print(
            f"{name:20}  {search.best_score_:.3f}  {held_out:8.3f}  {seconds:7.1f}  "
            f"{best}",
            flush=True,
        )


if __name__ == "__main__":
    main()
