#!/usr/bin/env bash
# Among several classes LinearSVC's class_weight weighs only the rows of the class itself.
#
# scikit-learn 1.9.1, numpy 2.4.6. One would guess that class_weight={label: factor} is
# the same as sample_weight with the factor of each row's label: so it is for
# LogisticRegression, and for LinearSVC with two classes. With three or more, liblinear
# fits one class against the rest, and the factor of a class counts in its own problem,
# for its own rows; as negatives of the other problems rows of each class have factor 1.
# So class_weight="balanced" does not balance the negatives: a rare class among many is
# still next to nothing in the problems of the others.
#
# Output seen:
#   two classes: no difference of coefficients
#   three classes: 0.27 away from sample_weight; 1e-15 from positives weighed alone
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import numpy as np
from sklearn.svm import LinearSVC

rng = np.random.default_rng(0)
factors = {0: 0.1, 1: 1.0, 2: 5.0}


def fit(X, y, weight=None, **options):
    model = LinearSVC(tol=1e-10, max_iter=1_000_000, dual=False, **options)
    return model.fit(X, y, weight).coef_


def data(n_classes):
    y = np.arange(90) % n_classes
    return rng.normal(size=(90, 5)) + rng.normal(size=(n_classes, 5))[y], y


for n_classes in (2, 3):
    X, y = data(n_classes)
    known = {label: factors[label] for label in range(n_classes)}
    by_class = fit(X, y, class_weight=known)
    by_row = fit(X, y, np.array([known[label] for label in y]))
    difference = np.abs(by_class - by_row).max()
    print(n_classes, "classes, as sample_weight:", difference)
    if n_classes == 2:
        assert difference < 1e-6
        continue
    alone = [
        fit(X, y == label, np.where(y == label, known[label], 1.0))[0]
        for label in range(n_classes)
    ]
    print("  positives weighed alone:", np.abs(by_class - alone).max())
    assert difference > 0.05
    assert np.abs(by_class - alone).max() < 1e-6
PY
