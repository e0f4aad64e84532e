"""Scores that a classifier gives each class, with the labels and paths of images."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.utils.validation import check_is_fitted

from sklearn_dl._images import as_source
from sklearn_dl.inspection._scores import check_labels


@dataclass(frozen=True)
class Confidence:
    """Scores of the classes, one row per image, and the labels."""

    scores: np.ndarray  # (n, n_classes): probabilities, or of a `decision_function`
    classes: np.ndarray
    truth: np.ndarray  # columns of the labels, (n,)
    probabilities: bool

    @property
    def of_truth(self) -> np.ndarray:
        """Score of the label."""
        return self.scores[np.arange(len(self.scores)), self.truth]

    @property
    def margin(self) -> np.ndarray:
        """Score of the label minus the highest of the other classes."""
        others = self.scores.copy()
        others[np.arange(len(others)), self.truth] = -np.inf
        return self.of_truth - others.max(axis=1)


def confidence(estimator, X, y, cv, random_state) -> Confidence:
    """Return how sure a classifier is, fitted or cross-validated."""
    y = check_labels(y, len(y))
    method = _method(estimator)
    if cv is None:
        check_is_fitted(estimator)
        scores, classes = getattr(estimator, method)(X), estimator.classes_
    else:
        if isinstance(cv, int | np.integer):
            # Folders come class by class.
            cv = StratifiedKFold(cv, shuffle=True, random_state=random_state)
        classes = np.unique(y)
        scores = cross_val_predict(clone(estimator), X, y, cv=cv, method=method)
    scores = np.asarray(scores, dtype=float)
    if len(scores) != len(y):
        raise ValueError(f"X has {len(scores)} images, but y has {len(y)} labels.")
    scores = _columns(scores, classes, method, estimator)
    labels = y.tolist()
    column = {label: c for c, label in enumerate(classes.tolist())}
    row = next((r for r, label in enumerate(labels) if label not in column), None)
    if row is not None:
        raise ValueError(
            f"Row {row} has the label {labels[row]!r}, which the estimator doesn't "
            f"know: its classes are {classes.tolist()!r:.200}."
        )
    truth = np.array([column[label] for label in labels])
    return Confidence(scores, classes, truth, method == "predict_proba")


def _method(estimator) -> str:
    for method in ("predict_proba", "decision_function"):
        if hasattr(estimator, method):
            return method
    raise TypeError(
        f"{type(estimator).__name__} has neither predict_proba nor decision_function, "
        "so its mistakes can't be ranked. A VotingClassifier has probabilities with "
        "voting='soft', an SVM within CalibratedClassifierCV."
    )


def _columns(scores: np.ndarray, classes, method: str, estimator) -> np.ndarray:
    """Return one column of scores per class."""
    if method == "decision_function" and scores.ndim == 1:
        scores = np.stack([-scores, scores], axis=1) / 2
    if scores.shape != (len(scores), len(classes)):
        raise ValueError(
            f"{method} of {type(estimator).__name__} has the shape {scores.shape}, not "
            f"one column for each of {len(classes)} classes. An SVC has them with "
            "decision_function_shape='ovr'; of several labels give one at a time."
        )
    if not np.isfinite(scores).all():
        row = int(np.argwhere(~np.isfinite(scores))[0][0])
        raise ValueError(f"{method} is not finite in row {row}: {scores[row]}.")
    return scores


def paths_of(X: Any, rows: np.ndarray, n_rows: int) -> pd.Series:
    """Return the paths of some of the n_rows images, None where they have none."""
    paths: list[str | None] = [None] * len(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numbers were looked at by the estimator
        try:
            source = as_source(X)
        except (TypeError, ValueError):  # a table with columns besides the images
            source = None
    if source is not None and source.kind in ("paths", "objects"):
        paths = [source.path(row) for row in rows.tolist()]
    return pd.Series(paths, dtype=object)
